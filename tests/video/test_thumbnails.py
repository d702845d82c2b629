"""The small pictures by which frames and faces are compared."""

import cv2
import numpy as np
import pytest

from face_landmarks.video.thumbnails import contrast, correlation, thumbnail


@pytest.mark.parametrize("size", [(40, 30), (480, 640), (1080, 1920)])
def test_thumbnails_are_means_of_their_part_of_the_frame(size):
    y, x = np.mgrid[: size[0], : size[1]]
    frame = np.repeat((255 * (x + y) / (x + y).max())[..., np.newaxis], 3, axis=2).astype(np.uint8)
    whole = thumbnail(frame, np.array([0, 0, size[1], size[0]]))
    exact = cv2.resize(frame, (24, 24), interpolation=cv2.INTER_AREA).astype(float).ravel()
    np.testing.assert_allclose(whole, exact - exact.mean(), atol=6)


def test_a_thumbnail_is_black_where_its_part_is_outside_the_frame():
    frame = np.full((100, 100, 3), 200, np.uint8)
    for box, inside in [((-50, 0, 50, 100), np.s_[:, 12:]), ((50, 50, 150, 150), np.s_[:12, :12])]:
        found = thumbnail(frame, np.array(box)).reshape(24, 24, 3)
        expected = np.zeros((24, 24, 3))
        expected[inside] = 200
        np.testing.assert_allclose(found, expected - expected.mean(), atol=1)
    outside = thumbnail(frame, np.array([300, -90, 340, -50]))
    np.testing.assert_array_equal(outside, 0)
    for corner in (7, 100):  # within the frame, and just outside
        speck = thumbnail(frame, np.array([corner] * 4))
        np.testing.assert_array_equal(speck, np.zeros(24 * 24 * 3))


def test_a_plain_picture_is_like_another_plain_one_and_unlike_any_other():
    random = np.random.default_rng(0)
    box = np.array([0, 0, 48, 48])
    black = thumbnail(np.zeros((48, 48, 3), np.uint8), box)
    noise = thumbnail(random.integers(100, 106, (48, 48, 3), np.uint8), box)
    picture = thumbnail(cv2.resize(random.integers(0, 256, (6, 6, 3), np.uint8), (48, 48)), box)
    assert correlation(black, black) == 1 and correlation(black, noise) > 0.9
    assert correlation(black, picture) < 0.2 and correlation(noise, picture) < 0.2
    assert correlation(picture, 0.5 * picture) > 0.9 and correlation(picture, -picture) < -0.9
    assert contrast(black) == 0 and contrast(noise) < 0.5 and contrast(picture) > 5
