"""Photos in any position: the detector also searches the photo turned by 90, 180 and 270 degrees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np

from face_landmarks.detection._boxes import Found, Image, no_faces, suppress_nested
from face_landmarks.errors import InputError

Rotations = Literal["never", "fallback", "always"]

# In quarter turns, counter-clockwise: the turns that are searched together, then those searched if they
# gave nothing.
_TURNS: Final[dict[str, tuple[tuple[int, ...], ...]]] = {
    "never": ((0,),),
    "fallback": ((0,), (1, 2, 3)),
    "always": ((0, 1, 2, 3),),
}
_SAME_FACE: Final = 0.5  # share of the smaller of two boxes that both have in common


def check_rotations(rotations: str) -> None:
    """Raise unless this is one of `Rotations`.

    Raises:
        InputError: it is not.
    """
    if rotations not in _TURNS:
        raise InputError(f"rotations: expected 'never', 'fallback' or 'always', got {rotations!r}")


def search_turned(image: Image, searches: Sequence[Callable[[Image], Found]], rotations: Rotations) -> Found:
    """Search an image as it is and turned, and give what is found in its own frame.

    A face that is found more than once is kept where its score is best.

    Args:
        image: (H, W, 3).
        searches: ways to search an image, each tried if those before it gave nothing.
        rotations: "never": as it is alone. "fallback": turned as well, if nothing is found as it is.
            "always": in all four positions.
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
    """The image turned counter-clockwise by quarter turns."""
    return np.ascontiguousarray(np.rot90(image, turn)) if turn else image


def _turn_back(found: Found, image: Image, turn: int) -> Found:
    """What was found in the turned image, in the frame of the image itself."""
    edges, scores, points = found
    height, width = image.shape[:2]
    for step in range(turn, 0, -1):  # a quarter turn back takes x y to w - y, x, if the result is w wide
        w = width if step % 2 else height
        x0, y0, x1, y1 = edges.T
        edges = np.stack((w - y1, x0, w - y0, x1), axis=1)
        points = np.stack((w - points[..., 1], points[..., 0]), axis=-1)
    return edges, scores, points
