"""Landmarks steadied over time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_landmarks.errors import InputError

Points = NDArray[np.float64]


class OneEuroFilter:
    """Steadies landmarks: much while they rest, little while they move.

    Each landmark follows its measurements through a low-pass filter, whose cutoff frequency, in Hz, is

        (min_cutoff + speed_gain x speed) x landmark score

    with the landmark's speed in face sizes per second. The motion that all landmarks share is taken
    as it comes, for over 68 of them noise averages out; a landmark's own motion beside it is itself
    filtered at 1 Hz.

    Args:
        frame_rate: calls per second.
        min_cutoff: cutoff at rest, in Hz; lower is steadier.
        speed_gain: Hz per face size per second; higher lags less.

    Raises:
        InputError: an argument that is not positive, or a negative `speed_gain`.

    Reference:
        Casiez, Roussel, Vogel. 1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
        Interactive Systems. CHI 2012. https://gery.casiez.net/1euro/
    """

    def __init__(self, frame_rate: float = 30.0, min_cutoff: float = 1.0, speed_gain: float = 20.0) -> None:
        if not 0 < frame_rate < math.inf:
            raise InputError(f"frame_rate: expected a positive number, got {frame_rate}")
        if not 0 < min_cutoff < math.inf:
            raise InputError(f"min_cutoff: expected a positive frequency in Hz, got {min_cutoff}")
        if not 0 <= speed_gain < math.inf:
            raise InputError(f"speed_gain: expected 0 or more, got {speed_gain}")
        self.frame_rate = frame_rate
        self.min_cutoff = min_cutoff
        self.speed_gain = speed_gain
        self._points: Points | None = None
        self._own_velocity: Points | float = 0.0

    def __call__(self, points: NDArray[Any], scores: NDArray[Any]) -> Points:
        """The steadied landmarks of the next frame.

        Args:
            points: (K, 2) as measured.
            scores: (K,) of the landmarks.

        Returns:
            (K, 2) float64.
        """
        if self._points is None:
            self._points = points.astype(np.float64)
            return self._points.copy()
        velocity = (points - self._points) * self.frame_rate / face_size(points)  # (K, 2)
        shared = velocity.mean(axis=0)  # (2,)
        self._own_velocity += self._weight(1.0) * (velocity - shared - self._own_velocity)
        speed = np.linalg.norm(shared + self._own_velocity, axis=1, keepdims=True)  # (K, 1)
        cutoff = (self.min_cutoff + self.speed_gain * speed) * np.clip(scores, 0, None)[:, np.newaxis]
        self._points += self._weight(cutoff) * (points - self._points)
        return self._points.copy()

    def _weight(self, cutoff: Points | float) -> Points:
        """Share of a new value in a low-pass filter of this cutoff frequency, in Hz."""
        radians = np.asarray(2 * math.pi * cutoff / self.frame_rate)  # per frame
        return np.asarray(radians / (1 + radians))


def face_size(points: NDArray[Any]) -> float:
    """Size of a face: the root of the area around its landmarks (K, 2), in pixels; at least 1."""
    return max(1.0, math.sqrt(np.prod(np.ptp(points, axis=0))))
