"""Distillation: a finished network's heatmaps and landmarks, on the grid of the network that learns them.

Both networks see the same view of a face, each at its own crop size; the teacher sees it undisturbed, without
changed colours, noise or hidden parts. No labels are needed.

Reference:
    Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network. 2015.
    https://arxiv.org/abs/1503.02531
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from face_landmarks._system.compiling import compiled
from face_landmarks.errors import InputError
from face_landmarks.geometry import resize_matrix, sample, transform_points
from face_landmarks.models.weights import LandmarkModel
from face_landmarks.training.config import TrainConfig

_LEAST_SIGMA = 0.5  # cells, of a Gaussian whose samples at whole cells still add up to one


class Teacher:
    """A network with its card, which gives the targets of the views that another network trains on.

    Args:
        model: the network and its card; it is copied.
        config: of the network that learns.
        device: where to run.
        compile: compile the network.

    Raises:
        InputError: the teacher has another layout or crop rule, or its heatmaps are coarser than those to
            be learnt from them.
    """

    def __init__(
        self, model: LandmarkModel, config: TrainConfig, device: torch.device, *, compile: bool = False
    ) -> None:
        card = model.card
        if card.layout != config.layout:
            raise InputError(f"teacher: expected a model of {config.layout}, got one of {card.layout}")
        rule, ours = (card.crop_scale, card.crop_shift), (config.crop_scale, config.crop_shift)
        if not all(map(math.isclose, rule, ours)):
            raise InputError(f"teacher: expected crops of scale and shift {ours}, got {rule}")
        self.card = card
        self.network = copy.deepcopy(model.network).requires_grad_(False).eval()
        self.network = self.network.to(device, torch.float32).to(memory_format=torch.channels_last)
        self.forward: Callable[[Tensor], Tensor] = compiled(self.network) if compile else self.network
        self.size = card.network.crop_size
        network = config.network
        self.crop_to_crop = resize_matrix(self.size / network.crop_size).to(device)
        heatmap_to_crop = resize_matrix(self.size / card.network.heatmap_size)
        heatmap_to_crop[:2, 2] -= torch.tensor(card.offset, dtype=torch.float64, device="cpu")
        ours_to_theirs = self.crop_to_crop.cpu() @ resize_matrix(network.crop_size / network.heatmap_size)
        self.heatmap_to_heatmap = (heatmap_to_crop.inverse() @ ours_to_theirs).to(device)  # ours to theirs
        ratio = card.network.heatmap_size / network.heatmap_size  # of their cells to ours
        if config.teacher_weight > 0 and ratio < 1:
            raise InputError(
                f"teacher_weight: expected a teacher of at least {network.heatmap_size} x "
                f"{network.heatmap_size} cells, got {card.network.heatmap_size}; with a coarser one use "
                "teacher_coordinate_weight alone"
            )
        cells = card.network.heatmap_size
        own_cells = torch.arange(network.heatmap_size, dtype=torch.float64, device="cpu")
        places = self.heatmap_to_heatmap.cpu().diagonal()[:2, None] * own_cells
        places = places + self.heatmap_to_heatmap.cpu()[:2, 2:]  # (2, H) our cells' x and y, in their cells
        sigma = config.sigma * math.sqrt(max(ratio**2 - 1, 0))
        gain = ratio if sigma >= _LEAST_SIGMA else 1.0  # along each axis, so that peaks keep their height
        self.across, self.down = (gain * _widening(place, cells, sigma).to(device) for place in places)

    @torch.no_grad()
    def __call__(
        self,
        pictures: Tensor,
        source_to_crop: Tensor,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> tuple[Tensor, Tensor]:
        """The teacher's answers for views of pictures, in the learning network's cells.

        Args:
            pictures: (B, 3, S, S) uint8.
            source_to_crop: (V * B, 3, 3) from pictures to the learning network's crops; V views of all the
                pictures, one after the other.
            autocast: what the networks run under.

        Returns:
            heatmaps (V * B, K, H, W) and points (V * B, K, 2), x y in cells; float32.
        """
        crop_to_source = torch.linalg.inv(self.crop_to_crop @ source_to_crop)
        pixels = (pictures.float() / 255).repeat(len(source_to_crop) // len(pictures), 1, 1, 1)
        crops = sample(pixels, crop_to_source, self.size)
        with autocast():
            heatmaps = self.forward(crops.contiguous(memory_format=torch.channels_last))
        heatmaps = heatmaps.float().contiguous()
        points, _ = self.card.decode(heatmaps)
        return self.resample(heatmaps), transform_points(torch.linalg.inv(self.heatmap_to_heatmap), points)

    def resample(self, heatmaps: Tensor) -> Tensor:
        """The teacher's heatmaps (B, K, h, w) on the learning network's grid, (B, K, H, W).

        Where the teacher's cells are finer, so are its peaks. They are widened to the learning network's
        targets: a mean of Gaussians, convolved with a Gaussian, is the mean of wider ones.
        """
        return self.down @ heatmaps @ self.across.T


def _widening(places: Tensor, cells: int, sigma: float) -> Tensor:
    """The matrix (P, cells) that convolves an axis with a Gaussian, and samples it at P places.

    Args:
        places: (P,) in cells.
        cells: of the axis; zero beyond.
        sigma: standard deviation in cells; where it is too small, samples are interpolated linearly instead.
    """
    distance = places[:, None] - torch.arange(cells, dtype=places.dtype, device=places.device)
    if sigma < _LEAST_SIGMA:
        return (1 - distance.abs()).clamp_min(0).float()
    return (torch.exp(-distance.square() / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))).float()
