"""Faces whose landmarks lie on circles, and the ink of their drawings."""

from __future__ import annotations

import numpy as np

from face_landmarks.geometry import boxes_from_landmarks
from face_landmarks.results import Faces

HEIGHT, WIDTH = 120, 160
GRAY = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)


def ring(centre: tuple[float, float], radius: float) -> np.ndarray:
    """(68, 2) landmarks evenly on a circle."""
    angles = np.arange(68) * 2 * np.pi / 68
    return np.float32(centre) + radius * np.stack((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32)


def faces_at(*landmarks: np.ndarray) -> Faces:
    points = np.stack(landmarks).astype(np.float32)
    scores = np.tile(np.linspace(0, 1, 68, dtype=np.float32), (len(points), 1))
    return Faces(points, scores, boxes_from_landmarks(points), np.ones(len(points), np.float32))


def ink(image: np.ndarray, background: np.ndarray = GRAY) -> np.ndarray:
    """(H, W) how much each pixel was changed."""
    return np.abs(image.astype(float) - background).sum(axis=2)
