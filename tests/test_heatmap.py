"""Encoding landmarks as heatmaps and decoding them again."""

import pytest
import torch

from face_landmarks.errors import InputError
from face_landmarks.heatmap import DECODE_METHODS, decode_heatmaps, encode_heatmaps


def random_points(count, low, high, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, 1, 2, generator=generator)


def test_a_heatmap_is_a_gaussian_about_the_unrounded_point():
    heatmap = encode_heatmaps(torch.tensor([[1.75, 1.0]]), (3, 5), sigma=1.0)[0]
    expected = torch.tensor([0.2163, 0.7548, 0.9692, 0.4578, 0.0796])
    torch.testing.assert_close(heatmap[1], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(heatmap[0], expected * 0.60653, atol=1e-4, rtol=0)


def test_every_axis_keeps_its_place():
    points = random_points(2 * 3, 1, 4).view(2, 3, 2)
    heatmaps = encode_heatmaps(points, (5, 7))
    assert heatmaps.shape == (2, 3, 5, 7)
    decoded, scores = decode_heatmaps(heatmaps)
    assert decoded.shape == (2, 3, 2) and scores.shape == (2, 3)
    one, _ = decode_heatmaps(heatmaps[1, 2][None])
    torch.testing.assert_close(one[0], decoded[1, 2])


# Mean error in cells on noise-free Gaussians, by decoder and sigma.
ERRORS = [
    ("argmax", 5, 10, (0.387, 0.386, 0.379)),
    ("quarter", 5, 10, (0.191, 0.194, 0.189)),
    ("local-soft-argmax", 5, 10, (0.135, 0.029, 0.010)),
    ("local-soft-argmax", 5, 5, (0.069, 0.044, 0.069)),
    ("log-parabola", 5, 10, (0.000, 0.000, 0.000)),
]


@pytest.mark.parametrize(("method", "window", "temperature", "errors"), ERRORS)
def test_decoding_errors_are_those_of_the_table(method, window, temperature, errors):
    points = random_points(4000, 20, 40)
    for sigma, expected in zip((1.0, 1.5, 2.0), errors, strict=True):
        heatmaps = encode_heatmaps(points, (64, 64), sigma)
        decoded, _ = decode_heatmaps(heatmaps, window=window, temperature=temperature, method=method)
        error = float((decoded - points).norm(dim=-1).mean())
        assert error == pytest.approx(expected, abs=0.01)


def test_rounding_the_target_costs_what_argmax_costs():
    points = random_points(2000, 20, 40)
    heatmaps = encode_heatmaps(points, (64, 64), 1.5, rounded=True)
    decoded, _ = decode_heatmaps(heatmaps, method="log-parabola")
    torch.testing.assert_close(decoded, points.round(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("method", DECODE_METHODS)
@pytest.mark.parametrize("corner", [(0.0, 0.0), (6.0, 0.0), (0.0, 4.0), (6.0, 4.0), (-0.4, 2.3)])
def test_at_the_border_the_answer_stays_near_the_truth(method, corner):
    heatmaps = encode_heatmaps(torch.tensor([corner]), (5, 7), sigma=0.7)
    decoded, _ = decode_heatmaps(heatmaps, window=3, temperature=20, method=method)
    assert float((decoded[0] - torch.tensor(corner)).abs().max()) < 0.65
    assert torch.isfinite(decoded).all()


@pytest.mark.parametrize("learning", [False, True])
def test_cells_beyond_the_border_have_no_weight(learning):
    corners = torch.zeros(2, 4, 4)
    corners[0, 0, 0] = corners[1, 3, 3] = 1.0
    decoded, _ = decode_heatmaps(corners.requires_grad_(learning), window=3, temperature=1.0)
    e = torch.e
    expected = (1 + 1) / (e + 3)  # cells (0,0) (1,0) (0,1) (1,1); two of them at x = 1
    torch.testing.assert_close(decoded.detach()[0], torch.full((2,), float(expected)))
    torch.testing.assert_close(decoded.detach()[1], torch.full((2,), float(3 - expected)))


@pytest.mark.parametrize("shape", [(68, 24, 24), (2, 3, 5, 9), (1, 1, 1), (0, 5, 4, 4), (2, 0, 4, 4)])
@pytest.mark.parametrize("window", [1, 5, 7])
def test_decoding_is_the_same_with_and_without_gradients(shape, window):
    """Without them, on the CPU, NumPy does it."""
    heatmaps = 1.2 * torch.rand(shape, generator=torch.Generator().manual_seed(2)) - 0.1
    found = decode_heatmaps(heatmaps, window=window)
    expected = decode_heatmaps(heatmaps.clone().requires_grad_(), window=window)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), atol=1e-5, rtol=1e-5)


def test_a_window_larger_than_the_heatmap_is_the_global_soft_argmax():
    heatmaps = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    local, _ = decode_heatmaps(heatmaps, window=15, temperature=4.0)
    everywhere, _ = decode_heatmaps(heatmaps, temperature=4.0, method="soft-argmax")
    torch.testing.assert_close(local, everywhere, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", DECODE_METHODS)
def test_mirrored_heatmaps_give_mirrored_landmarks(method):
    heatmaps = encode_heatmaps(random_points(50, 2, 8), (9, 11), 1.3)
    decoded, _ = decode_heatmaps(heatmaps, method=method)
    mirrored, _ = decode_heatmaps(heatmaps.flip(-1), method=method)
    torch.testing.assert_close(10 - mirrored[..., 0], decoded[..., 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(mirrored[..., 1], decoded[..., 1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", sorted({*DECODE_METHODS} - {"soft-argmax"}))
def test_a_whole_cell_shift_moves_the_landmark_by_one(method):
    points = random_points(50, 8, 20)
    here, _ = decode_heatmaps(encode_heatmaps(points, (32, 32), 1.5), method=method)
    there, _ = decode_heatmaps(encode_heatmaps(points + 1, (32, 32), 1.5), method=method)
    torch.testing.assert_close(there - here, torch.ones_like(here), atol=1e-3, rtol=0)


def test_the_global_soft_argmax_is_drawn_to_the_middle_and_the_local_one_is_not():
    corner = torch.tensor([[4.0, 4.0]])
    heatmaps = encode_heatmaps(corner, (33, 33), 1.5)
    everywhere, _ = decode_heatmaps(heatmaps, method="soft-argmax")
    local, _ = decode_heatmaps(heatmaps)
    assert float((everywhere - corner).min()) > 0.1
    torch.testing.assert_close(local, corner, atol=1e-4, rtol=0)


def test_the_decoder_is_differentiable():
    heatmaps = encode_heatmaps(random_points(1, 3, 5), (9, 9)).requires_grad_()
    decode_heatmaps(heatmaps)[0].sum().backward()
    assert heatmaps.grad is not None and float(heatmaps.grad.abs().sum()) > 0


def test_scores_are_peak_heights_within_zero_and_one():
    heatmaps = torch.stack([torch.full((4, 4), v) for v in (-0.5, 0.25, 3.0)])
    assert decode_heatmaps(heatmaps)[1].tolist() == [0.0, 0.25, 1.0]


def test_half_precision_heatmaps_are_decoded_in_single_precision():
    points = random_points(20, 8, 20)
    heatmaps = encode_heatmaps(points, (32, 32), 1.5)
    decoded, scores = decode_heatmaps(heatmaps.half())
    assert decoded.dtype == scores.dtype == torch.float32
    torch.testing.assert_close(decoded, decode_heatmaps(heatmaps)[0], atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 4}, "window: expected an odd number"),
        ({"window": -1}, "window: expected an odd number"),
        ({"method": "magic"}, "method: expected one of local-soft-argmax"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        decode_heatmaps(torch.zeros(1, 4, 4), **options)


def test_heatmaps_without_a_landmark_axis_are_refused():
    with pytest.raises(InputError, match="heatmaps: expected shape"):
        decode_heatmaps(torch.zeros(4, 4))


def test_a_gaussian_needs_a_width():
    with pytest.raises(InputError, match="sigma: expected"):
        encode_heatmaps(torch.zeros(1, 2), (4, 4), sigma=0)


def test_a_log_parabola_finds_the_peak_of_an_oblique_gaussian():
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(11.0), indexing="ij")
    x, y = columns - 5.3, rows - 3.8
    heatmap = torch.exp(-(x**2 - x * y + y**2) / 4)[None]
    decoded, _ = decode_heatmaps(heatmap, method="log-parabola")
    torch.testing.assert_close(decoded, torch.tensor([[5.3, 3.8]]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("height", [torch.inf, -torch.inf, torch.nan])
def test_heights_that_are_not_finite_give_no_point_and_no_warning(height):
    decoded, _ = decode_heatmaps(torch.full((1, 6, 6), height))
    assert not torch.isfinite(decoded).any()


def test_heatmaps_without_a_cell_are_refused():
    with pytest.raises(InputError, match=r"heatmaps: expected at least one cell, got shape \(2, 0, 5\)"):
        decode_heatmaps(torch.zeros(2, 0, 5))
