"""Faces drawn into a photo with OpenCV, at subpixel positions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks._system.arguments import check_whole, shown
from face_landmarks.errors import InputError
from face_landmarks.geometry import resize_matrix, transform_points
from face_landmarks.images import ImageSource, read_image
from face_landmarks.output.insets import enlarge, paste, place_insets
from face_landmarks.output.lettering import write_indices, write_label
from face_landmarks.output.strokes import (
    RGB,
    SHADE,
    SHADE_WIDTH,
    SMALL,
    WHITE,
    Points,
    check_style,
    contours_of,
    line_opacity,
    outline,
    score_color,
    size_of,
    spread_dots,
    stroke_sizes,
)
from face_landmarks.results import Faces, check_faces

_TILE = 2048  # longest side of an enlarged part of the canvas, in pixels; bounds memory
_BORDER = 2  # pixels around such a part that are drawn and dropped: OpenCV's lines are inexact at its edge
_FRACTION_BITS = 4  # OpenCV takes coordinates in units of 1 / 2**4 pixel
_FARTHEST = 2**30  # in these units; OpenCV's coordinates have 32 bits


def draw_faces(
    image: ImageSource,
    faces: Faces,
    *,
    lines: bool = True,
    points: bool = True,
    boxes: bool = False,
    indices: bool = False,
    scores: bool = False,
    labels: Iterable[object] | None = None,
    insets: int = 0,
    color: RGB | None = None,
    weight: float = 1.0,
) -> NDArray[np.uint8]:
    """Draw faces into a copy of the photo, at subpixel positions.

    Faces of less than 150 pixels get thinner lines, and fewer dots beside them unless the dots show scores or
    indices; below 100 pixels, the face is seen through its lines.

    Args:
        image: whatever `read_image` reads; it is not changed.
        faces: as `FaceAligner` gives them for this photo.
        lines: draw the contour of each facial part.
        points: draw each landmark as a dot.
        boxes: draw the face boxes.
        indices: write each landmark's index beside it; readable from about 400 pixels on, or in an inset.
        scores: colour each dot by its score: dark red (0), orange (0.5), yellow (0.7), green (0.9), dark
            green (1).
        labels: one text per face, such as its name or number, written above its box.
        insets: side in pixels of an enlarged view of each small face, drawn where it covers no face; 0 for
            none. A face is small below half this size. Where there is no place left, there is no view.
        color: one RGB colour, each from 0 to 255, for all lines instead of one per facial part.
        weight: factor on the width of lines and the radius of dots, up to 100.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: an unusable image or colour, `faces` that is not `Faces`, labels that are no list or of
            another number than the faces, a weight out of range, insets that are no size, or another
            argument that is neither True nor False.
    """
    flags = {"lines": lines, "points": points, "boxes": boxes, "indices": indices, "scores": scores}
    check_style(color, weight, **flags)
    check_faces(faces)
    side = check_whole("insets", insets, least=0)
    texts = _texts(labels, len(faces))
    canvas = read_image(image)  # a copy, even of an array
    style = _Style(lines, points, boxes, indices, scores, color, weight)
    places = place_insets(faces, (canvas.shape[0], canvas.shape[1]), side)
    views = [enlarge(canvas, faces[number], side) for number in places]
    for face in faces:
        _draw_face(canvas, face, style)
    for text, box in zip(texts, faces.boxes, strict=True):
        write_label(canvas, text, box, color or WHITE, weight)
    for (number, corner), (view, face) in zip(places.items(), views, strict=True):
        _draw_face(view, face, style)
        write_label(view, texts[number], face.boxes[0], color or WHITE, weight)
        paste(canvas, view, corner, faces.boxes[number], weight)
    return canvas


class _Style(NamedTuple):
    """What is drawn of a face."""

    lines: bool
    points: bool
    boxes: bool
    indices: bool
    scores: bool
    color: RGB | None
    weight: float


def _draw_face(canvas: NDArray[np.uint8], face: Faces, style: _Style) -> None:
    """Draw one face into the canvas, in place."""
    (landmarks,), (landmark_scores,), (box,) = face.landmarks, face.landmark_scores, face.boxes
    if style.boxes:
        _paint(canvas, [(outline(box), style.color or WHITE)], [], style.weight)
    contours = contours_of(face, style.color) if style.lines else []
    chosen = list(range(len(landmarks))) if style.points else []
    if style.points and style.lines and not (style.scores or style.indices) and size_of(landmarks) < SMALL:
        chosen = spread_dots(landmarks, face)
    dots = [(landmarks[k], score_color(landmark_scores[k]) if style.scores else WHITE) for k in chosen]
    _paint(canvas, [(landmarks[indices], rgb) for indices, rgb in contours], dots, style.weight)
    if style.indices:
        write_indices(canvas, landmarks, style.weight)


def _texts(labels: Iterable[object] | None, count: int) -> list[str]:
    """A text per face; raise InputError unless there are as many as faces."""
    if labels is None:
        return [""] * count
    try:
        texts = None if isinstance(labels, (str, bytes)) else list(map(str, labels))
    except TypeError:  # not iterable
        texts = None
    if texts is None:
        raise InputError(f"labels: expected one for each of {count} faces, got {shown(labels)}")
    if len(texts) != count:
        raise InputError(f"labels: expected one for each of {count} faces, got {len(texts)}")
    return texts


def _paint(
    canvas: NDArray[np.uint8],
    strokes: list[tuple[Points, RGB]],
    dots: list[tuple[Points, RGB]],
    weight: float,
) -> None:
    """Draw lines (P, 2) and dots (2,) into the canvas, in place, tile by tile to bound memory."""
    shapes = [*(line for line, _ in strokes), *(np.stack([dot, dot]) for dot, _ in dots)]  # S lines
    if not shapes:
        return
    everything = np.concatenate(shapes)
    line_width, radius = stroke_sizes(everything, weight)
    opacity = line_opacity(everything)
    margin = math.ceil(radius + SHADE_WIDTH * line_width) + 1
    owners = np.repeat(np.arange(len(shapes)), [len(shape) - 1 for shape in shapes])
    starts, ends = (np.concatenate([shape[part] for shape in shapes]) for part in (slice(-1), slice(1, None)))
    lows = np.floor(np.minimum(starts, ends)) - margin  # of what each segment may touch, x y
    highs = np.ceil(np.maximum(starts, ends)) + margin + 1
    size = canvas.shape[1::-1]
    low, high = (np.clip(edge, 0, size).astype(int) for edge in (lows.min(axis=0), highs.max(axis=0)))

    scale = min(8, math.ceil(5 / line_width))  # lines at least about five enlarged pixels wide
    side = _TILE // scale
    for top in range(low[1], high[1], side):
        for left in range(low[0], high[0], side):
            corner, end = np.array([left, top]), np.minimum((left + side, top + side), high)
            near = set(owners[((lows < end) & (highs > corner)).all(axis=1)].tolist())
            if near:
                near_strokes = [stroke for index, stroke in enumerate(strokes) if index in near]
                near_dots = [dot for index, dot in enumerate(dots, len(strokes)) if index in near]
                x, y = begin = np.maximum(corner - _BORDER, 0)
                patch = canvas[y : end[1] + _BORDER, x : end[0] + _BORDER]
                drawn = _paint_tile(
                    patch, begin, scale, near_strokes, near_dots, (line_width, radius, opacity)
                )
                canvas[top : end[1], left : end[0]] = drawn[top - y : end[1] - y, left - x : end[0] - x]


def _paint_tile(
    patch: NDArray[np.uint8],
    corner: NDArray[np.int64],
    scale: int,
    strokes: list[tuple[Points, RGB]],
    dots: list[tuple[Points, RGB]],
    sizes: tuple[float, float, float],
) -> NDArray[np.uint8]:
    """Lines and dots drawn into a copy of a part of the canvas that begins at the corner (x, y).

    The sizes are the width of lines and the radius of dots, in pixels, and the opacity of lines.

    OpenCV's lines are whole pixels wide. So the patch is enlarged by repeating pixels, drawn on, and averaged
    back: pixels without ink keep their values.
    """
    line_width, radius, opacity = sizes
    image_to_enlarged = resize_matrix(scale)

    def fixed(points: Points) -> NDArray[np.int32]:
        enlarged = transform_points(image_to_enlarged, torch.from_numpy(points - corner)).numpy()
        units = np.rint(enlarged * 2**_FRACTION_BITS)
        whole: NDArray[np.int32] = np.clip(units, -_FARTHEST, _FARTHEST).astype(np.int32)
        return whole

    def paint_line(target: NDArray[np.uint8], line: Points, rgb: RGB, width: float) -> None:
        thickness = max(1, round(width * scale))
        cv2.polylines(target, [fixed(line)], False, rgb, thickness, cv2.LINE_AA, _FRACTION_BITS)

    def paint_dot(target: NDArray[np.uint8], dot: Points, rgb: RGB, radius: float) -> None:
        length = round(radius * scale * 2**_FRACTION_BITS)
        ((x, y),) = fixed(dot[np.newaxis]).tolist()
        cv2.circle(target, (x, y), length, rgb, cv2.FILLED, cv2.LINE_AA, _FRACTION_BITS)

    bright = patch.repeat(scale, axis=0).repeat(scale, axis=1)
    dark = bright.copy()
    for line, _ in strokes:
        paint_line(dark, line, (0, 0, 0), SHADE_WIDTH * line_width)
    for dot, _ in dots:
        paint_dot(dark, dot, (0, 0, 0), radius + 0.7 * line_width)
    cv2.addWeighted(dark, SHADE * opacity, bright, 1 - SHADE * opacity, 0, dst=bright)
    bare = bright.copy() if opacity < 1 else bright
    for line, rgb in strokes:
        paint_line(bright, line, rgb, line_width)
    if opacity < 1:
        cv2.addWeighted(bright, opacity, bare, 1 - opacity, 0, dst=bright)
    for dot, rgb in dots:
        paint_dot(bright, dot, rgb, radius)
    return np.asarray(cv2.resize(bright, patch.shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)
