"""A weights file: known by its hash, and expected in the package's folder or in the cache folder."""

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
    """One file of weights, known by its hash.

    Attributes:
        name: file name, in the cache folder or the package's own.
        sha256: its full hash, 64 hexadecimal digits.
        size: in bytes, or None if unknown; the hash decides, the size is for people.
        urls: where to get it, best first; none for a file that comes with the package.
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
    """Where a model's file is expected, and how to speak of it when it is not as expected.

    Attributes:
        model: its name, URL or path, as the caller knows it.
        file: what should be there.
        path: where.
        remedy: what a person can do by hand.
    """

    model: str
    file: WeightsFile
    path: Path
    remedy: str

    @property
    def part(self) -> Path:
        """The download so far."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def etag(self) -> Path:
        """The server's name for the version that .part is of."""
        return self.path.with_name(f"{self.path.name}.etag")

    def is_right(self, data: bytes) -> bool:
        return sha256_of(data) == self.file.sha256

    def failure(self, kind: type[WeightsError], problem: str, data: bytes | None = None) -> WeightsError:
        """An error that tells everything a person needs, also to help themselves.

        Args:
            kind: class of the error.
            problem: what went wrong.
            data: what was found instead of the file, if it is not what lies at the path.
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
    """Where downloaded weights are kept; it need not exist.

    FACE_LANDMARKS_HOME if set, else face_landmarks in the platform's folder for caches.
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
