"""Landmarks to heatmaps and back, without rounding in either direction.

    cell            0       1       2       3       4
                    |-------|-------|-------|-------|
    landmark                      ^ x = 1.75
    encode          0.22    0.75    0.97    0.46    0.08     Gaussian about 1.75, not about 2
    decode          window around the largest cell, softmax, expectation: 1.75 again

Convention:
    Heatmap coordinates have cell centres at integers, so x = 0 is the centre of the first
    column. All functions accept any leading axes and any device, and contain no loops.

Reference:
    Bulat, Sanchez, Tzimiropoulos. Subpixel Heatmap Regression for Facial Landmark Localization.
    BMVC 2021. https://arxiv.org/abs/2111.02360  (sections 3.1 and 3.2)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from face_landmarks.errors import InputError

DecodeMethod = Literal["local-soft-argmax", "soft-argmax", "argmax", "quarter", "log-parabola"]


def encode_heatmaps(
    points: Tensor,
    size: tuple[int, int],
    sigma: float = 1.5,
    *,
    rounded: bool = False,
) -> Tensor:
    """Draw a Gaussian of height 1 centred on each landmark's unrounded position.

    Args:
        points: (..., K, 2) x y in heatmap cells; may lie outside the heatmap.
        size: (H, W) of the heatmaps in cells.
        sigma: standard deviation in cells.
        rounded: round the centre to a cell first, as older methods do; for comparison only.

    Returns:
        (..., K, H, W) float32.

    Raises:
        InputError: sigma is not positive.
    """
    if not sigma > 0:
        raise InputError(f"sigma: expected a positive number of cells, got {sigma}")
    centres = points.round() if rounded else points
    centres = centres.float()
    height, width = size
    columns = torch.arange(width, dtype=torch.int64, device=points.device)
    rows = torch.arange(height, dtype=torch.int64, device=points.device)
    # A 2D Gaussian is the outer product of two 1D ones.
    across = torch.exp(-((columns - centres[..., :1]) ** 2) / (2 * sigma**2))  # (..., K, W)
    down = torch.exp(-((rows - centres[..., 1:]) ** 2) / (2 * sigma**2))  # (..., K, H)
    return down.unsqueeze(-1) * across.unsqueeze(-2)


def decode_heatmaps(
    heatmaps: Tensor,
    *,
    window: int = 5,
    temperature: float = 10.0,
    method: DecodeMethod = "local-soft-argmax",
) -> tuple[Tensor, Tensor]:
    """Find the landmark in each heatmap, at subpixel precision.

    Methods:
        local-soft-argmax: mean cell position weighted by softmax(temperature * h) over a
            window x window neighbourhood of the largest cell. The paper's decoder; differentiable.
        soft-argmax: the same over the whole heatmap.
        argmax: the largest cell.
        quarter: argmax, moved a quarter of a cell towards the larger neighbour on each axis, as in FAN.
        log-parabola: the maximum of a parabola fitted to the logarithms around the argmax (DARK).

    Args:
        heatmaps: (..., K, H, W) of any floating type; decoded in float32.
        window: odd side of the neighbourhood in cells. Cells outside the heatmap have no weight.
        temperature: tau of the softmax.
        method: one of the above.

    Returns:
        points (..., K, 2), x y in cells, and landmark_scores (..., K), the height of the
        heatmap's largest cell clipped to [0, 1]; both float32.

    Raises:
        InputError: an unknown method, an even window, fewer than three axes, or heatmaps without a cell.
    """
    if heatmaps.ndim < 3:
        raise InputError(f"heatmaps: expected shape (..., K, H, W), got {tuple(heatmaps.shape)}")
    if not all(heatmaps.shape[-2:]):
        raise InputError(f"heatmaps: expected at least one cell, got shape {tuple(heatmaps.shape)}")
    if window < 1 or window % 2 == 0:
        raise InputError(f"window: expected an odd number of cells, got {window}")
    if method not in _DECODERS:
        raise InputError(f"method: expected one of {', '.join(_DECODERS)}, got {method!r}")
    heatmaps = heatmaps.float()
    if method == "local-soft-argmax" and heatmaps.device.type == "cpu" and not heatmaps.requires_grad:
        points, peaks = _local_soft_argmax_on_cpu(heatmaps.numpy(), window, temperature)
        return torch.from_numpy(points), torch.from_numpy(peaks.clip(0, 1))
    scores, peak = _largest_cell(heatmaps)
    return _DECODERS[method](heatmaps, peak, window, temperature), scores.clamp(0, 1)


def _largest_cell(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Height (..., K) and integer position (..., K, 2), x y, of each heatmap's maximum."""
    width = heatmaps.shape[-1]
    flat = heatmaps.flatten(-2)
    if flat.device.type == "cpu":  # NumPy is several times faster, and starts no threads for it
        index = torch.from_numpy(flat.detach().numpy().argmax(axis=-1))
    else:
        index = flat.argmax(dim=-1)
    scores = flat.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    return scores, torch.stack((index % width, index // width), dim=-1)


def _reach(window: int, device: torch.device) -> Tensor:
    """How far each row or column of a window is from its middle, in cells, (d,)."""
    return torch.arange(window, dtype=torch.int64, device=device) - window // 2


def _neighbourhood(heatmaps: Tensor, peak: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Values (..., K, d, d) around the peak, and which of these cells are inside."""
    height, width = heatmaps.shape[-2:]
    x, y = (peak.unsqueeze(-1) + _reach(window, heatmaps.device)).unbind(dim=-2)  # (..., K, d)
    columns, rows = x.clamp(0, width - 1), y.clamp(0, height - 1)
    inside = (rows == y).unsqueeze(-1) & (columns == x).unsqueeze(-2)  # (..., K, d, d)
    index = (rows * width).unsqueeze(-1) + columns.unsqueeze(-2)
    values = heatmaps.flatten(-2).gather(-1, index.flatten(-2)).view(index.shape)
    return values, inside


def _local_soft_argmax(heatmaps: Tensor, peak: Tensor, window: int, temperature: float) -> Tensor:
    values, inside = _neighbourhood(heatmaps, peak, window)
    logits = (temperature * values).masked_fill(~inside, -torch.inf)  # (..., K, d, d)
    heights = logits - logits.detach().amax(dim=(-2, -1), keepdim=True)  # at most 0
    weights = (math.log2(math.e) * heights).exp2()  # softmax and exp start torch's threads for so little
    columns, rows = weights.sum(dim=-2), weights.sum(dim=-1)  # (..., K, d)
    reach = _reach(window, weights.device)
    shift = torch.stack(((columns * reach).sum(dim=-1), (rows * reach).sum(dim=-1)), dim=-1)
    return peak + shift / columns.sum(dim=-1, keepdim=True)


def _local_soft_argmax_on_cpu(
    heatmaps: NDArray[np.float32], window: int, temperature: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same in NumPy, which takes a third of torch's time for a face, and starts no threads for it.

    Returns:
        points (..., K, 2) and the heights of the largest cells (..., K).
    """
    *leading, height, width = heatmaps.shape
    flat = heatmaps.reshape(-1)
    first = np.arange(0, flat.size, height * width)  # (M,) of M heatmaps, where each starts
    index = flat.reshape(-1, height * width).argmax(axis=1)
    peaks = flat[first + index]
    y, x = np.divmod(index, width)
    reach = np.arange(window) - window // 2  # (d,)
    rows, columns = y[:, np.newaxis] + reach, x[:, np.newaxis] + reach  # (M, d)
    inside_x, inside_y = (columns >= 0) & (columns < width), (rows >= 0) & (rows < height)
    starts = first[:, np.newaxis] + rows * inside_y * width
    weights = flat.take(starts[:, :, np.newaxis] + (columns * inside_x)[:, np.newaxis])  # (M, d, d)
    with np.errstate(invalid="ignore", over="ignore"):  # of infinite heights, which give NaN, as in torch
        weights -= peaks[:, np.newaxis, np.newaxis]  # at most 0
        weights *= np.float32(temperature)
        np.exp(weights, out=weights)
    weights *= inside_y[:, :, np.newaxis]
    weights *= inside_x[:, np.newaxis]
    across, down = weights.sum(axis=1), weights.sum(axis=2)  # (M, d)
    reach, total = reach.astype(np.float32), across.sum(axis=1)
    points = np.empty((len(first), 2), np.float32)
    points[:, 0] = x + (across * reach).sum(axis=1) / total
    points[:, 1] = y + (down * reach).sum(axis=1) / total
    return points.reshape(*leading, 2), peaks.reshape(leading)


def _soft_argmax(heatmaps: Tensor, peak: Tensor, window: int, temperature: float) -> Tensor:
    height, width = heatmaps.shape[-2:]
    weights = (temperature * heatmaps).flatten(-2).softmax(dim=-1).view(heatmaps.shape)
    columns = torch.arange(width, dtype=torch.int64, device=weights.device)
    rows = torch.arange(height, dtype=torch.int64, device=weights.device)
    x = (weights.sum(dim=-2) * columns).sum(dim=-1)  # no matrix product: autocast would round it
    y = (weights.sum(dim=-1) * rows).sum(dim=-1)
    return torch.stack((x, y), dim=-1)


def _argmax(heatmaps: Tensor, peak: Tensor, window: int, temperature: float) -> Tensor:
    return peak.float()


def _quarter(heatmaps: Tensor, peak: Tensor, window: int, temperature: float) -> Tensor:
    values, inside = _neighbourhood(heatmaps, peak, 3)
    dx = values[..., 1, 2] - values[..., 1, 0]
    dy = values[..., 2, 1] - values[..., 0, 1]
    complete = torch.stack((inside[..., 1, :].all(-1), inside[..., :, 1].all(-1)), dim=-1)
    return peak + 0.25 * torch.stack((dx, dy), dim=-1).sign() * complete


def _log_parabola(heatmaps: Tensor, peak: Tensor, window: int, temperature: float) -> Tensor:
    values, inside = _neighbourhood(heatmaps, peak, 3)
    logs = values.clamp_min(1e-10).log()
    middle = logs[..., 1, 1]
    left, right, above, below = logs[..., 1, 0], logs[..., 1, 2], logs[..., 0, 1], logs[..., 2, 1]
    slope_x, slope_y = (right - left) / 2, (below - above) / 2
    curve_x, curve_y = right - 2 * middle + left, below - 2 * middle + above
    mixed = (logs[..., 2, 2] - logs[..., 2, 0] - logs[..., 0, 2] + logs[..., 0, 0]) / 4
    determinant = curve_x * curve_y - mixed**2
    # Newton's step on the log-heatmap, only at a maximum whose neighbours are all inside.
    peaked = (determinant > 0) & (curve_x < 0) & inside.flatten(-2).all(dim=-1)
    dx = (mixed * slope_y - curve_y * slope_x) / determinant
    dy = (mixed * slope_x - curve_x * slope_y) / determinant
    return peak + torch.where(peaked.unsqueeze(-1), torch.stack((dx, dy), dim=-1).clamp(-1, 1), 0.0)


_DECODERS: dict[str, Callable[[Tensor, Tensor, int, float], Tensor]] = {
    "local-soft-argmax": _local_soft_argmax,
    "soft-argmax": _soft_argmax,
    "argmax": _argmax,
    "quarter": _quarter,
    "log-parabola": _log_parabola,
}
DECODE_METHODS: tuple[str, ...] = tuple(_DECODERS)
