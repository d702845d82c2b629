"""Frames of several sizes, for a video that has one."""

from __future__ import annotations

import logging

import cv2
import numpy as np
from numpy.typing import NDArray

_LOGGER = logging.getLogger(__name__)


class Letterbox:
    """Gives every frame the size of the first; a line in the log (level INFO) says once that some are scaled.

    Attributes:
        size: (W, H) of the first frame; None before it.
    """

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self._told = False

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame, (H, W, 3), itself if it has the first one's size."""
        size = frame.shape[1], frame.shape[0]
        if self.size in (None, size):
            self.size = size
            return frame
        assert self.size is not None
        if not self._told:
            _LOGGER.info(
                "frames of %d x %d pixels are scaled to fit into the first one's %d x %d", *size, *self.size
            )
            self._told = True
        return letterbox(frame, self.size)


def letterbox(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A frame scaled to fit inside a size, its shape kept, between black borders of equal width.

    Args:
        frame: (H, W, 3).
        size: (W, H) of the result.
    """
    height, width = frame.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = max(1, round(scale * width)), max(1, round(scale * height))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    boxed = np.zeros((size[1], size[0], 3), np.uint8)
    boxed[top : top + inner[1], left : left + inner[0]] = cv2.resize(frame, inner, interpolation=method)
    return boxed
