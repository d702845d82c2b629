"""Files: written whole or not at all, with one error for what cannot be written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from face_landmarks.errors import FaceLandmarksError, WriteError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise a WriteError where the block fails to write to a path.

    Raises:
        WriteError: an OSError was raised in the block, or the path has a null byte.
    """
    try:
        if "\0" in str(path):
            raise WriteError(f"{str(path)!r}: expected a place to write to, got a path with a null byte")
        yield
    except FaceLandmarksError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: expected a place to write to, got {error.strerror or error}") from error


@contextmanager
def replacing(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """A temporary path beside a file, which takes the file's place when the block ends.

    Readers find the old file or the new one, whole. A block that fails leaves the old one, and no
    temporary file. The new file has the old one's permissions, a link stays a link. A path that is not a
    regular file, such as a pipe or /dev/null, is written to directly.

    Args:
        path: the file; its folder must exist.
        suffix: of the temporary path.

    Raises:
        WriteError: the file cannot be written, or the path is a folder.
    """
    with writing(path):
        if path.is_dir():
            raise WriteError(f"{path}: expected a file to write to, got a folder")
        if path.exists() and not path.is_file():
            yield path
            return
        target = Path(os.path.realpath(path))  # a link stays a link
        temporary, process = target.parent / f".{uuid4().hex}{suffix}", os.getpid()
        try:
            yield temporary
            with suppress(OSError):  # there is no old file, or its permissions cannot be given
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
        except BaseException:
            if os.getpid() == process:  # not one that was forked since
                remove(temporary)
            raise


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that readers find the old one or the new one, whole; see `replacing`.

    Args:
        path: the file; its folder must exist.
        content: what to write; a string is encoded as UTF-8.

    Raises:
        WriteError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; an existing folder is left as it is.

    Raises:
        WriteError: it cannot be made.
    """
    with writing(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise WriteError(
                f"{folder}: expected a place to write to, got a file instead of a folder"
            ) from error


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def remove(*paths: Path) -> None:
    """Remove files, ignoring those that are missing or cannot be removed."""
    for path in paths:
        with suppress(OSError):
            path.unlink()
