"""Faces drawn by formulas, for every layout: small pictures whose landmarks are known exactly."""

from __future__ import annotations

import cv2
import numpy as np

from face_landmarks.layouts import AFLW_19, COFW_29, IBUG_68, WFLW_98, WFLW_98_FOR_IBUG_68

# Which of the 98 stands for each landmark of the sparser layouts.
_OF_THE_98 = {
    WFLW_98.name: range(98),
    IBUG_68.name: WFLW_98_FOR_IBUG_68,
    COFW_29.name: (
        *(33, 46, 37, 42, 35, 40, 44, 48),  # brows: outer, inner, then upper and lower edge
        *(60, 72, 64, 68, 62, 66, 70, 74, 96, 97),  # eyes: outer, inner, lids, pupils
        *(55, 59, 54, 57),
        *(76, 82, 79, 90, 94, 85, 16),
    ),
    AFLW_19.name: (33, 35, 37, 42, 44, 46, 60, 96, 64, 68, 97, 72, 55, 54, 59, 76, 90, 82, 16),
}


def mean_shape(layout):
    """(K, 2) a symmetric face in the unit square, its midline at x = 0.5."""
    return _shape_98()[list(_OF_THE_98[layout.name])]


def _shape_98():
    angles = np.pi * np.arange(33) / 32
    jaw = np.stack([0.5 - 0.42 * np.cos(angles), 0.4 + 0.52 * np.sin(angles)], axis=1)
    upper, lower = _arc((0.17, 0.31), (0.42, 0.31), 5, 0.05), _arc((0.42, 0.34), (0.17, 0.34), 5, -0.03)[:4]
    right_brow = np.concatenate([upper, lower])
    left_brow = _reflect(np.concatenate([upper[::-1], lower[::-1]]))
    bridge = np.stack([np.full(4, 0.5), np.linspace(0.40, 0.57, 4)], axis=1)
    base = _arc((0.41, 0.60), (0.59, 0.60), 5, -0.03)
    upper, lower = _arc((0.23, 0.42), (0.40, 0.42), 5, 0.035), _arc((0.40, 0.42), (0.23, 0.42), 5, -0.03)
    right_eye = np.concatenate([upper, lower[1:4]])
    left_eye = _reflect(np.concatenate([upper[::-1], lower[3:0:-1]]))
    outer = np.concatenate(
        [_arc((0.33, 0.72), (0.67, 0.72), 7, 0.04), _arc((0.67, 0.72), (0.33, 0.72), 7, -0.08)[1:6]]
    )
    inner = np.concatenate(
        [_arc((0.37, 0.72), (0.63, 0.72), 5, 0.01), _arc((0.63, 0.72), (0.37, 0.72), 5, -0.03)[1:4]]
    )
    pupils = np.array([(0.315, 0.42), (0.685, 0.42)])
    parts = (jaw, right_brow, left_brow, bridge, base, right_eye, left_eye, outer, inner, pupils)
    return np.concatenate(parts)  # (98, 2)


def _arc(start, end, count, rise):
    """Points from start to end, raised towards the middle."""
    t = np.linspace(0, 1, count)[:, np.newaxis]
    return (1 - t) * start + t * np.array(end) - np.concatenate([0 * t, 4 * rise * t * (1 - t)], axis=1)


def _reflect(points):
    return points * (-1, 1) + (1, 0)


def draw_photo(seed, layout, size=96):
    """A picture with one face, never the same for two seeds.

    Returns:
        (size, size + 8, 3) uint8 RGB, wider than high so that a transposed reader is found out, and the
        landmarks (K, 2) in pixels, zero-based.
    """
    random = np.random.default_rng(seed)
    angle, scale = random.normal(0, 0.08), size * random.uniform(0.58, 0.66)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    squeeze = np.array([random.uniform(0.92, 1.08), random.uniform(0.95, 1.05)])
    centre = np.array([size + 8, 1.06 * size]) / 2 + random.uniform(-2, 2, 2)
    points = ((_shape_98() - 0.5) * squeeze) @ turn.T + centre  # (98, 2)

    image = np.empty((size, size + 8, 3), np.uint8)
    image[:] = random.integers(30, 90, 3)
    skin, hair, lips = (
        random.integers(low, high, 3).tolist() for low, high in ((150, 220), (20, 90), (90, 150))
    )
    groups = {name: points[list(indices)] for name, indices in WFLW_98.groups.items()}
    temples = groups["jaw"][[0, -1]].mean(axis=0)
    _fill(image, np.concatenate([groups["jaw"], temples + 0.8 * (temples - groups["jaw"])]), skin)
    for name in ("right_eyebrow", "left_eyebrow"):
        _fill(image, groups[name], hair)
    for name in ("right_eye", "left_eye"):
        _fill(image, groups[name], (240, 240, 240))
    for name in ("right_pupil", "left_pupil"):
        _disc(image, groups[name][0], 0.035 * scale, (40, 30, 20))
    _fill(image, groups["outer_lips"], lips)
    _fill(image, groups["inner_lips"], (60, 20, 20))
    nose = np.concatenate([groups["nose_bridge"][:1], groups["nose_base"]])
    _fill(image, nose, [int(0.85 * value) for value in skin])
    return image, points[list(_OF_THE_98[layout.name])]


def _fill(image, points, colour):
    cv2.fillPoly(image, [np.rint(points * 256).astype(np.int32)], colour, cv2.LINE_AA, 8)


def _disc(image, centre, radius, colour):
    x, y = np.rint(centre * 256).astype(int).tolist()
    cv2.circle(image, (x, y), round(256 * radius), colour, cv2.FILLED, cv2.LINE_AA, 8)
