"""Parts of an image, made from the smaller of its copies: where they lie, and what is outside."""

from __future__ import annotations

import numpy as np
import pytest

from face_landmarks.detection._mipmaps import Mipmaps, _cut, _squares


def ramp(height: int, width: int) -> np.ndarray:
    """(H, W, 3): each pixel tells where its centre is, x in red and y in green, in 255ths of the image."""
    image = np.zeros((height, width, 3))
    image[..., 0] = (np.arange(width) + 0.5) / width * 255
    image[..., 1] = (np.arange(height)[:, np.newaxis] + 0.5) / height * 255
    return np.rint(image).astype(np.uint8)


@pytest.mark.parametrize("place", [(40, 30, 64, 54), (-5, 30, 20, 55), (90, -9, 110, 11), (95, 60, 125, 90)])
def test_a_square_is_cut_out_and_black_outside(place: tuple[int, int, int, int]) -> None:
    image = np.random.default_rng(0).integers(1, 256, (70, 100, 3), dtype=np.uint8)
    padded = np.pad(image, ((50, 50), (50, 50), (0, 0)))
    x0, y0, x1, y1 = place
    np.testing.assert_array_equal(_cut(image, *place), padded[y0 + 50 : y1 + 50, x0 + 50 : x1 + 50])


def test_squares_lie_about_the_centres_of_their_boxes() -> None:
    boxes = np.array([(10.0, 20, 30, 60), (-5, 0, 15.4, 8), (7, 7, 7.2, 7.1)])
    squares = [(0, 20, 40, 60), (-5, -6, 15, 14), (7, 7, 8, 8)]  # of whole pixels, at least one
    np.testing.assert_array_equal(_squares(boxes), squares)


@pytest.mark.parametrize("size", [24, 48])
@pytest.mark.parametrize("shape", [(384, 384), (399, 400), (510, 383)])
def test_a_crop_shows_what_its_square_says(shape: tuple[int, int], size: int) -> None:
    mipmaps = Mipmaps(ramp(*shape))
    centre = np.array([281.3, 267.6])
    sides = np.array([5.0, 20, 24, 30, 47.9, 48.1, 96, 100, 150, 194])
    edges = np.concatenate((centre - sides[:, None] / 2, centre + sides[:, None] / 2), axis=1)
    crops, squares = mipmaps.crops(edges, size)
    assert crops.shape == (len(sides), size, size, 3)
    pixels = np.maximum(1, sides / size)  # of the image in one of the crop, at most
    assert (abs(squares - edges) <= 2 * pixels[:, None]).all()
    np.testing.assert_allclose(squares[:, 2] - squares[:, 0], squares[:, 3] - squares[:, 1], rtol=0.03)
    middle = (squares[:, :2] + squares[:, 2:]) / 2
    seen = crops[..., :2].astype(float).mean(axis=(1, 2)) / 255 * shape[::-1]
    assert (abs(seen - middle) <= 2 + 0.1 * pixels[:, None]).all()  # a level of grey is up to 2 pixels


def test_large_squares_come_from_small_copies() -> None:
    mipmaps = Mipmaps(np.zeros((400, 600, 3), np.uint8))
    assert [copy.shape[:2] for copy in mipmaps.images] == [
        (400, 600),
        (200, 300),
        (100, 150),
        (50, 75),
        (25, 37),
        (12, 18),
    ]
    for number, copy in enumerate(mipmaps.images):
        copy[:] = number
    sides = np.array([20.0, 24, 47, 48, 95, 96, 192, 350])
    edges = np.stack((300 - sides / 2, 200 - sides / 2, 300 + sides / 2, 200 + sides / 2), axis=1)
    crops, _ = mipmaps.crops(edges, 24)
    assert crops[:, 12, 12, 0].tolist() == [0, 0, 0, 1, 1, 2, 3, 3]
    sizes = [(600, 400), (599, 399), (300, 200), (299, 200), (151, 100), (150, 100), (900, 600)]
    assert [mipmaps.resized(size)[0, 0, 0] for size in sizes] == [0, 0, 1, 1, 1, 2, 0]
    for size in sizes:
        assert mipmaps.resized(size).shape == (size[1], size[0], 3)


def test_squares_that_show_nothing_of_the_image_are_left_out() -> None:
    mipmaps = Mipmaps(np.full((60, 40, 3), 255, np.uint8))
    edges = np.array(
        [(0, 0, 30, 30), (40, 0, 70, 30), (-30, 0, 0, 30), (-500, -500, 500, 500), (39, 59, 69, 89.0)]
    )
    crops, squares = mipmaps.crops(edges, 24)
    np.testing.assert_array_equal(squares, edges[[0, 4]])
    assert (crops[0] == 255).all() and (crops[1, 0, 0] > 0).all() and (crops[1, 2:, 2:] == 0).all()
    crops, squares = mipmaps.crops(np.empty((0, 4)), 24)
    assert crops.shape == (0, 24, 24, 3) and squares.shape == (0, 4)
