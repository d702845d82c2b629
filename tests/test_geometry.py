"""Frames, boxes and crops."""

import math

import numpy as np
import pytest
import torch

from face_landmarks.errors import InputError
from face_landmarks.geometry import (
    boxes_from_landmarks,
    crop_matrices,
    mirror_matrix,
    resize_matrix,
    sample,
    similarity,
    transform_points,
    warp,
)


def blob(size, x, y, sigma):
    """(H, W, 3) uint8, black but for a Gaussian spot at (x, y)."""
    height, width = size
    columns, rows = np.arange(width), np.arange(height)[:, None]
    spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(spot[..., None], 3, axis=2).round().astype(np.uint8)


def centroid(crop):
    """x, y of a crop's centre of brightness; (3, H, W) tensor."""
    mass = crop[0].double()
    total = mass.sum()
    x = (mass.sum(dim=0) * torch.arange(crop.shape[2])).sum() / total
    y = (mass.sum(dim=1) * torch.arange(crop.shape[1])).sum() / total
    return float(x), float(y)


def test_a_face_box_reaches_from_the_forehead_to_the_chin():
    landmarks = np.zeros((1, 68, 2), np.float32)
    landmarks[0, 0], landmarks[0, 1:] = (100, 50), (300, 250)  # tight box 200 x 200
    np.testing.assert_allclose(boxes_from_landmarks(landmarks), [[102, -17.4, 298, 245.6]], atol=1e-4)


def test_boxes_of_no_faces_are_empty():
    assert boxes_from_landmarks(np.empty((0, 68, 2))).shape == (0, 4)


@pytest.mark.parametrize("landmarks", [np.zeros((68, 2)), np.full((1, 68, 2), np.nan), np.zeros((2, 3, 4))])
def test_landmarks_that_make_no_box_are_refused(landmarks):
    with pytest.raises(InputError, match="landmarks: expected"):
        boxes_from_landmarks(landmarks)


def test_a_crop_of_the_box_itself_puts_its_edges_on_the_crops_edges():
    box = torch.tensor([[10.0, 20.0, 50.0, 60.0]])
    matrix = crop_matrices(box, crop_size=80, crop_scale=0.5)  # side = 0.5 (40 + 40)
    edges = torch.tensor([[[10.0, 20.0], [50.0, 60.0]]], dtype=torch.float64)
    torch.testing.assert_close(
        transform_points(matrix, edges), torch.tensor([[[-0.5, -0.5], [79.5, 79.5]]], dtype=torch.float64)
    )


def test_a_crop_moves_down_by_its_shift_in_box_heights():
    box = torch.tensor([[0.0, 0.0, 10.0, 40.0]])
    matrix = crop_matrices(box, crop_size=9, crop_scale=1.0, crop_shift=0.25)
    middle = transform_points(matrix.inverse(), torch.tensor([[[4.0, 4.0]]]))
    torch.testing.assert_close(middle, torch.tensor([[[5.0, 30.0]]]))


def test_resizing_by_four_centres_the_first_cell_on_pixel_one_and_a_half():
    cells = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    torch.testing.assert_close(
        transform_points(resize_matrix(4), cells), torch.tensor([[1.5, 1.5], [5.5, 9.5]])
    )


def test_a_mirror_swaps_the_first_and_last_column():
    points = torch.tensor([[0.0, 3.0], [6.0, 3.0]])
    torch.testing.assert_close(
        transform_points(mirror_matrix(7), points), torch.tensor([[6.0, 3.0], [0.0, 3.0]])
    )


def test_a_similarity_turns_clockwise_on_the_screen_about_its_centre():
    matrix = similarity(
        scale=torch.tensor([2.0]),
        rotation=torch.tensor([math.pi / 2]),
        source_centre=torch.tensor([[5.0, 5.0]]),
        target_centre=torch.tensor([[0.0, 0.0]]),
    )
    points = torch.tensor([[[5.0, 5.0], [6.0, 5.0]]])
    torch.testing.assert_close(
        transform_points(matrix, points), torch.tensor([[[0.0, 0.0], [0.0, 2.0]]]), atol=1e-5, rtol=0
    )


def test_points_survive_a_round_trip_far_from_the_origin():
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[19000.0, 9000.0, 19200.0, 9250.0]])
    matrix = crop_matrices(boxes, 256, 0.61, 0.1365)
    crop = 256 * torch.rand(1, 68, 2, generator=generator)
    image = transform_points(matrix.inverse(), crop)
    torch.testing.assert_close(transform_points(matrix, image), crop, atol=5e-3, rtol=0)


@pytest.mark.parametrize("face", [30.0, 64.0, 111.3, 500.0, 1999.0])
@pytest.mark.parametrize("fraction", [(0.0, 0.0), (0.25, 0.6)])
def test_a_spot_lands_where_the_matrix_says_at_every_face_size(face, fraction):
    size = (round(1.4 * face) + 20, round(1.3 * face) + 30)  # not square
    x, y = 0.6 * face + fraction[0], 0.7 * face + fraction[1]
    image = blob(size, x, y, sigma=face / 25)
    boxes = torch.tensor([[0.11 * face, 0.12 * face, 1.11 * face, 1.12 * face]])
    matrix = crop_matrices(boxes, 64, 0.5)
    expected = transform_points(matrix, torch.tensor([[[x, y]]]))[0, 0]
    found = centroid(warp(image, matrix, 64)[0])
    assert found == pytest.approx(tuple(expected.tolist()), abs=0.02)


def test_fine_texture_of_a_large_face_turns_grey_instead_of_aliasing():
    rows, columns = np.mgrid[:2000, :2000]
    stripes = (255 * ((columns + rows) % 2)).astype(np.uint8)
    image = np.repeat(stripes[..., None], 3, axis=2)
    matrix = crop_matrices(torch.tensor([[100.0, 120.0, 1900.0, 1900.0]]), 128, 0.5)
    crop = warp(image, matrix, 128)
    assert float((crop - 0.5).abs().max()) < 0.02


def test_outside_the_photo_is_black():
    image = np.full((20, 30, 3), 255, np.uint8)
    boxes = torch.tensor([[-100.0, -100.0, -50.0, -50.0], [19.5, -0.5, 39.5, 19.5]])  # half of it
    outside, partly = warp(image, crop_matrices(boxes, 20, 0.5), 20)
    assert float(outside.max()) == 0
    assert float(partly[:, :, :10].min()) > 1 - 1e-5
    assert float(partly[:, :, 10:].max()) < 1e-5


def test_only_the_footprint_matters():
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    part = np.ascontiguousarray(photo[100:260, 150:330])
    boxes = torch.tensor([[190.3, 140.7, 260.1, 220.9]])
    whole = warp(photo, crop_matrices(boxes, 32, 0.5), 32)
    moved = warp(part, crop_matrices(boxes - torch.tensor([150.0, 100, 150, 100]), 32, 0.5), 32)
    torch.testing.assert_close(whole, moved, atol=0.02, rtol=0)


def test_no_boxes_give_no_crops():
    assert warp(np.zeros((5, 7, 3), np.uint8), torch.empty(0, 3, 3), 16).shape == (0, 3, 16, 16)


def test_sampling_with_the_identity_changes_nothing():
    pixels = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    identity = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    torch.testing.assert_close(sample(pixels, identity, 7), pixels, atol=1e-5, rtol=0)


def test_sampling_half_a_pixel_further_averages_neighbours():
    pixels = torch.tensor([[[[0.0, 1.0, 0.0, 0.0]] * 4]])
    shift = torch.eye(3, dtype=torch.float64)[None].clone()
    shift[0, 0, 2] = 0.5
    row = sample(pixels, shift, 4)[0, 0, 1]
    torch.testing.assert_close(row, torch.tensor([0.5, 0.5, 0.0, 0.0]), atol=1e-6, rtol=0)
