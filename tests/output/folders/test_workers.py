"""Several processes do what one does, whichever of them dies."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import worker_deaths
from worker_detectors import Kills, NotThere, Raises, whole

from face_landmarks import FaceAligner
from face_landmarks.errors import InputError, WorkerError
from face_landmarks.output.folders import align_folder, workers
from face_landmarks.output.folders.lists import Photo
from face_landmarks.output.folders.workers import Workers, visible_gpus

ASTRONAUT = Path(__file__).parents[3] / "examples" / "data" / "astronaut.jpg"
ODD = 96  # width of the odd one among the photos


@pytest.fixture
def photos(tmp_path):
    """Twenty small photos, the eleventh of another width, and one that cannot be read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    face = cv2.resize(cv2.imread(str(ASTRONAUT))[:256, 96:352], (128, 128), interpolation=cv2.INTER_AREA)
    for i in range(20):
        cv2.imwrite(str(folder / f"{i:02}.png"), np.roll(face, i, axis=1)[:, : ODD if i == 10 else 128])
    (folder / "05x.png").write_text("not a photo")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "15x.png")  # to open it is to wait for someone who writes
    return folder


def make(detector):
    return FaceAligner("shr-fan-68-fast", detector=detector, device="cpu")


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_file_is_that_of_one_process_byte_for_byte(photos, tmp_path):
    aligner = make(Raises(ODD))
    one = align_folder(aligner, photos, tmp_path / "one.jsonl")
    two = align_folder(aligner, photos, tmp_path / "two.jsonl", workers=2)
    assert one == two and two.images == 19
    assert "not known" in two.unreadable["05x.png"] and "is a pipe" in two.unreadable["15x.png"]
    assert two.failed == {"10.png": "Wrong: no luck"}
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.jsonl", "photos", "two.jsonl"]


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(photos, tmp_path):
    (tmp_path / "deaths").mkdir()
    aligner = make(Kills(ODD, 1, tmp_path / "deaths"))
    two = align_folder(aligner, photos, tmp_path / "two.jsonl", workers=2)
    assert len(list((tmp_path / "deaths").iterdir())) == 1
    assert (two.images, two.failed) == (20, {})
    align_folder(aligner, photos, tmp_path / "one.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_a_photo_that_kills_every_worker_has_failed_and_costs_no_other_its_result(photos, tmp_path):
    (tmp_path / "deaths").mkdir()
    out = tmp_path / "out.jsonl"
    report = align_folder(make(Kills(ODD, 4, tmp_path / "deaths")), photos, out, workers=2)
    assert list(report.failed) == ["10.png"] and report.images == 19
    assert "each of the 4 processes" in report.failed["10.png"] and "SIGKILL" in report.failed["10.png"]
    names = sorted(path.name for path in photos.iterdir())
    assert [row["image"] for row in rows(out)] == names
    again = align_folder(make(Kills(ODD, 4, tmp_path / "deaths")), photos, out)  # which kills no more
    assert (again.resumed, again.images, again.failed) == (21, 20, {})
    assert sorted(row["image"] for row in rows(out)) == names


def test_what_a_detector_raises_at_the_first_photos_ends_the_run(photos, tmp_path):
    (photos / "05x.png").unlink()
    with pytest.raises(RuntimeError, match="Wrong: no luck"):
        align_folder(make(Raises()), photos, tmp_path / "out.jsonl", workers=2)
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert not multiprocessing.active_children()


def test_a_detector_that_workers_cannot_have_is_refused(photos, tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(InputError, match="aligner: expected a detector and a model that can be pickled"):
        align_folder(make(lambda image: whole(image)), photos, out, workers=2)
    with pytest.raises(InputError, match="can unpickle, got FileNotFoundError: no such model on this side"):
        align_folder(make(NotThere()), photos, out, workers=2)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("target", "reason"),
    [("exits", "exit code 3; a script"), ("dies", "SIGKILL, perhaps out of memory")],
)
def test_workers_that_do_not_start_end_the_run(photos, monkeypatch, target, reason):
    monkeypatch.setattr(workers, "work", getattr(worker_deaths, target))
    with Workers(make(whole), {}, 2) as pool, pytest.raises(WorkerError, match=reason):
        list(pool.align(iter([[Photo("00.png", photos / "00.png")]])))


def test_a_process_that_may_not_start_others_says_so(photos, monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(InputError, match="this is a daemon"):
        Workers(make(whole), {}, 2)


def test_a_script_without_a_file_ends_with_an_error_and_does_not_wait_for_ever(photos, tmp_path):
    script = (
        "from face_landmarks import FaceAligner, align_folder\n"
        "aligner = FaceAligner('shr-fan-68-fast', device='cpu')\n"
        f"align_folder(aligner, {str(photos)!r}, {str(tmp_path / 'out.jsonl')!r}, workers=2)\n"
    )
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[3]), *sys.path]))
    done = subprocess.run(
        [sys.executable, "-"],
        input=script,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 1 and "must be a file" in done.stderr


@pytest.mark.parametrize("stop", ["Ctrl-C", "kill"])
def test_workers_end_with_the_process_that_started_them(photos, tmp_path, stop):
    (tmp_path / "pids").mkdir()
    code = (
        "from worker_detectors import Slow\nfrom face_landmarks import FaceAligner, align_folder\n"
        "if __name__ == '__main__':\n"
        f"    slow = Slow({str(tmp_path / 'pids')!r})\n"
        "    aligner = FaceAligner('shr-fan-68-fast', detector=slow, device='cpu')\n"
        f"    align_folder(aligner, {str(photos)!r}, {str(tmp_path / 'out.jsonl')!r}, workers=2)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    path = os.pathsep.join([str(Path(__file__).parents[2] / "support"), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until(lambda: len(list((tmp_path / "pids").iterdir())) == 2)
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    os.killpg(process.pid, signal.SIGINT) if stop == "Ctrl-C" else process.kill()
    _, error = process.communicate(timeout=60)
    until(lambda: not any(map(is_running, pids)))
    if stop == "Ctrl-C":
        assert error.count("Traceback") == 1 and "photos done; run it again" in error


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_each_gpu_is_given_its_own_workers(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert visible_gpus() == ["3", "5"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert visible_gpus() == [None]
