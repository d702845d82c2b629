"""Distances along the axes of a heatmap's spread, and views turned by any angle."""

import dataclasses
import math

import pytest
import torch
from tiny_training import TINY

from face_landmarks.geometry import resize_matrix, transform_points
from face_landmarks.heatmap import encode_heatmaps
from face_landmarks.layouts import IBUG_68
from face_landmarks.training.augment import Views, near_views, random_views
from face_landmarks.training.config import AugmentConfig
from face_landmarks.training.losses import coordinate_loss, loss_terms, principal_axes, siamese_loss


def drawn_gaussian(centre, deviations, degrees, size=(41, 47)):
    """(1, 1, H, W) a Gaussian with these standard deviations, its first axis turned clockwise from x."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    turn = math.radians(degrees)
    dx, dy = x - centre[0], y - centre[1]
    along, across = dx * math.cos(turn) + dy * math.sin(turn), dy * math.cos(turn) - dx * math.sin(turn)
    return torch.exp(-((along / deviations[0]) ** 2 + (across / deviations[1]) ** 2) / 2)[None, None]


@pytest.mark.parametrize("degrees", [0, 30, 90, 135, 170])
def test_the_principal_axes_of_a_drawn_gaussian_are_found(degrees):
    heatmaps = drawn_gaussian((22.3, 19.6), (4.0, 2.0), degrees)
    axes, spread = principal_axes(heatmaps, torch.tensor([[[22.3, 19.6]]]))
    larger = axes[0, 0, 0]
    expected = torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
    assert abs(float(larger @ expected)) == pytest.approx(1, abs=1e-4)
    assert abs(float(larger @ axes[0, 0, 1])) < 1e-6 and float(axes[0, 0, 1].norm()) == pytest.approx(1)
    # cells below a tenth of the peak are left out, and with them a quarter of the variance
    share = 1 - 0.1 * math.log(10) / (1 - 0.1)
    assert spread[0, 0].tolist() == pytest.approx([4 * share**0.5, 2 * share**0.5], rel=0.03)


def test_an_error_along_the_spread_weighs_less_than_one_across_it():
    heatmaps = drawn_gaussian((22, 19), (4.0, 2.0), 30)
    turn = math.radians(30)
    along, across = (
        torch.tensor([math.cos(turn), math.sin(turn)]),
        torch.tensor([-math.sin(turn), math.cos(turn)]),
    )
    centre = torch.tensor([22.0, 19.0])
    losses = [
        float(coordinate_loss(heatmaps, (centre + 2 * step).view(1, 1, 2), 9, 10, "star"))
        for step in (along, across)
    ]
    assert losses[1] == pytest.approx(2 * losses[0], rel=0.05)


def test_star_is_the_distance_by_the_spread_where_the_spread_is_the_same_all_round():
    centre = torch.tensor([[[20.0, 19.0], [22.5, 18.25]]])
    heatmaps = encode_heatmaps(centre, (41, 47), 3.0)
    _, spread = principal_axes(heatmaps, centre)
    torch.testing.assert_close(spread, spread.mean().expand_as(spread), rtol=0.02, atol=0)
    axes, _ = principal_axes(heatmaps, centre)
    step = axes[:, :, 0] * 1.5  # along an axis both norms are the same
    star = float(coordinate_loss(heatmaps, centre + step, 9, 10, "star"))
    assert star == pytest.approx(1.5 / float(spread.mean()), rel=0.1)
    assert float(coordinate_loss(heatmaps, centre + step, 9, 10, "l2")) == pytest.approx(1.5, rel=0.1)


def test_the_norms_are_those_of_their_names():
    centre = torch.tensor([[[20.0, 19.0]]])
    heatmaps, off = encode_heatmaps(centre, (41, 47), 1.5), centre + torch.tensor([0.9, 1.2])
    assert float(coordinate_loss(heatmaps, off, 5, 10, "l1")) == pytest.approx(2.1, abs=0.02)
    assert float(coordinate_loss(heatmaps, off, 5, 10, "l2")) == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("norm", ["l1", "l2", "star"])
def test_every_norm_pulls_a_heatmap_towards_its_landmark(norm):
    centre = torch.tensor([[[20.0, 19.0]]])
    heatmaps = encode_heatmaps(centre, (41, 47), 1.5).requires_grad_()
    coordinate_loss(heatmaps, centre + torch.tensor([1.0, 0.0]), 5, 10, norm).backward()
    gradient = heatmaps.grad[0, 0]
    assert gradient.isfinite().all() and gradient[19, 21] < 0 < gradient[19, 19]


def test_an_empty_heatmap_has_axes_all_the_same():
    axes, spread = principal_axes(torch.zeros(1, 2, 5, 7), torch.ones(1, 2, 2))
    assert axes.isfinite().all() and (spread == 0.5).all()


def turns(turned, count=400):
    config = AugmentConfig(rotation=10.0, scale=0, shift=0.01, turned=turned)
    pictures = torch.zeros(count, 3, 16, 16, dtype=torch.uint8)
    landmarks = torch.rand(count, 68, 2, generator=torch.Generator().manual_seed(1)) * 16
    flips = torch.zeros(count, dtype=torch.bool)
    random = torch.Generator().manual_seed(0)
    matrix = random_views(pictures, landmarks, flips, 16, IBUG_68, 0.0, config, random).source_to_crop
    centre = matrix @ torch.tensor([7.5, 7.5, 1.0], dtype=torch.float64)
    return torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]).rad2deg(), centre[:, :2] - 7.5


def test_a_share_of_views_is_turned_by_any_angle():
    degrees, moved = turns(0.4)
    beyond = degrees.abs() > 30  # three standard deviations of the others
    assert float(beyond.double().mean()) == pytest.approx(0.4 * 150 / 180, abs=0.07)
    quarters = torch.histc(degrees[beyond], 4, -180, 180)
    assert quarters.min() > 15  # of about 130: to both sides, and upside down
    assert moved[beyond].square().mean().sqrt() / moved[~beyond].square().mean().sqrt() > 1.8


def test_a_stretched_face_is_wider_and_by_as_much_lower():
    config = AugmentConfig(rotation=0, scale=0, shift=0, stretch=0.2)
    pictures, flips = torch.zeros(400, 3, 16, 16, dtype=torch.uint8), torch.zeros(400, dtype=torch.bool)
    landmarks = torch.rand(400, 68, 2, generator=torch.Generator().manual_seed(1)) * 16
    random = torch.Generator().manual_seed(0)
    views = random_views(pictures, landmarks, flips, 16, IBUG_68, 0.0, config, random)
    wider, higher = views.source_to_crop[:, 0, 0], views.source_to_crop[:, 1, 1]
    torch.testing.assert_close(wider * higher, torch.ones_like(wider))  # the area stays
    assert float(wider.log().std()) == pytest.approx(0.2, rel=0.1)
    assert float(wider.log().mean()) == pytest.approx(0, abs=0.03)
    middle = torch.tensor([7.5, 7.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(views.source_to_crop @ middle, middle.expand(400, 3))
    assert AugmentConfig().stretch == 0


def test_no_view_is_turned_by_default():
    degrees, _ = turns(0.0)
    assert degrees.abs().max() <= 30 and AugmentConfig().turned == 0


def test_a_finer_picture_gives_the_same_view():
    config = dataclasses.replace(AugmentConfig(noise=0, occlusion=0, colour=0, gray=0, blur=0), scale=0.1)
    points = 20 + 24 * torch.rand(3, 68, 2, generator=torch.Generator().manual_seed(1))  # in 64 px
    views = []
    for factor in (1, 2):
        fine = (points + 0.5) * factor - 0.5
        pictures = (255 * encode_heatmaps(fine[:, :1], (64 * factor, 64 * factor), 3.0 * factor)).to(
            torch.uint8
        )
        rules = (48, IBUG_68, 0.01, config, torch.Generator().manual_seed(2))
        flips = torch.tensor([True, False, True])
        views.append(random_views(pictures.expand(-1, 3, -1, -1), fine, flips, *rules, source_scale=factor))
    torch.testing.assert_close(views[0].landmarks, views[1].landmarks, atol=1e-3, rtol=0)
    assert float((views[0].crops - views[1].crops).abs().max()) < 0.05


def test_near_views_of_a_finer_picture_are_those_of_a_coarse_one():
    config = AugmentConfig(noise=0, occlusion=0, colour=0, gray=0, blur=0)
    points = 20 + 24 * torch.rand(2, 68, 2, generator=torch.Generator().manual_seed(1))  # in 64 px
    landmarks = []
    for factor in (1, 2):
        pictures = torch.zeros(2, 3, 64 * factor, 64 * factor, dtype=torch.uint8)
        rules = (48, IBUG_68, 0.0, config, torch.Generator().manual_seed(2))
        fine = (points + 0.5) * factor - 0.5
        views = near_views(
            pictures, fine, torch.tensor([True, False]), *rules, reach=1.0, source_scale=factor
        )
        landmarks.append(views.landmarks)
    torch.testing.assert_close(*landmarks, atol=1e-3, rtol=0)


def two_views():
    """A face with three landmarks in two views, the second 8 pixels or 2 cells further right.

    Returns:
        Views of 32 pixels, and the landmarks (2, 3, 2) in cells of heatmaps (8, 8).
    """
    cells = torch.tensor([[[1.3, 2.0], [2.0, 4.6], [3.5, 3.0]]], dtype=torch.float64)
    cells = torch.cat((cells, cells + torch.tensor([2.0, 0.0])))
    second = torch.eye(3, dtype=torch.float64)
    second[0, 2] = 8
    matrices = torch.stack((torch.eye(3, dtype=torch.float64), second))
    views = Views(torch.zeros(2, 3, 32, 32), transform_points(resize_matrix(4), cells).float(), matrices)
    return views, cells.float()


WEIGHTS = {"coordinate_weight": 0.3, "siamese_weight": 0.7, "siamese_coordinate_weight": 0.2}


@pytest.mark.parametrize("rounded", [False, True])
def test_heatmaps_as_the_targets_are_have_no_loss(rounded):
    views, cells = two_views()
    config = dataclasses.replace(TINY, sigma=0.7, rounded=rounded, **WEIGHTS)
    stack = encode_heatmaps(cells, (8, 8), 0.7, rounded=rounded)
    terms = loss_terms([stack], views, 1, config, resize_matrix(4))
    assert set(terms) == {"heatmap", "coordinate", "siamese", "agreement"}
    assert terms["heatmap"] < 1e-8
    other = loss_terms([stack], views, 1, dataclasses.replace(config, rounded=not rounded), resize_matrix(4))
    assert other["heatmap"] > 0.1


def test_views_that_agree_have_no_loss_in_each_others_frame():
    views, cells = two_views()
    stack = encode_heatmaps(cells, (8, 8), 0.7)
    terms = loss_terms([stack], views, 1, dataclasses.replace(TINY, **WEIGHTS), resize_matrix(4))
    assert terms["siamese"] < 1e-4 and terms["agreement"] < 0.05
    alike = loss_terms(
        [torch.cat([stack[:1]] * 2)], views, 1, dataclasses.replace(TINY, **WEIGHTS), resize_matrix(4)
    )
    torch.testing.assert_close(alike["agreement"], torch.tensor(2.0), atol=0.05, rtol=0)  # cells


def test_every_stack_has_its_part_in_every_term():
    views, cells = two_views()
    config = dataclasses.replace(TINY, **WEIGHTS)
    random = torch.Generator().manual_seed(0)
    target = encode_heatmaps(cells, (8, 8), 1.0)
    stacks = [target + 0.2 * torch.rand(target.shape, generator=random) for _ in range(3)]
    each = [loss_terms([stack], views, 1, config, resize_matrix(4)) for stack in stacks]
    for name, value in loss_terms(stacks, views, 1, config, resize_matrix(4)).items():
        torch.testing.assert_close(value, sum(terms[name] for terms in each))
        assert min(terms[name] for terms in each) > 0


@pytest.mark.parametrize(("column", "loss"), [(2, 0.25), (6, 0.0)])
def test_only_cells_that_both_views_contain_are_compared(column, loss):
    """The second view begins 3 cells further left: columns 5 to 7 of the first are outside of it."""
    first, second = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    first[0, 0, 4, column] = 0.5
    first_to_second = torch.eye(3, dtype=torch.float64)[None].clone()
    first_to_second[0, 0, 2] = 3
    torch.testing.assert_close(siamese_loss(first, second, first_to_second), torch.tensor(loss))
