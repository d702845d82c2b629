"""Photos read in threads ahead of their use, in order, within a bound on memory."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from face_landmarks.errors import ImageError
from face_landmarks.images import read_image
from face_landmarks.output.folders.journal import size_of

Pixels: TypeAlias = "NDArray[np.uint8]"

MOST_BYTES: Final = 2**28  # of pixels that are read ahead, and of those that are aligned together
MOST_PHOTOS: Final = 16  # that are read ahead

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_T = TypeVar("_T")


class Read(NamedTuple):
    """A photo as it was read.

    Attributes:
        size: bytes of the file; None if it is missing.
        pixels: (H, W, 3) RGB, or what was raised.
    """

    size: int | None
    pixels: Pixels | Exception

    @property
    def memory(self) -> int:
        """Bytes of the pixels."""
        return 0 if isinstance(self.pixels, Exception) else self.pixels.nbytes


def no_file(path: str | os.PathLike[str]) -> str | None:
    """What is at a path instead of a file: "a folder", "a pipe" and so on; None for a file, or for nothing.

    Nothing is opened: opening a pipe would wait for a writer.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # which reading tells, too, and says better
        return None
    return next((name for is_kind, name in _KINDS if is_kind(mode)), None)


def read_photo(path: Path | None) -> Read:
    """Read a photo of a folder; whatever is no file is not opened, as a pipe would be waited for."""
    assert path is not None, "photos of a run have files"
    size = size_of(path)
    try:
        if name := no_file(path):
            raise ImageError(f"image: expected an image file, got {str(path)!r}, which is {name}")
        return Read(size, read_image(path))
    except Exception as error:
        return Read(size, error)


class ReadAhead(Generic[_T]):
    """Reads items in threads, ahead of the one who iterates over them, and gives them in order.

    The next item is begun only while what has been read and not taken, with what is being read, stays below
    `MOST_BYTES` and `MOST_PHOTOS`; one item at least is always begun. What the items raise is raised to the
    one who iterates. Use it in a `with` block, which ends the threads.

    Args:
        items: what to read, taken one at a time by any of the threads.
        read: reads one.
        threads: that read.
    """

    def __init__(self, items: Iterable[_T], read: Callable[[_T], Read], threads: int) -> None:
        self._items = iter(items)
        self._read = read
        self._taking = threading.Lock()  # of an item
        self._changed = threading.Condition()
        self._begun = self._given = 0  # items so far
        self._ready: dict[int, tuple[_T, Read]] = {}  # by number
        self._memory = 0  # bytes of what is ready
        self._last = 0  # bytes of the last photo that was read, as those being read may have
        self._end: BaseException | None = None  # why there are no more items
        self._closed = False
        self._threads = threads

    def __enter__(self) -> ReadAhead[_T]:
        for _ in range(self._threads):
            threading.Thread(target=self._work, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        with self._changed:
            self._closed = True  # the threads end after the photo that they read
            self._changed.notify_all()

    def __iter__(self) -> Iterator[tuple[_T, Read]]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._given in self._ready or self._is_over())
                if self._given not in self._ready:
                    if isinstance(self._end, StopIteration):
                        return
                    assert self._end is not None
                    raise self._end
                item, photo = self._ready.pop(self._given)
                self._given += 1
                self._memory -= photo.memory
                self._changed.notify_all()
            yield item, photo
            del item, photo  # not kept in memory while the next one is waited for

    def _is_over(self) -> bool:
        return self._end is not None and self._given == self._begun

    def _has_room(self) -> bool:
        reading = self._begun - self._given - len(self._ready)
        expected = self._memory + (reading + 1) * self._last
        few = self._begun - self._given < MOST_PHOTOS and expected <= MOST_BYTES
        return few or self._begun == self._given

    def _work(self) -> None:
        while True:
            with self._taking:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._has_room())
                    if self._closed or self._end is not None:
                        return
                try:
                    item = next(self._items)
                except BaseException as error:  # raised where they are used
                    with self._changed:
                        self._end = error
                        self._changed.notify_all()
                    return
                with self._changed:
                    number = self._begun
                    self._begun += 1
            photo = self._read(item)
            with self._changed:
                self._ready[number] = item, photo
                self._memory += photo.memory
                self._last = photo.memory
                self._changed.notify_all()
            del photo
