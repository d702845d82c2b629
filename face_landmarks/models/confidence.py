"""How far off a landmark is likely to be, from how high its heatmap peaks.

A network trained by squared error answers with the mean of the targets it holds possible. Gaussian
targets of variance s², spread by a doubt of variance v about where the landmark is, have a mean of
peak height h = s² / (s² + v), so the doubt can be read back:

    h           0.95    0.9     0.8     0.5
    v / s²      0.05    0.11    0.25    1.0        v / s² = 1 / h - 1

and the expected distance grows as a power of it, near one half. How steep and how large it is, and
how much a face that is doubtful as a whole adds to each of its landmarks, is fitted on held-out faces.

Convention:
    Errors are distances, modelled as a Rayleigh distribution (two independent normal errors, x and
    y) of the expected error as mean; `coverage_radius` gives its quantiles.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from face_landmarks.errors import InputError
from face_landmarks.models.card import Calibration

_LOWEST, _HIGHEST = 0.02, 0.98  # peaks beyond are noise, or as good as certain
_SMALLEST_ERROR = 1e-3  # crop pixels; keeps a landmark that happens to be exact from mattering more


def expected_errors(landmark_scores: Tensor, calibration: Calibration) -> Tensor:
    """Expected distance from the truth, in crop pixels: (..., K) peak heights -> (..., K)."""
    own, face = _doubts(landmark_scores)
    scale = landmark_scores.new_tensor(calibration.scale)
    return scale * (calibration.own * own + calibration.face * face).exp()


def coverage_radius(share: float) -> float:
    """Radius, in expected errors, that holds this share of the landmarks: 1.20 for 0.68, 1.95 for 0.95.

    Raises:
        InputError: a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise InputError(f"share: expected a number between 0 and 1, got {share}")
    return math.sqrt(-4 / math.pi * math.log1p(-share))


def fit_calibration(landmark_scores: Tensor, errors: Tensor) -> Calibration:
    """Fit on held-out faces: the most likely calibration if errors are spread exponentially.

    That likelihood makes the mean right, over all and within each landmark, whatever the spread
    really is, and is convex.

    Args:
        landmark_scores: (N, K) peak heights.
        errors: (N, K) distances from the truth, in crop pixels.

    Raises:
        InputError: arrays of other shapes, or no face.
    """
    if landmark_scores.ndim != 2 or landmark_scores.shape != errors.shape or not len(errors):
        raise InputError(
            "landmark_scores, errors: expected the same shape (N, K) with a face, got "
            f"{tuple(landmark_scores.shape)}, {tuple(errors.shape)}"
        )
    own, face = _doubts(landmark_scores.double())
    observed = errors.double().clamp_min(_SMALLEST_ERROR)
    log_scale = observed.mean(dim=0).log().requires_grad_()  # (K,)
    powers = torch.tensor([0.5, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_scale, powers], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        expected = log_scale + powers[0] * own + powers[1] * face  # (N, K), logarithms
        value = (observed * (-expected).exp() + expected).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    scale = tuple(round(float(value), 4) for value in log_scale.detach().exp())
    return Calibration(scale, round(float(powers[0].detach()), 4), round(float(powers[1].detach()), 4))


def _doubts(landmark_scores: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithm of each landmark's doubt (..., K), and its mean over the face (..., 1)."""
    own = (1 / landmark_scores.clamp(_LOWEST, _HIGHEST) - 1).log()
    return own, own.mean(dim=-1, keepdim=True)
