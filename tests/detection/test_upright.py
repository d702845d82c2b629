"""Rolls and upright boxes from five points."""

from __future__ import annotations

import numpy as np
import pytest

from face_landmarks.detection.contract import Detections
from face_landmarks.detection.upright import rolls_of, upright_faces

FACE = np.array([(-1.0, -1.0), (1.0, -1.0), (0.0, 0.0), (-1.0, 1.0), (1.0, 1.0)])  # a square


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points turned clockwise on the screen, where y points down."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.float32(points @ np.array([(cos, sin), (-sin, cos)]))


@pytest.mark.parametrize("degrees", [0, 30, -100, 179])
def test_a_turned_face_has_its_roll(degrees: float) -> None:
    np.testing.assert_allclose(rolls_of(turned(FACE, degrees)[None]), [degrees], atol=1e-4)


def test_the_roll_is_that_of_both_directions_together() -> None:
    face = FACE.copy()
    face[1, 1] += 0.4  # the left eye: 4 across and 0.4 down in sum, and 3.6 from the eyes to the mouth
    np.testing.assert_allclose(
        rolls_of(np.float32(face[None])), np.degrees(np.arctan2(0.4, 4 + 3.6)), atol=1e-4
    )
    narrow = FACE * (0.01, 1)  # in profile the direction across tells nothing
    narrow[1, 1] += 0.4
    assert abs(rolls_of(np.float32(narrow[None]))[0]) < 7


@pytest.mark.parametrize(("degrees", "box"), [
    (20, (100, 200, 160, 300)),  # stays as it is
    (-30, (95.2, 204.8, 164.8, 295.2)),  # 0.435 x 160 wide and 0.565 x 160 high about (130, 250)
])  # fmt: skip
def test_the_box_of_a_turned_face_gets_upright_proportions(degrees: float, box: tuple[float, ...]) -> None:
    points = 130 + 10 * turned(FACE, degrees)
    found = Detections(np.float32([(100, 200, 160, 300)]), np.ones(1, np.float32), points[None])
    boxes, rolls = upright_faces(found)
    np.testing.assert_allclose(boxes, [box], atol=1e-4)
    np.testing.assert_allclose(rolls, [0 if degrees == 20 else degrees], atol=1e-4)


def test_without_points_every_face_is_upright() -> None:
    boxes = np.float32([(100, 200, 160, 300), (0, 0, 7, 5)])
    upright, rolls = upright_faces(Detections(boxes, np.ones(2, np.float32)))
    np.testing.assert_array_equal(upright, boxes)
    np.testing.assert_array_equal(rolls, [0, 0])
