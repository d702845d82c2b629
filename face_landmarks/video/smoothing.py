"""Smoothing of landmarks over time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_landmarks._system.arguments import as_number
from face_landmarks.errors import InputError

Points = NDArray[np.float64]

_OWN_MOTION_CUTOFF = 1.0  # Hz


class OneEuroFilter:
    """Smooths the landmarks of one face: strongly while they rest, weakly while they move.

    Each landmark goes through a low-pass filter whose cutoff frequency, in Hz, is

        (min_cutoff + speed_gain x speed) x landmark score

    where speed is the landmark's, in face sizes per second. The mean motion of all landmarks enters
    unfiltered, as noise averages out over them; the rest of a landmark's motion is itself low-pass filtered
    at 1 Hz.

    Args:
        frame_rate: calls per second, where no interval is given.
        min_cutoff: cutoff at rest, in Hz; lower gives less jitter.
        speed_gain: Hz per face size per second; higher gives less lag.

    Raises:
        InputError: `frame_rate` or `min_cutoff` is not a positive number, or `speed_gain` is negative.

    Reference:
        Casiez, Roussel, Vogel. 1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
        Interactive Systems. CHI 2012. https://gery.casiez.net/1euro/
    """

    def __init__(self, frame_rate: float = 30.0, min_cutoff: float = 1.0, speed_gain: float = 20.0) -> None:
        if not as_number(frame_rate) > 0:
            raise InputError(
                f"frame_rate: expected a positive number of frames per second, got {frame_rate!r}"
            )
        if not as_number(min_cutoff) > 0:
            raise InputError(f"min_cutoff: expected a positive frequency in Hz, got {min_cutoff!r}")
        if not as_number(speed_gain) >= 0:
            raise InputError(f"speed_gain: expected a number of at least 0, got {speed_gain!r}")
        self.frame_rate = float(frame_rate)
        self.min_cutoff = float(min_cutoff)
        self.speed_gain = float(speed_gain)
        self._points: Points | None = None
        self._own_velocity: Points | float = 0.0

    def __repr__(self) -> str:
        return (
            f"OneEuroFilter(frame_rate={self.frame_rate:g}, min_cutoff={self.min_cutoff:g}, "
            f"speed_gain={self.speed_gain:g})"
        )

    def __call__(self, points: ArrayLike, scores: ArrayLike, interval: float | None = None) -> Points:
        """Smooth the landmarks of the next frame.

        Args:
            points: (K, 2) as measured.
            scores: (K,) of the landmarks.
            interval: seconds since the last call; 1 / frame_rate by default.

        Returns:
            (K, 2) float64.

        Raises:
            InputError: an array of another shape, or of another number of landmarks than before, or with a
                value that is not finite; or an interval that is not positive.
        """
        if interval is not None and not as_number(interval) > 0:
            raise InputError(f"interval: expected a positive number of seconds, got {interval!r}")
        rate = self.frame_rate if interval is None else 1 / float(interval)
        measured, certainty = self._check(points, scores)
        if self._points is None:
            self._points = measured
            return self._points.copy()
        velocity = (measured - self._points) * rate / face_size(measured)  # (K, 2)
        shared = velocity.mean(axis=0)  # (2,)
        self._own_velocity += _weight(_OWN_MOTION_CUTOFF, rate) * (velocity - shared - self._own_velocity)
        speed = np.sqrt(np.square(shared + self._own_velocity).sum(axis=1, keepdims=True))  # (K, 1)
        cutoff = (self.min_cutoff + self.speed_gain * speed) * np.clip(certainty, 0, None)[:, np.newaxis]
        self._points += _weight(cutoff, rate) * (measured - self._points)
        return self._points.copy()

    def _check(self, points: ArrayLike, scores: ArrayLike) -> tuple[Points, Points]:
        """Both as float64 arrays of the caller's values; the first is a copy."""
        try:
            measured, certainty = np.array(points, np.float64), np.asarray(scores, np.float64)
        except (TypeError, ValueError) as error:  # text, or rows of several lengths
            raise InputError(f"points, scores: expected arrays of numbers: {error}") from error
        landmarks = "K" if self._points is None else len(self._points)
        if measured.ndim != 2 or measured.shape[1] != 2 or landmarks not in ("K", len(measured)):
            raise InputError(f"points: expected shape ({landmarks}, 2), got {measured.shape}")
        if certainty.shape != measured.shape[:1]:
            raise InputError(f"scores: expected shape ({len(measured)},), got {certainty.shape}")
        if not len(measured):
            raise InputError("points: expected at least one landmark, got none")
        if not (np.isfinite(measured).all() and np.isfinite(certainty).all()):
            raise InputError("points, scores: expected finite numbers, got NaN or infinity")
        return measured, certainty


def _weight(cutoff: Points | float, rate: float) -> Points:
    """Share of a new value in a low-pass filter of this cutoff, in Hz, at this many values a second."""
    radians = np.asarray(2 * math.pi * cutoff / rate)  # per frame
    return np.asarray(radians / (1 + radians))


def face_size(points: Points | NDArray[np.float32]) -> float:
    """Root of the area of the box around a face's landmarks (K, 2), in pixels; at least 1."""
    return max(1.0, math.sqrt(np.prod(np.ptp(points, axis=0))))
