"""An image at its own size, a half, a quarter, ..., from which any smaller part is quickly made."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks.detection._boxes import LARGEST, Boxes, Image

_SMALLEST: Final = 12  # pixels of the shorter side: less is not halved


class Mipmaps:
    """An image and its copies at a half of the size, a quarter, and so on.

    Attributes:
        images: (H, W, 3) each, the largest first.
    """

    def __init__(self, image: Image) -> None:
        self.images = [image]
        while min(self.images[-1].shape[:2]) >= 2 * _SMALLEST:
            height, width = self.images[-1].shape[:2]
            self.images.append(_resize(self.images[-1], (width // 2, height // 2)))
        # Pixels of the image in one of each copy, (n, 2): x y.
        self._zooms = np.array([np.divide(image.shape[1::-1], copy.shape[1::-1]) for copy in self.images])

    def resized(self, size: tuple[int, int]) -> Image:
        """The image at a size, width and height, from the smallest copy that is no smaller."""
        enough = [copy for copy in self.images if copy.shape[1] >= size[0] and copy.shape[0] >= size[1]]
        return _resize(enough[-1] if enough else self.images[0], size)

    def crops(self, edges: Boxes, size: int) -> tuple[NDArray[np.uint8], Boxes]:
        """Squares of whole pixels around boxes.

        Each is cut from the smallest copy in which it is no smaller than its crop. Squares that do not
        reach into the image, or are absurdly large, are left out.

        Args:
            edges: (N, 4) in pixels of the image.
            size: of a crop, in pixels.

        Returns:
            Crops (M, size, size, 3), black outside the image, and their squares (M, 4) in its pixels.
        """
        sides = (edges[:, 2:] - edges[:, :2]).max(axis=1, initial=0)  # (N,)
        level = np.searchsorted(size * self._zooms.max(axis=1), sides, side="right").clip(1) - 1
        zooms = np.tile(self._zooms[level], 2)  # (N, 4)
        small = _squares(edges / zooms)
        keep = _reaches_into(small * zooms, self.images[0])
        crops = np.empty((keep.sum(), size, size, 3), np.uint8)
        places = small[keep].astype(int).tolist()
        for crop, copy, place in zip(crops, level[keep].tolist(), places, strict=True):
            part = _cut(self.images[copy], *place)
            cv2.resize(part, (size, size), crop, interpolation=cv2.INTER_LINEAR)
        return crops, (small * zooms)[keep]


def _resize(image: Image, size: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _squares(edges: Boxes) -> Boxes:
    """The smallest squares (N, 4), about the same centres, of whole pixels."""
    sides = np.maximum(1, np.rint((edges[:, 2:] - edges[:, :2]).max(axis=1, keepdims=True, initial=0)))
    corner = np.rint((edges[:, :2] + edges[:, 2:] - sides) / 2)  # (N, 2)
    return np.concatenate((corner, corner + sides), axis=1)


def _reaches_into(squares: Boxes, image: Image) -> NDArray[np.bool_]:
    """Which squares (N, 4) overlap the image, and are not absurdly large."""
    size = np.array(image.shape[1::-1])
    overlap = np.minimum(squares[:, 2:], size) - np.maximum(squares[:, :2], 0)  # (N, 2)
    possible = squares[:, 2:] - squares[:, :2] <= LARGEST * size.max()
    reaches: NDArray[np.bool_] = ((overlap > 0) & possible).all(axis=1)
    return reaches


def _cut(image: Image, x0: int, y0: int, x1: int, y1: int) -> Image:
    """What is between these edges; black outside the image."""
    height, width = image.shape[:2]
    if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
        return image[y0:y1, x0:x1]
    part = image[max(0, y0) : y1, max(0, x0) : x1]
    outside = max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width)
    return np.asarray(cv2.copyMakeBorder(part, *outside, cv2.BORDER_CONSTANT), np.uint8)
