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
    quarter_turned,
    resize_matrix,
    sample,
    similarity,
    transform_points,
    upright_boxes,
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


def test_points_are_transformed_the_same_with_and_without_gradients():
    """Without them, on the CPU, NumPy does it."""
    centres = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    matrix = similarity(torch.tensor([2.0, 0.5]), torch.tensor([0.3, -1.0]), centres, centres + 1)
    points = torch.rand(2, 4, 2, generator=torch.Generator().manual_seed(0))
    found = transform_points(matrix, points)
    learning = transform_points(matrix, points.clone().requires_grad_())
    assert learning.requires_grad and found.dtype == learning.dtype == torch.float32
    torch.testing.assert_close(found, learning.detach())
    by_hand = torch.stack(
        [(m[:2, :2] @ p.T.double()).T + m[:2, 2] for m, p in zip(matrix, points, strict=True)]
    )
    torch.testing.assert_close(found, by_hand.float())


def test_points_of_any_type_and_at_infinity_are_transformed():
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[0, 2] = 2
    points = torch.tensor([[[1.0, torch.inf], [3.0, 4.0]]])
    assert transform_points(matrix, points)[0, 1].tolist() == [5.0, 4.0]
    low = transform_points(matrix, points.bfloat16())
    assert low.dtype == torch.bfloat16 and low[0, 1].tolist() == [5.0, 4.0]


@pytest.mark.parametrize(
    ("box", "roll"),
    [
        ([5.0, 5.0, 5.0, 5.0], 0.0),
        ([9.0, 9.0, 5.0, 5.0], 0.0),
        ([0.0, 0.0, torch.nan, 5.0], 0.0),
        ([0.0, 0.0, torch.inf, 5.0], 0.0),
        ([0.0, 0.0, 5.0, 5.0], torch.inf),
    ],
)
def test_boxes_that_make_no_crop_are_refused(box, roll):
    with pytest.raises(InputError, match="boxes, rolls: expected boxes x0 y0 x1 y1"):
        crop_matrices(torch.tensor([[0.0, 0, 1, 1], box]), 64, 0.5, rolls=torch.tensor([0.0, roll]))


@pytest.mark.parametrize("scale", [0.0, 1e-200, math.nan])
def test_a_crop_by_a_matrix_without_an_inverse_is_refused(scale):
    matrix = torch.diag(torch.tensor([scale, scale, 1.0], dtype=torch.float64))
    with pytest.raises(InputError, match="image_to_crop: expected similarities"):
        warp(np.zeros((9, 9, 3), np.uint8), matrix[None], 8)


def test_samples_of_any_type_are_at_the_same_places():
    pixels = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    centres = torch.tensor([[3.5, 3.5]] * 2)
    turned = similarity(torch.tensor([0.7, 1.3]), torch.tensor([0.4, 2.0]), centres, centres)
    found = sample(pixels, turned, 8)
    torch.testing.assert_close(found.double(), sample(pixels.double(), turned, 8), atol=1e-5, rtol=1e-5)
    unmoved = sample(pixels, torch.eye(3, dtype=torch.float64).repeat(2, 1, 1), 9)
    torch.testing.assert_close(unmoved, pixels[..., :9], atol=1e-5, rtol=1e-5)


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


@pytest.mark.parametrize("face", [30.0, 64.0, 111.3, 500.0, 1099.0])
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


def test_a_shrunk_photo_fades_to_black_where_its_edge_cuts_a_block():
    white = np.full((90, 90, 3), 255, np.uint8)  # 22 blocks of 4 pixels and half a block, both ways
    size = 25
    crop_to_image = torch.tensor([[[4.0, 0, 1.5], [0, 4.0, 1.5], [0, 0, 1]]], dtype=torch.float64)
    crop = warp(white, crop_to_image.inverse(), size)[0, 0]
    inside, half, outside = crop[:22, :22], crop[:22, 22], crop[:22, 23:]
    assert float(inside.min()) > 1 - 1e-3 and float(outside.max()) < 1e-3
    torch.testing.assert_close(255 * half, torch.full_like(half, 128), atol=0.05, rtol=0)  # 127.5, rounded
    torch.testing.assert_close(crop[22, :22], half, atol=1e-4, rtol=0)
    assert 255 * float(crop[22, 22]) == pytest.approx(64, abs=0.05)


@pytest.mark.parametrize("offset", range(4))
def test_brightness_is_kept_wherever_blocks_begin(offset):
    photo = np.zeros((120, 160, 3), np.uint8)
    photo[40 + offset : 80 + offset, 60 + offset : 110 + offset] = 200
    boxes = torch.tensor([[10.0, 5.0, 150.0, 110.0]])
    matrix = crop_matrices(boxes, 32, 0.6)
    area = float(torch.linalg.det(matrix[0, :2, :2]))
    assert float(warp(photo, matrix, 32)[0, 0].sum()) == pytest.approx(40 * 50 * 200 / 255 * area, rel=0.01)


def test_a_crop_takes_each_colour_to_its_own_channel():
    photo = np.zeros((20, 30, 3), np.uint8)
    photo[:] = (10, 20, 30)
    crop = warp(photo, crop_matrices(torch.tensor([[5.0, 5.0, 15.0, 15.0]]), 8, 0.5), 8)
    assert (255 * crop[0].mean(dim=(1, 2))).round().tolist() == [10, 20, 30]


def test_crops_of_several_photos_are_each_from_their_own():
    photos = [np.full((40 + n, 30 + n, 3), 50 * n, np.uint8) for n in (1, 2, 3)]
    boxes = torch.tensor([[5.0, 5.0, 15.0, 15.0], [2.0, 9.0, 20.0, 19.0], [4.0, 4.0, 5.0, 5.0]])
    crops = warp(photos, crop_matrices(boxes, 8, 0.5), 8)
    assert (255 * crops[:, 0, 4, 4]).round().tolist() == [50, 100, 150]


def test_a_box_of_a_lying_face_has_width_and_height_exchanged():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 80.0], [0.0, 0.0, 5.0, 1.0]])
    turned = quarter_turned(boxes)
    assert turned.tolist() == [[-10, 40, 50, 60], [2, -2, 3, 3]]
    assert quarter_turned(turned).tolist() == boxes.tolist()


def upright_face(n=1):
    """(n, 68, 2): eyes level, the other landmarks around and below; 100 wide, 120 high."""
    random = np.random.default_rng(3)
    points = random.uniform((-50, -40), (50, 80), (68, 2))
    points[:4] = (-50, 0), (50, 0), (0, -40), (0, 80)
    points[36:42], points[42:48] = (-20, 0), (20, 0)
    rest = np.r_[:36, 48:68]
    points[rest, 0] -= points[:, 0].mean() * len(points) / len(rest)  # the mean lies straight below the eyes
    return torch.from_numpy(np.repeat(points[None], n, axis=0))


EYES = (range(36, 42), range(42, 48))


def turned_by(degrees, points, centre=(200.0, 300.0)):
    angle = torch.tensor([math.radians(degrees)], dtype=torch.float64)
    zero = torch.zeros(1, 2, dtype=torch.float64)
    turn = similarity(
        torch.ones(1, dtype=torch.float64), angle, zero, torch.tensor([centre], dtype=torch.float64)
    )
    return transform_points(turn, points)


@pytest.mark.parametrize("degrees", [0, 20, -35, 90, 135, 179, -90])
def test_a_turned_face_has_the_box_of_the_upright_one_and_its_roll(degrees):
    face = upright_face()
    boxes, rolls = upright_boxes(turned_by(degrees, face), EYES)
    assert math.degrees(rolls[0]) == pytest.approx(degrees, abs=1e-6)
    plain = torch.from_numpy(boxes_from_landmarks(face.numpy())).double()
    sides = boxes[:, 2:] - boxes[:, :2]
    torch.testing.assert_close(sides, plain[:, 2:] - plain[:, :2], atol=1e-3, rtol=0)
    centre = turned_by(degrees, ((plain[:, :2] + plain[:, 2:]) / 2)[:, None])[:, 0]
    torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, centre, atol=1e-3, rtol=0)


@pytest.mark.parametrize("degrees", [0, 40, -120])
def test_the_roll_of_a_profile_is_told_by_the_line_from_the_eyes_down(degrees):
    face = upright_face()
    face[..., 0] *= 0.02  # seen from the side, the eyes lie on each other
    face[:, 36:42] += torch.tensor([0.0, 1.0])  # and their line means nothing
    face[:, 42:48] -= torch.tensor([0.0, 1.0])
    _, rolls = upright_boxes(turned_by(degrees, face), EYES)
    assert math.degrees(rolls[0]) == pytest.approx(degrees, abs=8)


@pytest.mark.parametrize("degrees", [0, 40, -120])
def test_the_roll_of_a_face_that_looks_up_is_told_by_the_line_through_the_eyes(degrees):
    face = upright_face()
    face[..., 1] *= 0.02
    face[:, 48:, 0] += 3  # so short a line down is easily bent
    _, rolls = upright_boxes(turned_by(degrees, face), EYES)
    assert math.degrees(rolls[0]) == pytest.approx(degrees, abs=8)


def test_a_roll_turns_the_crop_with_the_face():
    """What lies at the face's right is at the crop's right, whatever the roll."""
    box = torch.tensor([[90.0, 80.0, 110.0, 120.0]])
    for degrees in (0.0, 30.0, 90.0, 180.0):
        roll = torch.tensor([math.radians(degrees)], dtype=torch.float64)
        matrix = crop_matrices(box, 64, 0.5, 0.25, roll)
        right = torch.tensor([[[math.cos(roll[0]), math.sin(roll[0])]]], dtype=torch.float64)
        down = torch.tensor([[[-math.sin(roll[0]), math.cos(roll[0])]]], dtype=torch.float64)
        centre = torch.tensor([[[100.0, 100.0]]], dtype=torch.float64)
        middle = torch.full((1, 1, 2), 31.5, dtype=torch.float64)
        scale = 64 / 30
        found = transform_points(
            matrix, torch.cat([centre + 10 * down, centre + 10 * down + 3 * right], dim=1)
        )
        expected = torch.cat([middle, middle + torch.tensor([3 * scale, 0.0])], dim=1)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_more_channels_than_colours_are_sampled():
    pixels = torch.rand(2, 5, 7, 9, generator=torch.Generator().manual_seed(0))
    shift = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    shift[:, 0, 2], shift[:, 1, 2] = 2, 1  # target (x, y) shows source (x + 2, y + 1)
    torch.testing.assert_close(sample(pixels, shift, 3), pixels[:, :, 1:4, 2:5], atol=1e-5, rtol=0)
