"""The photos of a call and the faces to align in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_landmarks._system.arguments import kind_of
from face_landmarks.errors import InputError
from face_landmarks.images import ImageSource, is_one_image

_NOTHING: Final[NDArray[np.uint8]] = np.empty((0, 0, 3), np.uint8)


def check_several(images: object) -> None:
    """Raise unless these are several photos, not one.

    Raises:
        InputError: one photo, or nothing that can be iterated over.
    """
    if is_one_image(images) or not isinstance(images, Iterable):
        raise InputError(
            f"images: expected several photos, such as a list, got {kind_of(images)}; align takes one"
        )


class Photo(NamedTuple):
    """A photo and the faces to align in it.

    Attributes:
        pixels: (H, W, 3) RGB.
        boxes: (N, 4), as given or detected.
        scores: (N,), of the boxes.
        upright: (N, 4), the boxes of the faces turned upright about their centres.
        rolls: (N,) degrees, by which the upright boxes are turned, clockwise on the screen.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    upright: NDArray[np.float32]
    rolls: NDArray[np.float32]

    def without_pixels(self) -> Photo:
        """The same, without keeping the photo in memory."""
        return self._replace(pixels=_NOTHING)

    @classmethod
    def unreadable(cls) -> Photo:
        """The entry of a photo that could not be read: no pixels and no faces."""
        boxes, scores = np.empty((0, 4), np.float32), np.empty(0, np.float32)
        return cls(_NOTHING, boxes, scores, boxes, scores)


def rows_of(
    images: Iterable[ImageSource], **given: Sequence[ArrayLike | None] | None
) -> Iterator[tuple[ImageSource, ArrayLike | None, ArrayLike | None]]:
    """Each image with its boxes and rolls, which must be as many as the images.

    Raises:
        InputError: they are not; before the first image, if the images have a length, else after the last.
    """
    for name, values in given.items():
        if (values is not None and not (hasattr(values, "__len__") and hasattr(values, "__getitem__"))) or (
            isinstance(values, (str, bytes, Mapping))
        ):
            raise InputError(f"{name}: expected a list with an entry for each image, got {kind_of(values)}")
    if isinstance(images, Sized):
        _check_lengths(len(images), given)
    count = 0
    for image in images:
        count += 1
        boxes, rolls = (
            None if values is None or count > len(values) else values[count - 1] for values in given.values()
        )
        if all(values is None or count <= len(values) for values in given.values()):
            yield image, boxes, rolls
    _check_lengths(count, given)


def _check_lengths(count: int, given: Mapping[str, Sequence[ArrayLike | None] | None]) -> None:
    for name, values in given.items():
        if values is not None and count != len(values):
            raise InputError(
                f"{name}: expected one entry ({name} or None) for each of {count} images, got {len(values)}"
            )
