"""What the detectors of the package share: images made small, boxes compared, chosen and ordered.

Inside a detector a box is given by its edges, counted from the outer edge of the first pixel; half a
pixel is taken off at the end.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.arguments import kind_of
from face_landmarks.detection.contract import Detections
from face_landmarks.errors import InputError

Image: TypeAlias = NDArray[np.uint8]
Boxes: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = NDArray[np.float32]
Found: TypeAlias = tuple[Boxes, Scores, Boxes]  # edges (N, 4), scores (N,), points (N, 5, 2)

LARGEST: Final = 2  # times the longer side of the image: no face in it is larger


def no_faces() -> Found:
    """What a search that found nothing gives."""
    return np.empty((0, 4)), np.empty(0, np.float32), np.empty((0, 5, 2))


def check_image(image: Image) -> None:
    """Raise unless the image is as `read_image` gives it.

    Raises:
        InputError: another shape or type.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"image: expected an array (H, W, 3), got {kind_of(image)}")
    if image.dtype != np.uint8:
        raise InputError(f"image: expected uint8, got {kind_of(image)}; read_image converts")


def shrink(image: Image, max_size: int) -> Image:
    """The image, its longer side at most max_size; smaller ones stay as they are."""
    height, width = image.shape[:2]
    scale = max_size / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Means over blocks of whole pixels, then less than half of the way: OpenCV's means over fractions of
    # pixels take five times as long.
    blocks = [n for n in range(int(1 / scale), 0, -1) if n > 0.5 / scale and width % n == height % n == 0]
    if not blocks:
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if blocks[0] > 1:
        whole = width // blocks[0], height // blocks[0]
        image = np.asarray(cv2.resize(image, whole, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def finish(found: Found, small: Image, image: Image) -> Detections:
    """Detections in pixels of the image, from edges and points in those of its shrunken copy.

    What cannot be a face is dropped. The largest box comes first; equal ones from left to right, then
    from top to bottom.
    """
    edges, scores, points = found
    height, width = image.shape[:2]
    zoom = np.array([width, height]) / small.shape[1::-1]
    boxes = (edges * np.tile(zoom, 2) - 0.5).astype(np.float32)
    places = (points * zoom - 0.5).astype(np.float32)
    keep = _is_plausible(boxes, width, height) & np.isfinite(places).all(axis=(1, 2))
    boxes, scores, places = boxes[keep], scores[keep], places[keep]
    x0, y0, x1, y1 = boxes.T
    order = np.lexsort((y0, x0, -(x1 - x0) * (y1 - y0)))  # the last key counts first
    return Detections(boxes[order], scores[order], places[order])


def suppress(edges: Boxes, scores: Scores, overlap: float) -> NDArray[np.intp]:
    """Boxes to keep, best first: none overlaps a better one by more, in intersection over union."""
    if not len(edges):
        return np.empty(0, np.intp)
    corner_and_size = np.concatenate((edges[:, :2], edges[:, 2:] - edges[:, :2]), axis=1)
    return np.asarray(cv2.dnn.NMSBoxes(corner_and_size.tolist(), scores.tolist(), 0.0, overlap), np.intp)


def suppress_nested(edges: Boxes, scores: Scores, overlap: float) -> NDArray[np.intp]:
    """The same, in intersection over the smaller area: a box within a better one is dropped, too."""
    areas = np.prod(edges[:, 2:] - edges[:, :2], axis=1)
    keep: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        common = np.minimum(edges[i, 2:], edges[keep, 2:]) - np.maximum(edges[i, :2], edges[keep, :2])
        shares = common.clip(0).prod(axis=1) / np.minimum(areas[i], areas[keep])
        if not (shares > overlap).any():
            keep.append(int(i))
    return np.array(keep, np.intp)


def _is_plausible(boxes: NDArray[np.float32], width: int, height: int) -> NDArray[np.bool_]:
    """Which boxes (N, 4) have an area, a possible size, and their centre in the image; NaN has not."""
    image = np.array([width, height])
    with np.errstate(invalid="ignore"):  # inf - inf
        sizes = boxes[:, 2:] - boxes[:, :2]  # (N, 2)
        centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    possible = (sizes > 0) & (sizes <= LARGEST * image.max())
    inside = (centres >= -0.5) & (centres <= image - 0.5)
    plausible: NDArray[np.bool_] = (possible & inside).all(axis=1)
    return plausible
