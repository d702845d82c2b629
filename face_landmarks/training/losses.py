"""The terms of the training loss.

References:
    Bulat, Sanchez, Tzimiropoulos. Subpixel Heatmap Regression for Facial Landmark Localization.
    BMVC 2021. https://arxiv.org/abs/2111.02360  (sections 3.1 to 3.3)

    Zhou et al. STAR Loss: Reducing Semantic Ambiguity in Facial Landmark Detection.
    CVPR 2023. https://arxiv.org/abs/2306.02763  (distances along the axes of a heatmap's spread)
"""

from __future__ import annotations

import torch
from torch import Tensor

from face_landmarks.geometry import sample, transform_points
from face_landmarks.heatmap import decode_heatmaps, encode_heatmaps
from face_landmarks.training.augment import Views
from face_landmarks.training.config import CoordinateNorm, TrainConfig

_LEAST_SHARE = 0.1  # of the peak; lower cells have no part in a heatmap's spread
_LEAST_VARIANCE = 0.25  # squared cells


def loss_terms(
    stacks: list[Tensor],
    views: Views,
    labelled: int,
    config: TrainConfig,
    heatmap_to_crop: Tensor,
    *,
    near: bool = False,
    taught: tuple[Tensor, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The terms of one step's loss, unweighted, each summed over the stacks; unused ones are left out.

    Args:
        stacks: S tensors (V * F, K, H, W), each stack's heatmaps of V views of F faces.
        views: what they were predicted from, all first views first.
        labelled: how many of the F faces, the first ones, have landmarks.
        config: V, weights, targets and decoder.
        heatmap_to_crop: (3, 3).
        near: the views differ only by a small shift.
        taught: a teacher's heatmaps (V * F, K, H, W) and points (V * F, K, 2), x y in cells.
    """
    crop_to_heatmap = torch.linalg.inv(heatmap_to_crop)
    points = transform_points(crop_to_heatmap, views.landmarks)
    order = torch.arange(len(points), dtype=torch.int64, device=points.device)
    chosen = order % (len(points) // config.views) < labelled
    points = points[chosen]
    target = encode_heatmaps(
        points, (stacks[0].shape[2], stacks[0].shape[3]), config.sigma, rounded=config.rounded
    )
    decoder = (config.window, config.temperature)
    totals: dict[str, Tensor] = {}

    def add(name: str, value: Tensor) -> None:
        totals[name] = totals[name] + value if name in totals else value

    for stack in stacks:
        add("heatmap", heatmap_loss(stack[chosen], target))
        if config.coordinate_weight > 0:
            add("coordinate", coordinate_loss(stack[chosen], points, *decoder, config.coordinate_norm))
        if taught is not None and config.teacher_weight > 0:
            add("teacher", heatmap_loss(stack, taught[0]))
        if taught is not None and config.teacher_coordinate_weight > 0:
            add("teacher_coordinate", coordinate_loss(stack, taught[1], *decoder, config.coordinate_norm))
        if config.views == 1:
            continue
        source_to_first, source_to_second = views.source_to_crop.chunk(2)
        first_to_second = (
            crop_to_heatmap @ source_to_second @ torch.linalg.inv(source_to_first) @ heatmap_to_crop
        )
        first, second = stack.chunk(2)
        if near:
            add("near", near_loss(first, second, first_to_second, *decoder))
            continue
        if config.siamese_weight > 0:
            add("siamese", siamese_loss(first, second, first_to_second))
        if config.siamese_coordinate_weight > 0:
            add("agreement", siamese_coordinate_loss(first, second, first_to_second, *decoder))
    return totals


def heatmap_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error summed over a heatmap's cells, mean over faces and landmarks.

    Args:
        predicted: (B, K, H, W).
        target: (B, K, H, W).
    """
    return (predicted - target).square().sum(dim=(2, 3)).mean()


def coordinate_loss(
    heatmaps: Tensor, points: Tensor, window: int, temperature: float, norm: CoordinateNorm = "l1"
) -> Tensor:
    """Distance between decoded and given landmarks through the differentiable decoder, mean over landmarks.

    l1      |x| + |y|, in cells
    l2      Euclidean, in cells
    star    along the two principal axes of the heatmap (`principal_axes`), each distance divided by the
            spread along its axis, then summed: an error along the contour, where the landmark is
            uncertain, weighs less than one across it; in spreads, so weigh the term accordingly

    Landmarks outside the heatmap cannot be found in it and are left out, as are those whose largest cell
    is so far off that moving weight inside the window cannot reach them.

    Args:
        heatmaps: (B, K, H, W).
        points: (B, K, 2) where the landmarks should be, in cells.
        window: side of the decoder's window, in cells.
        temperature: the decoder's tau.
        norm: one of the above.
    """
    decoded, _ = decode_heatmaps(heatmaps, window=window, temperature=temperature)
    difference = decoded - points  # (B, K, 2)
    distance = difference.norm(dim=2) if norm == "l2" else difference.abs().sum(dim=2)  # (B, K)
    reachable = (distance.detach() < window).float()
    if norm == "star":
        axes, spread = principal_axes(heatmaps, decoded)
        distance = ((axes @ difference.unsqueeze(3)).squeeze(3).abs() / spread).sum(dim=2)
    return (distance * reachable).sum() / reachable.sum().clamp_min(1)


@torch.no_grad()
def principal_axes(heatmaps: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The directions of largest and of smallest spread of each heatmap about a point.

    The cells above a tenth of the peak are taken as a density.

    Args:
        heatmaps: (B, K, H, W).
        centres: (B, K, 2) x y in cells.

    Returns:
        axes (B, K, 2, 2), one unit vector x y a row, the axis of the larger spread first; and the spread
        (B, K, 2), the standard deviation along each, in cells and at least a half.
    """
    height, width = heatmaps.shape[-2:]
    x = torch.arange(width, dtype=centres.dtype, device=centres.device) - centres[..., 0, None]  # (B, K, W)
    y = torch.arange(height, dtype=centres.dtype, device=centres.device) - centres[..., 1, None]  # (B, K, H)
    density = heatmaps.float().clamp_min(0)
    density = density * (density > _LEAST_SHARE * density.amax(dim=(2, 3), keepdim=True))
    density = density / density.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)
    xx = (density.sum(dim=2) * x.square()).sum(dim=2)  # (B, K)
    yy = (density.sum(dim=3) * y.square()).sum(dim=2)
    xy = torch.einsum("bkhw,bkh,bkw->bk", density, y, x)
    mean, half = (xx + yy) / 2, (xx - yy) / 2
    radius = torch.hypot(half, xy)
    angle = torch.atan2(xy, half) / 2  # of the larger axis
    larger = torch.stack((angle.cos(), angle.sin()), dim=-1)
    smaller = torch.stack((-angle.sin(), angle.cos()), dim=-1)
    variance = torch.stack((mean + radius, mean - radius), dim=-1)
    return torch.stack((larger, smaller), dim=-2), variance.clamp_min(_LEAST_VARIANCE).sqrt()


def siamese_loss(first: Tensor, second: Tensor, first_to_second: Tensor) -> Tensor:
    """Disagreement of two views' heatmaps of the same faces, in the first view's frame.

    Args:
        first: (B, K, H, W) heatmaps of the first view.
        second: (B, K, H, W) heatmaps of the second view.
        first_to_second: (B, 3, 3) from the first view's heatmap frame to the second's.

    Returns:
        Squared difference summed over the cells that both views contain, mean over faces and landmarks.
    """
    size = first.shape[-1]
    carried = sample(second, first_to_second, size)
    shared = sample(torch.ones_like(second[:, :1]), first_to_second, size)  # (B, 1, H, W)
    return (shared * (first - carried).square()).sum(dim=(2, 3)).mean()


def siamese_coordinate_loss(
    first: Tensor, second: Tensor, first_to_second: Tensor, window: int, temperature: float
) -> Tensor:
    """L1 distance between the landmarks that two views decode to, in cells of the first view's frame.

    `siamese_loss` has a vanishing gradient where the heatmaps nearly agree; this term keeps it, until
    landmarks move with their crop by fractions of a pixel. Pairs further apart than a window are left out,
    as in `coordinate_loss`.

    Args:
        first: (B, K, H, W) heatmaps of the first view.
        second: (B, K, H, W) heatmaps of the second view.
        first_to_second: (B, 3, 3) from the first view's heatmap frame to the second's.
        window: side of the decoder's window, in cells.
        temperature: the decoder's tau.
    """
    distance = _difference(first, second, first_to_second, window, temperature).abs().sum(dim=2)  # (B, K)
    close = (distance.detach() < window).float()
    return (distance * close).sum() / close.sum().clamp_min(1)


def near_loss(
    first: Tensor, second: Tensor, first_to_second: Tensor, window: int, temperature: float
) -> Tensor:
    """Squared distance between the landmarks of two views a fraction of a cell apart, in squared cells.

    The views differ by less than a cell, so any disagreement is jitter of the network. It is squared, as
    the measure of movement is, so that the landmarks that move most weigh most. Landmarks that the decoder
    finds in two places, half a window apart or more, are left out. Arguments are those of
    `siamese_coordinate_loss`.
    """
    squared = _difference(first, second, first_to_second, window, temperature).square().sum(dim=2)  # (B, K)
    close = (squared.detach() < (window / 2) ** 2).float()
    return (squared * close).sum() / close.sum().clamp_min(1)


def _difference(
    first: Tensor, second: Tensor, first_to_second: Tensor, window: int, temperature: float
) -> Tensor:
    """Vectors from the second view's landmarks to the first's: (B, K, 2) cells of the first view."""
    ours, _ = decode_heatmaps(first, window=window, temperature=temperature)
    theirs, _ = decode_heatmaps(second, window=window, temperature=temperature)
    return ours - transform_points(torch.linalg.inv(first_to_second), theirs)
