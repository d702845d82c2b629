"""What a caller does to torch's process-wide defaults reaches neither networks nor landmarks."""

from __future__ import annotations

import ast
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch_states import STATES, default_dtype

from face_landmarks import MTCNN, FaceAligner, align_faces, read_image

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "data" / "astronaut.jpg"
PACKAGE = ROOT / "face_landmarks"
# What stands on the way from a photo to its landmarks, and training.
PATH = [
    "geometry.py",
    "heatmap.py",
    "aligner.py",
    *("locating/*.py", "detection/*.py", "runtime/runtimes.py", "models/*.py", "output/*.py"),
    "training/*.py",
]
FACTORIES = {
    "zeros",
    "ones",
    "empty",
    "full",
    "tensor",
    "as_tensor",
    "arange",
    "eye",
    "linspace",
    "rand",
    "randn",
    "randint",
    "from_file",
}


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return FaceAligner("shr-fan-68-fast", device="cpu").get_landmarks(PHOTO)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("flip", [False, True])
def test_an_aligner_made_and_first_used_in_a_foreign_state_is_as_any_other(
    state: str, flip: bool, expected: np.ndarray
) -> None:
    with STATES[state]():
        aligner = FaceAligner("shr-fan-68-fast", device="cpu", flip=flip)
        inside = aligner.align(PHOTO)
        heatmaps = aligner.heatmaps(PHOTO).heatmaps
        nothing = aligner.align(np.zeros((40, 40, 3), np.uint8))
    outside = aligner.align(PHOTO)
    for faces in (inside, outside, nothing):
        assert faces.landmarks.dtype == faces.landmark_scores.dtype == faces.boxes.dtype == np.float32
    assert len(nothing) == 0 and heatmaps.dtype == np.float32
    np.testing.assert_array_equal(inside.landmarks, outside.landmarks)
    if not flip:
        np.testing.assert_array_equal(outside.landmarks, expected)


@pytest.mark.parametrize("state", STATES)
def test_a_search_in_a_foreign_state_finds_the_same(state: str) -> None:
    lying = np.ascontiguousarray(np.rot90(read_image(PHOTO)))
    box = [(60, 243, 172, 332)]
    aligner = FaceAligner("shr-fan-68-fast", detector=None, device="cpu", refine=True)
    expected = aligner.align(lying, box)
    with STATES[state]():
        found = aligner.align(lying, box)
    np.testing.assert_array_equal(found.landmarks, expected.landmarks)
    np.testing.assert_array_equal(found.landmark_errors, expected.landmark_errors)


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
@pytest.mark.parametrize("state", STATES)
def test_a_detector_in_a_foreign_state_finds_the_same(
    state: str, runtime: Literal["torch", "onnxruntime"]
) -> None:
    if runtime == "onnxruntime":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    photo = read_image(PHOTO)
    boxes, scores = MTCNN(device="cpu", runtime=runtime)(photo)[:2]
    with STATES[state]():
        detector = MTCNN(device="cpu", runtime=runtime)
        inside = detector(photo)
    for found in (inside, detector(photo)):
        np.testing.assert_array_equal(found[0], boxes)
        np.testing.assert_array_equal(found[1], scores)


@pytest.mark.parametrize("template", ["arcface", "ffhq"])
@pytest.mark.parametrize("state", STATES)
def test_crops_in_a_foreign_state_are_the_same(state: str, template: str) -> None:
    faces = FaceAligner("shr-fan-68-fast", device="cpu").align(PHOTO)
    expected = align_faces(PHOTO, faces, template=template)
    with STATES[state]():
        found = align_faces(PHOTO, faces, template=template)
    np.testing.assert_array_equal(found, expected)


def test_whatever_makes_a_tensor_on_the_way_names_its_type_and_device() -> None:
    """So that no default of torch can reach it."""
    for pattern in PATH:
        paths = sorted(PACKAGE.glob(pattern))
        assert paths
        for path in paths:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in FACTORIES
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id == "torch"
                ):
                    named = {keyword.arg for keyword in node.keywords}
                    assert named >= {"dtype", "device"}, f"{path}:{node.lineno}"


def test_the_state_is_left_as_it_was() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), default_dtype(torch.float64), nullcontext():
        FaceAligner("shr-fan-68-fast", device="cpu").align(PHOTO)
        assert torch.is_autocast_enabled("cpu") and torch.get_default_dtype() == torch.float64
