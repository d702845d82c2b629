"""Annotated photos: folders of photos with their .pts files."""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from face_landmarks.errors import AnnotationError, InputError
from face_landmarks.geometry import boxes_from_landmarks
from face_landmarks.images import find_photos
from face_landmarks.pts import check_points, read_pts

_LOGGER = logging.getLogger(__name__)
_NUMBERED = re.compile(r"(?P<name>.+)\.(?P<number>\d+)")


class StoredPhoto(Protocol):
    """A photo inside a larger file; `str` names it."""

    def read(self) -> NDArray[np.uint8]:
        """Decode it now: (H, W, 3) RGB or (H, W) gray."""


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """A photo and the true landmarks of its annotated faces; it may show others, too.

    Attributes:
        image: path of the photo, or the photo inside a larger file.
        landmarks: (N, K, 2) float32 x y in pixels, zero-based.
        boxes: (N, 4) float32 x0 y0 x1 y1, the face boxes that came with the data; None without any.

    Raises:
        InputError: landmarks or boxes of another shape, or not finite, or a box without area.
    """

    image: Path | StoredPhoto
    landmarks: NDArray[np.float32]
    boxes: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "landmarks", check_points(self.landmarks, "(N, K, 2)"))
        if self.boxes is None:
            return
        boxes = np.asarray(self.boxes, dtype=np.float32)
        if boxes.shape != (len(self.landmarks), 4):
            raise InputError(f"boxes: expected shape {(len(self.landmarks), 4)}, got {boxes.shape}")
        if not (boxes[:, :2] < boxes[:, 2:]).all() or not np.isfinite(boxes).all():
            raise InputError(f"boxes: expected x0 < x1 and y0 < y1, got {boxes.tolist()} in {self.image}")
        object.__setattr__(self, "boxes", boxes)

    @property
    def source(self) -> Path | NDArray[np.uint8]:
        """What `read_image` reads: the path, or the pixels of a stored photo, decoded now."""
        return self.image if isinstance(self.image, Path) else self.image.read()


def read_folder(root: str | os.PathLike[str]) -> list[AnnotatedImage]:
    """Read every annotated photo of a folder, in order of file name.

    NAME.jpg (or another suffix of `images.PHOTO_SUFFIXES`, in either case) goes with NAME.pts, or with
    NAME.1.pts, NAME.2.pts and so on if several of its faces are annotated. Photos without a .pts file are
    left out, and their number is logged. A .pts file without its photo is an error, because leaving it out
    would change scores unnoticed. Subfolders and hidden files are not read.

    Raises:
        AnnotationError: not a folder, or one that cannot be read or has no annotated photo; a .pts file that
            is damaged, belongs to no photo or to several, or has another number of points than the first.
    """
    folder = Path(root)
    photos: dict[str, list[Path]] = defaultdict(list)
    try:
        for path in find_photos(folder):
            photos[path.stem].append(path)
    except InputError as error:
        raise AnnotationError(str(error)) from error

    faces: dict[Path, list[tuple[int, Path]]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == ".pts" and not path.name.startswith("."):
            name, number = path.stem, 0
            if name not in photos and (numbered := _NUMBERED.fullmatch(name)):
                name, number = numbered["name"], int(numbered["number"])
            owners = photos.get(name, [])
            if len(owners) != 1:
                raise AnnotationError(f"{path}: expected one photo named {name}.*, got {len(owners)}")
            faces[owners[0]].append((number, path))
    if not faces:
        raise AnnotationError(f"{folder}: expected photos with .pts files, got no such pair")
    if unannotated := sum(map(len, photos.values())) - len(faces):
        _LOGGER.info("%s: left out %d photos without .pts files", folder, unannotated)

    samples, first = [], None
    for photo, numbered_paths in sorted(faces.items()):
        landmarks = []
        for _, path in sorted(numbered_paths):
            landmarks.append(read_pts(path))
            first = first or (path, len(landmarks[0]))
            if len(landmarks[-1]) != first[1]:
                raise AnnotationError(
                    f"{path}: expected {first[1]} points as in {first[0].name}, got {len(landmarks[-1])}"
                )
        samples.append(AnnotatedImage(photo, np.stack(landmarks)))
    return samples


def face_boxes(sample: AnnotatedImage) -> NDArray[np.float32]:
    """(N, 4) the boxes that faces are cropped by: those of the data, or else made from the landmarks."""
    return boxes_from_landmarks(sample.landmarks) if sample.boxes is None else sample.boxes
