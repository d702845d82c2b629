"""The default detector: one frame, one order, and no picture that breaks it."""

from __future__ import annotations

import os
import pathlib
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from face_landmarks.detection._boxes import suppress, suppress_nested
from face_landmarks.detection.contract import run_detector
from face_landmarks.detection.mtcnn import MTCNN, _round_up
from face_landmarks.errors import InputError, MissingDependencyError
from face_landmarks.images import read_image

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return read_image(ROOT / "examples" / "data" / "astronaut.jpg")  # (512, 512, 3), one face


@pytest.fixture(scope="module")
def mtcnn() -> MTCNN:
    return MTCNN(device="cpu")


def stub(mtcnn: MTCNN, boxes: Any, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Let the networks find these edges, counted from the image's outer edge, and keep what they saw."""
    seen: list[np.ndarray] = []

    def detect(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        seen.append(image)
        found = boxes(image) if callable(boxes) else boxes
        edges = np.array(found, float).reshape(-1, 4)
        return edges, np.linspace(0.99, 0.91, len(found), dtype=np.float32), np.zeros((len(edges), 5, 2))

    monkeypatch.setattr(mtcnn, "_detect", detect)
    return seen


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = np.prod(np.clip(sides, 0, None))
    return float(common / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common))


def test_the_face_of_a_photo_is_found(mtcnn: MTCNN, photo: np.ndarray) -> None:
    boxes, scores, points = run_detector(mtcnn, photo)
    assert boxes.shape == (1, 4) and boxes.dtype == np.float32
    expected = [
        [204, 102],
        [247, 104],
        [222, 128],
        [203, 138],
        [243, 140],
    ]  # eyes, nose, corners of the mouth
    np.testing.assert_allclose(points, [expected], atol=4)
    assert scores.shape == (1,) and scores.dtype == np.float32
    assert overlap(boxes[0], np.array([179, 60, 268, 172])) > 0.9
    assert scores[0] > 0.99


def test_the_same_photo_gives_the_same_boxes_and_stays_as_it_was(mtcnn: MTCNN, photo: np.ndarray) -> None:
    before = photo.copy()
    first, second = mtcnn(photo), mtcnn(photo)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(photo, before)


def test_threads_share_a_detector(mtcnn: MTCNN, photo: np.ndarray) -> None:
    photos = [photo, photo[:200, 100:300], np.zeros((60, 40, 3), np.uint8)] * 2
    alone = [mtcnn(each) for each in photos]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(mtcnn, photos))
    for mine, theirs in zip(alone, together, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (10, 10), (29, 29), (30, 30), (31, 200)])
@pytest.mark.parametrize("level", [0, 127, 255])
def test_pictures_without_a_face_have_none(mtcnn: MTCNN, shape: tuple[int, int], level: int) -> None:
    boxes, scores, points = run_detector(mtcnn, np.full((*shape, 3), level, np.uint8))
    assert boxes.shape == (0, 4) and boxes.dtype == np.float32
    assert points is not None and points.shape == (0, 5, 2)
    assert scores.shape == (0,) and scores.dtype == np.float32


def test_no_noise_breaks_even_a_credulous_detector() -> None:
    credulous = MTCNN(device="cpu", min_face_size=12, thresholds=(0.1, 0.1, 0.1))
    random = np.random.default_rng(0)
    for side in range(8, 64, 7):
        noise = random.integers(0, 256, (side, 2 * side, 3), dtype=np.uint8)
        boxes, scores, _ = run_detector(credulous, noise)
        assert len(boxes) == len(scores)


def test_the_whole_picture_is_the_whole_picture_in_any_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    mtcnn = MTCNN(device="cpu", max_size=64)

    def everything(image: np.ndarray) -> list[list[int]]:
        return [[0, 0, image.shape[1], image.shape[0]]]

    for height, width in ((40, 64), (40, 63), (300, 200), (77, 128)):
        seen = stub(mtcnn, everything, monkeypatch)
        boxes = mtcnn(np.zeros((height, width, 3), np.uint8)).boxes
        np.testing.assert_allclose(boxes, [[-0.5, -0.5, width - 0.5, height - 0.5]], rtol=1e-6)
        assert len(seen) == 1 and max(seen[0].shape) <= 64


def test_a_border_does_not_move_the_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    mtcnn = MTCNN(device="cpu")

    def only_with_a_border(image: np.ndarray) -> list[list[int]]:
        return [[10, 10, 90, 50]] if image.shape == (60, 100, 3) else []  # 80 x 40, 10 on every side

    stub(mtcnn, only_with_a_border, monkeypatch)
    boxes = mtcnn(np.zeros((40, 80, 3), np.uint8)).boxes
    np.testing.assert_allclose(boxes, [[-0.5, -0.5, 79.5, 39.5]])


def test_boxes_come_largest_first_then_from_left_to_right_then_from_top_to_bottom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mtcnn = MTCNN(device="cpu")
    found = [[60, 10, 70, 20], [20, 50, 30, 60], [20, 10, 30, 20], [40, 30, 61, 51], [10, 60, 30, 65]]
    stub(mtcnn, found, monkeypatch)
    boxes, scores, _ = mtcnn(np.zeros((100, 100, 3), np.uint8))
    order = [3, 4, 2, 1, 0]
    np.testing.assert_allclose(boxes, np.array(found)[order] - 0.5)
    np.testing.assert_allclose(scores, np.linspace(0.99, 0.91, 5)[order], rtol=1e-6)


@pytest.mark.parametrize(
    "box",
    [
        [np.nan, 10, 30, 30],
        [10, 10, np.inf, 30],
        [-np.inf, 10, np.inf, 30],
        [30, 10, 20, 30],
        [10, 30, 30, 20],
        [-500, -500, 500, 500],
        [-60, 10, 10, 80],
        [150, 10, 250, 80],
    ],
    ids=[
        "nan",
        "inf",
        "-inf to inf",
        "no width",
        "no height",
        "huge",
        "left of the picture",
        "right of the picture",
    ],
)
def test_boxes_that_cannot_be_faces_are_dropped(
    mtcnn: MTCNN, box: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(mtcnn, [[10, 10, 30, 30], box], monkeypatch)
    boxes, scores, _ = run_detector(mtcnn, np.zeros((100, 100, 3), np.uint8))
    np.testing.assert_allclose(boxes, [[9.5, 9.5, 29.5, 29.5]])
    np.testing.assert_allclose(scores, [0.99], rtol=1e-6)


def test_boxes_may_reach_out_of_the_picture(mtcnn: MTCNN, photo: np.ndarray) -> None:
    boxes = mtcnn(photo[80:]).boxes  # no forehead
    assert boxes.shape == (1, 4) and boxes[0, 1] < -0.5


def test_a_face_that_fills_its_picture_is_found(mtcnn: MTCNN, photo: np.ndarray) -> None:
    boxes = mtcnn(photo[64:170, 184:264]).boxes  # the networks see it only with a border
    assert boxes.shape == (1, 4)
    assert overlap(boxes[0] + [184, 64, 184, 64], mtcnn(photo)[0][0]) > 0.75


def test_large_photos_are_searched_small_and_answered_large(photo: np.ndarray) -> None:
    mtcnn = MTCNN(device="cpu", max_size=512)
    expected = mtcnn(photo)[0]
    large = photo.repeat(3, axis=0).repeat(3, axis=1)  # shrunk by area, it is the photo again
    np.testing.assert_allclose(mtcnn(large)[0], (expected + 0.5) * 3 - 0.5, rtol=1e-5)


def test_two_faces_come_largest_first(mtcnn: MTCNN, photo: np.ndarray) -> None:
    face = photo[:256, 96:352]
    half = cv2.resize(face, (128, 128), interpolation=cv2.INTER_AREA)
    scene = np.zeros((256, 384, 3), np.uint8)
    scene[64:192, :128] = half
    scene[:, 128:] = face
    boxes, scores, _ = mtcnn(scene)
    assert boxes.shape == (2, 4) and scores.shape == (2,)
    assert boxes[0, 0] > 128 > boxes[1, 2]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 7), np.uint8), r"expected an array \(H, W, 3\), got ndarray of shape \(5, 7\)"),
        (np.zeros((5, 7, 4), np.uint8), r"of shape \(5, 7, 4\)"),
        (np.zeros((0, 7, 3), np.uint8), r"of shape \(0, 7, 3\)"),
        (np.zeros((5, 7, 3), np.float32), "expected uint8, got .* of float32; read_image converts"),
        ("photo.jpg", "got str"),
        (torch.zeros(3, 5, 7), "got Tensor"),
    ],
)
def test_only_what_read_image_gives_is_taken(mtcnn: MTCNN, image: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mtcnn(image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_face_size": 0}, "min_face_size: expected at least 6 pixels, got 0"),
        ({"min_face_size": float("nan")}, "min_face_size"),
        ({"thresholds": (0.6, 0.7)}, r"thresholds: expected three scores in \[0, 1\], got \(0\.6, 0\.7\)"),
        ({"thresholds": (0.6, 0.7, 1.7)}, "thresholds"),
        ({"factor": 1}, "factor: expected a ratio from 0.3 to 0.95, got 1"),
        ({"factor": 0}, "factor"),
        ({"max_size": 0}, "max_size: expected a whole number, at least 12, got 0"),
        ({"runtime": "opencv"}, "runtime: expected 'auto', 'torch' or 'onnxruntime', got 'opencv'"),
        ({"device": "toaster"}, "device: expected one that is present"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MTCNN(**options)  # type: ignore[arg-type]


def test_without_facenet_pytorch_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("face_landmarks.detection.mtcnn_networks.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'facenet-pytorch.*it is not installed"):
        MTCNN()


def test_a_facenet_pytorch_without_weights_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModuleSpec("facenet_pytorch", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("face_landmarks.detection.mtcnn_networks.find_spec", lambda name: spec)
    with pytest.raises(MissingDependencyError, match="it has no data/pnet.pt"):
        MTCNN()


def test_the_weights_are_read_without_importing_their_package() -> None:
    code = """if True:
        import sys, warnings
        import sympy  # torch does that late, and it adds a filter of its own
        from face_landmarks.detection.mtcnn import MTCNN
        before = list(warnings.filters)
        MTCNN(device="cpu")
        assert "facenet_pytorch" not in sys.modules and "torchvision" not in sys.modules
        assert list(warnings.filters) == before
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def faster() -> MTCNN:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return MTCNN(device="cpu", runtime="onnxruntime")


def test_the_runtimes_find_the_same_faces(mtcnn: MTCNN, faster: MTCNN, photo: np.ndarray) -> None:
    assert (mtcnn.runtime, faster.runtime) == ("torch", "onnxruntime")
    random = np.random.default_rng(1)
    for _ in range(6):  # of ever new sizes
        height, width = random.integers(150, 900, 2)
        scene = cv2.resize(photo, (int(width), int(height)), interpolation=cv2.INTER_AREA)
        for one, other in zip(run_detector(mtcnn, scene), run_detector(faster, scene), strict=True):
            assert len(one) > 0
            np.testing.assert_allclose(one, other, atol=1e-3)
    nothing = np.zeros((40, 40, 3), np.uint8)
    assert len(faster(nothing).boxes) == 0


def test_a_detector_can_be_copied_by_pickling(mtcnn: MTCNN, faster: MTCNN, photo: np.ndarray) -> None:
    for detector in (mtcnn, faster):
        copy = pickle.loads(pickle.dumps(detector))
        assert repr(copy) == repr(detector)
        for one, other in zip(detector(photo), copy(photo), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_finds_the_same_faces(faster: MTCNN, photo: np.ndarray) -> None:
    expected = faster(photo).boxes
    child = os.fork()
    if child == 0:
        os._exit(0 if np.allclose(faster(photo).boxes, expected, atol=1e-3) else 3)
    assert os.waitpid(child, 0)[1] == 0


def test_without_onnx_runtime_auto_is_torch_and_the_name_is_refused(
    photo: np.ndarray, mtcnn: MTCNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    detector = MTCNN(device="cpu", runtime="auto")
    assert detector.runtime == "torch"
    np.testing.assert_array_equal(detector(photo).boxes, mtcnn(photo).boxes)
    with pytest.raises(MissingDependencyError, match="onnxruntime"):
        MTCNN(runtime="onnxruntime")


def test_onnx_runtime_computes_on_the_cpu_alone(cuda: torch.device) -> None:
    with pytest.raises(InputError, match="device: expected 'cpu' for runtime 'onnxruntime'"):
        MTCNN(device=cuda, runtime="onnxruntime")
    assert MTCNN(device=cuda, runtime="auto").runtime == "torch"


def test_boxes_are_the_same_on_the_gpu(mtcnn: MTCNN, photo: np.ndarray, cuda: torch.device) -> None:
    boxes, scores, _ = MTCNN(device=cuda)(photo)
    np.testing.assert_allclose(boxes, mtcnn(photo)[0], atol=0.1)
    np.testing.assert_allclose(scores, mtcnn(photo)[1], atol=1e-3)


def test_of_boxes_that_overlap_the_best_stays_and_also_what_lies_within_it_goes() -> None:
    edges = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [2, 2, 6, 6], [20, 0, 30, 10.0]])
    scores = np.array([0.8, 0.9, 0.7, 0.6], np.float32)
    np.testing.assert_array_equal(suppress(edges, scores, 0.7), [1, 2, 3])
    np.testing.assert_array_equal(suppress_nested(edges, scores, 0.7), [1, 3])
    for function in (suppress, suppress_nested):
        assert function(np.empty((0, 4)), np.empty(0, np.float32), 0.7).shape == (0,)


def test_there_are_few_shapes_and_none_is_much_too_large() -> None:
    counts = np.arange(1, 2000)
    for sizes in (4, 16):
        rounded = np.array([_round_up(int(count), sizes) for count in counts])
        assert (rounded >= counts).all() and (rounded < (1 + 1 / sizes) * counts).all()
        assert len(np.unique(rounded)) <= sizes * 11
