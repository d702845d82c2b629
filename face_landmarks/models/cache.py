"""The cache folder of downloaded weights: what is in it, whole or damaged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from face_landmarks._system.files import size_of
from face_landmarks.errors import CacheError
from face_landmarks.models.registry import file_of, known_cards
from face_landmarks.models.weights_file import cache_folder, sha256_of


@dataclass(frozen=True)
class CachedFile:
    """A file of this package in the cache folder.

    Attributes:
        path: where it is.
        size: in bytes.
        sha256: the hash it should have; None for a download that is not complete.
    """

    path: Path
    size: int
    sha256: str | None

    def verify(self) -> bool:
        """Whether the file is complete and has its hash."""
        return self.sha256 is not None and sha256_of(self.path.read_bytes()) == self.sha256


def cached_files() -> list[CachedFile]:
    """What this package has in the cache folder, complete or begun; other files are not listed."""
    return [
        CachedFile(path, size_of(path), None if path.suffix == ".part" else sha256)
        for path, sha256 in _own_files()
        if path.suffix not in (".etag", ".lock")
    ]


def clear_cache() -> list[CachedFile]:
    """Remove what `cached_files` lists, with its traces, and say what it was.

    Raises:
        CacheError: a file cannot be removed.
    """
    files = cached_files()
    for path, _ in _own_files():
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CacheError(f"{path}: expected to remove it, got {error.strerror or error}") from error
    return files


def _own_files() -> list[tuple[Path, str]]:
    """Files in the cache folder that this package made or was given, with the hash they belong to."""
    known = {
        file_of(card).name: file_of(card).sha256 for card in known_cards().values() if file_of(card).urls
    }
    files = []
    for path in sorted(cache_folder().glob("*")):
        name = re.sub(r"\.(part|etag|lock)$", "", path.name)
        named = re.search(r"-([0-9a-f]{64})(?:\.|$)", name)
        sha256 = known.get(name) or (named and named[1])
        if sha256 and path.is_file():
            files.append((path, sha256))
    return files
