"""Frames and faces as small pictures, by which they are compared."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks.video.smoothing import Points

_THUMBNAIL: Final = 24  # side in pixels
_SAMPLES: Final = 4  # pixels of a frame or a face, along each axis, that are averaged into one
_PLAIN: Final = 4.0  # standard deviation, in grey levels, below which a thumbnail is little more than noise


def thumbnail(pixels: NDArray[np.uint8], box: NDArray[np.int64]) -> Points:
    """A part of a frame as 24 x 24 means, as a vector around their mean; black outside the frame.

    Args:
        pixels: (H, W, 3).
        box: (4,) the first column and row, and those after the last.

    Of a large part only every n-th pixel is read, at least _SAMPLES along a thumbnail's pixel.
    """
    x0, y0, x1, y1 = box.tolist()
    step = max(1, min(x1 - x0, y1 - y0) // (_SAMPLES * _THUMBNAIL))
    right, bottom = max(x1, x0 + 1), max(y1, y0 + 1)
    if x0 >= 0 and y0 >= 0 and right <= pixels.shape[1] and bottom <= pixels.shape[0]:
        return _shrunk(np.ascontiguousarray(pixels[y0:bottom:step, x0:right:step]))
    part = np.zeros(
        (*(max(1, len(range(a, b, step))) for a, b in zip(box[1::-1], box[:1:-1], strict=True)), 3), np.uint8
    )
    places, sources = [], []
    for first, last, size in zip(box[1::-1], box[:1:-1], pixels.shape, strict=False):  # rows, columns
        skipped = max(0, -(int(first) // step))
        source = range(int(first) + skipped * step, min(int(last), size), step)
        places.append(slice(skipped, skipped + len(source)))
        sources.append(slice(source.start, max(source.start, source.stop), step))
    part[places[0], places[1]] = pixels[sources[0], sources[1]]
    return _shrunk(part)


def _shrunk(part: NDArray[np.uint8]) -> Points:
    """The thumbnail of pixels, as a vector around its mean."""
    small = cv2.resize(part, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    vector: Points = small.ravel().astype(np.float64)
    vector -= vector.sum() / len(vector)  # whole numbers so far, and mean() takes several times as long
    return vector


def correlation(a: Points, b: Points) -> float:
    """Correlation of two thumbnails, -1 to 1, at any brightness, and any contrast well above that of noise.

    Each counts as having one more component, that of plain pictures: two plain ones are alike, whatever
    their noise, and the nearer one is to plain, the less it is like any other.
    """
    plain = _PLAIN**2 * len(a)
    return float((a @ b + plain) / np.sqrt((a @ a + plain) * (b @ b + plain)))


def contrast(a: Points) -> float:
    """Standard deviation of a thumbnail, in units of what noise gives a plain one: below 1, it is plain."""
    return float(np.sqrt(a @ a / len(a))) / _PLAIN
