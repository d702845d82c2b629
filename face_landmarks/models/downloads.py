"""Get one file, identified by its hash, completely or not at all.

The file is searched for in this order, and its hash is checked each time before it is used:

    package      the folder that is part of the code; never downloaded
    cache        cache_folder()/FILE, downloaded earlier or put there by hand
    torch hub    its checkpoints/FILE, where another package may have put it
    network      each URL in turn into FILE.part: resumed, verified, then moved to FILE

Environment:
    FACE_LANDMARKS_HOME     the cache folder, instead of the platform's
    FACE_LANDMARKS_OFFLINE  1: never use the network
    FACE_LANDMARKS_MIRROR   https://host[/folder] to use instead of the host of every URL

    Proxies and certificates are set as for requests: HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from face_landmarks import __version__
from face_landmarks._system.files import remove, size_of
from face_landmarks.errors import CacheError, ChecksumError, DownloadError, WeightsError
from face_landmarks.models.weights_file import BY_HAND, Place, WeightsFile, cache_folder, describe, sha256_of

if TYPE_CHECKING:  # requests, tqdm and filelock are imported when a download begins; few starts need them
    import requests

_log = logging.getLogger(__name__)

_TIMEOUTS = (10.0, 30.0)  # seconds to connect, and between two arrivals of data
_TRIES = 3  # per URL, not counting those that received at least _WORTHWHILE bytes
_WORTHWHILE = 1 << 20
_BACKOFF = 1.0  # seconds before the second try, doubled before each further one
_PATIENCE = 120.0  # seconds to wait for another process whose download does not grow
_CHUNK = 1 << 16  # most bytes taken at a time


class _SetbackError(Exception):
    """A failed try to download the file.

    Attributes:
        final: whether trying this URL again is pointless.
        found: the bytes received instead of the file.
    """

    def __init__(self, problem: str, *, final: bool = False, found: bytes | None = None) -> None:
        super().__init__(problem)
        self.final = final
        self.found = found


def obtain(
    model: str, file: WeightsFile, package: Path, *, progress: bool | None = None
) -> tuple[Place, bytes]:
    """A file's verified bytes, and where they were found.

    Args:
        model: name of the model, for messages.
        file: the file to get; one without URLs is part of the package.
        package: folder of the files that are part of the package.
        progress: show a bar on stderr while downloading; by default if stderr is a terminal.

    Raises:
        WeightsError: a subclass; the message states the file, its path, and what to do.
    """
    if not file.urls:
        place = Place(model, file, package / file.name, "reinstall shr-fan: the file is part of it")
        return place, _packaged(place)
    place = Place(model, file, cache_folder() / file.name, BY_HAND)
    if found := _cached(place):
        return found
    if os.environ.get("FACE_LANDMARKS_OFFLINE", "").lower() not in ("", "0", "false", "no"):
        kind = ChecksumError if os.path.exists(place.path) else DownloadError
        raise place.failure(kind, "no good copy is here, and FACE_LANDMARKS_OFFLINE forbids the network")
    with _locked(place):  # another process may download it while this one waits
        return _cached(place) or (place, _download(place, progress))


def _packaged(place: Place) -> bytes:
    try:
        data = place.path.read_bytes()
    except OSError as error:
        raise place.failure(WeightsError, "a file of the package is missing") from error
    if not place.is_right(data):
        raise place.failure(ChecksumError, "a file of the package is damaged", data)
    return data


def _cached(place: Place) -> tuple[Place, bytes] | None:
    """The file from the cache or torch hub's folder; None unless it has the right hash."""
    for path in (place.path, _torch_hub_folder() / place.file.name):
        with suppress(OSError):  # an unreadable file counts as missing
            data = path.read_bytes()
            if place.is_right(data):
                return replace(place, path=path), data
    return None


@contextmanager
def _cache_faults(place: Place) -> Iterator[None]:
    """Raise a CacheError for an OSError in the block."""
    try:
        yield
    except WeightsError:
        raise
    except OSError as error:
        problem = f"the cache folder {place.path.parent} cannot be used: {error.strerror or error}"
        raise place.failure(CacheError, problem) from error


@contextmanager
def _locked(place: Place) -> Iterator[None]:
    """Let one process at a time download a file.

    The system frees the lock of a process that dies, so a killed download never blocks the next. A
    running download is waited for as long as its file grows.

    Raises:
        CacheError: the lock cannot be taken, or its holder's download does not grow.
    """
    from filelock import FileLock, Timeout

    with _cache_faults(place):
        place.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{place.path}.lock")
        size = -1
        while not lock.is_locked:
            try:
                lock.acquire(timeout=_PATIENCE)
            except Timeout:
                if size == (size := size_of(place.part)):
                    problem = f"another process holds {lock.lock_file} and its download does not grow"
                    raise place.failure(CacheError, problem) from None
    try:
        yield
    finally:
        lock.release()


def _download(place: Place, progress: bool | None) -> bytes:
    """Download the file into the cache: each URL in turn, each up to _TRIES times."""
    import requests

    if os.path.exists(place.path):
        _log.warning("%s: %s is damaged and will be replaced", place.model, place.path)
    failures: dict[str, None] = {}  # an ordered set
    found = None
    with requests.Session() as session:
        session.headers["User-Agent"] = f"shr-fan/{__version__}"
        session.headers["Accept-Encoding"] = "identity"  # ranges and sizes are of the file itself
        for url in _mirrored(place.file.urls):
            _log.info("%s: downloading %s to %s", place.model, url, place.path)
            tries = 0
            while tries < _TRIES:
                if tries:
                    time.sleep(_BACKOFF * 2 ** (tries - 1))
                before = size_of(place.part)
                try:
                    with _cache_faults(place):
                        return _fetch(session, url, place, progress)
                except CacheError:
                    remove(place.part, place.etag)  # free the space on a full disk
                    raise
                except _SetbackError as setback:
                    failures[f"{url}: {setback}"] = None
                    found = found if setback.found is None else setback.found
                    if setback.final:
                        break
                    tries = 0 if size_of(place.part) - before >= _WORTHWHILE else tries + 1
    problem = "no server gave the file" + "".join(f"\n  tried     {failure}" for failure in failures)
    raise place.failure(DownloadError if found is None else ChecksumError, problem, found)


def _fetch(session: requests.Session, url: str, place: Place, progress: bool | None) -> bytes:
    """One try: download what is missing in .part, then check the hash."""
    have = size_of(place.part)
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and (version := _version(place)):
        headers["If-Range"] = version  # the server sends a changed file whole
    with _answer(session, url, headers) as response:
        resumed = response.status_code in (206, 416)
        if response.status_code != 416:  # 416: nothing lies beyond what we have
            _receive(response, place, have if resumed else 0, progress)
    data = place.part.read_bytes()
    if place.is_right(data):
        os.replace(place.part, place.path)
        remove(place.etag)
        return data
    remove(place.part, place.etag)
    # After a resume, .part may be halves of two versions: then another try can succeed.
    problem = f"sent another file, {describe(len(data), sha256_of(data))}"
    raise _SetbackError(problem, final=not resumed, found=data)


def _version(place: Place) -> str:
    """The server's identifier of the version in .part; empty if it sent none."""
    with suppress(OSError):
        text = place.etag.read_text("latin-1").strip()
        return text if text.isprintable() else ""
    return ""


@contextmanager
def _answer(session: requests.Session, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    """The server's response, if it can contain the file."""
    import requests

    if not _is_safe(url):
        raise _SetbackError("refused: not an https URL", final=True)
    try:
        response = session.get(
            url, headers=headers, stream=True, timeout=_TIMEOUTS, hooks={"response": _refuse_unsafe_redirect}
        )
    except requests.RequestException as error:
        hopeless = isinstance(error, (ValueError, requests.TooManyRedirects))
        raise _SetbackError(str(error), final=hopeless) from error
    except OSError as error:  # a missing bundle of certificates
        raise _SetbackError(str(error), final=True) from error
    with response:
        status = response.status_code
        if status not in (200, *((206, 416) if headers else ())):
            passing = status >= 500 or status in (408, 425, 429)
            raise _SetbackError(f"{status} {response.reason}", final=not passing)
        yield response


def _receive(response: requests.Response, place: Place, have: int, progress: bool | None) -> None:
    """Append the response's body to the `have` bytes of .part; 0 starts a new file."""
    import urllib3
    from tqdm import tqdm

    if have and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        remove(place.part, place.etag)
        raise _SetbackError("sent another range than asked for")
    if not have:
        version = response.headers.get("ETag", "")
        if not version or version.startswith("W/"):  # a weak tag does not guarantee the same bytes
            version = response.headers.get("Last-Modified", "")
        place.etag.write_text(version, "latin-1")
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() else place.file.size
    with (
        open(place.part, "ab" if have else "wb") as stream,
        tqdm(
            total=total,
            initial=have,
            desc=place.model,
            unit="B",
            unit_scale=True,
            disable=None if progress is None else not progress,  # None: unless stderr is a terminal
        ) as bar,
    ):
        try:
            # read1 returns what has arrived; iter_content would lose it when the connection breaks.
            while chunk := response.raw.read1(_CHUNK, decode_content=True):
                bar.update(stream.write(chunk))
                if place.file.size is not None and stream.tell() > place.file.size:
                    return  # longer than the file: the hash check will fail
        except urllib3.exceptions.HTTPError as error:
            raise _SetbackError(f"the connection broke: {error}") from error
    if total is not None and (size := size_of(place.part)) < total:
        raise _SetbackError(f"the connection ended after {size} of {total} bytes")


def _refuse_unsafe_redirect(response: requests.Response, **_: object) -> None:
    if response.is_redirect:
        target = urljoin(response.url, response.headers["Location"])
        if not _is_safe(target):
            response.close()
            raise _SetbackError(f"refused: redirected to {target}, not an https URL", final=True)


def _mirrored(urls: Sequence[str]) -> Sequence[str]:
    mirror = os.environ.get("FACE_LANDMARKS_MIRROR", "").rstrip("/")
    if not mirror:
        return urls
    base = mirror if "://" in mirror else f"https://{mirror}"
    return list(dict.fromkeys(re.sub(r"^\w+://[^/]*", lambda _: base, url) for url in urls))


def _is_safe(url: str) -> bool:
    """Whether a URL is encrypted, or of this machine."""
    local = r"http://(localhost|127(\.\d+){3}|\[::1\])(:\d+)?(/.*)?"
    return re.fullmatch(f"https://.+|{local}", url, re.IGNORECASE) is not None


def _torch_hub_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"
