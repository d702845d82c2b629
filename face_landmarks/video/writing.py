"""Video files from frames."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.files import make_folder, remove, writing
from face_landmarks.errors import InputError
from face_landmarks.video.checks import as_number
from face_landmarks.video.reading import check_name

_LOGGER = logging.getLogger(__name__)
_CODECS: Final = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_RATES: Final = (0.01, 1000.0)  # frames per second that all of these formats store


class VideoWriter:
    """Writes frames to a video file; a context manager.

    The codecs need even sizes: at an odd width or height, the last column or row of every frame is written
    twice, and a line in the log (level INFO) says so. The file appears with the first frame.

    Args:
        path: .mp4, .avi, .mov or .mkv; its folder is made if it is missing.
        frame_rate: in frames per second, 0.01 to 1000.

    Raises:
        InputError: another file type, or a frame rate out of range.
    """

    def __init__(self, path: str | os.PathLike[str], frame_rate: float = 30.0) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"video: expected a path to write to, got {type(path).__name__} {path!r}")
        self.path = Path(check_name(path))
        if self.path.suffix.lower() not in _CODECS:
            raise InputError(f"video: expected a file type of {', '.join(_CODECS)}, got {self.path.name!r}")
        low, high = _RATES
        if not low <= as_number(frame_rate) <= high:
            raise InputError(
                f"frame_rate: expected {low:g} to {high:g} frames per second, got {frame_rate!r}"
            )
        self.frame_rate = float(frame_rate)
        self._writer: cv2.VideoWriter | None = None
        self._size: tuple[int, int] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"VideoWriter({str(self.path)!r}, {self.frame_rate:g} frames/s)"

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame, (H, W, 3) uint8 RGB, of the size of the first.

        Raises:
            InputError: a frame of another size, shape or type; a size that the codec cannot hold; or a
                writer that is closed.
            WriteError: the file cannot be written.
        """
        if self._closed:
            raise InputError(f"video: expected no more frames, as {self.path.name} is closed")
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise InputError(f"video: expected a frame (H, W, 3), got {getattr(frame, 'shape', frame)!r}")
        if frame.dtype != np.uint8:
            raise InputError(f"video: expected frames of uint8, got {frame.dtype}")
        height, width = frame.shape[:2]
        if self._writer is None:
            self._writer, self._size = self._open(width, height), (width, height)
        if (width, height) != self._size:
            raise InputError(f"video: expected frames of (W, H) = {self._size}, got {(width, height)}")
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        self._writer.write(cv2.copyMakeBorder(bgr, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE))

    def close(self) -> None:
        """Finish the file. A second call does nothing."""
        self._closed = True
        if self._writer is not None:
            self._writer.release()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, width: int, height: int) -> cv2.VideoWriter:
        even = (width + width % 2, height + height % 2)
        make_folder(self.path.parent)
        new = not self.path.exists()
        with writing(self.path), self.path.open("ab"):  # the system gives its reason, OpenCV none
            pass
        opened = False
        try:
            codec = cv2.VideoWriter.fourcc(*_CODECS[self.path.suffix.lower()])
            writer = cv2.VideoWriter(str(self.path), codec, self.frame_rate, even)
            opened = writer.isOpened()
        finally:
            if new and not opened:
                remove(self.path)
        if not opened:
            raise InputError(
                f"video: expected frames of a size that a {self.path.suffix} file can hold, got "
                f"{width} x {height} pixels"
            )
        if even != (width, height):
            _LOGGER.info(
                "%s: frames of %d x %d pixels are padded to %d x %d", self.path, width, height, *even
            )
        return writer
