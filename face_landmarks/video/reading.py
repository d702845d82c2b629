"""Frames of video files, streams and cameras."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks.errors import ImageError, InputError
from face_landmarks.video.checks import as_number, is_whole

_HEADER_ERROR = 0.01  # share of its frames by which the header of an undamaged file may be wrong


class TruncatedVideoWarning(UserWarning):
    """A video ended before its header said it would: the file is cut off or damaged."""


class Video:
    """The frames of a video file, a stream or a camera, in RGB; iterate over it.

    Frames are rotated upright as the file's metadata says. Each iteration opens the source again: a file
    starts at its first frame.

    A file that is cut off or damaged gives the frames that can be decoded, then a `TruncatedVideoWarning` if
    its header announces more: over 1 % of them, and at least two. To get an exception instead, after the
    last frame, call `warnings.simplefilter("error", TruncatedVideoWarning)`.

    Args:
        source: path or URL of a video, or the number of a camera, from 0.

    Attributes:
        frame_rate: frames per second; 30 if the source does not say.
        frame_count: number of frames that the file's header announces; 0 if unknown, as for a camera.

    Raises:
        InputError: `source` is neither a path, a URL nor the number of a camera.
        ImageError: the source cannot be opened; or, from an iteration, it has no frame.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        self._source = _check_source(source)
        capture = self._open()
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.release()
        self.frame_rate: float = rate if as_number(rate) > 0 else 30.0
        self.frame_count = int(count) if as_number(count) > 0 else 0

    def __repr__(self) -> str:
        count = f", {self.frame_count} frames" if self.frame_count else ""
        return f"Video({self._source!r}, {self.frame_rate:g} frames/s{count})"

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Give (H, W, 3) uint8 RGB frames, each in its own memory."""
        capture = self._open()
        try:
            frames = 0
            while (read := capture.read())[0]:
                frames += 1
                yield np.asarray(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB), np.uint8)
        finally:
            capture.release()
        if not frames:
            raise ImageError(f"video: expected frames, got none from {self._source!r}")
        if self.is_truncated(frames):
            warnings.warn(
                f"video: expected {self.frame_count} frames, as the header of {self._source!r} announces, "
                f"got {frames}: the file is cut off or damaged",
                TruncatedVideoWarning,
                stacklevel=2,
            )

    def is_truncated(self, frames: int) -> bool:
        """Whether the header announces clearly more frames than the number given here."""
        return self.frame_count - frames > max(1, _HEADER_ERROR * self.frame_count)

    def _open(self) -> cv2.VideoCapture:
        if isinstance(self._source, str) and "://" not in self._source:
            path = Path(self._source)
            if self._source and path.is_dir():
                raise ImageError(f"video: expected a file, got the folder {self._source!r}")
            if not self._source or not path.exists():
                raise ImageError(f"video: cannot open {self._source!r}: no such file")
        try:
            capture = cv2.VideoCapture(self._source)
            opened = capture.isOpened()
        except cv2.error:  # the number of a camera beyond 32 bits
            opened = False
        if not opened:
            raise ImageError(f"video: expected a video that OpenCV can read, got {self._source!r}")
        return capture


def _check_source(source: object) -> str | int:
    """A source in the form that OpenCV takes; raise InputError for one at which OpenCV would crash."""
    if is_whole(source, 0):
        return int(source)  # type: ignore[call-overload, no-any-return]
    if not isinstance(source, (str, bytes, os.PathLike)):
        raise InputError(
            f"video: expected a path, a URL or the number of a camera, from 0, got {type(source).__name__} "
            f"{source!r}"
        )
    return check_name(source)


def check_name(path: str | bytes | os.PathLike[str]) -> str:
    """A path as text; raise InputError unless it is in UTF-8, as other names crash OpenCV."""
    name = os.fsdecode(path)
    if "\0" in name or name.encode(errors="ignore").decode() != name:
        raise InputError(f"video: expected the name of a file, in UTF-8, got {name!r}")
    return name
