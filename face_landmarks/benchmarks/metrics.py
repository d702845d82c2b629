"""Errors of predicted landmarks, and statistics of them.

Convention:
    Every error, rate and area here is in percent: an NME of 3.0 means that the mean landmark is
    off by 0.03 of the normalising distance. A face that was not found is predicted as all NaN:
    its error is infinite, so it counts as a failure at every threshold, and it has no part in
    the signed error.

Reference:
    Sagonas et al. 300 Faces In-The-Wild Challenge: Database and Results. IVC 2016.
    https://doi.org/10.1016/j.imavis.2016.01.002
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_landmarks.errors import InputError
from face_landmarks.layouts import IBUG_68, Layout

Array = NDArray[np.float64]
Normaliser = Literal["inter-ocular", "inter-pupil", "box", "diagonal"]


def normaliser(
    landmarks: ArrayLike,
    kind: Normaliser = "inter-ocular",
    layout: Layout = IBUG_68,
    boxes: ArrayLike | None = None,
) -> Array:
    """The distance each face's errors are divided by, measured on the true landmarks.

    inter-ocular    between the outer corners of the eyes
    inter-pupil     between the centres of the eyes, each the mean of its landmarks
    box             sqrt(width x height) of the tight box around the landmarks, or of `boxes`
    diagonal        diagonal of that box

    Args:
        landmarks: (N, K, 2) true x y in pixels.
        kind: one of the four above.
        layout: says which landmarks the eyes are; box and diagonal do not need it.
        boxes: (N, 4) x0 y0 x1 y1 in pixels, for data that come with a box; eyes do not use it.

    Returns:
        (N,) pixels, all positive.

    Raises:
        InputError: an unknown kind, another shape, another number of landmarks than the
            layout's, or a face without extent.
    """
    points = _landmarks("landmarks", landmarks)
    if kind in ("inter-ocular", "inter-pupil"):
        _check_layout(points, layout)
        right, left = ([i] for i in layout.eye_corners) if kind == "inter-ocular" else layout.eyes
        distance = _lengths(points[:, left].mean(axis=1) - points[:, right].mean(axis=1))
    elif kind in ("box", "diagonal"):
        sizes = np.ptp(points, axis=1) if boxes is None else _box_sizes(boxes, len(points))  # (N, 2)
        distance = _lengths(sizes) if kind == "diagonal" else np.sqrt(sizes.prod(axis=1))
    else:
        raise InputError(f"normaliser: expected inter-ocular, inter-pupil, box or diagonal, got {kind!r}")
    return _distances(distance, len(points))


def nme(predicted: ArrayLike, truth: ArrayLike, normaliser: ArrayLike) -> Array:
    """Normalised mean error: mean over a face's landmarks of point-to-point distance.

    Args:
        predicted: (N, K, 2) x y in pixels; all NaN for a face that was not found.
        truth: (N, K, 2) x y in pixels.
        normaliser: (N,) pixels, from `normaliser`.

    Returns:
        (N,) percent of the normaliser; infinite for a face that was not found.

    Raises:
        InputError: shapes that do not agree, or values that are not finite.
    """
    errors = _lengths(_relative_errors(predicted, truth, normaliser)).mean(axis=1)  # (N,)
    return np.where(np.isnan(errors), np.inf, errors)


def nme_by_group(
    predicted: ArrayLike, truth: ArrayLike, normaliser: ArrayLike, layout: Layout = IBUG_68
) -> dict[str, Array]:
    """`nme` of each facial part on its own: group name -> (N,) percent.

    Raises:
        InputError: as `nme`, or another number of landmarks than the layout's.
    """
    guess, points = np.asarray(predicted), _landmarks("truth", truth)
    _check_layout(points, layout)
    _check_shape("predicted", guess, points.shape)
    return {
        name: nme(guess[:, indices], points[:, indices], normaliser)
        for name, indices in layout.groups.items()
    }


def signed_error(predicted: ArrayLike, truth: ArrayLike, normaliser: ArrayLike) -> Array:
    """Mean of predicted minus true position, over the landmarks of all faces that were found.

    It is near zero for a correct model. A forgotten half pixel or an origin of one shows here, and hardly in
    the NME.

    Returns:
        (2,) x y in percent of the normaliser, x positive to the right and y down; NaN if no
        face was found.

    Raises:
        InputError: as `nme`.
    """
    errors = _relative_errors(predicted, truth, normaliser)
    found = errors[~np.isnan(errors).any(axis=(1, 2))]  # (F, K, 2)
    return found.mean(axis=(0, 1)) if found.size else np.full(2, np.nan)


def failure_rate(nme: ArrayLike, threshold: float) -> float:
    """Percent of faces whose NME exceeds the threshold.

    >>> failure_rate([2.0, 8.0, 9.0, float("inf")], threshold=8)
    50.0

    Args:
        nme: (N,) percent.
        threshold: percent.

    Raises:
        InputError: no faces, or NaN among them.
    """
    return float(100 * np.mean(_errors(nme) > threshold))


def cumulative_errors(nme: ArrayLike, thresholds: ArrayLike) -> Array:
    """The cumulative error distribution: percent of faces with NME up to each threshold.

    Args:
        nme: (N,) percent.
        thresholds: (T,) percent.

    Returns:
        (T,) percent of all N faces.

    Raises:
        InputError: no faces, or NaN among them.
    """
    errors = np.sort(_errors(nme))
    return 100 * np.searchsorted(errors, np.asarray(thresholds, np.float64), side="right") / len(errors)


def auc(nme: ArrayLike, threshold: float) -> float:
    """Area under the cumulative error distribution from 0 to the threshold, divided by it.

    The area is exact: each face adds a step at its own error, so its share of the area is the
    part of [0, threshold] to the right of that error. No grid of thresholds, no interpolation.

    >>> auc([2.0, 8.0, float("inf")], threshold=8)  # (6 + 0 + 0) / 8 / 3
    25.0

    Args:
        nme: (N,) percent.
        threshold: percent.

    Returns:
        Percent: 100 if every face is perfect, 0 if every error is above the threshold.

    Raises:
        InputError: no faces, NaN among them, or a threshold that is not positive.
    """
    if not 0 < threshold < np.inf:
        raise InputError(f"threshold: expected a positive number of percent, got {threshold}")
    return float(100 * np.maximum(threshold - _errors(nme), 0).mean() / threshold)


def _relative_errors(predicted: ArrayLike, truth: ArrayLike, normaliser: ArrayLike) -> Array:
    """(N, K, 2) predicted minus true, in percent of the normaliser; NaN for a face not found."""
    points = _landmarks("truth", truth)
    guess = np.asarray(predicted, dtype=np.float64)
    _check_shape("predicted", guess, points.shape)
    missed = np.isnan(guess).all(axis=(1, 2))  # (N,)
    if not np.isfinite(guess[~missed]).all():
        raise InputError("predicted: expected finite coordinates, or all NaN for a face that was not found")
    distances = _distances(normaliser, len(points))
    return 100 * (guess - points) / distances[:, None, None]


def _lengths(vectors: Array) -> Array:
    """Euclidean lengths over the last axis."""
    return np.hypot(vectors[..., 0], vectors[..., 1])


def _landmarks(name: str, values: ArrayLike) -> Array:
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 3 or points.shape[1] == 0 or points.shape[2] != 2:
        raise InputError(f"{name}: expected shape (N, K, 2), got {points.shape}")
    if not np.isfinite(points).all():
        raise InputError(f"{name}: expected finite coordinates, got NaN or infinity")
    return points


def _box_sizes(boxes: ArrayLike, count: int) -> Array:
    corners = np.asarray(boxes, dtype=np.float64)
    _check_shape("boxes", corners, (count, 4))
    sizes = corners[:, 2:] - corners[:, :2]
    if not (sizes > 0).all():
        raise InputError("boxes: expected x0 < x1 and y0 < y1, got a box without area")
    return sizes


def _distances(values: ArrayLike, count: int) -> Array:
    distances = np.asarray(values, dtype=np.float64)
    _check_shape("normaliser", distances, (count,))
    degenerate = np.flatnonzero(~((distances > 0) & np.isfinite(distances)))
    if degenerate.size:
        first = degenerate[0]
        raise InputError(f"normaliser: expected positive distances, got {distances[first]} for face {first}")
    return distances


def _errors(values: ArrayLike) -> Array:
    errors = np.asarray(values, dtype=np.float64)
    if errors.ndim != 1 or not errors.size or np.isnan(errors).any():
        got = "NaN" if np.isnan(errors).any() else f"shape {errors.shape}"
        raise InputError(f"nme: expected shape (N,), one number or infinity per face, N > 0, got {got}")
    return errors


def _check_shape(name: str, values: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise InputError(f"{name}: expected shape {shape}, got {values.shape}")


def _check_layout(points: Array, layout: Layout) -> None:
    if points.shape[1] != len(layout):
        expected = f"{len(layout)} landmarks of layout {layout.name}"
        raise InputError(f"landmarks: expected {expected}, got {points.shape[1]}")
