"""Files: written whole or not at all, with one error for what cannot be written."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from face_landmarks.errors import FaceLandmarksError, WriteError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what the system says against writing to a path as a WriteError."""
    try:
        yield
    except FaceLandmarksError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: expected a place to write to, got {error.strerror or error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside a file, which takes the file's place when the block ends.

    Readers find the old file or the new one, whole; a block that fails leaves the old one, and nothing
    beside it. What is no regular file, such as a pipe or /dev/null, is written to directly.

    Raises:
        WriteError: the file cannot be written.
    """
    with writing(path):
        if path.exists() and not path.is_file():
            yield path
            return
        target = Path(os.path.realpath(path))  # a link stays a link
        temporary = target.parent / f".{os.getpid()}-{threading.get_ident()}.tmp"
        try:
            yield temporary
            os.replace(temporary, target)
        except BaseException:
            remove(temporary)
            raise


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file in one step, so that readers find the old one or the new one; see `replacing`.

    Args:
        path: the file; its folder must exist.
        content: a string is written as UTF-8.

    Raises:
        WriteError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        WriteError: it cannot be made.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def size_of(path: Path) -> int:
    """Bytes of a file, 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def remove(*paths: Path) -> None:
    """Remove files as far as that can be done."""
    for path in paths:
        with suppress(OSError):
            path.unlink()
