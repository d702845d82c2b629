"""Video files from frames."""

from __future__ import annotations

import logging
import os
import weakref
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.arguments import as_number
from face_landmarks._system.files import make_folder, replacing, writing
from face_landmarks.errors import InputError, WriteError
from face_landmarks.video.decoders import check_file, import_pyav
from face_landmarks.video.encoders import Encoder, OpenCVEncoder, PyAVEncoder, has_h264
from face_landmarks.video.reading import VideoBackend, check_name, choose_backend

_LOGGER = logging.getLogger(__name__)
_SUFFIXES: Final = (".mp4", ".avi", ".mov", ".mkv")
_LATEST: Final = 1e6  # seconds, eleven days
_RATES: Final = (0.01, 1000.0)  # frames per second that all of these formats store


class VideoWriter:
    """Writes frames to a video file; a context manager.

    With PyAV (`pip install "shr-fan[video]"`), .mp4, .mov and .mkv files hold H.264 that browsers, notebooks
    and phones play, each frame at its own time, and the sound of another file. Without it, and in .avi,
    OpenCV writes the frames at one frame rate, without sound, in a codec that browsers do not play; a line in
    the log says so once.

    Codecs need even sizes: at an odd width or height, the last column or row of every frame is written
    twice, and a line in the log (level INFO) says so.

    The file appears when the writer is closed, whole; until then the frames are in a hidden file beside it.
    A writer that is never closed finishes its file when it is no longer used, or when Python ends. A writer
    that fails leaves no file, and what was there before it.

    Args:
        path: .mp4, .avi, .mov or .mkv; its folder is made if it is missing.
        frame_rate: in frames per second, 0.01 to 1000.
        sound: a file whose sound is copied, up to the last frame; times of frames count from its first frame.
        backend: "pyav", "opencv", or "auto": PyAV if it is installed and writes this file type.

    Raises:
        InputError: another file type or backend, a frame rate out of range, or PyAV for .avi.
        ImageError: no such file of sound.
        MissingDependencyError: "pyav", and it is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        frame_rate: float = 30.0,
        *,
        sound: str | os.PathLike[str] | None = None,
        backend: VideoBackend = "auto",
    ) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"video: expected a path to write to, got {type(path).__name__} {path!r}")
        self.path = Path(check_name(path))
        suffix = self.path.suffix.lower()
        if suffix not in _SUFFIXES:
            raise InputError(f"video: expected a file type of {', '.join(_SUFFIXES)}, got {self.path.name!r}")
        low, high = _RATES
        if not low <= as_number(frame_rate) <= high:
            raise InputError(
                f"frame_rate: expected {low:g} to {high:g} frames per second, got {frame_rate!r}"
            )
        if sound is not None and not isinstance(sound, (str, os.PathLike)):
            raise InputError(f"sound: expected the path of a file, got {type(sound).__name__} {sound!r}")
        self.frame_rate = float(frame_rate)
        self._sound = None if sound is None else check_name(sound)
        if self._sound is not None:
            check_file(self._sound)
        self._backend = _choose(backend, suffix, self._sound)
        self._file: _OpenFile | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"VideoWriter({str(self.path)!r}, {self.frame_rate:g} frames/s)"

    def write(self, frame: NDArray[np.uint8], seconds: float | None = None) -> None:
        """Add a frame.

        Args:
            frame: (H, W, 3) uint8 RGB, of the size of the first.
            seconds: when it is shown, after the one before; by default, one frame's length after it.

        Raises:
            InputError: a frame of another size, shape or type; a size that the codec cannot hold; a time
                that is not after the last one's; or a writer that is closed.
            ImageError: the file of sound cannot be read.
            WriteError: the file cannot be written; it is given up.
        """
        if self._closed:
            raise InputError(f"video: expected no more frames, as {self.path.name} is closed")
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise InputError(f"video: expected a frame (H, W, 3), got {getattr(frame, 'shape', frame)!r}")
        if frame.dtype != np.uint8:
            raise InputError(f"video: expected frames of uint8, got {frame.dtype}")
        size = frame.shape[1], frame.shape[0]
        if self._file is None:
            time = self._time(seconds, None)
            self._file = self._open(size)
        else:
            if size != self._file.size:
                raise InputError(f"video: expected frames of (W, H) = {self._file.size}, got {size}")
            time = self._time(seconds, self._file.seconds)
        try:
            self._file.write(frame, time)
        except WriteError:
            self._closed = True
            raise

    def close(self) -> None:
        """Finish the file. A second call does nothing.

        Raises:
            WriteError: the file cannot be written.
        """
        self._closed = True
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _time(self, seconds: float | None, last: float | None) -> float:
        if seconds is None:
            return 0.0 if last is None else last + 1 / self.frame_rate
        least = 0.0 if last is None else last
        given = as_number(seconds)
        if not (least < given <= _LATEST or (last is None and given == 0)):
            after = "from 0" if last is None else f"after the last frame's, {last:g}"
            raise InputError(f"seconds: expected a time {after}, got {seconds!r}")
        return float(seconds)

    def _open(self, size: tuple[int, int]) -> _OpenFile:
        even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        make_folder(self.path.parent)
        file = _OpenFile(self.path, size, even, self.frame_rate, self._sound, self._backend)
        weakref.finalize(self, file.close, in_process=os.getpid())  # of a writer that nobody closes
        if even != size:
            _LOGGER.info("%s: frames of %d x %d pixels are padded to %d x %d", self.path, *size, *even)
        return file


class _OpenFile:
    """A file that grows under a hidden name, and gets its own when it is closed."""

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        even: tuple[int, int],
        frame_rate: float,
        sound: str | None,
        backend: str,
    ) -> None:
        self.size, self.seconds = size, 0.0
        self._path, self._even = path, even
        self._encoder: Encoder | None = None
        suffix = path.suffix.lower()
        with ExitStack() as stack:
            temporary = stack.enter_context(replacing(path, f".tmp{suffix}"))
            with writing(path), temporary.open("ab"):  # the system gives its reason, OpenCV none
                pass
            if temporary == path and backend == "opencv":  # which would remove a device
                raise WriteError(f"{path}: expected a regular file to write to, got something else")
            with writing(path):
                if backend == "pyav":
                    self._encoder = PyAVEncoder(temporary, suffix, even, frame_rate, sound)
                else:
                    self._encoder = OpenCVEncoder(temporary, suffix, even, frame_rate)
            self._stack = stack.pop_all()

    def write(self, frame: NDArray[np.uint8], seconds: float) -> None:
        if self._encoder is None:
            return
        right, bottom = self._even[0] - self.size[0], self._even[1] - self.size[1]
        whole = np.asarray(cv2.copyMakeBorder(frame, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        try:
            with writing(self._path):
                self._encoder.write(whole, seconds)
        except WriteError as error:
            self._give_up(error)
            raise
        self.seconds = seconds

    def close(self, in_process: int | None = None) -> None:
        """Finish the file, unless it is finished, or opened by another process than the one given."""
        if self._encoder is None or in_process not in (None, os.getpid()):
            return
        try:
            with writing(self._path):
                self._encoder.close()
        except WriteError as error:
            self._give_up(error)
            raise
        self._encoder = None
        self._stack.close()

    def _give_up(self, error: WriteError) -> None:
        """Remove the unfinished file."""
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            encoder.abandon()
        self._stack.__exit__(type(error), error, error.__traceback__)


def _choose(backend: str, suffix: str, sound: str | None) -> str:
    """What writes a file of this type: "pyav" or "opencv".

    Raises:
        InputError: another backend, PyAV for .avi, or sound that OpenCV would lose against a choice.
        MissingDependencyError: "pyav", and it is not installed.
    """
    chosen = choose_backend(backend)
    if suffix == ".avi":
        if backend == "pyav" or sound is not None:
            raise InputError("video: expected .mp4, .mov or .mkv for PyAV and for sound, got .avi")
        return "opencv"
    if chosen == "pyav" and (backend == "pyav" or has_h264()):
        import_pyav()
        return "pyav"
    if backend == "opencv":
        if sound is not None:
            raise InputError("sound: expected backend='auto' or 'pyav', as OpenCV writes none, got 'opencv'")
    else:
        _tell_what_is_lost()
    return "opencv"


@cache
def _tell_what_is_lost() -> None:
    _LOGGER.warning(
        "videos are written by OpenCV: without sound, at one frame rate, in MPEG-4 Part 2, which browsers "
        'and phones do not play. For H.264 with sound: pip install "shr-fan[video]"'
    )
