"""The photos that a command is given: files, folders and patterns in any mix, or one from standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from face_landmarks.errors import ImageError, InputError
from face_landmarks.images import PHOTO_SUFFIXES, find_photos

STDIN: Final = "-"
_SCHEMES: Final = ("http://", "https://", "ftp://", "s3://", "gs://", "data:")


class Photo(NamedTuple):
    """A photo to align.

    Attributes:
        path: of the file, as it was given or found; "-" for standard input.
        name: what its own output is named after: the path relative to the folder that was given, else the
            name of the file.
    """

    path: str
    name: PurePosixPath

    @property
    def source(self) -> str | bytes:
        """What `read_image` reads: the path, or the bytes of standard input, which are read now.

        Raises:
            ImageError: standard input is closed, or has nothing.
        """
        if self.path != STDIN:
            return self.path
        content = sys.stdin.buffer.read() if sys.stdin is not None else b""
        if not content:
            raise ImageError("-: expected a photo on standard input, got nothing")
        return content


def find_all(words: Sequence[str]) -> tuple[list[Photo], list[str], list[str]]:
    """The photos that the words of a command name, in order; the words without any; unreadable subfolders.

    A word is a file, a folder, whose photos are those of `images.find_photos` with its subfolders, a pattern
    with *, ? or **, or "-". What a folder or a pattern brings once more is left out. A file that does not
    exist is a photo, too: the error is told when it is read. Subfolders that cannot be read are given with
    the reason; patterns pass over them.

    Raises:
        InputError: an empty word; a URL; "-" twice; or a folder that cannot be read.
    """
    photos: list[Photo] = []
    empty: list[str] = []
    locked: list[str] = []
    known: set[str] = set()
    for word in words:
        if not word:  # for pathlib the current folder; a shell's "$PHOTO" without a value
            raise InputError("expected files, folders or patterns, got ''; . is the current folder")
        if word.lower().startswith(_SCHEMES):
            raise InputError(
                f"expected files, folders or patterns, got the URL {word!r}; "
                f"'curl -L URL | face-landmarks align -' reads a photo from standard input"
            )
        if word == STDIN and STDIN in known:
            raise InputError("expected '-' once, as standard input is one photo")
        found = list(_photos_of(word, lambda folder, reason: locked.append(f"{folder}: {reason}")))
        if not found:
            empty.append(word)
        named = len(found) == 1 and found[0].path == word  # by itself: twice is done twice
        photos += [photo for photo in found if named or photo.path not in known]
        known.update(photo.path for photo in found)
    return photos, empty, locked


def _photos_of(word: str, left_out: Callable[[Path, str], object]) -> Iterator[Photo]:
    """The photos of one word."""
    if word == STDIN:
        yield Photo(STDIN, PurePosixPath("stdin"))
    elif is_there(Path(word)) or not has_magic(word):
        yield from _photos_at(Path(word), word, left_out)
    else:
        any_suffix = bool(Path(word).suffix)  # *.ppm asks for these; * for photos
        for match in sorted(glob(word, recursive=True)):
            if Path(match).is_dir() and not any_suffix:
                if "**" not in word:
                    yield from _photos_at(Path(match), match, left_out)
            elif any_suffix or Path(match).suffix.lower() in PHOTO_SUFFIXES:
                yield from _photos_at(Path(match), match, left_out)


def _photos_at(path: Path, word: str, left_out: Callable[[Path, str], object]) -> Iterator[Photo]:
    if not is_there(path) or not path.is_dir():
        yield Photo(word, PurePosixPath(path.name or "photo"))
        return
    for file in find_photos(path, recursive=True, left_out=left_out):
        yield Photo(str(file), PurePosixPath(file.relative_to(path).as_posix()))


def is_there(path: str | Path) -> bool:
    """Whether there is a file or a folder of this name."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that is too long, or has a null byte
        return False
