"""Disks that are full, writers that nobody closes, processes that are killed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from crossing import write_crossing

from face_landmarks.errors import WriteError
from face_landmarks.video import Video, VideoWriter

BACKENDS = ["opencv", "pyav"] if find_spec("av") else ["opencv"]
BOTH = pytest.mark.parametrize("backend", BACKENDS)

WRITE = """
import sys
import numpy as np
from face_landmarks import VideoWriter
random = np.random.default_rng(0)
writer = VideoWriter(sys.argv[1], backend=sys.argv[2])
for number in range(int(sys.argv[3])):
    writer.write(random.integers(0, 256, (240, 320, 3), np.uint8))
    if number == 5:
        print("writing", flush=True)
"""
LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # no file may grow beyond
"""


def python(code: str, *words: object, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@BOTH
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("before", [None, b"a film"])
def test_a_full_disk_is_an_error_and_leaves_what_was_there(
    tmp_path: Path, backend: str, suffix: str, before: bytes | None
) -> None:
    resource = pytest.importorskip("resource", reason="needs limits of file sizes")
    del resource
    path = tmp_path / f"out{suffix}"
    if before:
        path.write_bytes(before)
    process = python(LIMITED + WRITE + "writer.close()", path, backend, 40)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert error.splitlines()[-1].startswith("face_landmarks.errors.WriteError") and str(path) in error
    assert (path.read_bytes() if path.exists() else None) == before
    assert len(list(tmp_path.iterdir())) == (before is not None)


@BOTH
def test_a_writer_that_failed_takes_no_more_frames(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    writer = VideoWriter(tmp_path / "out.mp4", backend=backend)
    writer.write(frame)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    assert writer._file is not None
    monkeypatch.setattr(writer._file._encoder, "write", fail)
    with pytest.raises(WriteError, match=r"out\.mp4: .*No space left on device"):
        writer.write(frame)
    with pytest.raises(ValueError, match="is closed"):
        writer.write(frame)
    writer.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@BOTH
def test_a_device_that_is_full_is_an_error(tmp_path: Path, backend: str) -> None:
    (tmp_path / "out.mp4").symlink_to("/dev/full")
    with (
        pytest.raises(WriteError, match=r"out\.mp4"),
        VideoWriter(tmp_path / "out.mp4", backend=backend) as writer,
    ):
        for _ in range(3):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    assert (tmp_path / "out.mp4").is_symlink()


def test_the_command_says_that_the_disk_is_full(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="needs limits of file sizes")
    film, out = write_crossing(tmp_path / "film.mp4", 4), tmp_path / "out.mp4"
    code = (
        LIMITED.replace("100_000", "5_000")
        + "import sys\nfrom face_landmarks.cli import main\nsys.exit(main())"
    )
    process = python(code, "video", film, "--draw", out, "--device", "cpu")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert error.splitlines()[-1].startswith(f"face-landmarks: error: {out}: expected a place to write")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4"]


@BOTH
def test_the_file_has_its_name_when_it_is_whole(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, backend=backend) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        assert not path.exists() and len(list(tmp_path.iterdir())) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mp4"]
    assert len(list(Video(path))) == 1


@BOTH
def test_a_writer_that_nobody_closes_finishes_its_file(tmp_path: Path, backend: str) -> None:
    writer = VideoWriter(tmp_path / "dropped.mp4", backend=backend)
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    del writer
    gc.collect()
    assert len(list(Video(tmp_path / "dropped.mp4"))) == 3
    process = python(WRITE, tmp_path / "at exit.mp4", backend, 8)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0 and error == ""
    assert len(list(Video(tmp_path / "at exit.mp4"))) == 8


@pytest.mark.skipif(not hasattr(os, "fork") or "pyav" not in BACKENDS, reason="needs fork and PyAV")
def test_a_forked_process_leaves_the_file_to_its_parent(tmp_path: Path) -> None:
    code = (
        WRITE
        + "import os\nif os.fork() == 0:\n    sys.exit()\n"
        + "os.wait()\nwriter.write(np.zeros((240, 320, 3), np.uint8))"
    )
    process = python(code, tmp_path / "out.mp4", "pyav", 8)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert len(list(Video(tmp_path / "out.mp4"))) == 9


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@BOTH
def test_a_killed_process_leaves_no_file_of_this_name(tmp_path: Path, backend: str) -> None:
    process = python(WRITE + "import time\ntime.sleep(100)", tmp_path / "out.mp4", backend, 8)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    time.sleep(0.2)
    process.kill()
    process.communicate(timeout=60)
    assert not (tmp_path / "out.mp4").exists()
