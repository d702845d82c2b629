"""The pictures of a page: crops of faces and small copies of photos, inside the page or beside it."""

from __future__ import annotations

import base64
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote
from uuid import uuid4

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.files import write_whole, writing
from face_landmarks.errors import WriteError

Pixels = NDArray[np.uint8]

_CROP_SIDE: Final = 256  # pixels, of a face
_PHOTO_SIDE: Final = 1024  # pixels, the longer side of a whole photo
_QUALITY: Final = 80  # of JPEG
_MARGIN: Final = 0.25  # around a face, in sizes of it
_BASE64: Final = 4 / 3  # letters per byte
_MARK: Final = ".face-landmarks"  # an empty file in a folder of crops: the next page may replace it


class Area(NamedTuple):
    """A rectangle of a photo in pixels: its left and upper edge, and its size."""

    x: float
    y: float
    width: float
    height: float


def view_of(points: NDArray[np.floating]) -> Area:
    """A square around points (P, 2), with a margin, whose edges are those of pixels."""
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    side = math.ceil((1 + 2 * _MARGIN) * max(1.0, *(high - low)))
    x, y = np.floor((low + high - side) / 2 + 0.5) - 0.5
    return Area(float(x), float(y), side, side)


class Pictures:
    """Pictures of a page, kept in a temporary folder until it is known where they go.

    If all fit into the page, they do. Else photos are shown from their own files; if the crops alone do not
    fit either, they are kept in a folder beside the page.

    Args:
        page: the file that will be written.
        limit: bytes of pictures in it.
    """

    def __init__(self, page: Path, limit: int) -> None:
        self._page = page
        self._limit = limit / _BASE64
        self._temporary = page.parent / f".{uuid4().hex}.tmp"
        self._crops = self._photos = 0  # how many
        self._crop_bytes = self._photo_bytes = 0

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Make the temporary folder, and remove what is left of it at the end.

        Raises:
            WriteError: it cannot be made.
        """
        with writing(self._page):
            self._temporary.mkdir(parents=True)
        try:
            yield
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def add_crop(self, pixels: Pixels, view: Area) -> tuple[int, Area] | None:
        """Add the part of a photo (H, W, 3) that is in view: its number and area; None if nothing is."""
        height, width = pixels.shape[:2]
        left, top = round(view.x + 0.5), round(view.y + 0.5)
        right, bottom = min(left + round(view.width), width), min(top + round(view.height), height)
        left, top = max(left, 0), max(top, 0)
        if left >= right or top >= bottom:
            return None
        data = _encode(pixels[top:bottom, left:right], _CROP_SIDE)
        write_whole(self._temporary / f"{self._crops}.jpg", data)
        self._crops += 1
        self._crop_bytes += len(data)
        return self._crops - 1, Area(left - 0.5, top - 0.5, right - left, bottom - top)

    def add_photo(self, pixels: Pixels) -> int | None:
        """Add a small copy of a photo (H, W, 3): its number; None if the page is full already."""
        if self._crop_bytes + self._photo_bytes > self._limit:
            return None
        data = _encode(pixels, _PHOTO_SIDE)
        write_whole(self._temporary / f"photo{self._photos}.jpg", data)
        self._photos += 1
        self._photo_bytes += len(data)
        return self._photos - 1

    @property
    def photos_fit(self) -> bool:
        """Whether the photos are in the page, too."""
        return self._crop_bytes + self._photo_bytes <= self._limit

    @property
    def crops_fit(self) -> bool:
        """Whether the crops are in the page."""
        return self._crop_bytes <= self._limit

    @property
    def folder(self) -> Path:
        """Where crops are that do not fit into the page."""
        return self._page.with_name(f"{self._page.stem}_files")

    def crop_source(self, number: int) -> str:
        """The address of a crop for the page."""
        if self.crops_fit:
            return _embedded(self._temporary / f"{number}.jpg")
        return f"{quote(os.fsencode(self.folder.name))}/{number}.jpg"

    def photo_source(self, number: int | None, file: Path | None) -> str | None:
        """The address of a whole photo for the page: its copy, or its own file."""
        if number is not None and self.photos_fit:
            return _embedded(self._temporary / f"photo{number}.jpg")
        return None if file is None else _link(file, self._page.parent)

    def check_folder(self) -> None:
        """Raise if crops that do not fit into the page would take the place of other files.

        Raises:
            WriteError: their folder has something else than crops of an earlier page.
        """
        with writing(self.folder):
            if not self.crops_fit and os.path.lexists(self.folder) and not _is_ours(self.folder):
                raise WriteError(f"{self.folder}: expected a place to write to, got other files there")

    def finish(self) -> None:
        """Move crops that do not fit into the page to their folder; an earlier one is replaced.

        Raises:
            WriteError: it cannot be written.
        """
        with writing(self.folder):
            if _is_ours(self.folder):
                shutil.rmtree(self.folder)
            if not self.crops_fit:
                for copy in self._temporary.glob("photo*.jpg"):
                    copy.unlink()
                (self._temporary / _MARK).touch()
                os.rename(self._temporary, self.folder)


def _is_ours(folder: Path) -> bool:
    """Whether this is a folder of crops alone, written with an earlier page."""
    return (folder / _MARK).is_file() and all(
        path.name == _MARK or (path.suffix == ".jpg" and path.stem.isdecimal()) for path in folder.iterdir()
    )


def _encode(pixels: Pixels, side: int) -> bytes:
    """A JPEG file of a picture whose longer side is at most this."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    if scale < 1:
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    bgr = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes()


def _embedded(file: Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode()


def _link(file: Path, start: Path) -> str:
    """A URL of a file, relative to a folder where there is a way."""
    try:
        relative = os.path.relpath(file, start)
    except ValueError:  # on another drive
        return file.absolute().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))
