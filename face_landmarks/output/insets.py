"""Enlarged views of small faces, pasted where they cover no face."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks.geometry import crop_matrices, transform_points, warp
from face_landmarks.output.strokes import SHADE, size_of
from face_landmarks.results import Faces

_FOOTPRINT = 0.75  # side of what a view shows, in units of the box's width + height
_RIM = 0.25  # around a face that no view covers, in widths and heights of its box
_MARGIN = 4  # pixels between views, and to the edge of the photo
_PLACES = 8  # tried along each side of the photo


def place_insets(faces: Faces, shape: tuple[int, int], side: int) -> dict[int, tuple[int, int]]:
    """The number of each small face that has a view -> its top left corner (x, y).

    Views stand along the edges of the photo, each as near to its face as it can.

    Args:
        faces: of the photo.
        shape: (H, W) of the photo.
        side: of a view, in pixels.
    """
    height, width = shape
    if not side or min(height, width) < side + 2 * _MARGIN:
        return {}
    xs = np.linspace(_MARGIN, width - side - _MARGIN, _PLACES).round().astype(int)
    ys = np.linspace(_MARGIN, height - side - _MARGIN, _PLACES).round().astype(int)
    corners = sorted(
        {(int(x), int(y)) for x in xs for y in (ys[0], ys[-1])}
        | {(int(x), int(y)) for x in (xs[0], xs[-1]) for y in ys}
    )
    rims = _RIM * np.tile(faces.boxes[:, 2:] - faces.boxes[:, :2], 2) * (-1, -1, 1, 1)
    taken = [tuple(map(float, box)) for box in faces.boxes + rims]
    places: dict[int, tuple[int, int]] = {}
    for number, (landmarks, box) in enumerate(zip(faces.landmarks, faces.boxes, strict=True)):
        if size_of(landmarks) >= side / 2 or not _is_in_view(box, shape):
            continue
        middle = (box[:2] + box[2:]) / 2 - side / 2
        for x, y in sorted(corners, key=lambda corner: float(np.hypot(*(corner - middle)))):
            if not any(_overlap((x, y, x + side, y + side), other) for other in taken):
                places[number] = x, y
                taken.append((x - _MARGIN, y - _MARGIN, x + side + _MARGIN, y + side + _MARGIN))
                break
    return places


def enlarge(pixels: NDArray[np.uint8], face: Faces, side: int) -> tuple[NDArray[np.uint8], Faces]:
    """The square around one face, enlarged to this side, and the face in it."""
    image_to_view = crop_matrices(torch.from_numpy(face.boxes.copy()), side, crop_scale=_FOOTPRINT)
    (view,) = (255 * warp(pixels, image_to_view, side)).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    def moved(points: NDArray[np.float32]) -> NDArray[np.float32]:
        return transform_points(image_to_view, torch.from_numpy(points.copy())).numpy()

    boxes = moved(face.boxes.reshape(1, 2, 2)).reshape(1, 4)
    landmarks = moved(face.landmarks)
    enlarged = Faces(landmarks, face.landmark_scores, boxes, face.box_scores, face.layout)
    return np.ascontiguousarray(view), enlarged


def paste(
    canvas: NDArray[np.uint8],
    view: NDArray[np.uint8],
    corner: tuple[int, int],
    box: NDArray[np.float32],
    weight: float,
) -> None:
    """Put a view at its place, in a white frame, with a line to the box of its face; in place."""
    (x, y), side = corner, len(view)
    inside = np.clip(
        (box[:2] + box[2:]) / 2, (x, y), (x + side, y + side)
    )  # of the view, nearest to the face
    end = np.clip(inside, box[:2], box[2:])
    ends = [tuple(np.rint(point).astype(int).tolist()) for point in (inside, end)]
    thickness = max(1, round(weight))
    for rgb, width in (((0, 0, 0), thickness + 2), ((255, 255, 255), thickness)):
        drawn = canvas.copy() if width > thickness else canvas
        cv2.line(drawn, ends[0], ends[1], rgb, width, cv2.LINE_AA)
        cv2.rectangle(drawn, (x - 1, y - 1), (x + side, y + side), rgb, width)
        if width > thickness:
            cv2.addWeighted(drawn, SHADE, canvas, 1 - SHADE, 0, dst=canvas)
    canvas[y : y + side, x : x + side] = view


def _is_in_view(box: NDArray[np.float32], shape: tuple[int, int]) -> bool:
    return bool((box[:2] < shape[::-1]).all() and (box[2:] > 0).all())


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
