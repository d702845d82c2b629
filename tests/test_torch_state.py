"""What a caller does to torch's process-wide defaults reaches neither networks nor landmarks."""

from __future__ import annotations

import ast
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch_states import STATES, default_dtype

from face_landmarks import MTCNN, FaceAligner, align_faces, read_image
from face_landmarks._system.torch_state import FOR_ONE_THREAD, fitting_threads

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


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


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


@pytest.mark.parametrize("state", STATES)
def test_a_detector_in_a_foreign_state_finds_the_same(state: str) -> None:
    photo = read_image(PHOTO)
    boxes, scores = MTCNN(device="cpu")(photo)[:2]
    with STATES[state]():
        detector = MTCNN(device="cpu")
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


def test_a_small_batch_is_computed_on_the_calling_thread_alone(two_threads: None) -> None:
    cpu = torch.device("cpu")
    for products, threads in ((0, 1), (FOR_ONE_THREAD, 1), (FOR_ONE_THREAD + 1, 2), (math.inf, 2)):
        with fitting_threads(products, cpu):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    with fitting_threads(0, torch.device("meta")):
        assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), fitting_threads(0, cpu):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


def test_a_thread_that_computes_meanwhile_keeps_its_threads(two_threads: None) -> None:
    limited, released = threading.Event(), threading.Event()

    def other() -> tuple[int, int]:
        before = torch.get_num_threads()
        limited.wait(10)
        during = torch.get_num_threads()
        released.set()
        return before, during

    with ThreadPoolExecutor(1) as pool:
        pool.submit(torch.get_num_threads).result()
        answer = pool.submit(other)
        with fitting_threads(0, torch.device("cpu")):
            limited.set()
            assert released.wait(10)
        assert answer.result() == (2, 2)


def test_networks_compute_one_face_on_the_calling_thread(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[tuple[str, int, int]] = []
    forward = nn.Conv2d.forward

    def spy(layer: nn.Conv2d, pixels: torch.Tensor) -> torch.Tensor:
        used.append((name, len(pixels), torch.get_num_threads()))
        return forward(layer, pixels)

    monkeypatch.setattr(nn.Conv2d, "forward", spy)
    name = "MTCNN"
    found = MTCNN(device="cpu")(read_image(PHOTO)).boxes
    for name in ("shr-fan-68", "shr-fan-68-fast"):
        aligner = FaceAligner(name, detector=None, device="cpu", backend="torch")
        aligner.align(PHOTO, found)
        aligner.align(PHOTO, np.tile(found, (2, 1)))
    threads = {(name, batch): number for name, batch, number in used}
    assert threads["shr-fan-68", 1] == 2  # five thousand million multiply-adds
    assert threads["shr-fan-68-fast", 1] == 1
    assert threads["shr-fan-68-fast", 2] == 2
    assert {number for (name, _), number in threads.items() if name == "MTCNN"} == {1}
