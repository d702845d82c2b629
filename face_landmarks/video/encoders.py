"""Video files written by PyAV, with sound and frame times, or by OpenCV."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks.errors import ImageError, InputError
from face_landmarks.video.decoders import import_pyav, pyav_name

_LOGGER = logging.getLogger(__name__)

_OPENCV_CODECS: Final = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_PYAV_FORMATS: Final = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_H264: Final = ("libx264", "libopenh264")
_OPTIONS: Final = {
    "libx264": {"crf": "18", "preset": "veryfast", "bf": "0"}
}  # without B-frames, times are exact
_TICK: Final = Fraction(1, 90_000)  # seconds, of a frame's time
# The numbers of ITU-T H.273: what the pixels of a photo are, and how they are stored, named in the file.
_PRIMARIES_709, _TRANSFER_SRGB, _MATRIX_601, _RANGE_LIMITED = 1, 13, 6, 1


def has_h264() -> bool:
    """Whether this PyAV can write H.264."""
    return bool(import_pyav().codecs_available.intersection(_H264))


class Encoder(Protocol):
    """A file that is open for writing frames of one even size."""

    def write(self, frame: NDArray[np.uint8], seconds: float) -> None:
        """Add a frame, (H, W, 3) RGB, to be shown from this time on."""

    def close(self) -> None:
        """Finish the file; raise OSError if it is not whole."""

    def abandon(self) -> None:
        """Let go of the file as it is."""


class PyAVEncoder:
    """H.264 as browsers play it, at the times of the frames, with copied sound.

    Args:
        path: the file to write.
        suffix: .mp4, .mov or .mkv.
        size: (W, H), both even.
        frame_rate: in frames per second; the last frame is shown that long.
        sound: path of a file whose sound is copied, or None.

    Raises:
        InputError: a size that H.264 cannot hold.
        OSError: the file cannot be written.
    """

    def __init__(
        self, path: Path, suffix: str, size: tuple[int, int], frame_rate: float, sound: str | None
    ) -> None:
        self._av = import_pyav()
        options = {} if suffix == ".mkv" else {"movflags": "+faststart"}  # a browser plays it as it arrives
        self._container = self._av.open(
            pyav_name(str(path)), "w", format=_PYAV_FORMATS[suffix], options=options
        )
        self._sound: Sound | None = None
        try:
            self._rate = Fraction(frame_rate).limit_denominator(100_000)
            self._stream = self._open_stream(size)
            if sound is not None:
                self._sound = Sound(self._av, sound, self._container, suffix)
        except BaseException:
            self.abandon()
            raise
        self._last = -1  # tick

    def write(self, frame: NDArray[np.uint8], seconds: float) -> None:
        with self._system_errors():
            self._write(frame, seconds)

    def _write(self, frame: NDArray[np.uint8], seconds: float) -> None:
        picture = self._av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG")
        picture.time_base = _TICK
        picture.pts = self._last = max(self._last + 1, round(seconds / _TICK))
        picture.duration = max(1, round(1 / self._rate / _TICK))
        self._mux(self._stream.encode(picture))
        if self._sound is not None:
            self._mux(self._sound.until(seconds))

    def close(self) -> None:
        with self._system_errors():
            self._mux(self._stream.encode())
            if self._sound is not None:
                self._mux(self._sound.until(float(self._last * _TICK + 1 / self._rate)))
                self._sound.close()
            self._container.close()

    def abandon(self) -> None:
        if self._sound is not None:
            self._sound.close()
        with suppress(OSError, self._av.FFmpegError):
            self._container.close()

    @contextmanager
    def _system_errors(self) -> Iterator[None]:
        """Raise FFmpeg's errors as OSError: not all are."""
        try:
            yield
        except self._av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            self._container.mux(packet)

    def _open_stream(self, size: tuple[int, int]) -> Any:
        codec = next(name for name in _H264 if name in self._av.codecs_available)
        stream = self._container.add_stream(codec, rate=self._rate, options=_OPTIONS.get(codec, {}))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = stream.time_base = _TICK
        context.color_primaries, context.color_trc = _PRIMARIES_709, _TRANSFER_SRGB
        context.colorspace, context.color_range = _MATRIX_601, _RANGE_LIMITED
        try:
            context.open()
        except (OSError, ValueError, self._av.FFmpegError) as error:
            raise InputError(
                f"video: expected frames of a size that H.264 can hold, got {size[0]} x {size[1]} pixels"
            ) from error
        return stream


class Sound:
    """The sound of a file, copied without being decoded.

    What the format of the output cannot hold, such as uncompressed sound in .mp4, is left out, and a line in
    the log says so. Where its times start again, as in joined streams, it follows what came before.
    """

    def __init__(self, av: Any, source: str, output: Any, suffix: str) -> None:
        self._av, self._source = av, source
        try:
            self._input = av.open(pyav_name(source), metadata_errors="replace")
            self._begin = _first_time(av, self._input)
        except (OSError, ValueError, av.FFmpegError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ImageError(f"sound: expected a file with sound, got {source!r}: {reason}") from error
        self._streams = {}
        for stream in self._input.streams.audio:
            name = stream.codec_context.name
            try:
                if suffix == ".mp4" and name.startswith("pcm_"):  # FFmpeg writes some, players know none
                    raise ValueError("it is uncompressed")
                self._streams[stream.index] = output.add_stream_from_template(stream)
            except (OSError, ValueError, av.FFmpegError) as error:
                _LOGGER.warning(
                    "the sound of %s, %s, cannot be in a %s file: %s", source, name, suffix, error
                )
        chosen = [self._input.streams[index] for index in self._streams]
        self._packets: Iterator[Any] = self._input.demux(chosen) if chosen else iter(())
        self._waiting: Any = None
        self._shifts = {  # added to the time stamps of each stream, in its own unit
            stream.index: -round(self._begin / stream.time_base) for stream in chosen
        }
        self._last: dict[int, tuple[int, int]] = {}  # time stamp of each stream's last packet, and its end

    def until(self, seconds: float) -> Iterator[Any]:
        """The packets that begin before this time."""
        while (packet := self._waiting or self._next()) is not None:
            self._waiting = None
            if packet.dts is None:  # the end
                continue
            index = packet.stream.index
            if index in self._last and packet.dts + self._shifts[index] <= self._last[index][0]:
                self._shifts[index] = self._last[index][1] - packet.dts  # its times start again
            shift = self._shifts[index]
            if float((packet.dts + shift) * packet.time_base) >= seconds:
                self._waiting = packet
                return
            packet.dts += shift
            packet.pts = packet.dts if packet.pts is None else packet.pts + shift
            self._last[index] = packet.dts, packet.dts + max(1, packet.duration or 0)
            packet.stream = self._streams[index]
            yield packet

    def close(self) -> None:
        self._input.close()

    def _next(self) -> Any:
        """The next packet; None at the end, which is early in a damaged file."""
        try:
            return next(self._packets, None)
        except (OSError, ValueError, self._av.FFmpegError) as error:
            _LOGGER.warning("the sound of %s ends early: %s", self._source, error)
            self._packets = iter(())
            return None


def _first_time(av: Any, container: Any) -> float:
    """Time stamp of the first frame of a film, in seconds; of a file without a picture, of its sound."""
    if not container.streams.video:
        return float((container.start_time or 0) / av.time_base)
    with av.open(container.name, metadata_errors="replace") as again:
        for packet in again.demux(again.streams.video[0]):
            if packet.pts is not None:
                return float(packet.pts * packet.time_base)
    return 0.0


class OpenCVEncoder:
    """MPEG-4 Part 2, or JPEG pictures in .avi, at one frame rate and without sound.

    Raises:
        InputError: a size that the codec cannot hold.
    """

    def __init__(self, path: Path, suffix: str, size: tuple[int, int], frame_rate: float) -> None:
        self._path, self._count = path, 0
        codec = cv2.VideoWriter.fourcc(*_OPENCV_CODECS[suffix])
        self._writer = cv2.VideoWriter(str(path), codec, frame_rate, size)
        if not self._writer.isOpened():
            with path.open("ab", buffering=0) as file:  # raises if the disk is full
                file.write(b"\0")
            raise InputError(
                f"video: expected frames of a size that a {suffix} file can hold, got "
                f"{size[0]} x {size[1]} pixels"
            )

    def write(self, frame: NDArray[np.uint8], seconds: float) -> None:
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self._count += 1

    def close(self) -> None:
        """Finish the file, and open it again: OpenCV does not tell that a disk is full."""
        self._writer.release()
        capture = cv2.VideoCapture(str(self._path))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if count < self._count - max(1, self._count // 100):
            raise OSError(f"of {self._count} frames, {max(0, count)} are in the file: is the disk full?")

    def abandon(self) -> None:
        self._writer.release()
