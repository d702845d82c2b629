"""Video files from frames."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.files import make_folder
from face_landmarks.errors import InputError, WriteError

_CODECS: Final = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


class VideoWriter:
    """Writes frames to a video file; a context manager.

    Args:
        path: .mp4, .avi, .mov or .mkv; its folder is made if it is missing.
        frame_rate: in frames per second.

    Raises:
        InputError: another type of file.
    """

    def __init__(self, path: str | os.PathLike[str], frame_rate: float = 30.0) -> None:
        self.path = Path(path)
        self.frame_rate = frame_rate
        if self.path.suffix.lower() not in _CODECS:
            raise InputError(f"video: expected a file type of {', '.join(_CODECS)}, got {self.path.name!r}")
        self._writer: cv2.VideoWriter | None = None
        self._size: tuple[int, int] | None = None
        self._closed = False

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame, (H, W, 3) uint8 RGB, of the size of the first.

        Raises:
            InputError: another size, shape or type, or a file that is finished.
            WriteError: the file cannot be written.
        """
        if self._closed:
            raise InputError(f"video: expected no more frames, as {self.path.name} is closed")
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
            raise InputError(f"video: expected a frame (H, W, 3), got {getattr(frame, 'shape', frame)!r}")
        if frame.dtype != np.uint8:
            raise InputError(f"video: expected frames of uint8, got {frame.dtype}")
        height, width = frame.shape[:2]
        if self._writer is None:
            self._writer, self._size = self._open(width, height), (width, height)
        if (width, height) != self._size:
            raise InputError(f"video: expected frames of (W, H) = {self._size}, got {(width, height)}")
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
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
        make_folder(self.path.parent)
        codec = cv2.VideoWriter.fourcc(*_CODECS[self.path.suffix.lower()])
        writer = cv2.VideoWriter(str(self.path), codec, self.frame_rate, (width, height))
        if not writer.isOpened():
            raise WriteError(f"{self.path}: expected a place to write to, got one that OpenCV cannot open")
        return writer
