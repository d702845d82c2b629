"""A weights file: identified by its hash, expected in the package's folder or in the cache folder."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from face_landmarks._system.files import size_of
from face_landmarks.errors import WeightsError, WeightsFormatError

BY_HAND = (
    "get the file from the url in any way, compare its sha256, and put it at the path; behind a proxy "
    "set HTTPS_PROXY and REQUESTS_CA_BUNDLE; FACE_LANDMARKS_HOME moves the cache folder, "
    "FACE_LANDMARKS_MIRROR names another host, FACE_LANDMARKS_OFFLINE=1 forbids the network"
)


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights, identified by its hash.

    Attributes:
        name: file name, in the cache folder or in the package.
        sha256: its full hash, 64 hexadecimal digits.
        size: in bytes, or None if unknown; for messages and progress only.
        urls: where to download it, in the order to try; none for a file of the package.
    """

    name: str
    sha256: str
    size: int | None = None
    urls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "urls", tuple(self.urls))
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise WeightsFormatError(f"{self.name}: sha256: expected 64 hex digits, got {self.sha256!r}")


@dataclass(frozen=True)
class Place:
    """The path where a model's file is expected, and the error messages about it.

    Attributes:
        model: name, URL or path, as the caller gave it.
        file: the expected file.
        path: where it is expected.
        remedy: what the user can do by hand.
    """

    model: str
    file: WeightsFile
    path: Path
    remedy: str

    @property
    def part(self) -> Path:
        """The incomplete download."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def etag(self) -> Path:
        """The server's identifier of the version that is being downloaded to .part."""
        return self.path.with_name(f"{self.path.name}.etag")

    def is_right(self, data: bytes) -> bool:
        return sha256_of(data) == self.file.sha256

    def failure(self, kind: type[WeightsError], problem: str, data: bytes | None = None) -> WeightsError:
        """An error that states the file, the fault and the remedy.

        Args:
            kind: class of the error.
            problem: what went wrong.
            data: what was found instead of the file; by default, what is at the path.
        """
        return kind(
            f"{self.model}: {problem}\n"
            f"  url       {' '.join(self.file.urls) or 'none'}\n"
            f"  path      {self.path}\n"
            f"  expected  {describe(self.file.size, self.file.sha256)}\n"
            f"  found     {self._found() if data is None else describe(len(data), sha256_of(data))}\n"
            f"  by hand   {self.remedy}"
        )

    def _found(self) -> str:
        try:
            data = self.path.read_bytes()
        except OSError:
            begun = size_of(self.part)
            return f"the first {begun} bytes, kept in {self.part.name}" if begun else "nothing"
        return describe(len(data), sha256_of(data))


def cache_folder() -> Path:
    """The folder of downloaded weights; it may not exist yet.

    FACE_LANDMARKS_HOME if set, else face_landmarks in the platform's cache folder.
    """
    if home := os.environ.get("FACE_LANDMARKS_HOME"):
        return Path(os.path.expanduser(home))
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(base)) / "face_landmarks"


def describe(size: int | None, sha256: str) -> str:
    """Size and hash, for messages."""
    return f"{'unknown size' if size is None else f'{size} bytes'}, sha256 {sha256}"


def sha256_of(data: bytes) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
