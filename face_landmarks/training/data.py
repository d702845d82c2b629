"""Training faces, decoded and cropped once, kept as one array of pictures in memory or in a file."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from face_landmarks._system.files import make_folder, size_of, write_whole, writing
from face_landmarks.benchmarks.annotations import AnnotatedImage, face_boxes, read_folder
from face_landmarks.benchmarks.metrics import Normaliser
from face_landmarks.errors import InputError, WriteError
from face_landmarks.geometry import crop_matrices, transform_points, warp
from face_landmarks.images import find_photos, read_image
from face_landmarks.layouts import get_layout
from face_landmarks.training.config import TrainConfig


@dataclass(frozen=True)
class FaceSet:
    """Faces at their nominal size, centred.

    Attributes:
        pictures: (M, 3, S, S) uint8.
        landmarks: (M, K, 2) float32 in picture pixels; K = 0 without annotations.
        names: (M,) file stems.
        mapped: the pictures are memory-mapped from a file, so that only those in use take memory.
    """

    pictures: Tensor
    landmarks: Tensor
    names: tuple[str, ...]
    mapped: bool = False

    def __len__(self) -> int:
        return len(self.pictures)

    def to(self, device: torch.device) -> FaceSet:
        """The faces on a device; pictures in a file stay there."""
        pictures = self.pictures if self.mapped else self.pictures.to(device)
        return FaceSet(pictures, self.landmarks.to(device), self.names, self.mapped)

    def draw(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, S, S) and landmarks (B, K, 2) of some faces, on a device."""
        pictures = self.pictures[index.to(self.pictures.device)].to(device)
        return pictures, self.landmarks[index]


@dataclass(frozen=True)
class TrainingData:
    """The sets of faces of a run; all that it trains on have pictures of one size.

    Attributes:
        labelled: the main set.
        validation: never trained on; pictures are exactly one crop wide.
        large_pose: secondary labelled set, or None.
        unlabelled: faces without landmarks, or None.
        normaliser: of the validation's NME.
    """

    labelled: FaceSet
    validation: FaceSet
    large_pose: FaceSet | None = None
    unlabelled: FaceSet | None = None
    normaliser: Normaliser = "inter-ocular"

    def check(self, config: TrainConfig) -> None:
        """Raise unless a run of this configuration can use all of it.

        Raises:
            InputError: an empty set, faces with other landmarks than the layout's, or a set of which no
                face would be drawn or none would take part in any term of the loss.
        """
        landmarks = len(get_layout(config.layout))
        for faces in filter(None, (self.labelled, self.validation, self.large_pose)):
            if faces.landmarks.shape[1] != landmarks:
                expected = f"{landmarks} landmarks of layout {config.layout}"
                raise InputError(f"data: expected {expected}, got {faces.landmarks.shape[1]}")
        if not len(self.labelled) or not len(self.validation):
            raise InputError("data: expected faces to train and to validate on, got none")
        _, large, bare = config.counts(large_pose=True, unlabelled=True)
        expected = f"expected at least one of the {config.batch_size // config.views} faces of a batch"
        if self.large_pose is not None and not large:
            raise InputError(f"large_pose_share: {expected}, got {config.large_pose_share}")
        if self.unlabelled is not None and not bare:
            raise InputError(f"unlabelled_share: {expected}, got {config.unlabelled_share}")
        if self.unlabelled is not None and config.views == 1 and not config.taught:
            raise InputError(
                "unlabelled: expected a term that needs no landmarks, as these faces take part in nothing "
                "else: siamese_weight, near_weight, teacher_weight or teacher_coordinate_weight"
            )

    def to(self, device: torch.device) -> TrainingData:
        return replace(
            self,
            labelled=self.labelled.to(device),
            validation=self.validation.to(device),
            large_pose=None if self.large_pose is None else self.large_pose.to(device),
            unlabelled=None if self.unlabelled is None else self.unlabelled.to(device),
        )


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

    The face has the size that it would have in a crop of `crop_size`. The picture is `margin` crops
    wide, so that shifted and turned crops lie inside it.

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
    return crop_faces(
        read_folder(root),
        crop_size=crop_size,
        crop_scale=crop_scale,
        crop_shift=crop_shift,
        margin=margin,
        progress=progress,
    )


def join_faces(sets: Sequence[FaceSet]) -> FaceSet | None:
    """The faces of several sets as one; None of none."""
    if not sets:
        return None
    return FaceSet(
        torch.cat([faces.pictures for faces in sets]),
        torch.cat([faces.landmarks for faces in sets]),
        tuple(name for faces in sets for name in faces.names),
    )


def crop_faces(
    samples: Sequence[AnnotatedImage],
    *,
    crop_size: int,
    crop_scale: float,
    crop_shift: float,
    margin: float = 1.0,
    store: Path | None = None,
    progress: bool = False,
) -> FaceSet:
    """Crop every annotated face by its face box, see `benchmarks.annotations.face_boxes`.

    Args:
        samples: annotated photos, decoded here, one at a time.
        crop_size: side of the network's crop, in pixels.
        crop_scale: side of the crop in units of face box width + height.
        crop_shift: how far below the box's centre the crop's centre lies, in box heights.
        margin: side of the picture in crops.
        store: file to keep the pictures in, instead of in memory; a later call for the same faces reads
            them from there and decodes no photo.
        progress: show a progress bar on stderr.

    Raises:
        ImageError, AnnotationError: an unreadable photo.
        InputError: the disk has too little free space for the store.
        WriteError: the store cannot be written.
    """
    size = round(margin * crop_size)
    matrices = [
        crop_matrices(torch.from_numpy(face_boxes(sample)), size, crop_scale * size / crop_size, crop_shift)
        for sample in samples
    ]
    landmarks = torch.cat(
        [
            transform_points(matrix, torch.from_numpy(sample.landmarks))
            for sample, matrix in zip(samples, matrices, strict=True)
        ]
    )
    names = tuple(Path(str(sample.image)).stem for sample in samples for _ in sample.landmarks)
    shape = (len(names), 3, size, size)
    if store is None:
        pictures = torch.empty(shape, dtype=torch.uint8, device="cpu")
        _fill(pictures, samples, matrices, progress)
        return FaceSet(pictures, landmarks, names)
    key = _key(samples, matrices, size)
    pictures, filled = _open_store(store, shape, key)
    if not filled:
        _fill(pictures, samples, matrices, progress)
        write_whole(_seal(store), key)
    return FaceSet(pictures, landmarks, names, mapped=True)


def _fill(
    pictures: Tensor, samples: Sequence[AnnotatedImage], matrices: Sequence[Tensor], progress: bool
) -> None:
    """Decode the photos and put their faces into the pictures (M, 3, S, S)."""
    first, size = 0, pictures.shape[-1]
    bar = tqdm(samples, desc="reading", disable=not progress)
    for sample, matrix in zip(bar, matrices, strict=True):
        last = first + len(matrix)
        pictures[first:last] = _cut(read_image(sample.source), matrix, size)
        first = last


def _open_store(store: Path, shape: tuple[int, ...], key: str) -> tuple[Tensor, bool]:
    """Pictures that are kept in a file, and whether they are already those of this key."""
    seal, size = _seal(store), math.prod(shape)
    with writing(store):
        filled = seal.exists() and seal.read_bytes() == key.encode() and size_of(store) == size
        if not filled:
            seal.unlink(missing_ok=True)
            store.unlink(missing_ok=True)
            make_folder(store.parent)
            free = shutil.disk_usage(store.parent).free
            if free < size:
                raise InputError(f"{store}: expected {size / 1e9:.1f} GB of free space, got {free / 1e9:.1f}")
    try:
        pictures = torch.from_file(str(store), shared=True, size=size, dtype=torch.uint8, device="cpu")
    except RuntimeError as error:
        raise WriteError(f"{store}: expected a place to write to, got {error}") from error
    return pictures.view(shape), filled


def _seal(store: Path) -> Path:
    """The file that says which pictures are in the other one; written when they are complete."""
    return store.with_name(f"{store.name}.key")


def _key(samples: Sequence[AnnotatedImage], matrices: Sequence[Tensor], size: int) -> str:
    """A hash of what the pictures in a file depend on: the photos' names, sizes and dates, and the crops."""
    digest = hashlib.sha256(str(size).encode())
    for sample, matrix in zip(samples, matrices, strict=True):
        digest.update(f"{sample.image} {_version(sample.image)}".encode())
        digest.update(matrix.numpy().tobytes())
    return digest.hexdigest()


def _version(image: object) -> str:
    """Size and date of a photo's file; of one inside a larger file, those of the larger."""
    path = getattr(image, "path", image)
    if not isinstance(path, Path) or not path.exists():
        return ""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def load_unlabelled(folder: str | os.PathLike[str], size: int) -> FaceSet:
    """Read a folder of photos that each show one face, roughly centred, as (M, 3, size, size) pictures.

    The photo's longer side fills the picture; there are no landmarks, (M, 0, 2). Hidden files and subfolders
    are left out.

    Raises:
        ImageError: an unreadable photo.
        InputError: no such folder, or no photo in it.
    """
    pictures, names = [], []
    photos = find_photos(folder)
    if not photos:
        raise InputError(f"{os.fspath(folder)}: expected a folder of photos, got one without any")
    for path in photos:
        image = read_image(path)
        height, width = image.shape[:2]
        side = max(height, width)
        x0, y0 = (width - side) / 2 - 0.5, (height - side) / 2 - 0.5
        box = torch.tensor([[x0, y0, x0 + side, y0 + side]], dtype=torch.float32, device="cpu")
        pictures.append(_cut(image, crop_matrices(box, size, 0.5), size))
        names.append(path.stem)
    landmarks = torch.empty(len(names), 0, 2, dtype=torch.float32, device="cpu")
    return FaceSet(torch.cat(pictures), landmarks, tuple(names))


def _cut(image: NDArray[np.uint8], image_to_picture: Tensor, size: int) -> Tensor:
    """(N, 3, size, size) uint8 pictures of one photo."""
    return (warp(image, image_to_picture, size) * 255).round().to(torch.uint8)
