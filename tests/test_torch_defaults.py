"""Torch's process-wide defaults change no result of the parts: geometry, heatmaps, models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch_states import STATES

from face_landmarks import load_model
from face_landmarks.geometry import (
    boxes_from_landmarks,
    crop_matrices,
    mirror_matrix,
    quarter_turned,
    resize_matrix,
    sample,
    transform_points,
    upright_boxes,
    warp,
)
from face_landmarks.heatmap import DECODE_METHODS, decode_heatmaps, encode_heatmaps
from face_landmarks.layouts import IBUG_68
from face_landmarks.models.card import Calibration
from face_landmarks.models.confidence import expected_errors, fit_calibration
from face_landmarks.models.fan import convert_fan_state_dict
from face_landmarks.models.hourglass import HourglassConfig, complexity

RANDOM = torch.Generator().manual_seed(0)
LANDMARKS = 100 * torch.rand(2, 68, 2, generator=RANDOM)
BOXES = torch.tensor([[10.0, 20, 110, 140], [50.0, 60, 200, 290]])
SCORES = torch.rand(5, 68, generator=RANDOM)
HEATMAPS = torch.rand(2, 3, 9, 11, generator=RANDOM)
PHOTO = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
TO_CROP = crop_matrices(BOXES, 64, 0.6, 0.1)
IDENTITY = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
NO_MATRIX = torch.empty(0, 3, 3, dtype=torch.float64)
TINY = HourglassConfig(stacks=1, features=16, depth=1, crop_size=32, heatmap_size=8)
SMALL = Calibration((0.5, 1.0, 2.0), 0.5, 0.2)
CALIBRATION = Calibration((1.0,) * 68, 0.5, 0.2)
STATE = {"m0.b2_4.bn1.running_mean": torch.zeros(3)}

PARTS: dict[str, Callable[[], object]] = {
    "boxes_from_landmarks": lambda: boxes_from_landmarks(LANDMARKS.numpy()),
    "crop_matrices": lambda: crop_matrices(BOXES, 64, 0.6, 0.1),
    "quarter_turned": lambda: quarter_turned(BOXES),
    "upright_boxes": lambda: upright_boxes(LANDMARKS, IBUG_68.eyes),
    "resize_matrix": lambda: resize_matrix(4),
    "mirror_matrix": lambda: mirror_matrix(7),
    "transform_points": lambda: transform_points(TO_CROP, LANDMARKS),
    "warp": lambda: warp(PHOTO, TO_CROP, 64),
    "warp of no face": lambda: warp(PHOTO, NO_MATRIX, 64),
    "sample": lambda: sample(HEATMAPS, IDENTITY, 5),
    "encode_heatmaps": lambda: encode_heatmaps(LANDMARKS[:, :3] / 10, (9, 11)),
    **{
        f"decode by {name}": lambda name=name: decode_heatmaps(HEATMAPS, method=name)
        for name in DECODE_METHODS
    },
    "expected_errors": lambda: expected_errors(SCORES, CALIBRATION),
    "fit_calibration": lambda: fit_calibration(SCORES[:, :3], expected_errors(SCORES[:, :3], SMALL)),
    "convert_fan_state_dict": lambda: convert_fan_state_dict(STATE, HourglassConfig()),
    "complexity": lambda: complexity(TINY),
    "load_model": lambda: load_model("shr-fan-68-fast").network.state_dict(),
}


def values_of(result: object) -> list[Any]:
    """Type, device and numbers of every tensor in a result, and what else is in it."""
    if isinstance(result, torch.Tensor):
        return [(result.dtype, result.device.type), result.detach().clone().numpy()]
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, (tuple, list)):
        return [value for part in result for value in values_of(part)]
    return [result]


@pytest.mark.parametrize("part", PARTS)
def test_a_default_of_torch_changes_no_result(part: str) -> None:
    expected = values_of(PARTS[part]())
    for name, state in STATES.items():
        with state():
            result = PARTS[part]()
        found = values_of(result)
        assert len(found) == len(expected), name
        for value, other in zip(found, expected, strict=True):
            if isinstance(other, np.ndarray):
                assert value.dtype == other.dtype, name
                np.testing.assert_array_equal(value, other, err_msg=name)
            else:
                assert value == other, name
