"""Frames of video files and cameras."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks.errors import ImageError


class Video:
    """The frames of a video file or a camera, in RGB; iterate over it.

    Frames are turned upright as the file says. Iterating again starts again, where that is possible.

    Args:
        source: path or URL of a video, or the number of a camera.

    Attributes:
        frame_rate: frames per second; 30 where the source does not say.
        frame_count: as the file's header has it, which may be off by some; 0 if unknown, as of cameras.

    Raises:
        ImageError: the source cannot be opened, or has no frame.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        self._source = source if isinstance(source, int) else os.fspath(source)
        capture = self._open()
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.release()
        self.frame_rate: float = rate if 0 < rate < math.inf else 30.0
        self.frame_count = max(0, int(count))

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 3) uint8 RGB, each frame an array of its own."""
        capture = self._open()
        try:
            frames = 0
            while (read := capture.read())[0]:
                frames += 1
                yield np.asarray(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB), np.uint8)
            if not frames:
                raise ImageError(f"video: expected frames, got none from {self._source!r}")
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        if isinstance(self._source, str) and "://" not in self._source and not Path(self._source).is_file():
            raise ImageError(f"video: cannot open {self._source!r}: no such file")
        capture = cv2.VideoCapture(self._source)
        if not capture.isOpened():
            raise ImageError(f"video: expected a video that OpenCV can read, got {self._source!r}")
        return capture
