"""Colours and line widths of drawn faces, shared by `draw_faces` and `plot_faces`.

Strokes grow with the face, so that small faces stay readable and large faces stay visible under their lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from face_landmarks.errors import InputError
from face_landmarks.results import Faces

RGB = tuple[int, int, int]
Points = NDArray[np.float32]

WHITE: RGB = (255, 255, 255)
_COLORS: Mapping[str, RGB] = {  # of the parts of a face; the first word that is in a part's name counts
    "jaw": (236, 240, 245),
    "eyebrow": (255, 190, 50),
    "nose": (94, 222, 146),
    "eye": (70, 190, 255),
    "lips": (255, 96, 128),
}
SHADE = 0.4  # opacity of the black outline that keeps a bright line visible on a bright photo
SHADE_WIDTH = 2.4  # its width, in line widths


def stroke_sizes(points: Points, weight: float) -> tuple[float, float]:
    """Width of lines and radius of dots for points (P, 2) that span this size, in their unit.

    A line grows with the square root of the size, a dot with its power 0.75. Both were chosen by eye: 0.6 and
    0.5 pixels for a face of 50 pixels, 2.7 and 5 for one of 1000.
    """
    size = max(1.0, float(np.ptp(points, axis=0).max()))
    return 0.085 * size**0.5 * weight, 0.028 * size**0.75 * weight


def contours_of(faces: Faces, color: RGB | None) -> list[tuple[list[int], RGB]]:
    """The landmarks of each facial part in order, with the first repeated if it is closed, and its colour."""
    contours = []
    for name, indices in faces.layout.groups.items():
        rgb = color or next((rgb for word, rgb in _COLORS.items() if word in name), WHITE)
        contours.append(([*indices, *indices[: name in faces.layout.closed]], rgb))
    return contours


def outline(box: Points) -> Points:
    """The corners of a box (4,) in order, with the first repeated: (5, 2)."""
    return box[[0, 1, 2, 1, 2, 3, 0, 3, 0, 1]].reshape(5, 2)


def check_style(color: RGB | None, weight: float) -> None:
    """Raise unless strokes can have this colour and weight.

    Raises:
        InputError: not three whole numbers from 0 to 255, or not a positive number.
    """
    if not isinstance(weight, (int, float, np.number)) or not 0 < weight < math.inf:
        raise InputError(f"weight: expected a positive number, got {weight!r}")
    if color is not None and not (
        isinstance(color, tuple)
        and len(color) == 3
        and all(isinstance(level, (int, np.integer)) and 0 <= level <= 255 for level in color)
    ):
        raise InputError(f"color: expected a tuple of red, green and blue from 0 to 255, got {color!r}")
