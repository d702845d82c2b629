"""Places to write to: refused before the work if nothing can be written there after it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from face_landmarks._system.files import make_folder, write_whole, writing
from face_landmarks.errors import InputError, WriteError

_PROBE = bytes(4096)  # what a full disk does not take


def prepare_file(file: str | os.PathLike[str]) -> Path:
    """Make the folder of a file that will be written; an existing file is left as it is.

    Raises:
        WriteError: it cannot be written: its folder cannot be made or written, its disk is full, or it is a
            folder.
    """
    path = Path(file)
    make_folder(path.parent)
    with writing(path):
        if path.is_dir():
            raise WriteError(f"{path}: expected a file to write to, got a folder")
        if not path.exists() or path.is_file():
            _probe(Path(os.path.realpath(path)).parent)
        elif stat.S_ISCHR(path.stat().st_mode):
            with path.open("wb", buffering=0) as device:
                if not device.isatty():
                    device.write(b"\n")
    return path


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """Make a folder that files will be written into.

    Raises:
        WriteError: it cannot be made or written, its disk is full, or it is a file.
    """
    path = Path(folder)
    make_folder(path)
    with writing(path):
        _probe(path)
    return path


def check_targets(sources: Sequence[str], *targets: str | None) -> None:
    """Raise InputError if a file that is read would be overwritten, or a file be written twice."""
    places = [os.path.realpath(target) for target in targets if target]
    if len(set(places)) < len(places):
        raise InputError("expected files of different names to write to")
    if both := set(places) & {os.path.realpath(source) for source in sources}:
        raise InputError(f"expected another file to write to than {both.pop()}, which is read")


def write_file(file: Path, content: bytes) -> None:
    """Write a file, in a folder that is made if it is missing.

    Raises:
        WriteError: it cannot be written.
    """
    make_folder(file.parent)
    write_whole(file, content)


class LineFile:
    """A text file that is written line by line, with a WriteError for what cannot be written."""

    def __init__(self, file: Path) -> None:
        self._path = file
        with writing(file):
            self._file: TextIO = file.open("w", encoding="utf-8")

    def write(self, line: str) -> None:
        """Add a line."""
        with writing(self._path):
            self._file.write(line + "\n")

    def __enter__(self) -> LineFile:
        return self

    def __exit__(self, *_: Any) -> None:
        with writing(self._path):
            self._file.close()


def _probe(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(_PROBE)
