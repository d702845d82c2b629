"""Smoothing over time: how steady, how late, and by which formula."""

import numpy as np
import pytest

from face_landmarks.errors import InputError
from face_landmarks.video.smoothing import OneEuroFilter, face_size


def delay(measured, true):
    """Frames by which one path lags behind the other: the shift that makes them most alike."""
    times = np.arange(len(true))
    shifts = np.arange(0, 4, 0.05)
    errors = [np.abs(measured - np.interp(times - s, times, true))[10:].mean() for s in shifts]
    return shifts[np.argmin(errors)]


@pytest.mark.parametrize("hertz", [0.25, 0.5, 1, 2])
def test_the_filter_lags_less_than_half_a_frame(hertz):
    times = np.arange(120) / 30
    path = 30 * np.sin(2 * np.pi * hertz * times)
    face = np.random.default_rng(0).uniform(0, 100, (68, 2))
    smoother = OneEuroFilter(30)
    found = [smoother(face + np.array([x, 0]), np.full(68, 0.8)) for x in path]
    assert delay(np.array([f[:, 0].mean() - face[:, 0].mean() for f in found]), path) < 0.5


def test_the_filter_halves_noise_and_trusts_high_scores_more():
    random = np.random.default_rng(0)
    face = random.uniform(0, 100, (68, 2))
    scores = np.repeat([0.9, 0.3], 34)
    smoother = OneEuroFilter(30)
    noise = np.array([smoother(face + random.normal(0, 0.5, (68, 2)), scores) - face for _ in range(90)])[20:]
    sure, unsure = noise[:, :34].std(axis=0).mean(), noise[:, 34:].std(axis=0).mean()
    assert unsure < 0.7 * sure < 0.7 * 0.25


def test_at_rest_the_filter_is_a_low_pass_of_first_order():
    smoother = OneEuroFilter(frame_rate=20, min_cutoff=2, speed_gain=0)
    face = np.random.default_rng(0).uniform(0, 100, (5, 2))
    smoother(face, np.ones(5))
    radians = 2 * np.pi * 2 / 20 * 0.5  # per frame, at a score of one half
    share = radians / (1 + radians)
    for frames in range(1, 6):
        found = smoother(face + 3, np.full(5, 0.5))
        np.testing.assert_allclose(found, face + 3 * (1 - (1 - share) ** frames))


def test_a_motion_that_all_landmarks_share_raises_the_cutoff_at_once():
    smoother = OneEuroFilter(frame_rate=20, min_cutoff=2, speed_gain=5)
    face = np.random.default_rng(0).uniform(0, 100, (5, 2))
    smoother(face, np.ones(5))
    speed = 4 * 20 / face_size(face)  # face sizes per second
    radians = 2 * np.pi * (2 + 5 * speed) / 20
    found = smoother(face + np.array([4, 0]), np.ones(5))
    np.testing.assert_allclose(found, face + np.array([4 * radians / (1 + radians), 0]))


def test_a_motion_of_one_landmark_alone_raises_its_cutoff_slowly():
    face = np.random.default_rng(0).uniform(0, 100, (500, 2))
    moved = face.copy()
    moved[7, 0] += 4
    smoother = OneEuroFilter(frame_rate=20, min_cutoff=2, speed_gain=5)
    smoother(face, np.ones(500))
    found = smoother(moved, np.ones(500))
    own = 2 * np.pi * 1 / 20
    speed = own / (1 + own) * 4 * 20 / face_size(moved)  # of it, what passes at 1 Hz
    radians = 2 * np.pi * (2 + 5 * speed) / 20
    assert found[7, 0] - face[7, 0] == pytest.approx(4 * radians / (1 + radians), rel=0.01)


def test_the_filter_changes_neither_its_arguments_nor_what_it_gave():
    smoother = OneEuroFilter()
    points, scores = np.arange(6.0).reshape(3, 2), np.ones(3)
    first = smoother(points, scores)
    kept = first.copy()
    smoother(points + 1, scores)
    np.testing.assert_array_equal(points, np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "options",
    [
        {"frame_rate": 0},
        {"frame_rate": "25"},
        {"frame_rate": None},
        {"frame_rate": True},
        {"min_cutoff": float("nan")},
        {"min_cutoff": -1},
        {"speed_gain": -1},
        {"speed_gain": float("inf")},
        {"speed_gain": 10**400},
        {"speed_gain": [1]},
    ],
    ids=lambda options: str(options)[:30],
)
def test_a_filter_of_impossible_numbers_is_refused(options):
    with pytest.raises(InputError, match=f"{next(iter(options))}: expected"):
        OneEuroFilter(**options)


@pytest.mark.parametrize(
    ("points", "scores", "message"),
    [
        (np.zeros((4, 2)), np.ones(4), r"expected shape \(3, 2\), got \(4, 2\)"),
        (np.zeros((3, 3)), np.ones(3), r"expected shape \(3, 2\), got \(3, 3\)"),
        (np.zeros(6), np.ones(3), r"expected shape \(3, 2\), got \(6,\)"),
        (np.zeros((3, 2)), np.ones(4), r"scores: expected shape \(3,\), got \(4,\)"),
        (np.full((3, 2), np.nan), np.ones(3), "finite"),
        (np.zeros((3, 2)), np.full(3, np.inf), "finite"),
        ([["a", "b"]] * 3, np.ones(3), "arrays of numbers"),
        ([[1, 2], [3]], np.ones(2), "arrays of numbers"),
    ],
)
def test_landmarks_that_are_none_are_refused_and_change_nothing(points, scores, message):
    smoother, same = OneEuroFilter(), OneEuroFilter()
    face = np.arange(6.0).reshape(3, 2)
    assert np.array_equal(smoother(face, np.ones(3)), same(face.tolist(), [1, 1, 1]))
    with pytest.raises(InputError, match=message):
        smoother(points, scores)
    assert np.array_equal(smoother(face + 1, np.ones(3)), same(face + 1, np.ones(3)))


def test_a_face_has_at_least_one_landmark():
    with pytest.raises(InputError, match="at least one"):
        OneEuroFilter()(np.zeros((0, 2)), [])


def test_a_filter_shows_its_numbers():
    assert repr(OneEuroFilter(25)) == "OneEuroFilter(frame_rate=25, min_cutoff=1, speed_gain=20)"


def test_given_intervals_are_used_instead_of_the_frame_rate():
    face = np.random.default_rng(0).uniform(0, 100, (5, 2))
    steps = np.random.default_rng(1).normal(0, 3, (6, 5, 2)).cumsum(axis=0)
    scores = np.full(5, 0.8)
    at_25, at_50, timed = OneEuroFilter(25), OneEuroFilter(50), OneEuroFilter(30)
    for step in steps:
        slow, fast = at_25(face + step, scores), at_50(face + step, scores)
        np.testing.assert_allclose(timed(face + step, scores, 0.04), slow, rtol=1e-9)
    assert np.abs(slow - fast).max() > 0.1


def test_after_a_long_pause_the_filter_follows_at_once():
    face = np.random.default_rng(0).uniform(0, 100, (5, 2))
    short, long = OneEuroFilter(30, speed_gain=0), OneEuroFilter(30, speed_gain=0)
    for smoother, interval in ((short, 1 / 30), (long, 30.0)):
        smoother(face, np.ones(5))
        moved = smoother(face + 10, np.ones(5), interval)
        share = (moved - face).mean() / 10
        assert (share < 0.2) if smoother is short else (share > 0.99)


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), "1", True])
def test_an_interval_is_a_positive_number(interval):
    smoother = OneEuroFilter(30)
    with pytest.raises(InputError, match="interval: expected a positive number of seconds"):
        smoother(np.ones((5, 2)), np.ones(5), interval)
