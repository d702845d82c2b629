"""The terms of the training loss.

Reference:
    Bulat, Sanchez, Tzimiropoulos. Subpixel Heatmap Regression for Facial Landmark Localization.
    BMVC 2021. https://arxiv.org/abs/2111.02360  (sections 3.1 to 3.3)
"""

from __future__ import annotations

import torch
from torch import Tensor

from face_landmarks.geometry import sample, transform_points
from face_landmarks.heatmap import decode_heatmaps


def heatmap_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error summed over a heatmap's cells, mean over faces and landmarks.

    Args:
        predicted: (B, K, H, W).
        target: (B, K, H, W).
    """
    return (predicted - target).square().sum(dim=(2, 3)).mean()


def coordinate_loss(heatmaps: Tensor, points: Tensor, window: int, temperature: float) -> Tensor:
    """Distance between decoded and true landmarks through the differentiable decoder, in cells.

    Landmarks outside the heatmap have no window to be found in and are left out, as are those
    whose largest cell is so far off that moving weight inside the window cannot reach them.

    Args:
        heatmaps: (B, K, H, W).
        points: (B, K, 2) true positions in cells.
        window: side of the decoder's window.
        temperature: the decoder's tau.
    """
    decoded, _ = decode_heatmaps(heatmaps, window=window, temperature=temperature)
    distance = (decoded - points).abs().sum(dim=2)  # (B, K)
    reachable = (distance.detach() < window).float()
    return (distance * reachable).sum() / reachable.sum().clamp_min(1)


def siamese_loss(first: Tensor, second: Tensor, first_to_second: Tensor) -> Tensor:
    """Disagreement of two views' heatmaps of the same faces, in the first view's frame.

    Args:
        first: (B, K, H, W) heatmaps of the first view.
        second: (B, K, H, W) heatmaps of the second view.
        first_to_second: (B, 3, 3) from the first view's heatmap frame to the second's.

    Returns:
        Squared difference summed over the cells both views see, mean over faces and landmarks.
    """
    size = first.shape[-1]
    carried = sample(second, first_to_second, size)
    seen = sample(torch.ones_like(second[:, :1]), first_to_second, size)  # (B, 1, H, W)
    return (seen * (first - carried).square()).sum(dim=(2, 3)).mean()


def siamese_coordinate_loss(
    first: Tensor, second: Tensor, first_to_second: Tensor, window: int, temperature: float
) -> Tensor:
    """Distance between the landmarks two views decode to, in cells of the first view's frame.

    Beside `siamese_loss`, whose slope vanishes where the heatmaps nearly agree: this one keeps pulling
    until landmarks move with their crop by fractions of a pixel. Pairs further apart than a window
    are left out, as in `coordinate_loss`.

    Args:
        first: (B, K, H, W) heatmaps of the first view.
        second: (B, K, H, W) heatmaps of the second view.
        first_to_second: (B, 3, 3) from the first view's heatmap frame to the second's.
        window: side of the decoder's window.
        temperature: the decoder's tau.
    """
    distance = _difference(first, second, first_to_second, window, temperature).abs().sum(dim=2)  # (B, K)
    close = (distance.detach() < window).float()
    return (distance * close).sum() / close.sum().clamp_min(1)


def near_loss(
    first: Tensor, second: Tensor, first_to_second: Tensor, window: int, temperature: float
) -> Tensor:
    """Squared distance between the landmarks of two views a fraction of a cell apart, in cells.

    Nothing but the network's own unsteadiness tells such views apart, so all of it may be pulled on:
    squared, as it is measured, the landmarks that move most weigh most. Those that the decoder finds at
    two places, a window apart, are left out. Arguments are those of `siamese_coordinate_loss`.
    """
    squared = _difference(first, second, first_to_second, window, temperature).square().sum(dim=2)  # (B, K)
    close = (squared.detach() < (window / 2) ** 2).float()
    return (squared * close).sum() / close.sum().clamp_min(1)


def _difference(
    first: Tensor, second: Tensor, first_to_second: Tensor, window: int, temperature: float
) -> Tensor:
    """From the second view's landmarks to the first's, (B, K, 2) cells of the first."""
    ours, _ = decode_heatmaps(first, window=window, temperature=temperature)
    theirs, _ = decode_heatmaps(second, window=window, temperature=temperature)
    return ours - transform_points(torch.linalg.inv(first_to_second), theirs)
