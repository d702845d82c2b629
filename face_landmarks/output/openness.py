"""How far eyes and mouths are open."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from face_landmarks.errors import InputError
from face_landmarks.results import Faces, check_faces

_ONE_PLACE = 1e-6  # distance of two corners, in sizes of their face, that has no ratio


def eye_openness(faces: Faces) -> NDArray[np.float32]:
    """The eye aspect ratio of both eyes: the mean distance between the lids, in widths of the eye.

    For the 68 landmarks this is (|37 - 41| + |38 - 40|) / (2 |36 - 39|) for the right eye. The other layouts
    have other numbers of points on the lids, and so slightly different values: compare ratios of one layout.

    Returns:
        (N, 2) float32: the subject's right eye and left eye. NaN for an eye whose corners lie in one place.

    Raises:
        InputError: `faces` is not `Faces`, or its layout has no points on the lids (AFLW's 19 landmarks).

    Reference:
        Soukupová, Čech. Real-Time Eye Blink Detection using Facial Landmarks. Computer Vision Winter
        Workshop 2016.
    """
    layout = check_faces(faces).layout
    sides = [
        _ratio(faces, f"{side}_eye_upper", (f"{side}_eye_outer", f"{side}_eye_inner"))
        for side in ("right", "left")
        if _opposite(faces, f"{side}_eye_upper")
    ]
    if not sides:
        raise InputError(f"faces: expected a layout with points on the eyelids, got {layout.name}")
    return np.stack(sides, axis=1)


def mouth_openness(faces: Faces) -> NDArray[np.float32]:
    """The mean distance between the inner edges of the lips, in widths of the mouth.

    It is the eye aspect ratio applied to the inner lips: (|61 - 67| + |62 - 66| + |63 - 65|) / (3 |60 - 64|)
    for the 68 landmarks. COFW's 29 have the middle of the lips and the outer corners alone.

    Returns:
        (N,) float32; NaN for a mouth whose corners lie in one place.

    Raises:
        InputError: `faces` is not `Faces`, or its layout has no points on the inner lips (AFLW's 19
            landmarks).
    """
    layout = check_faces(faces).layout
    if not _opposite(faces, "upper_lip_inner"):
        raise InputError(f"faces: expected a layout with points on the inner lips, got {layout.name}")
    inner = "mouth_inner_right" in layout.names
    corners = ("mouth_inner_right", "mouth_inner_left") if inner else ("mouth_right", "mouth_left")
    return _ratio(faces, "upper_lip_inner", corners)


def _opposite(faces: Faces, upper: str) -> list[tuple[int, int]]:
    """The landmarks whose names begin like this, each with the one across the gap."""
    return [
        (index, faces.layout.index(name.replace("upper", "lower")))
        for index, name in enumerate(faces.layout.names)
        if name.startswith(upper)
    ]


def _ratio(faces: Faces, upper: str, corners: tuple[str, str]) -> NDArray[np.float32]:
    """(N,) mean distance across a gap, in distances of its corners; NaN if these lie in one place."""
    points = faces.landmarks.astype(np.float64)  # (N, K, 2)
    above, below = np.transpose(_opposite(faces, upper))
    gap = np.linalg.norm(points[:, above] - points[:, below], axis=2).mean(axis=1)  # (N,)
    right, left = map(faces.layout.index, corners)
    width = np.linalg.norm(points[:, right] - points[:, left], axis=1)  # (N,)
    size = np.ptp(points, axis=1).max(axis=1)  # (N,)
    known = width > _ONE_PLACE * size
    return np.where(known, gap / np.where(known, width, 1), np.nan).astype(np.float32)
