"""Colours and line widths of drawn faces, the same for pixels and for figures.

Strokes follow the size of each face, so a child in the back row stays readable and a portrait
does not turn into a mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from face_landmarks.errors import InputError
from face_landmarks.layouts import Layout

RGB = tuple[int, int, int]
Points = NDArray[np.float32]

WHITE: RGB = (255, 255, 255)
_COLORS: Mapping[str, RGB] = {  # a part has the colour of the first of these words in its name
    "jaw": (236, 240, 245),
    "eyebrow": (255, 190, 50),
    "nose": (94, 222, 146),
    "eye": (70, 190, 255),
    "lips": (255, 96, 128),
}
SHADE = 0.4  # opacity of the black outline that parts a bright line from a bright photo
SHADE_WIDTH = 2.4  # its width, in line widths


def stroke_sizes(points: Points, weight: float) -> tuple[float, float]:
    """Width of lines and radius of dots for a drawing of this size, in the unit of the points.

    A line grows as the root of the size, a dot a little faster: chosen by eye, from faces of 50
    pixels (0.6 and 0.5) to faces of 1000 (2.7 and 5).
    """
    size = max(1.0, float(np.ptp(points, axis=0).max()))
    return 0.085 * size**0.5 * weight, 0.028 * size**0.75 * weight


def contours_of(layout: Layout, color: RGB | None) -> list[tuple[list[int], RGB]]:
    """The landmarks along each facial part, the first once more where it is closed; its colour."""
    contours = []
    for name, indices in layout.groups.items():
        rgb = color or next((rgb for word, rgb in _COLORS.items() if word in name), WHITE)
        contours.append(([*indices, *indices[: name in layout.closed]], rgb))
    return contours


def outline(box: Points) -> Points:
    """(5, 2) corners of a box (4,), the first once more."""
    return box[[0, 1, 2, 1, 2, 3, 0, 3, 0, 1]].reshape(5, 2)


def check_weight(weight: float) -> None:
    """Raise unless a stroke can have this weight.

    Raises:
        InputError: not a positive number.
    """
    if not 0 < weight < math.inf:
        raise InputError(f"weight: expected a positive number, got {weight}")
