"""Which files of a folder are photos, or tables: one rule for every command and reader."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Final

from face_landmarks.errors import InputError

_LOGGER: Final = logging.getLogger(__name__)

PHOTO_SUFFIXES: Final = frozenset(  # of the files that count as photos, in either case
    {".avif", ".bmp", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)


def find_photos(
    folder: str | os.PathLike[str],
    *,
    recursive: bool = False,
    left_out: Callable[[Path, str], object] | None = None,
) -> list[Path]:
    """The photos of a folder.

    They are the files with a suffix in `PHOTO_SUFFIXES`. Hidden files and folders, whose names begin with a
    dot, are left out: macOS keeps a file "._NAME.jpg" beside each NAME.jpg on other systems' disks. Links to
    files are followed, links to folders are not. A subfolder that cannot be read is left out with a warning
    in the log.

    Args:
        folder: where to look.
        recursive: include subfolders.
        left_out: called with each subfolder that cannot be read and the reason, instead of the warning.

    Returns:
        Paths that begin with `folder`, in the order of their names as text, with slashes.

    Raises:
        InputError: no such folder, or it cannot be read.
    """
    return find_files(folder, PHOTO_SUFFIXES, recursive=recursive, left_out=left_out)


def find_files(
    folder: str | os.PathLike[str],
    suffixes: Container[str] | None,
    *,
    recursive: bool = False,
    left_out: Callable[[Path, str], object] | None = None,
) -> list[Path]:
    """The files of a folder with some suffixes, in lower case, or with any; all else as in `find_photos`."""
    return sorted(_files(Path(folder), suffixes, recursive, left_out or _warn), key=Path.as_posix)


def _warn(folder: Path, reason: str) -> None:
    _LOGGER.warning("%s: left out, as it cannot be read: %s", folder, reason)


def _files(
    folder: Path,
    suffixes: Container[str] | None,
    recursive: bool,
    left_out: Callable[[Path, str], object],
) -> Iterator[Path]:
    def complain(error: OSError) -> None:
        if error.filename in (None, str(folder)):
            raise InputError(f"{folder}: expected a folder of photos, got {error.strerror}") from error
        left_out(Path(error.filename), error.strerror or str(error))

    try:
        for place, subfolders, names in os.walk(folder, onerror=complain):
            subfolders[:] = [name for name in subfolders if recursive and not name.startswith(".")]
            for name in names:
                path = Path(place, name)
                if (suffixes is None or path.suffix.lower() in suffixes) and not name.startswith("."):
                    yield path
    except InputError:  # a ValueError, too
        raise
    except ValueError as error:  # a null byte in the path
        raise InputError(f"{str(folder)!r}: expected a folder of photos, got {error}") from error
