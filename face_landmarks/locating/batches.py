"""Many photos: their faces share the batches of the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from face_landmarks.locating.locate import Located, Locator
from face_landmarks.locating.photos import Photo
from face_landmarks.locating.search import locate_with_search
from face_landmarks.results import Faces

_T = TypeVar("_T")
# A photo (H, W, 3), the upright box (4,) of a face in it, and its roll in degrees.
_Face: TypeAlias = "tuple[NDArray[np.uint8], NDArray[np.float32], np.float32]"


def align_photos(
    locator: Locator, photos: Iterable[Photo], batch_size: int, *, refine: bool, search: bool
) -> list[Faces]:
    """The faces of photos, located in batches across photos.

    Args:
        locator: finds landmarks in boxes.
        photos: read one after the other; the pixels of each are kept until the batch of its faces is done.
        batch_size: faces per batch.
        refine: see `locate_with_search`.
        search: the same.
    """
    done: list[Photo] = []

    def faces() -> Iterator[_Face]:
        for photo in photos:
            done.append(photo.without_pixels())
            for box, roll in zip(photo.upright, photo.rolls, strict=True):
                yield photo.pixels, box, roll

    # Copied when a batch's crops are gone: left between them, such small arrays break the memory into pieces.
    parts = [_locate(locator, batch, refine, search).copied() for batch in _batched(faces(), batch_size)]
    found = Located.concatenate(parts) if parts else Located.empty(len(locator.layout))
    results, start = [], 0
    for photo in done:
        mine = slice(start, start + len(photo.boxes))
        landmarks, scores, errors = (part[mine] for part in found)
        results.append(Faces(landmarks, scores, photo.boxes, photo.scores, locator.layout, errors))
        start = mine.stop
    return results


def _locate(locator: Locator, faces: Sequence[_Face], refine: bool, search: bool) -> Located:
    """The landmarks of B faces."""
    photos, boxes, rolls = zip(*faces, strict=True)
    return locate_with_search(
        locator,
        photos,
        np.stack(boxes),  # (B, 4)
        np.radians(np.array(rolls, np.float32)),  # (B,)
        refine=refine,
        search=search,
    )


def _batched(faces: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size`; the last one may be shorter."""
    faces = iter(faces)
    while batch := list(islice(faces, size)):
        yield batch
