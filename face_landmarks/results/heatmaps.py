"""What the network saw and gave, for each face of a photo."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from face_landmarks.results.values import equal


@dataclass(frozen=True, eq=False, repr=False)
class FaceHeatmaps:
    """Input and output of the network for each face of a photo; equal if all values are.

    Attributes:
        crops: (N, S, S, 3) uint8 RGB, the input.
        heatmaps: (N, K, H, W) float32, the output.
        points: (N, K, 2) float32, x y in heatmap cells, as decoded.
        heatmap_to_crop: (3, 3) float64.
        heatmap_to_image: (N, 3, 3) float64.
    """

    crops: NDArray[np.uint8]
    heatmaps: NDArray[np.float32]
    points: NDArray[np.float32]
    heatmap_to_crop: NDArray[np.float64]
    heatmap_to_image: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.crops)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FaceHeatmaps):
            return NotImplemented
        return equal(self, other, [field.name for field in fields(self)])

    def __hash__(self) -> int:
        return hash((self.crops.shape, self.heatmaps.shape))

    def __repr__(self) -> str:
        landmarks, height, width = self.heatmaps.shape[1:]
        return (
            f"<FaceHeatmaps: {len(self)} face{'s' * (len(self) != 1)}, {landmarks} heatmaps of "
            f"{height} x {width}, crops of {' x '.join(map(str, self.crops.shape[1:3]))}>"
        )
