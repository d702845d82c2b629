"""Frames and their times from PyAV, or from OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.arguments import as_number
from face_landmarks._system.extras import import_extra
from face_landmarks.errors import ImageError

Frame: TypeAlias = "tuple[float, NDArray[np.uint8]]"  # seconds from the first one, (H, W, 3) RGB

_DEFAULT_RATE: Final = 30.0
_HIGHEST_RATE: Final = 1000.0  # frames per second; OpenCV makes up higher ones where a file has none


class Decoder(Protocol):
    """A source that is opened anew for each reading.

    Attributes:
        frame_rate: frames per second, on average.
        frame_count: that the header announces; 0 if unknown.
        duration: in seconds, that the header announces for the picture; 0 if unknown.
        counted: the header has the number of frames; else it was computed from the duration.
    """

    frame_rate: float
    frame_count: int
    duration: float
    counted: bool

    def frames(self) -> Iterator[Frame]:
        """Each frame, upright, and its time, as the source has it: not always later than the last one's.

        A frame without a time follows the last one at the frame rate.
        """


def import_pyav() -> Any:
    """PyAV.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return import_extra("av", "video", "sound, frame times and H.264 in videos")


def pyav_name(source: str) -> str:
    """A path or URL as FFmpeg takes it: a colon in a path is not the end of a protocol's name."""
    return source if "://" in source else f"file:{source}"


class PyAVDecoder:
    """Files, URLs and streams through PyAV."""

    counted = False

    def __init__(self, source: str) -> None:
        self._av = import_pyav()
        self._source = source
        with self._open() as container:
            stream = container.streams.video[0]
            self.frame_rate = _rate(stream)
            self.duration = _duration(container, stream)
            self.counted = stream.frames > 0
            self.frame_count = int(stream.frames) or round(self.duration * self.frame_rate)

    def frames(self) -> Iterator[Frame]:
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            begin, last = None, -1 / self.frame_rate
            for frame in self._decode(container, stream):
                time = last + 1 / self.frame_rate if frame.time is None else float(frame.time)
                begin, last = time if begin is None else begin, time
                pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
                turned = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
                yield time - begin, turned

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        """Every frame that can be decoded; damaged packets are left out, as players do."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except self._av.FFmpegError:  # a file that is cut off
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except self._av.FFmpegError:
                continue
            yield from frames

    def _open(self) -> Any:
        try:
            container = self._av.open(pyav_name(self._source), metadata_errors="replace")
        except (OSError, ValueError) as error:  # those of FFmpeg are one of these, too
            reason = getattr(error, "strerror", None) or error
            raise ImageError(f"video: expected a video, got {self._source!r}: {reason}") from error
        if not container.streams.video:
            container.close()
            raise ImageError(f"video: expected a video, got {self._source!r}, which has no picture")
        return container


class OpenCVDecoder:
    """Files, URLs, streams and cameras through OpenCV."""

    counted = True

    def __init__(self, source: str | int) -> None:
        self._source = source
        capture = self._open()
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.release()
        self.frame_rate: float = rate if 0 < as_number(rate) <= _HIGHEST_RATE else _DEFAULT_RATE
        self.frame_count = int(count) if as_number(count) > 0 else 0
        self.duration = self.frame_count / self.frame_rate

    def frames(self) -> Iterator[Frame]:
        capture = self._open()
        try:
            begin = last = None
            while (read := capture.read())[0]:
                if isinstance(self._source, int):  # a camera
                    now = monotonic()
                else:
                    now = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                    if now < -1e9 or (last is not None and now == 0):  # so OpenCV gives one without a time
                        now = 0.0 if last is None else last + 1 / self.frame_rate
                begin, last = now if begin is None else begin, now
                yield now - begin, np.asarray(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB), np.uint8)
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        try:
            capture = cv2.VideoCapture(self._source)
            opened = capture.isOpened()
        except cv2.error:  # the number of a camera beyond 32 bits
            opened = False
        if not opened:
            raise ImageError(f"video: expected a video that OpenCV can read, got {self._source!r}")
        return capture


def check_file(source: str) -> None:
    """Raise ImageError unless a path, which may be a URL, leads to a file.

    Raises:
        ImageError: no such file, or a folder.
    """
    if "://" in source:
        return
    if source and Path(source).is_dir():
        raise ImageError(f"video: expected a file, got the folder {source!r}")
    if not source or not Path(source).exists():
        raise ImageError(f"video: cannot open {source!r}: no such file")


def _rate(stream: Any) -> float:
    """Frames per second of a stream: the average, or what FFmpeg guesses."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate is not None and rate > 0:
            return float(rate)
    return _DEFAULT_RATE


def _duration(container: Any, stream: Any) -> float:
    """Seconds of the picture, as the header has them; 0 if it has none."""
    if text := stream.metadata.get("DURATION"):  # of a Matroska file, 00:00:02.400000000
        try:
            hours, minutes, seconds = map(Fraction, text.strip("\0 ").split(":"))
            end = float(3600 * hours + 60 * minutes + seconds)
            begin = stream.start_time * stream.time_base if stream.start_time is not None else 0
            return end - float(begin)
        except ValueError:
            pass
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else 0.0
