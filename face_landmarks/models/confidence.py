"""The expected error of a landmark, from the peak height of its heatmap.

A network trained with squared error predicts the mean of the possible targets. Gaussian targets of
variance s² about a position of variance v have a mean whose peak height is h = s² / (s² + v), so v
follows from h:

    h           0.95    0.9     0.8     0.5
    v / s²      0.05    0.11    0.25    1.0        v / s² = 1 / h - 1

The expected distance grows as a power of d = v / s², with an exponent near one half. The exponent, the
scale, and the effect of the face's mean log d on each of its landmarks are fitted on held-out faces.

Convention:
    Errors are distances. `coverage_radius` gives the quantiles of error / expected error, as measured on
    the same held-out faces; without them, those of a Rayleigh distribution (independent normal errors in x
    and y) with mean 1, whose tail is lighter than that of real errors.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from face_landmarks._system.arguments import check_number
from face_landmarks.errors import InputError
from face_landmarks.models.card import Calibration

_LOWEST, _HIGHEST = 0.02, 0.98  # peak heights are clipped to this range: noise below, no further gain above
_SMALLEST_ERROR = 1e-3  # crop pixels; bounds the logarithm where an error is zero
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99)


def expected_errors(landmark_scores: Tensor, calibration: Calibration) -> Tensor:
    """Expected distance from the true position, in crop pixels, on the CPU: (..., K) heights -> (..., K)."""
    full = landmark_scores.dtype in (torch.float32, torch.float64)
    heights = (landmark_scores if full else landmark_scores.float()).numpy(force=True)
    own, face = _log_variances(heights)
    scale = np.array(calibration.scale, heights.dtype)
    return torch.from_numpy(scale * np.exp(calibration.own * own + calibration.face * face))


def coverage_radius(share: float, calibration: Calibration | None = None) -> float:
    """Radius, in expected errors, that contains this share of the landmarks.

    Args:
        share: between 0 and 1.
        calibration: the model's; between its shares the radius is interpolated, beyond the last one it is
            extrapolated. Without it, or without radii in it: Rayleigh's, 1.20 for 0.68 and 1.95 for 0.95.

    Raises:
        InputError: the share is not between 0 and 1.
    """
    expected = "a number between 0 and 1"
    share = check_number("share", share, expected, least=math.ulp(0.0), most=1 - math.ulp(0.5))
    rayleigh = _rayleigh_radius(share)
    if calibration is None or not calibration.radii:
        return rayleigh
    shares, radii = zip((0.0, 0.0), *calibration.radii, strict=True)
    places = [_rayleigh_radius(known) for known in shares]
    if rayleigh > places[-1]:
        slope = (radii[-1] - radii[-2]) / (places[-1] - places[-2])
        return float(radii[-1] + slope * (rayleigh - places[-1]))
    return float(np.interp(rayleigh, places, radii))


def _rayleigh_radius(share: float) -> float:
    """Quantile of a Rayleigh distribution with mean 1."""
    return math.sqrt(-4 / math.pi * math.log1p(-share))


def fit_doubtful_score(landmark_scores: Tensor) -> float:
    """The mean score that one face in a hundred stays below, for `ModelCard.doubtful_score`.

    Args:
        landmark_scores: (N, K) peak heights on held-out faces, upright and whole.
    """
    hundredth = landmark_scores.double().mean(dim=1).quantile(0.01)
    return math.floor(100 * float(hundredth)) / 100


def fit_calibration(landmark_scores: Tensor, errors: Tensor) -> Calibration:
    """Fit a calibration on held-out faces: the most likely one if errors have an exponential distribution.

    This likelihood is convex, and its maximum has the right mean error, over all landmarks and for each,
    whatever the true distribution. The radii are quantiles of error / expected error.

    Args:
        landmark_scores: (N, K) peak heights.
        errors: (N, K) distances from the true position, in crop pixels.

    Raises:
        InputError: arrays of different shapes, or no face.
    """
    if landmark_scores.ndim != 2 or landmark_scores.shape != errors.shape or not len(errors):
        raise InputError(
            "landmark_scores, errors: expected the same shape (N, K) with a face, got "
            f"{tuple(landmark_scores.shape)}, {tuple(errors.shape)}"
        )
    heights = landmark_scores.double().numpy(force=True)
    own, face = (torch.from_numpy(part) for part in _log_variances(heights))
    observed = errors.double().cpu().clamp_min(_SMALLEST_ERROR)
    log_scale = observed.mean(dim=0).log().requires_grad_()  # (K,)
    powers = torch.tensor([0.5, 0.0], dtype=torch.float64, device="cpu", requires_grad=True)
    optimiser = torch.optim.LBFGS([log_scale, powers], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        expected = log_scale + powers[0] * own + powers[1] * face  # (N, K), logarithms
        value = (observed * (-expected).exp() + expected).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    scale = tuple(round(float(value), 4) for value in log_scale.detach().exp())
    fitted = Calibration(scale, round(float(powers[0].detach()), 4), round(float(powers[1].detach()), 4))
    ratio = (observed / expected_errors(landmark_scores.double(), fitted)).numpy()
    if not np.isfinite(ratio).all():
        return fitted  # a scale of 0, which no card accepts
    quantiles = np.quantile(ratio, _SHARES).round(4).tolist()
    if any(a >= b for a, b in zip([0.0, *quantiles], quantiles, strict=False)):
        return fitted  # too few faces, or errors all alike
    return replace(fitted, radii=tuple(zip(_SHARES, quantiles, strict=True)))


def _log_variances(heights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The logarithm of d of each landmark (..., K), and its mean over the face (..., 1)."""
    own = np.log(1 / heights.clip(_LOWEST, _HIGHEST) - 1)
    return own, own.mean(axis=-1, keepdims=True)
