"""Settings: impossible ones are refused by name, and old checkpoints' are read."""

import dataclasses
import math

import pytest

from face_landmarks.errors import InputError
from face_landmarks.models.hourglass import HourglassConfig
from face_landmarks.training.config import AugmentConfig, TrainConfig
from face_landmarks.training.settings import override

TINY = TrainConfig(
    network=HourglassConfig(stacks=1, features=16, depth=2, crop_size=32, heatmap_size=8), batch_size=8
)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("steps", (0, -1, 2.5, True, "9")),
        ("batch_size", (0, -2, 4.0)),
        ("validate_every", (0, 1.5)),
        ("window", (0, 4, -3, 5.0)),
        ("sigma", (0, -1, math.nan, math.inf)),
        ("temperature", (0, -10)),
        ("crop_scale", (0, -0.5)),
        ("learning_rate", (0, -1e-3, math.inf)),
        ("clip_norm", (0, -5)),
        ("ema_decay", (-0.1, 1, 2)),
        ("warmup", (-0.1, 1.1)),
        ("weight_decay", (-0.05,)),
        ("coordinate_weight", (-1, math.nan)),
        ("siamese_weight", (-0.5,)),
        ("siamese_coordinate_weight", (-0.5,)),
        ("near_weight", (-1,)),
        ("near_every", (-1, 0.5)),
        ("near_reach", (-1,)),
        ("teacher_weight", (-1,)),
        ("teacher_coordinate_weight", (-1,)),
        ("large_pose_share", (-0.1, 1, 1.5)),
        ("unlabelled_share", (-0.1, 1, 1.5)),
        ("source_margin", (0, 0.9)),
        ("source_scale", (0, 0.5)),
        ("lean", (math.nan, 2)),
        ("crop_shift", (math.inf,)),
        ("seed", (-1, 0.5)),
        ("rounded", (1, "no")),
        ("coordinate_norm", ("l3", None)),
    ],
)
def test_an_impossible_setting_is_refused_by_name(name, values):
    for value in values:
        with pytest.raises(InputError, match=name):
            dataclasses.replace(TINY, **{name: value})


@pytest.mark.parametrize("name", ["flip", "colour", "gray", "blur", "occlusion", "turned"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_a_share_of_views_is_between_zero_and_one(name, value):
    with pytest.raises(InputError, match=rf"augment\.{name}: expected a number from 0 to 1, got {value}"):
        AugmentConfig(**{name: value})


@pytest.mark.parametrize("name", ["rotation", "scale", "shift", "noise", "stretch"])
def test_a_strength_is_not_negative(name):
    with pytest.raises(InputError, match=rf"augment\.{name}: expected a number, 0 or more, got -1"):
        AugmentConfig(**{name: -1})


def test_the_ends_of_the_ranges_are_allowed():
    AugmentConfig(flip=1, occlusion=0, rotation=0, turned=1)
    dataclasses.replace(TINY, warmup=0, ema_decay=0, siamese_weight=0, weight_decay=0, window=1, steps=1)


def test_each_batch_has_a_labelled_face():
    with pytest.raises(InputError, match=r"large_pose_share \+ unlabelled_share: expected less than 1"):
        dataclasses.replace(TINY, large_pose_share=0.5, unlabelled_share=0.5)
    shares = {"large_pose_share": 0.4, "unlabelled_share": 0.4}
    with pytest.raises(InputError, match="a labelled face in each batch"):
        dataclasses.replace(TINY, batch_size=4, **shares)  # two faces, each of which another set would take
    assert dataclasses.replace(TINY, batch_size=10, **shares).counts(large_pose=True, unlabelled=True) == (
        1,
        2,
        2,
    )


def test_pairs_of_views_need_an_even_batch():
    with pytest.raises(InputError, match="batch_size: expected an even number"):
        dataclasses.replace(TINY, batch_size=3)
    with pytest.raises(InputError, match="batch_size: expected an even number"):
        dataclasses.replace(TINY, batch_size=3, siamese_weight=0, near_every=1, near_weight=1)
    assert dataclasses.replace(TINY, batch_size=3, siamese_weight=0).views == 1


def test_shares_are_counted_of_the_sets_there_are():
    config = dataclasses.replace(TINY, batch_size=20, large_pose_share=0.3, unlabelled_share=0.2)
    assert config.counts(large_pose=True, unlabelled=True) == (5, 3, 2)
    assert config.counts(large_pose=False, unlabelled=True) == (8, 0, 2)
    assert config.counts(large_pose=True, unlabelled=False) == (7, 3, 0)


def test_names_of_a_norm_are_settings_like_others():
    assert override(TINY, ["coordinate_norm=star"]).coordinate_norm == "star"
    with pytest.raises(InputError, match="coordinate_norm: expected one of l1, l2, star, got 'l4'"):
        override(TINY, ["coordinate_norm=l4"])
