"""From a detector's boxes and five points to upright face boxes and the rolls that turn them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from face_landmarks.detection.contract import Detections
from face_landmarks.geometry import roll_of

# Faces that are nearly upright get no turned crop; examples/lab/accuracy/measure_rolls.py tries other angles.
LEAST_ROLL: Final = 25.0  # degrees
_WIDTH: Final = 0.435  # of width + height of an upright face box: MTCNN's median, as measure_boxes.py prints


def rolls_of(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """By how much each face is turned clockwise on the screen, in degrees from -180 to 180.

    Two directions tell, see `roll_of`: from the right eye and mouth corner to the left ones, and from
    the eyes to the mouth.

    Args:
        points: (N, 5, 2), see `Detections`.

    Returns:
        (N,).
    """
    right_eye, left_eye, _, right_mouth, left_mouth = points.astype(np.float64).transpose(1, 0, 2)
    across = left_eye - right_eye + left_mouth - right_mouth  # (N, 2)
    down = right_mouth + left_mouth - right_eye - left_eye
    return np.degrees(roll_of(across, down))


def upright_faces(
    found: Detections, least_roll: float = LEAST_ROLL
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The upright boxes of detected faces, and how they are turned.

    A face that is turned by less than the least roll keeps its box and a roll of 0. The box of any other
    gets the proportions of an upright face, about the same centre and with the same width + height: the
    detector's follows the sides of the image, and is as wide as high around a face turned by 45 degrees.

    Args:
        found: N faces.
        least_roll: in degrees.

    Returns:
        boxes (N, 4), each to be turned about its centre, and rolls (N,) in degrees, clockwise on the screen.
    """
    boxes = found.boxes.astype(np.float64)
    rolls = np.zeros(len(boxes)) if found.points is None else rolls_of(found.points)
    rolls[np.abs(rolls) < least_roll] = 0.0
    turned = rolls != 0
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    sizes[turned] = sizes[turned].sum(axis=1, keepdims=True) * (_WIDTH, 1 - _WIDTH)
    upright = np.concatenate((centres - sizes / 2, centres + sizes / 2), axis=1)
    return upright.astype(np.float32), rolls.astype(np.float32)
