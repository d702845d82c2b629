"""Photos in any position: a detector also searches the photo turned by quarters, or by eighths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.arguments import check_choice
from face_landmarks.detection._boxes import Found, Image, no_faces, suppress_nested

Rotations = Literal["never", "fallback", "always"]

# In eighths of a turn, counter-clockwise: the turns that are searched together, then those searched if they
# gave nothing.
_QUARTERS: Final = (2, 4, 6)
_DIAGONALS: Final = (1, 3, 5, 7)
_TURNS: Final[dict[str, tuple[tuple[int, ...], ...]]] = {
    "never": ((0,),),
    "fallback": ((0,), _QUARTERS, _DIAGONALS),
    "always": ((0, *_QUARTERS, *_DIAGONALS),),
}
_SAME_FACE: Final = 0.5  # share of the smaller of two boxes that both have in common


def check_rotations(rotations: object) -> None:
    """Raise unless this is one of `Rotations`.

    Raises:
        InputError: it is not.
    """
    check_choice("rotations", rotations, tuple(_TURNS))


def search_turned(image: Image, searches: Sequence[Callable[[Image], Found]], rotations: Rotations) -> Found:
    """Search an image as it is and turned, and give what is found in its own frame.

    A face that is found more than once is kept where its score is best.

    Args:
        image: (H, W, 3).
        searches: ways to search an image, each tried if those before it gave nothing.
        rotations: "never": as it is alone. "fallback": turned by quarters, if nothing is found as it is, then
            by the eighths between them. "always": in all eight positions.
    """
    for turns in _TURNS[rotations]:
        for search in searches:
            parts = [_turn_back(search(_turned(image, turn)), image, turn) for turn in turns]
            edges, scores, points = (np.concatenate(part) for part in zip(*parts, strict=True))
            if len(turns) > 1:
                keep = suppress_nested(edges, scores, _SAME_FACE)
                edges, scores, points = edges[keep], scores[keep], points[keep]
            if len(edges):
                return edges, scores, points
    return no_faces()


def _turned(image: Image, turn: int) -> Image:
    """The image turned counter-clockwise by eighths of a turn; what lies outside it is black."""
    if turn % 2 == 0:
        return np.ascontiguousarray(np.rot90(image, turn // 2)) if turn else image
    matrix, size = _turn_matrix(image, turn)
    return np.asarray(cv2.warpAffine(image, matrix[:2], size, flags=cv2.INTER_LINEAR), np.uint8)


def _turn_back(found: Found, image: Image, turn: int) -> Found:
    """What was found in the turned image, in the frame of the image itself.

    The box around a face that is turned by an eighth is a square, with the same width + height.
    """
    if not turn:
        return found
    edges, scores, points = found
    matrix, _ = _turn_matrix(image, turn)
    back = np.linalg.inv(matrix)
    shift = np.full(2, 0.5)  # edges count from the outer edge of the first pixel, matrices from its centre
    centres = ((edges[:, :2] + edges[:, 2:]) / 2 - shift) @ back[:2, :2].T + back[:2, 2] + shift
    sizes = edges[:, 2:] - edges[:, :2]
    if turn % 2:
        sizes = np.repeat(sizes.mean(axis=1, keepdims=True), 2, axis=1)
    elif turn != 4:
        sizes = sizes[:, ::-1]
    points = (points - shift) @ back[:2, :2].T + back[:2, 2] + shift
    return np.concatenate((centres - sizes / 2, centres + sizes / 2), axis=1), scores, points


def _turn_matrix(image: Image, turn: int) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """image_to_turned (3, 3), between pixel centres, and the (W, H) of the turned image."""
    height, width = image.shape[:2]
    cos, sin = math.cos(math.pi / 4 * turn), math.sin(math.pi / 4 * turn)
    size = round(abs(width * cos) + abs(height * sin)), round(abs(width * sin) + abs(height * cos))
    matrix = np.eye(3)
    matrix[:2, :2] = [[cos, sin], [-sin, cos]]
    matrix[:2, 2] = (np.array(size) - 1) / 2 - matrix[:2, :2] @ ((np.array([width, height]) - 1) / 2)
    return matrix, size
