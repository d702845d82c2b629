"""A lock on what a run writes, so that two runs never write the same file or folder at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout

from face_landmarks._system.files import remove, writing
from face_landmarks.errors import WriteError


@contextmanager
def only_run(target: Path) -> Iterator[None]:
    """Keep other runs from writing a file or a folder meanwhile; in the same thread it may be nested.

    The system frees the lock of a process that dies, so a killed run never blocks the next.

    Args:
        target: a file, whose lock is beside it; or a folder that exists, whose lock is in it; or a link to
            one, whose lock is that of what it leads to.

    Raises:
        WriteError: another run is writing it, or the folder of the lock cannot be written.
    """
    with writing(target):
        place = Path(os.path.realpath(target))  # links to one target have one lock
    path = place / ".run.lock" if place.is_dir() else place.with_name(f".{place.name}.lock")
    lock = _lock(str(path), os.getpid())
    with writing(target):
        try:
            lock.acquire(timeout=0)
            while not path.exists():  # the run before removed it between our opening and locking it
                lock.release()
                lock.acquire(timeout=0)
        except Timeout:
            if not path.exists():
                raise WriteError(f"{target}: expected a place where files can be locked, got none") from None
            raise WriteError(f"{target}: expected no other run to write it, got one with {path}") from None
        except NotImplementedError as error:  # a file system without locks
            raise WriteError(f"{target}: expected a place where files can be locked, got {error}") from error
    last = lock.lock_counter == 1
    try:
        yield
    finally:
        if last and os.name == "posix":
            remove(path)  # before the release, so that it cannot be the next run's
        lock.release()
        if last and os.name != "posix":
            remove(path)  # Windows removes no file that is open


@lru_cache(maxsize=64)
def _lock(path: str, process: int) -> FileLock:
    """The lock of a path, which counts how often its thread has taken it; a forked process has its own."""
    return FileLock(path)
