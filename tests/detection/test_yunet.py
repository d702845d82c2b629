"""YuNet: its file comes verified, both runtimes give the same faces, and threads, forks and pickles work."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import normal_ends
import numpy as np
import pytest

from face_landmarks import FaceAligner, read_image
from face_landmarks.detection import yunet
from face_landmarks.detection.contract import run_detector
from face_landmarks.detection.upright import rolls_of
from face_landmarks.detection.yunet import YuNet
from face_landmarks.errors import ChecksumError, DownloadError, InputError, WeightsFormatError
from face_landmarks.models.registry import YUNET
from face_landmarks.models.weights import download
from face_landmarks.models.weights_file import cache_folder

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "data" / "astronaut.jpg"
FILE = ROOT.parent / "shared" / "models" / "yunet" / YUNET.file.name


def put_in_cache() -> None:
    cache_folder().mkdir(parents=True, exist_ok=True)
    shutil.copy(FILE, cache_folder() / YUNET.file.name)


@pytest.fixture
def cached(temporary_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector's file in the cache, as a person would put it there by hand."""
    if not FILE.is_file():
        pytest.skip(f"needs {YUNET.file.name} in ../shared/models/yunet")
    put_in_cache()
    monkeypatch.setenv("FACE_LANDMARKS_OFFLINE", "1")


@pytest.fixture(params=["opencv", "onnxruntime"])
def runtime(request: pytest.FixtureRequest) -> Any:
    if request.param == "onnxruntime":
        pytest.importorskip("onnxruntime")
    return request.param


@pytest.fixture
def photo() -> np.ndarray:
    return read_image(PHOTO)


# --- without the file ---------------------------------------------------------------------------


def grids(height: int, width: int) -> list[np.ndarray]:
    """Outputs in which nothing is found, of an input of this size."""
    kinds = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    return [
        np.zeros((1, (height // stride) * (width // stride), kinds[kind]), np.float32)
        for stride in (8, 16, 32)
        for kind in ("cls", "obj", "bbox", "kps")
    ]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """YuNet with a network that finds one face: at cell (3, 2) of the grid of 16 pixels."""
    seen: list[np.ndarray] = []

    def load(graph: bytes) -> Any:
        def run(canvas: np.ndarray) -> list[np.ndarray]:
            seen.append(canvas)
            height, width = canvas.shape[2:]
            outputs = grids(height, width)
            cell = 2 * (width // 16) + 3
            outputs[4][0, cell], outputs[5][0, cell] = 0.81, 1.21  # probabilities are clipped to 1
            outputs[6][0, cell] = [0.5, 0.25, np.log(2), np.log(3)]
            outputs[7][0, cell] = np.arange(10) / 10
            return outputs

        return run

    monkeypatch.setattr(yunet, "obtain", lambda *args: (None, b"graph"))
    monkeypatch.setattr(yunet, "_load_opencv", load)
    return seen


def test_a_cell_is_decoded_to_box_score_and_points(fake: list[np.ndarray]) -> None:
    found = run_detector(YuNet(runtime="opencv"), np.full((70, 90, 3), (1, 2, 3), np.uint8))
    left, top = 16 * (3 + 0.5 - 1) - 0.5, 16 * (2 + 0.25 - 1.5) - 0.5
    np.testing.assert_allclose(found.boxes, [[left, top, left + 32, top + 48]], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [0.9], rtol=1e-6)
    x, y = 16 * (3 + np.arange(0, 10, 2) / 10) - 0.5, 16 * (2 + np.arange(1, 10, 2) / 10) - 0.5
    assert found.points is not None
    np.testing.assert_allclose(found.points[0], np.stack([x, y], axis=1), rtol=1e-6)
    (canvas,) = fake
    assert canvas.shape == (1, 3, 96, 96) and canvas.dtype == np.float32
    assert canvas[0, :, 69, 89].tolist() == [3, 2, 1]  # BGR
    assert not canvas[0, :, 70:].any() and not canvas[0, :, :, 90:].any()


def test_large_photos_are_searched_small_and_answered_large(fake: list[np.ndarray]) -> None:
    found = YuNet(runtime="opencv", max_size=96)(np.zeros((192, 144, 3), np.uint8))
    assert fake[0].shape == (1, 3, 96, 96)  # 96 x 72, filled up
    left, top = 16 * 2.5, 16 * 0.75
    np.testing.assert_allclose(
        found.boxes + 0.5, [[2 * left, 2 * top, 2 * left + 64, 2 * top + 96]], rtol=1e-6
    )


def test_a_least_score_leaves_doubtful_faces_out(fake: list[np.ndarray]) -> None:
    assert len(YuNet(runtime="opencv", min_score=0.95)(np.zeros((90, 90, 3), np.uint8)).boxes) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": 1.5}, r"min_score: expected a score in \[0, 1\], got 1.5"),
        ({"min_score": float("nan")}, "min_score"),
        ({"max_size": 0}, "max_size: expected a whole number, at least 32, got 0"),
        ({"rotations": "often"}, "rotations: expected"),
        ({"runtime": "tensorrt"}, "runtime: expected 'auto', 'opencv' or 'onnxruntime', got 'tensorrt'"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        YuNet(**options)


def test_a_file_that_the_runtime_cannot_read_is_named(monkeypatch: pytest.MonkeyPatch, runtime: Any) -> None:
    monkeypatch.setattr(yunet, "obtain", lambda *args: (None, b"not a graph"))
    with pytest.raises(
        WeightsFormatError, match=f"yunet: expected a version of .* that reads {YUNET.file.name}"
    ):
        YuNet(runtime=runtime)


def test_without_the_file_offline_the_error_says_where_to_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE_LANDMARKS_OFFLINE", "1")
    aligner = FaceAligner(detector="yunet", device="cpu")  # nothing is loaded yet
    with pytest.raises(DownloadError, match=f"(?s)yunet: .*{YUNET.file.name}.*{YUNET.file.sha256}.*by hand"):
        aligner.align(PHOTO)


def test_a_damaged_file_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE_LANDMARKS_OFFLINE", "1")
    cache_folder().mkdir(parents=True)
    (cache_folder() / YUNET.file.name).write_bytes(b"damaged")
    with pytest.raises(ChecksumError, match="yunet"):
        YuNet()


# --- with it ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cached")
def test_the_astronaut_is_found_with_five_points(photo: np.ndarray, runtime: Any) -> None:
    assert download("yunet") == cache_folder() / YUNET.file.name
    found = run_detector(YuNet(runtime=runtime), photo)
    np.testing.assert_allclose(found.boxes, [[177.8, 62.4, 267.9, 175.1]], atol=0.1)
    assert found.points is not None and found.scores[0] > 0.9
    np.testing.assert_allclose(found.points[0, :2], [[204, 102], [247, 104]], atol=6)
    assert abs(rolls_of(found.points)[0]) < 8


@pytest.mark.usefixtures("cached")
def test_both_runtimes_give_the_same(photo: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    one, other = (YuNet(runtime=runtime)(photo) for runtime in ("opencv", "onnxruntime"))  # type: ignore[arg-type]
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-3)


@pytest.mark.usefixtures("cached")
def test_a_detector_is_shared_by_threads_and_pickled(photo: np.ndarray, runtime: Any) -> None:
    detector = YuNet(runtime=runtime)
    photos = [photo, photo[:200, 100:300], np.zeros((60, 40, 3), np.uint8)] * 4
    alone = [detector(each) for each in photos]
    shutil.rmtree(cache_folder())  # a pickle carries all it needs
    copy = pickle.loads(pickle.dumps(detector))
    with ThreadPoolExecutor(4) as pool:
        for some in (list(pool.map(detector, photos)), list(pool.map(copy, photos))):
            for mine, theirs in zip(alone, some, strict=True):
                for one, other in zip(mine, theirs, strict=True):
                    np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("cached")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_finds_the_same(photo: np.ndarray, runtime: Any) -> None:
    detector = YuNet(runtime=runtime)
    expected = detector(photo)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=lambda: answers.put(detector(photo).boxes))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    np.testing.assert_array_equal(answers.get(), expected.boxes)


NORMAL_END = """
import os, sys, numpy as np
from face_landmarks.detection.yunet import YuNet
detector = YuNet(runtime=sys.argv[1])
detector(np.zeros((64, 64, 3), np.uint8))
child = os.fork()
if child == 0:
    sys.exit(7)
assert exit_code(child) == 7
"""


@pytest.mark.usefixtures("cached")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_can_end_normally(runtime: Any) -> None:
    done = normal_ends.run(NORMAL_END, runtime)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_photo_in_any_position_is_aligned_through_yunet(photo: np.ndarray, turn: int) -> None:
    aligner = FaceAligner("shr-fan-68-fast", detector=YuNet(rotations="always"), device="cpu", search=False)
    upright = aligner.align(photo)
    faces = aligner.align(np.ascontiguousarray(np.rot90(photo, turn)))
    assert len(faces) == 1
    x, y = faces.landmarks[0].T
    for _ in range(turn):
        x, y = 511 - y, x
    np.testing.assert_allclose(np.stack([x, y], axis=1), upright.landmarks[0], atol=2)
