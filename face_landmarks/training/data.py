"""Training faces, decoded and cropped once, kept as one array of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from face_landmarks.annotations import read_folder
from face_landmarks.geometry import boxes_from_landmarks, crop_matrices, transform_points, warp
from face_landmarks.images import read_image


@dataclass(frozen=True)
class FaceSet:
    """Faces at their nominal size, centred.

    Attributes:
        pictures: (M, 3, S, S) uint8.
        landmarks: (M, K, 2) float32 in picture pixels; K = 0 without annotations.
        names: (M,) file stems.
    """

    pictures: Tensor
    landmarks: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def to(self, device: torch.device) -> FaceSet:
        return FaceSet(self.pictures.to(device), self.landmarks.to(device), self.names)


def load_faces(
    root: str | os.PathLike[str],
    *,
    crop_size: int,
    crop_scale: float,
    crop_shift: float,
    margin: float = 1.0,
    progress: bool = False,
) -> FaceSet:
    """Read a folder of photos with .pts files; every annotated face becomes one picture.

    The face has the size it would have in a crop of `crop_size`; the picture is `margin` crops
    wide, so that a shifted or turned crop still finds pixels.

    Args:
        root: folder of NAME.jpg with NAME.pts, or NAME.1.pts, NAME.2.pts, ...
        crop_size: side of the network's crop, in pixels.
        crop_scale: side of the crop in units of face box width + height.
        crop_shift: how far below the box's centre the crop's centre lies, in box heights.
        margin: side of the picture in crops.
        progress: show a progress bar on stderr.

    Raises:
        AnnotationError: no annotated image, or a damaged .pts file.
        ImageError: an unreadable photo.
    """
    size = round(margin * crop_size)
    pictures, landmarks, names = [], [], []
    for item in tqdm(read_folder(root), desc=f"reading {Path(root).name}", disable=not progress):
        image = read_image(item.image)
        boxes = torch.from_numpy(boxes_from_landmarks(item.landmarks))
        matrices = crop_matrices(boxes, size, crop_scale * size / crop_size, crop_shift)
        pictures.append(_cut(image, matrices, size))
        landmarks.append(transform_points(matrices, torch.from_numpy(item.landmarks)))
        names += [item.image.stem] * len(boxes)
    return FaceSet(torch.cat(pictures), torch.cat(landmarks), tuple(names))


def load_unlabelled(paths: Iterable[str | os.PathLike[str]], size: int) -> FaceSet:
    """Read photos that each show one face, roughly centred, as (M, 3, size, size) pictures.

    The photo's longer side fills the picture; there are no landmarks, (M, 0, 2).
    """
    pictures, names = [], []
    for path in paths:
        image = read_image(path)
        height, width = image.shape[:2]
        side = max(height, width)
        x0, y0 = (width - side) / 2 - 0.5, (height - side) / 2 - 0.5
        box = torch.tensor([[x0, y0, x0 + side, y0 + side]])
        pictures.append(_cut(image, crop_matrices(box, size, 0.5), size))
        names.append(Path(path).stem)
    stacked = torch.cat(pictures) if pictures else torch.empty(0, 3, size, size, dtype=torch.uint8)
    return FaceSet(stacked, torch.from_numpy(np.empty((len(names), 0, 2), np.float32)), tuple(names))


def _cut(image: NDArray[np.uint8], image_to_picture: Tensor, size: int) -> Tensor:
    """(N, 3, size, size) uint8 pictures of one photo."""
    return (warp(image, image_to_picture, size) * 255).round().to(torch.uint8)
