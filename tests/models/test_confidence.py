"""Expected errors: read off the height of a peak, calibrated, and right on average."""

from __future__ import annotations

import json
import math

import pytest
import torch

from face_landmarks.errors import InputError, WeightsFormatError
from face_landmarks.heatmap import decode_heatmaps, encode_heatmaps
from face_landmarks.models.card import Calibration, ModelCard
from face_landmarks.models.confidence import (
    coverage_radius,
    expected_errors,
    fit_calibration,
    fit_doubtful_score,
)
from face_landmarks.models.registry import get_card

K = 3


def simulated(
    faces: int, own: float = 0.5, face: float = 0.25
) -> tuple[torch.Tensor, torch.Tensor, Calibration]:
    """Scores, Rayleigh errors, and the calibration they were drawn with."""
    random = torch.Generator().manual_seed(0)
    scores = 0.5 + 0.45 * torch.rand(faces, K, generator=random, dtype=torch.float64)
    truth = Calibration((0.5, 1.0, 2.0), own, face)
    uniform = torch.rand(faces, K, generator=random, dtype=torch.float64)
    errors = expected_errors(scores, truth) * (-4 / math.pi * torch.log1p(-uniform)).sqrt()
    return scores, errors, truth


def heavy_tailed(faces: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, and errors of mean 1 whose tail is heavier than Rayleigh's: Weibull's of shape 1.4."""
    random = torch.Generator().manual_seed(1)
    uniform = torch.rand(faces, K, generator=random, dtype=torch.float64)
    return torch.full((faces, K), 0.8), (-torch.log1p(-uniform)) ** (1 / 1.4) / math.gamma(1 + 1 / 1.4)


def test_the_calibration_that_made_the_errors_is_found_again():
    scores, errors, truth = simulated(20_000)
    found = fit_calibration(scores, errors)
    assert found.scale == pytest.approx(truth.scale, rel=0.02)
    assert (found.own, found.face) == pytest.approx((truth.own, truth.face), abs=0.02)


def test_the_stated_shares_of_landmarks_lie_within_their_radius():
    scores, errors, truth = simulated(20_000)
    expected = expected_errors(scores, truth)
    for share in (0.1, 0.68, 0.95):
        assert (errors < coverage_radius(share) * expected).double().mean() == pytest.approx(share, abs=0.01)
    assert coverage_radius(0.68) == pytest.approx(1.20, abs=0.005)  # as `Faces` quotes it
    assert coverage_radius(0.95) == pytest.approx(1.95, abs=0.005)


def test_a_lower_peak_means_a_larger_error_and_none_is_infinite():
    heights = torch.tensor([[1.0, 0.9, 0.5, 0.1, 0.0]])
    errors = expected_errors(heights, Calibration((1.0,) * 5, 0.5, 0.0))[0]
    assert (errors.diff() > 0).all() and errors.isfinite().all()
    assert errors[2] == 1  # the scale is the error at a peak of one half


def test_a_mean_of_gaussians_peaks_as_low_as_its_doubt_says():
    sigma, doubt = 1.5, 1.0  # cells: of the target, and of where it may be
    places = 16 + doubt * torch.randn(20_000, 1, 2, generator=torch.Generator().manual_seed(0))
    mean = encode_heatmaps(places, (33, 33), sigma).mean(dim=0, keepdim=True)
    _, scores = decode_heatmaps(mean)
    assert 1 / scores.item() - 1 == pytest.approx(doubt**2 / sigma**2, rel=0.03)


def test_one_doubtful_landmark_raises_the_errors_of_its_face_only():
    calibration = Calibration((1.0,) * K, 0.3, 0.3)
    scores = torch.full((2, K), 0.9)
    before = expected_errors(scores, calibration)
    scores[1, 0] = 0.3
    after = expected_errors(scores, calibration)
    assert torch.equal(after[0], before[0])
    assert (after[1] > before[1]).all() and after[1, 0] > after[1, 1]


def test_radii_of_a_calibration_contain_their_share_of_errors_with_any_tail():
    scores, errors = heavy_tailed(20_000)
    calibration = fit_calibration(scores[:10_000], errors[:10_000])
    ratio = errors[10_000:] / expected_errors(scores[10_000:], calibration)
    for share in (0.15, 0.5, 0.68, 0.9, 0.95, 0.995):
        assert (ratio < coverage_radius(share, calibration)).double().mean() == pytest.approx(
            share, abs=0.008
        )
    assert (ratio < coverage_radius(0.95)).double().mean() < 0.93  # as if they were Rayleigh's


def test_radii_between_and_beyond_the_shares_of_a_card_follow_rayleighs():
    shares = (0.3, 0.68, 0.95)
    same = Calibration((1.0,) * K, 0.5, 0.0, tuple((share, coverage_radius(share)) for share in shares))
    wider = Calibration(
        (1.0,) * K, 0.5, 0.0, tuple((share, 1.5 * coverage_radius(share)) for share in shares)
    )
    for share in (0.01, 0.3, 0.5, 0.68, 0.9, 0.95, 0.999):
        assert coverage_radius(share, same) == pytest.approx(coverage_radius(share))
        assert coverage_radius(share, wider) == pytest.approx(1.5 * coverage_radius(share))
    assert coverage_radius(0.9, Calibration((1.0,) * K, 0.5, 0.0)) == coverage_radius(0.9)


def test_errors_that_are_all_alike_have_no_quantiles():
    assert fit_calibration(torch.full((5, K), 0.8), torch.ones(5, K)).radii == ()


def test_a_scale_of_zero_has_no_quantiles():
    scores = torch.tensor([[0.02] * K, [0.1] * K])
    errors = torch.tensor([[1.0] * K, [0.001] * K])
    fitted = fit_calibration(scores, errors)
    assert 0 in fitted.scale and fitted.radii == ()


@pytest.mark.parametrize("share", [0, 1, -0.5, math.nan, "0.5", None, True])
def test_a_share_is_between_zero_and_one(share):
    with pytest.raises(InputError, match="share: expected a number between 0 and 1"):
        coverage_radius(share)


def test_scores_and_errors_must_be_of_the_same_faces():
    with pytest.raises(InputError, match=r"got \(4, 3\), \(5, 3\)"):
        fit_calibration(torch.rand(4, K), torch.rand(5, K))
    with pytest.raises(InputError, match="with a face"):
        fit_calibration(torch.rand(0, K), torch.rand(0, K))


def test_a_card_carries_its_calibration_through_json():
    card = get_card("2dfan4")
    values = card.to_dict()
    assert "calibration" not in values and ModelCard.from_dict(values) == card
    values["calibration"] = {"scale": [1.5] * 68, "own": 0.2, "face": 0.5}
    carried = ModelCard.from_dict(values)
    assert carried.calibration == Calibration((1.5,) * 68, 0.2, 0.5)
    assert ModelCard.from_dict(carried.to_dict()) == carried
    values["calibration"]["radii"] = [[0.68, 1.1], [0.95, 2.25]]
    carried = ModelCard.from_dict(values)
    assert carried.calibration is not None and carried.calibration.radii == ((0.68, 1.1), (0.95, 2.25))
    assert ModelCard.from_dict(json.loads(json.dumps(carried.to_dict()))) == carried
    assert hash(carried) == hash(ModelCard.from_dict(values))


@pytest.mark.parametrize(
    "radii",
    [[[0.95, 2.0], [0.68, 1.0]], [[0.5, 1.0], [0.6, 1.0]], [[0, 0]], [[1, 3]], [[0.5, math.inf]], [[0.5]]],
)
def test_a_card_refuses_radii_that_do_not_grow(radii):
    calibration = {"scale": [1.0] * 68, "own": 0.2, "face": 0.5, "radii": radii}
    with pytest.raises(WeightsFormatError):
        ModelCard.from_dict(get_card("2dfan4").to_dict() | {"calibration": calibration})


@pytest.mark.parametrize("scale", [[1.0] * 67, [0.0] * 68, [math.nan] * 68])
def test_a_card_refuses_a_calibration_of_other_landmarks_or_impossible_errors(scale):
    values = get_card("2dfan4").to_dict() | {"calibration": {"scale": scale, "own": 0.2, "face": 0.5}}
    with pytest.raises(WeightsFormatError, match="calibration: expected 68 positive errors"):
        ModelCard.from_dict(values)


def test_one_face_in_a_hundred_scores_below_the_doubtful_score() -> None:
    faces = torch.linspace(0, 1, 201, dtype=torch.float64)  # the third lowest of 201 is at one hundredth
    assert fit_doubtful_score(faces.unsqueeze(1).expand(-1, 5)) == 0.01
    assert fit_doubtful_score(torch.full((3, 5), 0.789)) == 0.78


def test_expected_errors_of_scores_in_half_precision():
    calibration = Calibration((2.0,) * 3, 0.5, 0.5)
    scores = torch.tensor([[0.25, 0.5, 0.75]])
    low = expected_errors(scores.bfloat16(), calibration)
    torch.testing.assert_close(low, expected_errors(scores, calibration))
