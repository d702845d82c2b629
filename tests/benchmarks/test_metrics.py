"""The metrics, on cases small enough to be worked out by hand."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from face_landmarks.benchmarks import metrics
from face_landmarks.benchmarks.metrics import (
    auc,
    cumulative_errors,
    failure_rate,
    nme,
    nme_by_group,
    normaliser,
    signed_error,
)
from face_landmarks.errors import InputError
from face_landmarks.layouts import IBUG_68, LAYOUTS

INFINITY = float("inf")


def face_with_eyes_at(right: tuple[float, float], left: tuple[float, float]) -> np.ndarray:
    """(68, 2): all at the origin but the eyes, whose landmarks surround the given centres."""
    ring = np.array([(-3, 0), (-1, -1), (1, -1), (3, 0), (1, 1), (-1, 1)])  # outer, upper, inner, lower
    face = np.zeros((68, 2))
    face[36:42] = right + ring
    face[42:48] = left + ring
    return face


@pytest.fixture
def faces() -> np.ndarray:
    """(2, 68, 2): pupils 40 apart along x, then 30-40-50 apart along a slope."""
    return np.stack([face_with_eyes_at((20, 10), (60, 10)), face_with_eyes_at((10, 20), (50, 50))])


def test_inter_ocular_is_the_distance_of_the_outer_eye_corners(faces):
    # corners at (17, 10) and (63, 10); at (7, 20) and (53, 50)
    np.testing.assert_allclose(normaliser(faces, "inter-ocular", IBUG_68), [46, np.hypot(46, 30)])


def test_inter_pupil_is_the_distance_of_the_eye_centres(faces):
    np.testing.assert_allclose(normaliser(faces, "inter-pupil", IBUG_68), [40, 50])


def test_box_and_diagonal_are_of_the_tight_box():
    triangles = np.array([[(1, 2), (4, 2), (2, 14)], [(0, 0), (6, 8), (3, 4)]])  # 3 x 12, 6 x 8
    np.testing.assert_allclose(normaliser(triangles, "box"), [6, np.sqrt(48)])
    np.testing.assert_allclose(normaliser(triangles, "diagonal"), [np.sqrt(153), 10])


def test_box_and_diagonal_are_of_the_given_boxes_if_there_are_any():
    triangles = np.array([[(1, 2), (4, 2), (2, 14)], [(0, 0), (6, 8), (3, 4)]])
    boxes = [(10, 10, 14, 19), (0, 0, 30, 40)]
    np.testing.assert_allclose(normaliser(triangles, "box", boxes=boxes), [6, np.sqrt(1200)])
    np.testing.assert_allclose(normaliser(triangles, "diagonal", boxes=boxes), [np.sqrt(97), 50])


def test_nme_is_the_mean_distance_in_percent():
    truth = np.zeros((2, 3, 2))
    predicted = np.array([[(3, 4), (0, 0), (0, 1)], [(6, 8), (0, -2), (0, 0)]])  # 5 + 0 + 1, 10 + 2 + 0
    np.testing.assert_allclose(nme(predicted, truth, [50, 200]), [4.0, 2.0])


def test_a_face_predicted_as_all_nan_was_missed_and_errs_infinitely():
    predicted = np.stack([np.ones((3, 2)), np.full((3, 2), np.nan)])
    np.testing.assert_array_equal(nme(predicted, np.ones((2, 3, 2)), [10, 10]), [0, INFINITY])


def test_nme_is_computed_in_float64():
    truth = np.full((1, 3, 2), 4000, np.float32)
    predicted = truth + np.float32(0.25)
    assert nme(predicted, truth, np.float32([100]))[0] == pytest.approx(0.25 * np.sqrt(2), rel=1e-12)


def test_nme_does_not_change_with_the_scale_of_the_photo(faces):
    moved = faces + np.array([1.5, -2.0])
    errors = nme(moved, faces, normaliser(faces))
    np.testing.assert_allclose(nme(7 * moved, 7 * faces, normaliser(7 * faces)), errors)


def test_nme_by_group_averages_over_the_landmarks_of_each_part():
    truth = np.zeros((2, 68, 2))
    predicted = truth.copy()
    predicted[0, IBUG_68.groups["jaw"][0]] = (17, 0)  # one of 17 landmarks
    predicted[1, 42:48] = (0, 2)  # the whole left eye
    by_group = nme_by_group(predicted, truth, [50, 40], IBUG_68)
    assert list(by_group) == list(IBUG_68.groups)
    np.testing.assert_allclose(by_group["jaw"], [2, 0])
    np.testing.assert_allclose(by_group["left_eye"], [0, 5])
    np.testing.assert_allclose(by_group["inner_lips"], [0, 0])


def test_nme_is_the_mean_of_its_groups_weighted_by_their_size(faces):
    predicted = faces + np.random.default_rng(0).normal(size=faces.shape)
    distances = normaliser(faces)
    by_group = nme_by_group(predicted, faces, distances, IBUG_68)
    total = sum(len(IBUG_68.groups[name]) * errors for name, errors in by_group.items())
    np.testing.assert_allclose(total / 68, nme(predicted, faces, distances))


def test_signed_error_is_the_mean_shift_in_percent():
    truth = np.zeros((2, 3, 2))
    predicted = np.array([[(1, 0), (3, 0), (-1, 3)], [(0, 0), (0, 0), (0, -12)]])
    # x: (1 + 3 - 1) / 50 / 6, y: (3 / 50 - 12 / 200) / 6
    np.testing.assert_allclose(signed_error(predicted, truth, [50, 200]), [1.0, 0.0], atol=1e-12)


def test_signed_error_leaves_out_missed_faces_and_is_nan_if_all_are():
    truth = np.zeros((2, 3, 2))
    predicted = np.stack([np.tile([2.0, -1.0], (3, 1)), np.full((3, 2), np.nan)])
    np.testing.assert_allclose(signed_error(predicted, truth, [100, 100]), [2, -1])
    assert np.isnan(signed_error(predicted[1:], truth[1:], [100])).all()


def test_failure_rate_is_the_share_strictly_above_the_threshold():
    errors = [1, 8, 8.001, 10, INFINITY]
    assert failure_rate(errors, 8) == pytest.approx(60)
    assert failure_rate(errors, 10) == pytest.approx(20)


def test_cumulative_errors_step_up_at_each_error():
    errors = [4, 1, 2, INFINITY]
    shares = cumulative_errors(errors, [0, 0.99, 1, 2, 3, 4, 1e9])
    np.testing.assert_allclose(shares, [0, 0, 25, 50, 50, 75, 75])


def test_cumulative_errors_and_failure_rate_complete_each_other():
    errors = np.random.default_rng(0).exponential(4, size=57)
    for threshold in (0, 3, errors[0], 8, 10):
        passed = cumulative_errors(errors, threshold)
        assert passed + failure_rate(errors, threshold) == pytest.approx(100)


def test_auc_is_the_area_under_the_steps():
    # up to 1: none; 1 to 3: one face of four; 3 to 8: two of four
    assert auc([1, 3, 20, INFINITY], 8) == pytest.approx(100 * (2 * 0.25 + 5 * 0.5) / 8)


@pytest.mark.parametrize(("errors", "area"), [([0, 0], 100), ([8, 9], 0), ([4], 50), ([INFINITY], 0)])
def test_auc_at_its_ends(errors, area):
    assert auc(errors, 8) == pytest.approx(area)


def test_auc_is_the_limit_of_the_sampled_curve():
    errors = np.append(np.random.default_rng(1).exponential(4, size=57), INFINITY)
    middles = (np.arange(100_000) + 0.5) * 8 / 100_000
    assert auc(errors, 8) == pytest.approx(cumulative_errors(errors, middles).mean(), abs=1e-2)


def ced_points(errors, threshold):
    """The empirical CED as the field draws it: a point (error, share of faces up to it) for each face."""
    reached = sorted(error for error in errors if error <= threshold)
    shares = [(rank + 1) / len(errors) for rank in range(len(reached))]
    last = shares[-1] if shares else 0.0
    return [0.0, *reached, float(threshold)], [0.0, *shares, last]


def trapezoids(x, y):
    return sum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(len(x) - 1))


@pytest.mark.parametrize(("faces", "missed", "threshold"), [(507, 0, 7), (600, 11, 7), (2500, 40, 10)])
def test_auc_is_that_of_the_papers_within_half_a_face(faces, missed, threshold):
    errors = np.random.default_rng(faces).gamma(4, 0.8, faces)
    errors[:missed] = INFINITY
    exact = auc(errors, threshold)
    # Trapezoids join the tops of the steps, so they add half of every step.
    joined = 100 * trapezoids(*ced_points(errors.tolist(), threshold)) / threshold
    assert exact < joined <= exact + 100 * 0.5 / faces
    # The other definition in use: a fine grid of thresholds.
    grid = np.linspace(0, threshold, 1000 * threshold + 1)
    sampled = 100 * trapezoids(grid, [np.count_nonzero(errors <= x) / faces for x in grid]) / threshold
    assert sampled == pytest.approx(exact, abs=0.01)
    failed = 100 * sum(not error <= threshold for error in errors) / faces
    assert failure_rate(errors, threshold) == pytest.approx(failed) and failed > 100 * missed / faces


def test_auc_of_four_faces_by_hand_both_ways():
    errors = [2, 4, 6, INFINITY]  # up to 8: steps of 6, 4, 2 and 0 percent wide, of a quarter each
    assert auc(errors, 8) == pytest.approx(100 * (6 + 4 + 2 + 0) / 4 / 8)
    joined = trapezoids(*ced_points(errors, 8))  # triangles of 2 wide and 1/4 high on top of the steps
    assert joined == pytest.approx((6 + 4 + 2) / 4 + 3 * 2 * 0.25 / 2)


def independent_nme(predicted, truth, kind, layout, box):
    """One face, from the definitions in words."""
    if kind == "inter-ocular":
        (x0, y0), (x1, y1) = (truth[corner] for corner in layout.eye_corners)
        distance = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    else:
        xs, ys = [x for x, _ in truth], [y for _, y in truth]
        x0, y0, x1, y1 = (min(xs), min(ys), max(xs), max(ys)) if box is None else box
        width, height = x1 - x0, y1 - y0
        distance = (width * height) ** 0.5 if kind == "box" else (width**2 + height**2) ** 0.5
    errors = [((p - t) ** 2 + (q - u) ** 2) ** 0.5 for (p, q), (t, u) in zip(predicted, truth, strict=True)]
    return 100 * sum(errors) / len(errors) / distance


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("kind", ["inter-ocular", "box", "diagonal"])
def test_every_layout_is_scored_by_the_definitions(layout, kind):
    random = np.random.default_rng(len(layout))
    truth = random.uniform(20, 180, (3, len(layout), 2))
    predicted = truth + random.normal(0, 3, truth.shape)
    for boxes in (None, np.array([(0, 10, 200, 190), (5, 5, 105, 205), (1, 2, 33, 44)])):
        found = nme(predicted, truth, normaliser(truth, kind, layout, boxes))
        expected = [
            independent_nme(p.tolist(), t.tolist(), kind, layout, None if boxes is None else boxes[i])
            for i, (p, t) in enumerate(zip(predicted, truth, strict=True))
        ]
        np.testing.assert_allclose(found, expected)


def test_no_faces_have_no_errors_and_no_rates():
    empty = np.zeros((0, 68, 2))
    assert normaliser(empty, "inter-ocular", IBUG_68).shape == (0,)
    assert normaliser(empty, "box").shape == (0,)
    assert nme(empty, empty, []).shape == (0,)
    for rate in (failure_rate, auc, cumulative_errors):
        with pytest.raises(InputError, match=r"N > 0, got shape \(0,\)"):
            rate([], 8)


POINTS = np.zeros((2, 3, 2))
BROKEN = np.array([[(0, 0), (0, np.nan), (0, 0)]] * 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: normaliser(POINTS[0], "box"), r"landmarks: expected shape \(N, K, 2\), got \(3, 2\)"),
        (lambda: normaliser(POINTS, "inter-ocular"), "expected 68 landmarks of layout ibug-68, got 3"),
        (lambda: normaliser(POINTS, "inter-pupil"), "expected 68 landmarks of layout ibug-68, got 3"),
        (lambda: normaliser(np.zeros((2, 68, 2))), "expected positive distances, got 0.0 for face 0"),
        (lambda: normaliser(POINTS, "box"), "expected positive distances, got 0.0 for face 0"),
        (lambda: normaliser(POINTS, "diagonal"), "expected positive distances, got 0.0 for face 0"),
        (lambda: normaliser(BROKEN, "box"), "landmarks: expected finite coordinates"),
        (lambda: normaliser(POINTS, "box", boxes=[(0, 0, 1, 1)]), r"shape \(2, 4\), got \(1, 4\)"),
        (lambda: normaliser(POINTS, "box", boxes=[(9, 9, 0, 0)] * 2), "expected x0 < x1"),
        (lambda: normaliser(POINTS, "iod"), "expected inter-ocular, inter-pupil, box or diagonal, got 'iod'"),
        (lambda: nme(POINTS[:, :2], POINTS, [1, 1]), r"shape \(2, 3, 2\), got \(2, 2, 2\)"),
        (lambda: nme(POINTS, POINTS, 1.0), r"normaliser: expected shape \(2,\), got \(\)"),
        (lambda: nme(POINTS, POINTS, [1, 0]), "expected positive distances, got 0.0 for face 1"),
        (lambda: nme(POINTS, POINTS, [1, np.nan]), "expected positive distances, got nan for face 1"),
        (lambda: nme(BROKEN, POINTS, [1, 1]), "predicted: expected finite coordinates, or all NaN"),
        (lambda: nme(POINTS, BROKEN, [1, 1]), "truth: expected finite coordinates"),
        (lambda: nme_by_group(POINTS, POINTS, [1, 1], IBUG_68), "expected 68 landmarks"),
        (lambda: nme_by_group(POINTS, np.zeros((2, 68, 2)), [1, 1], IBUG_68), "predicted: expected shape"),
        (lambda: signed_error(POINTS, POINTS[:1], [1]), "predicted: expected shape"),
        (lambda: failure_rate([1, np.nan], 8), "got NaN"),
        (lambda: auc([[1, 2]], 8), r"got shape \(1, 2\)"),
        (lambda: auc([1, 2], 0), "threshold: expected a positive number of percent, got 0"),
        (lambda: auc([1, 2], INFINITY), "threshold: expected a positive number of percent, got inf"),
    ],
)
def test_input_that_cannot_be_measured_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(metrics).failed == 0
