"""Frames of video files, streams and cameras."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.arguments import check_choice, is_whole
from face_landmarks.errors import ImageError, InputError
from face_landmarks.video.decoders import Decoder, OpenCVDecoder, PyAVDecoder, check_file

VideoBackend = Literal["auto", "pyav", "opencv"]

_HEADER_ERROR: Final = 0.01  # share of its frames by which the header of an undamaged file may be wrong
_LEAST_STEP: Final = 0.001  # seconds between frames whose file gives them one time
_DISORDER: Final = 2.0  # frames by which a time may be behind the last one's in a file whose times go on


class TruncatedVideoWarning(UserWarning):
    """A video ended before its header said it would: the file is cut off or damaged."""


class Video:
    """The frames of a video file, a stream or a camera, in RGB; iterate over it, or over `timed()`.

    Frames are rotated upright as the file's metadata says. Each iteration opens the source again: a file
    starts at its first frame.

    A file that is cut off or damaged gives the frames that can be decoded, then a `TruncatedVideoWarning` if
    its header announces more: over 1 % of them, and at least two. To get an exception instead, after the
    last frame, call `warnings.simplefilter("error", TruncatedVideoWarning)`.

    Args:
        source: path or URL of a video, or the number of a camera, from 0.
        backend: "pyav" (`pip install "shr-fan[video]"`), "opencv", or "auto": PyAV if it is installed, and
            OpenCV for cameras.

    Attributes:
        frame_rate: frames per second, on average; 30 if the source does not say.
        frame_count: number of frames that the file's header announces, or that its duration holds; 0 if
            unknown, as for a camera.

    Raises:
        InputError: `source` is neither a path, a URL nor the number of a camera; another backend, or PyAV
            for a camera.
        ImageError: the source cannot be opened; or, from an iteration, it has no frame.
        MissingDependencyError: "pyav", and it is not installed.
    """

    def __init__(self, source: str | os.PathLike[str] | int, backend: VideoBackend = "auto") -> None:
        self._source = _check_source(source)
        self._decoder = _decoder(self._source, choose_backend(backend, isinstance(self._source, int)))
        self.frame_rate = self._decoder.frame_rate
        self.frame_count = self._decoder.frame_count

    def __repr__(self) -> str:
        count = f", {self.frame_count} frames" if self.frame_count else ""
        return f"Video({self._source!r}, {self.frame_rate:g} frames/s{count})"

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Give (H, W, 3) uint8 RGB frames, each in its own memory."""
        return (frame for _, frame in self._read(stacklevel=3))

    def timed(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Give pairs of a frame's time, in seconds from the first one, and the frame.

        Times are the file's own, also where its frame rate varies; a camera's are those of the clock. Each is
        later than the one before: where a file's times start again, as in joined streams, they are moved to
        follow the last one at the frame rate.
        """
        return self._read(stacklevel=2)

    def _read(self, stacklevel: int) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        if isinstance(self._source, str):
            check_file(self._source)
        frames, seconds, clock = 0, 0.0, _Clock(self.frame_rate)
        for time, frame in self._decoder.frames():
            frames, seconds = frames + 1, clock.next(time)
            yield seconds, frame
        if not frames:
            raise ImageError(f"video: expected frames, got none from {self._source!r}")
        if self.is_truncated(frames, seconds):
            warnings.warn(
                f"video: expected {self._announced}, as the header of {self._source!r} announces, "
                f"got {frames} frames, the last at {seconds:.2f} s: the file is cut off or damaged",
                TruncatedVideoWarning,
                stacklevel=stacklevel,
            )

    @property
    def _announced(self) -> str:
        """What the header announces: frames, or a duration alone."""
        if self._decoder.counted or not self._decoder.duration:
            return f"{self.frame_count} frames"
        return f"{self._decoder.duration:.2f} s"

    def is_truncated(self, frames: int, seconds: float | None = None) -> bool:
        """Whether the header announces clearly more frames than this number, or a later end.

        Args:
            frames: that were read.
            seconds: time of the last one; it decides where the header has a duration alone.
        """
        if self._decoder.counted or seconds is None or not self._decoder.duration:
            return self.frame_count - frames > max(1, _HEADER_ERROR * self.frame_count)
        missing = (self._decoder.duration - seconds) * self.frame_rate - 1  # frames
        return missing > max(1.5, _HEADER_ERROR * self.frame_count)


class _Clock:
    """Times that only go on, from times that may repeat, be in slight disorder, or start again."""

    def __init__(self, frame_rate: float) -> None:
        self._frame = 1 / frame_rate  # seconds
        self._last: float | None = None
        self._offset = self._former = 0.0  # seconds added to the times, and before they started again

    def next(self, time: float) -> float:
        """A time in seconds, later than the last one."""
        if self._last is None:
            self._last = time
            return time
        slack = _DISORDER * self._frame
        if time + self._offset < self._last - slack:  # they start again
            self._former, self._offset = self._offset, self._last + self._frame - time
        elif self._last < time + self._former <= self._last + slack:  # only one frame's time was wrong
            self._offset = self._former
        self._last = max(time + self._offset, self._last + _LEAST_STEP)
        return self._last


def choose_backend(backend: str, camera: bool = False) -> str:
    """What reads or writes a video: "pyav" or "opencv".

    Raises:
        InputError: another backend, or PyAV for a camera.
    """
    check_choice("backend", backend, ("auto", "pyav", "opencv"))
    if backend == "auto":
        return "opencv" if camera or find_spec("av") is None else "pyav"
    if backend == "pyav" and camera:
        raise InputError("backend: expected 'auto' or 'opencv' for a camera, got 'pyav'")
    return backend


def _decoder(source: str | int, backend: str) -> Decoder:
    if isinstance(source, int):
        return OpenCVDecoder(source)
    check_file(source)
    return PyAVDecoder(source) if backend == "pyav" else OpenCVDecoder(source)


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
