"""Any image, any time: the embedded model on a real photo, changed, repeated, shared and multiplied."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from face_landmarks import FaceAligner, read_image
from face_landmarks.geometry import boxes_from_landmarks, crop_matrices, warp
from face_landmarks.images.files import _FLIPS

ROOT = Path(__file__).parents[1]
ASTRONAUT = ROOT / "examples" / "data" / "astronaut.jpg"
SIZE = 512  # of the photo, each way
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def aligner():
    return FaceAligner(device="cpu")


@pytest.fixture(scope="module")
def photo():
    return read_image(ASTRONAUT)


@pytest.fixture(scope="module")
def face(aligner, photo):
    return aligner.align(photo)


def run_script(folder, code, *arguments, timeout=240):
    """What a script prints, run as a file of its own: a spawned process imports it again."""
    script = folder / "script.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- boxes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box",
    [
        (220, 100, 220.01, 100.01),
        (0, 0, 1e-45, 1e-45),
        (178, 59, 178.001, 175),
        (-60, -60, 60, 60),
        (500, 500, 700, 700),
        (-500, -500, -400, -400),
        (1.2e7, 1.2e7, 1.6e7, 1.6e7),
        (0, 0, 1e7, 1e7),
        (-1.6e7, -1.6e7, 1.6e7, 1.6e7),
        (-1.6e7, 100, 1.6e7, 100.5),
    ],
)
def test_any_box_with_an_area_gives_finite_landmarks_near_it(aligner, photo, box):
    landmarks = aligner.align(photo, [box]).landmarks
    assert landmarks.shape == (1, 68, 2) and np.isfinite(landmarks).all()
    x0, y0, x1, y1 = box
    side, centre = (x1 - x0) + (y1 - y0), np.array([x0 + x1, y0 + y1]) / 2
    assert np.abs(landmarks - centre).max() <= side * (1 + 1e-5) + 1e-5 * np.abs(centre).max()


@pytest.mark.parametrize("box", [(-500, -500, -400, -400), (600, 100, 700, 200), (-60, 60, 40, 170)])
def test_scores_tell_a_box_without_a_face(aligner, photo, face, box):
    assert aligner.align(photo, [box]).landmark_scores.mean() < 0.5 < 0.8 < face.landmark_scores.mean()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (60, 20000)])
def test_photos_of_any_shape_are_looked_at(aligner, shape):
    gray = np.full((*shape, 3), 128, np.uint8)
    assert len(aligner.align(gray)) == 0
    height, width = shape
    assert np.isfinite(aligner.align(gray, [(-0.5, -0.5, width, height)]).landmarks).all()


def test_a_face_is_found_in_a_strip_twenty_thousand_pixels_wide(aligner, photo, face):
    strip = np.zeros((256, 20000, 3), np.uint8)
    strip[:, 17000 : 17000 + SIZE] = photo[:256]
    landmarks = aligner.align(strip, face.boxes + np.array([17000, 0, 17000, 0])).landmarks - (17000, 0)
    np.testing.assert_allclose(landmarks, face.landmarks, atol=0.01)


@pytest.mark.parametrize("block", [7, 64, 1024])
def test_blocks_at_the_edge_of_the_photo_are_completed_with_black(block):
    white = np.full((100, 130, 3), 255, np.uint8)
    side = 128 * block  # of the footprint, from the top left corner
    boxes = torch.tensor([[-0.5, -0.5, side - 0.5, side - 0.5]])
    crop = warp(white, crop_matrices(boxes, 128, 0.5), 128)[0]  # one pixel for each block
    height, width = 100 / block, 130 / block
    expected = np.outer(np.clip(height - np.arange(128), 0, 1), np.clip(width - np.arange(128), 0, 1))
    np.testing.assert_allclose(crop, np.broadcast_to(expected, crop.shape), atol=1 / 255)


# --- equal images, equal landmarks --------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_file_gives_the_landmarks_of_the_upright_photo(aligner, photo, face, orientation, tmp_path):
    flip_rows, flip_columns = _FLIPS[orientation]
    stored = photo if orientation < 5 else photo.swapaxes(0, 1)
    stored = stored[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    landmarks = aligner.align(tmp_path / "turned.png", face.boxes).landmarks
    np.testing.assert_allclose(landmarks, face.landmarks, atol=0.01)


def test_batches_of_any_size_give_the_landmarks_of_single_photos(aligner, photo):
    photos = [photo, photo[:, ::-1], photo[30:, 20:], cv2.resize(photo, (256, 256))]
    single = [aligner.align(image) for image in photos]
    boxes = [faces.boxes for faces in single]
    assert [len(faces) for faces in single] == [1, 1, 1, 1]
    for batch_size in (1, 3, 32):
        batched = FaceAligner(device="cpu", batch_size=batch_size, detector=None).align_batch(photos, boxes)
        for one, other in zip(single, batched, strict=True):
            np.testing.assert_allclose(other.landmarks, one.landmarks, atol=0.01)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(aligner, photo, face, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        np.testing.assert_allclose(aligner.align(photo).landmarks, face.landmarks, atol=0.01)
    finally:
        torch.set_num_threads(before)


def test_repeated_calls_are_equal_to_the_last_bit(aligner, photo, face):
    for _ in range(3):
        again = aligner.align(photo)
        for name in ("landmarks", "landmark_scores", "landmark_errors", "boxes", "box_scores"):
            np.testing.assert_array_equal(getattr(again, name), getattr(face, name))


# --- changed photos, changed landmarks ----------------------------------------------------------


def error(landmarks, face):
    """Mean distance from the landmarks of the unchanged photo, in percent of inter-ocular."""
    inter_ocular = np.linalg.norm(face.landmarks[0, 45] - face.landmarks[0, 36])
    return 100 * np.linalg.norm(landmarks - face.landmarks, axis=2).mean() / inter_ocular


def test_landmarks_follow_a_mirror(aligner, photo, face):
    mirrored = aligner.align(photo[:, ::-1])
    landmarks = mirrored.landmarks[:, list(aligner.layout.mirror)].copy()
    inter_ocular = np.linalg.norm(face.landmarks[0, 45] - face.landmarks[0, 36])
    landmarks[..., 0] = SIZE - 1 - landmarks[..., 0] + 2 * aligner.card.lean * inter_ocular  # see the card
    assert error(landmarks, face) < 2


@pytest.mark.parametrize(
    ("scale", "interpolation", "bound"),
    [(0.5, cv2.INTER_AREA, 1), (2, cv2.INTER_CUBIC, 0.5)],
)
@pytest.mark.parametrize("detected", [False, True])
def test_landmarks_follow_the_scale(aligner, photo, face, scale, interpolation, bound, detected):
    resized = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=interpolation)
    boxes = None if detected else (face.boxes + 0.5) * scale - 0.5
    landmarks = (aligner.align(resized, boxes).landmarks + 0.5) / scale - 0.5
    assert error(landmarks, face) < bound + 0.5 * detected


@pytest.mark.parametrize(("right", "down"), [(1, 0), (37, 53), (700, 400)])
def test_landmarks_follow_a_shift(aligner, photo, face, right, down):
    padded = np.pad(photo, ((down, 20), (right, 31), (0, 0)))
    given = aligner.align(padded, face.boxes + np.array([right, down, right, down])).landmarks - (right, down)
    np.testing.assert_allclose(given, face.landmarks, atol=0.01)
    assert error(aligner.align(padded)[0].landmarks - (right, down), face) < 1.5  # the largest face


@pytest.mark.parametrize(("degrees", "bound"), [(-45, 4), (-30, 3), (30, 3), (45, 4)])
def test_landmarks_follow_a_tilt(aligner, photo, face, degrees, bound):
    middle = face.landmarks[0].mean(axis=0).tolist()
    turn = cv2.getRotationMatrix2D(middle, degrees, 1)
    turned = cv2.warpAffine(photo, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
    expected = face.landmarks @ turn[:, :2].T + turn[:, 2]
    landmarks = aligner.align(turned, boxes_from_landmarks(expected)).landmarks
    back = (landmarks - turn[:, 2]) @ np.linalg.inv(turn[:, :2]).T
    assert error(back, face) < bound


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_landmarks_follow_a_face_that_lies_or_stands_on_its_head(aligner, photo, face, quarters):
    def turn(points):
        for _ in range(quarters):
            points = np.stack([points[..., 1], SIZE - 1 - points[..., 0]], axis=-1)
        return points

    corners = turn(face.boxes.reshape(2, 2))
    box = [*corners.min(axis=0), *corners.max(axis=0)]
    turned = aligner.align(np.ascontiguousarray(np.rot90(photo, quarters)), [box])
    inter_ocular = np.linalg.norm(face.landmarks[0, 45] - face.landmarks[0, 36])
    distance = np.linalg.norm(turned.landmarks - turn(face.landmarks), axis=2)
    assert 100 * distance.mean() / inter_ocular < 1
    assert turned.landmark_scores.mean() > 0.8


@pytest.mark.parametrize("degrees", [-75, -60, 60, 75])
def test_landmarks_follow_a_strong_tilt(aligner, photo, face, degrees):
    turn = cv2.getRotationMatrix2D(face.landmarks[0].mean(axis=0).tolist(), degrees, 1)
    turned = cv2.warpAffine(photo, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
    landmarks = aligner.align(turned, face.boxes).landmarks  # the box does not tell of the tilt
    back = (landmarks - turn[:, 2]) @ np.linalg.inv(turn[:, :2]).T
    assert error(back, face) < 3


def test_a_second_look_mends_what_a_bad_box_spoilt(aligner, photo, face):
    refining = FaceAligner(device="cpu", detector=None, refine=True)
    x0, y0, x1, y1 = face.boxes[0]
    width, height = x1 - x0, y1 - y0
    bad = [(x0 + 0.3 * width, y0 - 0.2 * height, x1 + 0.3 * width, y1 - 0.2 * height)]
    once, twice = (error(a.align(photo, bad).landmarks, face) for a in (aligner, refining))
    assert twice < 0.5 * once
    np.testing.assert_array_equal(refining.align(photo, bad).boxes, np.float32(bad))  # as they were given


# --- threads and processes ----------------------------------------------------------------------


def test_eight_threads_share_one_aligner(aligner, photo):
    photos = [photo[i : SIZE - i, 2 * i :] for i in range(8)]
    alone = [aligner.align(image) for image in photos]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(aligner.align, photos))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.landmarks, one.landmarks, atol=0.01)
        np.testing.assert_allclose(other.boxes, one.boxes, atol=0.01)


POOLS = """
import multiprocessing, sys
import numpy as np
import torch
from face_landmarks import FaceAligner, align_faces, read_image

aligner = faces = None

def inherited(path):
    return aligner.align(path).landmarks

def made_here(path):
    return FaceAligner(device="cpu").align(path).landmarks

def cut_here(path):
    return align_faces(path, faces)

def read_here(tensor):  # torch converts a half tensor, with its threads
    return read_image(tensor)

if __name__ == "__main__":
    torch.set_num_threads(2)  # threads that a forked process will not have
    aligner = FaceAligner(device="cpu")
    faces = aligner.align(sys.argv[1])
    expected, crops = faces.landmarks, align_faces(sys.argv[1], faces)
    for method in sys.argv[2:]:
        with multiprocessing.get_context(method).Pool(1) as pool:
            work = inherited if method == "fork" else aligner.align
            for found in pool.map_async(work, [sys.argv[1]] * 2).get(timeout=100):
                np.testing.assert_allclose(getattr(found, "landmarks", found), expected, atol=0.01)
    if "fork" in sys.argv:  # what a child does first must not wait for the parent's threads
        for work, result in ((made_here, expected), (cut_here, crops)):
            with multiprocessing.get_context("fork").Pool(1) as pool:
                found = pool.apply_async(work, sys.argv[1:2]).get(timeout=100)
                np.testing.assert_allclose(found, result, atol=1)
        half = torch.rand(3, 512, 512).half()
        expected = read_image(half)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            found = pool.apply_async(read_here, [half]).get(timeout=100)
            np.testing.assert_array_equal(found, expected)
"""


def test_forked_and_spawned_processes_align(tmp_path):
    methods = [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()]
    run_script(tmp_path, POOLS, ASTRONAUT, *methods)


# --- memory -------------------------------------------------------------------------------------

MEMORY = """
import json, re, sys
import numpy as np, torch
from face_landmarks import FaceAligner, LandmarkModel, read_image

def peak():  # not getrusage: it starts from the memory of the process that started this one
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read())[1]) * 1024 / 1e6

class Average(torch.nn.Module):  # costs nothing, so that thousands of boxes take seconds
    def forward(self, crops):
        return torch.nn.functional.avg_pool2d(crops[:, :1], 4).expand(-1, 68, -1, -1)

photo, folder = sys.argv[1:]
aligner = FaceAligner(device="cpu", batch_size=8)
pixels = read_image(photo)
box = aligner.align(pixels).boxes[0]
aligner.align(pixels, [box] * 8)
peaks = {"start": peak()}

for enormous in ([0, 0, 1e7, 1e7], [-1.6e7, -1.6e7, 1.6e7, 1.6e7], [0, 0, 2e6, 3]):
    aligner.align(pixels, [enormous])
peaks["enormous boxes"] = peak()

aligner = FaceAligner(LandmarkModel(aligner.card, Average()), detector=None, device="cpu", batch_size=8)
few = aligner.align(pixels, [box] * 100).landmarks
many = aligner.align(pixels, [box] * 2000).landmarks
assert many.shape == (2000, 68, 2) and (many == few[0]).all()
peaks["2000 boxes"] = peak()

for kind in ("webp", "jpg"):
    faces = FaceAligner(device="cpu").align(f"{folder}/100-megapixels.{kind}")
    np.testing.assert_allclose(faces.boxes[0] / 10000, box / 512, atol=0.01)
    peaks[f"100 megapixels, {kind}"] = peak()
print(json.dumps(peaks))
"""


@pytest.fixture(scope="module")
def peaks(tmp_path_factory, photo):
    """Peak resident memory in MB of one process, after each of its tasks."""
    folder = tmp_path_factory.mktemp("memory")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side, as cameras do
    big = Image.fromarray(np.rot90(cv2.resize(photo, (10_000, 10_000))))
    big.save(folder / "100-megapixels.jpg", exif=exif, quality=80)
    big.save(folder / "100-megapixels.webp", exif=exif, quality=60, method=0)
    del big
    printed = run_script(folder, MEMORY, ASTRONAUT, folder)
    return json.loads(printed)


@linux
def test_enormous_boxes_take_no_memory(peaks):
    assert peaks["enormous boxes"] < peaks["start"] + 20


@linux
def test_the_batch_size_bounds_the_memory_of_thousands_of_boxes(peaks):
    assert peaks["2000 boxes"] < peaks["enormous boxes"] + 120  # their crops together are 393 MB


@linux
@pytest.mark.parametrize("kind", ["webp", "jpg"])
def test_a_photo_of_a_hundred_megapixels_stays_under_two_gigabytes(peaks, kind):
    assert peaks[f"100 megapixels, {kind}"] < 2000
    assert (
        peaks[f"100 megapixels, {kind}"] < peaks["2000 boxes"] + 900
    )  # torch alone may take much at the start


@linux
@pytest.mark.parametrize("processes", [1, 2])
def test_memory_stays_flat_over_many_alignments(processes):
    """The short form of what examples/lab/checks/soak.py does."""
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "examples/lab/checks/soak.py"),
            *("--alignments", str(100 * processes), "--processes", str(processes), "--warm-up", "40"),
            *("--largest", "300"),  # and 20 MB of growth at most: one crop kept of each face would be more
        ],
        cwd=ROOT,
        # glibc would raise it as it sees large buffers, and then leave holes of their size in its heap.
        env={**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "1000000"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("resident memory grew by") == processes
