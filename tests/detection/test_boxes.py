"""What the detectors share: photos made smaller."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from face_landmarks.detection._boxes import shrink


@pytest.mark.parametrize(
    ("size", "shrunken"),
    [
        ((512, 512), (320, 320)),  # less than half of the way
        ((960, 1280), (240, 320)),  # whole pixels alone
        ((1200, 1600), (240, 320)),
        ((1201, 1601), (240, 320)),  # no whole pixels
        ((3000, 4000), (240, 320)),
        ((1, 4000), (1, 320)),
        ((200, 100), (200, 100)),
    ],
)
def test_a_shrunken_photo_is_smooth_and_keeps_its_places(size, shrunken):
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    wave = 127 + 60 * np.sin(10 * (x + 0.5) / max(size)) + 60 * np.cos(10 * (y + 0.5) / max(size))
    found = shrink(np.repeat(wave[..., np.newaxis], 3, axis=2).astype(np.uint8), 320)
    assert found.shape == (*shrunken, 3) and found.dtype == np.uint8
    y, x = np.mgrid[: shrunken[0], : shrunken[1]].astype(np.float32)
    y, x = (y + 0.5) * size[0] / shrunken[0], (x + 0.5) * size[1] / shrunken[1]
    expected = 127 + 60 * np.sin(10 * x / max(size)) + 60 * np.cos(10 * y / max(size))
    np.testing.assert_allclose(found[..., 0], expected, atol=2.5)


def test_fine_texture_turns_to_grey():
    checks = (255 * (np.indices((1200, 1600)).sum(axis=0) % 2)).astype(np.uint8)
    found = shrink(cv2.merge([checks] * 3), 320)
    np.testing.assert_allclose(found, 127.5, atol=6)  # of 127.5
