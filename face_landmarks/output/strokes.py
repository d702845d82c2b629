"""Colours, line widths and dots of drawn faces, shared by `draw_faces` and `plot_faces`.

Strokes grow with the face, so that small faces stay readable and large faces stay visible under their lines.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.arguments import check_flag, check_number
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
SCORE_COLORS: Mapping[float, RGB] = {  # most scores of whole faces lie between 0.6 and 0.95
    0.0: (165, 0, 38),
    0.5: (242, 92, 48),
    0.7: (255, 222, 90),
    0.9: (64, 172, 92),
    1.0: (0, 110, 58),
}
SMALL = 150.0  # pixels below which a face gets thinner lines and fewer dots
_THINNEST = 0.3  # pixels
_CLEAR, _FAINTEST = 100.0, 0.5  # pixels below which lines are faint, and their least opacity
_APART = 5.0  # pixels between the dots of a small face
HEAVIEST = 100.0
SHADE = 0.4  # opacity of the black outline that keeps a bright line visible on a bright photo
SHADE_WIDTH = 2.4  # its width, in line widths


def stroke_sizes(points: Points, weight: float) -> tuple[float, float]:
    """Width of lines and radius of dots for points (P, 2) that span this size, in their unit.

    From 150 pixels on, a line grows with the square root of the size, a dot with its power 0.75; below, both
    shrink in proportion, down to what can still be seen. All was chosen by eye: 0.35 and 0.4 pixels for a
    face of 50 pixels, 1 and 1.2 for one of 150, 2.7 and 5 for one of 1000.
    """
    size = size_of(points)
    share, size = min(1.0, size / SMALL), max(size, SMALL)
    line, dot = max(_THINNEST, 0.085 * size**0.5 * share), max(_THINNEST, 0.028 * size**0.75 * share)
    return line * weight, dot * weight


def line_opacity(points: Points) -> float:
    """Of lines: a face of less than 100 pixels is seen through them."""
    return float(np.clip(size_of(points) / _CLEAR, _FAINTEST, 1))


def size_of(points: Points) -> float:
    """The longer side of the box around points (P, 2); at least 1."""
    return max(1.0, float(np.ptp(points, axis=0).max()))


def spread_dots(landmarks: Points, faces: Faces) -> list[int]:
    """The landmarks of a small face whose dots do not run together: the corners and tips first."""
    layout = faces.layout
    ends = (indices[place] for indices in layout.groups.values() for place in (0, -1))
    marks = (*layout.eye_corners, *layout.mouth_corners, layout.nose_tip, layout.chin, *ends)
    chosen: list[int] = []
    for index in dict.fromkeys((*marks, *range(len(layout)))):
        distances = np.linalg.norm(landmarks[chosen] - landmarks[index], axis=1)
        if not (distances < _APART).any():
            chosen.append(index)
    return sorted(chosen)


def score_color(score: float) -> RGB:
    """From dark red (0) over orange (0.5), yellow (0.7) and green (0.9) to dark green (1)."""
    channels = zip(*SCORE_COLORS.values(), strict=True)
    red, green, blue = (round(float(np.interp(score, list(SCORE_COLORS), channel))) for channel in channels)
    return red, green, blue


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


def check_style(color: RGB | None, weight: float, **flags: bool) -> None:
    """Raise unless strokes can have this colour and weight, and the others are flags.

    Raises:
        InputError: not three whole numbers from 0 to 255, not a positive number up to 100, or neither True
            nor False.
    """
    expected = f"a positive number, at most {HEAVIEST:g}"
    if not check_number("weight", weight, expected, most=HEAVIEST) > 0:
        raise InputError(f"weight: expected {expected}, got {weight!r}")
    for name, value in flags.items():
        check_flag(name, value)
    if color is not None and not (
        isinstance(color, tuple)
        and len(color) == 3
        and all(
            isinstance(level, (int, np.integer)) and not isinstance(level, bool) and 0 <= level <= 255
            for level in color
        )
    ):
        raise InputError(f"color: expected a tuple of red, green and blue from 0 to 255, got {color!r}")
