"""From photos and face boxes to landmarks: crop, network, decode, way back to the photo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from face_landmarks.geometry import mirror_matrix, resize_matrix, transform_arrays, transform_points, warp
from face_landmarks.layouts import Layout, get_layout
from face_landmarks.models.card import ModelCard
from face_landmarks.models.confidence import expected_errors
from face_landmarks.results import FaceHeatmaps


class Located(NamedTuple):
    """What the network found at B faces, in the pixels of their photos; float32.

    Attributes:
        landmarks: (B, K, 2).
        scores: (B, K).
        errors: (B, K), NaN without a calibration.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    errors: NDArray[np.float32]

    @property
    def certainty(self) -> NDArray[np.float32]:
        """(B,) mean score of each face."""
        certainty: NDArray[np.float32] = self.scores.mean(axis=1)
        return certainty

    @classmethod
    def empty(cls, landmarks: int) -> Located:
        points = np.empty((0, landmarks, 2), np.float32)
        return cls(points, points[..., 0], points[..., 0])

    @classmethod
    def concatenate(cls, parts: Sequence[Located]) -> Located:
        return parts[0] if len(parts) == 1 else cls(*map(np.concatenate, zip(*parts, strict=True)))

    def copied(self) -> Located:
        return Located(*(part.copy() for part in self))

    def of(self, rows: NDArray[np.intp]) -> Located:
        """The faces of these rows (C,)."""
        return Located(*(part[rows] for part in self))

    def replaced(self, rows: NDArray[np.intp], others: Located) -> Located:
        """A copy in which the faces of these rows (C,) are replaced by C others."""
        if not len(rows):
            return self
        changed = self.copied()
        for part, new in zip(changed, others, strict=True):
            part[rows] = new
        return changed


@dataclass(frozen=True, eq=False)
class Locator:
    """A landmark network with its card: finds the landmarks in given boxes.

    Attributes:
        network: crops (B, 3, S, S) in [0, 1], of any type and device -> heatmaps (B, K, H, W).
        card: the network's.
        device: where the crops are sampled; the network's.
        flip: average with the mirror image.
    """

    network: Callable[[Tensor], Tensor]
    card: ModelCard
    device: torch.device
    flip: bool = False

    @cached_property
    def layout(self) -> Layout:
        return get_layout(self.card.layout)

    @property
    def crop_size(self) -> int:
        """Side of the crops, in pixels."""
        return self.card.network.crop_size

    @cached_property
    def heatmap_to_crop(self) -> Tensor:
        """(3, 3) float64, the card's offset included."""
        heatmap_to_crop = resize_matrix(self.crop_size / self.card.network.heatmap_size)
        heatmap_to_crop[:2, 2] -= torch.tensor(self.card.offset, dtype=torch.float64, device="cpu")
        return heatmap_to_crop

    @torch.inference_mode()
    def locate(
        self,
        photos: Sequence[NDArray[np.uint8]],
        boxes: NDArray[Any],
        rolls: NDArray[Any],
        *,
        mirrored: bool = False,
    ) -> Located:
        """Crop B faces, run the network on them, and carry what it finds back to the photos.

        Args:
            photos: of each face, (H, W, 3) RGB.
            boxes: (B, 4), upright face boxes.
            rolls: (B,) radians, by which each box is turned about its centre, clockwise on the screen.
            mirrored: show the network the mirror images of the crops, and nothing else.
        """
        image_to_crop = self.card.image_to_crop(torch.from_numpy(boxes), torch.from_numpy(rolls))  # (B, 3, 3)
        crops = warp(photos, image_to_crop, self.crop_size, self.device)
        points, scores = self._locate_mirrored(crops) if mirrored else self.locate_in_crops(crops)
        crop_to_image = np.linalg.inv(image_to_crop.numpy())
        if self.card.calibration is None:
            errors = np.full(scores.shape, np.nan, np.float32)
        else:
            pixel = np.hypot(crop_to_image[:, 0, 0], crop_to_image[:, 1, 0]).astype(np.float32)
            errors = expected_errors(scores, self.card.calibration).numpy() * pixel[:, np.newaxis]
        return Located(transform_arrays(crop_to_image, points.numpy()), scores.numpy(), errors)

    def locate_in_crops(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks in crop pixels (B, K, 2) and their scores (B, K) of a batch of crops."""
        points, scores = self.decode(self.network(crops))
        if self.flip:
            others, other_scores = self._locate_mirrored(crops)
            points, scores = (points + others) / 2, (scores + other_scores) / 2
        return points, scores

    def _locate_mirrored(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """The same, in crop pixels of the crops as they are, by their mirror images alone."""
        points, scores = self.decode(self.network(crops.flip(-1)))
        order = list(self.layout.mirror)
        points = transform_points(mirror_matrix(self.crop_size), points[:, order])
        # The labels lean to one side, and so does the network, also where it sees a mirror image.
        right, left = self.layout.eye_corners
        inter_ocular = (points[:, left] - points[:, right]).norm(dim=-1)  # (B,)
        points[..., 0] += 2 * self.card.lean * inter_ocular.unsqueeze(1)
        return points, scores[:, order]

    @torch.inference_mode()
    def heatmaps(
        self, pixels: NDArray[np.uint8], boxes: Tensor, rolls: Tensor, batch_size: int
    ) -> FaceHeatmaps:
        """The heatmaps of the faces of one photo, one pass for each; nothing is mirrored or searched.

        Args:
            pixels: (H, W, 3) RGB.
            boxes: (N, 4), upright face boxes.
            rolls: (N,) radians, as in `locate`.
            batch_size: crops per call of the network.
        """
        image_to_crop = self.card.image_to_crop(boxes, rolls)  # (N, 3, 3)
        crops = warp(pixels, image_to_crop, self.crop_size)  # (N, 3, S, S)
        batches = torch.split(crops, batch_size)
        heatmaps = torch.cat([self.network(b).float().cpu() for b in batches])  # (N, K, H, W)
        points, _ = self.card.decode(heatmaps)
        return FaceHeatmaps(
            crops=(255 * crops).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy(),
            heatmaps=heatmaps.numpy(),
            points=points.numpy(),
            heatmap_to_crop=self.heatmap_to_crop.clone().numpy(),  # the caller's own
            heatmap_to_image=(torch.linalg.inv(image_to_crop) @ self.heatmap_to_crop).numpy(),
        )

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks in crop pixels (B, K, 2) and their scores (B, K), on the CPU."""
        points, scores = self.card.decode(heatmaps)
        if points.device.type != "cpu":
            found = torch.cat((points, scores.unsqueeze(-1)), dim=-1).cpu()  # (B, K, 3): one transfer
            points, scores = found[..., :2], found[..., 2]
        return transform_points(self.heatmap_to_crop, points), scores
