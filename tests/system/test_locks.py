"""A lock keeps a second run out, whether it is another thread, another process or a child."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from face_landmarks._system.locks import only_run
from face_landmarks.errors import WriteError

HOLDS = """
import sys
from pathlib import Path
from face_landmarks._system.locks import only_run
with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock, until it is killed."""
    words = [sys.executable, "-c", HOLDS, str(target)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_two_processes_do_not_write_one_target_and_a_killed_one_does_not_block(
    tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "out" if kind == "folder" else tmp_path / "out.jsonl"
    if kind == "folder":
        target.mkdir()
    with held_elsewhere(target):
        with pytest.raises(WriteError, match=f"{target.name}: expected no other run to write it"):
            only_run(target).__enter__()
        with only_run(tmp_path / "other.jsonl"):
            pass
    with only_run(target):
        pass
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_link_has_the_lock_of_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.jsonl"
    try:
        link.symlink_to(tmp_path / "out.jsonl")
    except OSError:
        pytest.skip("links are not allowed here")
    with held_elsewhere(tmp_path / "out.jsonl"), pytest.raises(WriteError, match="expected no other run"):
        only_run(link).__enter__()


def test_a_thread_may_take_its_lock_again_and_no_other_thread_may(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, only_run(tmp_path):
        with only_run(tmp_path / "." / ".." / tmp_path.name):
            pass
        with pytest.raises(WriteError, match="expected no other run"):
            pool.submit(only_run(tmp_path).__enter__).result()
    assert not list(tmp_path.iterdir())
    begun, go_on = Event(), Event()

    def hold() -> None:
        with only_run(tmp_path):
            begun.set()
            assert go_on.wait(60)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(hold)
        try:
            assert begun.wait(60)
            with pytest.raises(WriteError, match="expected no other run"):
                only_run(tmp_path).__enter__()
        finally:
            go_on.set()
        running.result()


def test_a_lock_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="expected a place to write to"):
        only_run(tmp_path / "file" / "out.jsonl").__enter__()
