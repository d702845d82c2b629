"""The files in the cache folder of downloaded weights: listed, verified, removed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from face_landmarks._system.files import size_of
from face_landmarks.errors import CacheError
from face_landmarks.models.registry import known_files
from face_landmarks.models.weights_file import cache_folder, sha256_of


@dataclass(frozen=True)
class CachedFile:
    """A file of this package in the cache folder.

    Attributes:
        path: of the file.
        size: in bytes.
        sha256: the expected hash; None for an incomplete download.
    """

    path: Path
    size: int
    sha256: str | None

    def verify(self) -> bool:
        """Whether the file is complete and has the expected hash.

        Raises:
            CacheError: the file cannot be read.
        """
        if self.sha256 is None:
            return False
        try:
            return sha256_of(self.path.read_bytes()) == self.sha256
        except OSError as error:
            raise CacheError(f"{self.path}: expected to read it, got {error.strerror or error}") from error


def cached_files() -> list[CachedFile]:
    """This package's files in the cache folder, complete or not; other files are not listed.

    Raises:
        CacheError: the folder cannot be read, or is none.
    """
    return [
        CachedFile(path, size_of(path), None if path.suffix == ".part" else sha256)
        for path, sha256 in _own_files()
        if path.suffix != ".etag"
    ]


def clear_cache() -> list[CachedFile]:
    """Remove what `cached_files` lists, with its .etag files.

    The empty .lock files stay: a lock file that is removed while a process waits for it no longer keeps
    two processes from downloading at once.

    Returns:
        What was removed.

    Raises:
        CacheError: a file cannot be removed, or a process is downloading it. The others are removed.
    """
    from filelock import FileLock, Timeout

    files, problems = cached_files(), []
    for target in sorted({path.with_name(_weights_name(path)) for path, _ in _own_files()}):
        try:
            with FileLock(f"{target}.lock", timeout=0):
                for suffix in ("", ".part", ".etag"):
                    target.with_name(target.name + suffix).unlink(missing_ok=True)
        except Timeout:
            problems.append(f"{target}: expected to remove it, got a process that is downloading it")
        except OSError as error:
            problems.append(f"{target}: expected to remove it, got {error.strerror or error}")
    if problems:
        raise CacheError("\n".join(problems))
    return files


def _weights_name(path: Path) -> str:
    """Name of the weights file that this one, or what is left of its download, belongs to."""
    return re.sub(r"\.(part|etag)$", "", path.name)


def _own_files() -> list[tuple[Path, str]]:
    """Files in the cache folder that belong to this package's downloads, with the expected hash of each."""
    known = {file.name: file.sha256 for file in known_files().values() if file.urls}
    files = []
    folder = cache_folder()
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        variable = " (FACE_LANDMARKS_HOME)" if os.environ.get("FACE_LANDMARKS_HOME") else ""
        raise CacheError(f"{folder}{variable}: expected a folder, got {error.strerror or error}") from error
    for path in paths:
        name = _weights_name(path)
        named = re.search(r"-([0-9a-f]{64})(?:\.|$)", name)
        sha256 = known.get(name) or (named and named[1])
        if sha256 and path.suffix != ".lock" and path.is_file():
            files.append((path, sha256))
    return files
