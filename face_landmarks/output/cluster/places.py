"""Folders of this machine and of object stores, by pyarrow's filesystems or fsspec's."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from face_landmarks._system import arguments
from face_landmarks._system.extras import import_extra
from face_landmarks.errors import FaceLandmarksError, InputError, WriteError
from face_landmarks.images.folders import find_files

# Stores where a new object appears whole when its upload ends; elsewhere a file is renamed into its place.
_OBJECT_STORES: Final = {"s3", "s3a", "gcs", "gs", "abfs", "abfss", "az"}
_WILDCARDS: Final = re.compile(r"[*?\[]")
_ASKED_AT_ONCE: Final = 32  # files of a store, which answers slowly
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Stamp(NamedTuple):
    """What tells a file from another one that was written in its place.

    Attributes:
        size: bytes; -1 if not known.
        modified: nanoseconds since 1970; None in a store that does not tell.
    """

    size: int
    modified: int | None

    def __str__(self) -> str:
        if self.modified is None:
            return f"{self.size} bytes"
        time = _EPOCH + timedelta(microseconds=self.modified // 1000)
        return f"{self.size} bytes of {time:%Y-%m-%d %H:%M:%S.%f} UTC"

    def is_of(self, other: Stamp) -> bool:
        """Whether both may be of one file."""
        return self.size == other.size and (None in (self.modified, other.modified) or self == other)


@dataclass(frozen=True)
class Place:
    """A folder, or a file, of a filesystem.

    Attributes:
        filesystem: a `pyarrow.fs.FileSystem`.
        path: within it, with slashes.
    """

    filesystem: Any
    path: str

    def __str__(self) -> str:
        return self.local or f"{self.filesystem.type_name}:{self.path}"

    def __truediv__(self, name: str) -> Place:
        return Place(self.filesystem, posixpath.join(self.path, name))

    @property
    def local(self) -> str | None:
        """Its path on the machine itself; None in a store."""
        filesystem, path = self.filesystem, self.path
        while isinstance(filesystem, _fs().SubTreeFileSystem):
            filesystem, path = filesystem.base_fs, f"{filesystem.base_path.rstrip('/')}/{path.lstrip('/')}"
        return path if isinstance(filesystem, _fs().LocalFileSystem) else None

    def kind(self) -> str:
        """One of "file", "folder" and "nothing".

        Raises:
            InputError: the store does not answer.
        """
        with reading(self):
            found = self.filesystem.get_file_info(self.path)
        return {"File": "file", "Directory": "folder"}.get(found.type.name, "nothing")

    def stamp(self) -> Stamp:
        """What tells the file from another one that is written here later.

        Raises:
            InputError: the store does not answer.
        """
        with reading(self):
            found = self.filesystem.get_file_info(self.path)
        return Stamp(-1 if found.size is None else found.size, found.mtime_ns)

    def sizes(self, names: Sequence[str]) -> list[int]:
        """Bytes of each of some files below; -1 where there is no file, or its size is not told.

        Raises:
            InputError: the store does not answer.
        """
        folder = self.local
        if folder is not None:
            return [_size(posixpath.join(folder, name)) for name in names]
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            return list(pool.map(lambda name: (self / name).stamp().size, names))

    def files(self, recursive: bool = True, suffixes: Container[str] | None = None) -> list[tuple[str, int]]:
        """The names of all files below, with slashes, and their sizes in bytes, in order.

        Files and folders whose name begins with a dot are left out. On this machine, the rule is that of
        `images.find_photos`: links to folders are not followed, and all that is no folder is a file; the size
        is -1 for what cannot be read as one.

        Args:
            recursive: include subfolders.
            suffixes: of the files, in lower case; any by default.

        Raises:
            InputError: the folder cannot be listed.
        """
        if self.local is not None:
            return self._local_files(self.local, recursive, suffixes)
        selector = _fs().FileSelector(self.path, recursive=recursive, allow_not_found=True)
        root = self.path.rstrip("/") + "/"
        with reading(self):
            found = self.filesystem.get_file_info(selector)
            try:
                names = [(info.path.removeprefix(root), info.size) for info in found if info.is_file]
            except UnicodeDecodeError as error:
                raise InputError(f"{self}: expected names in UTF-8, got {error.object!r}") from error
        return sorted(
            (name, -1 if size is None else size)
            for name, size in names
            if not re.search(r"(^|/)\.", name)
            and (suffixes is None or posixpath.splitext(name)[1].lower() in suffixes)
        )

    def _local_files(
        self, folder: str, recursive: bool, suffixes: Container[str] | None
    ) -> list[tuple[str, int]]:
        if not os.path.isdir(folder):
            return []

        def refuse(subfolder: Path, reason: str) -> None:
            raise InputError(f"{subfolder}: expected a folder that can be read, got {reason}")

        found = find_files(folder, suffixes, recursive=recursive, left_out=refuse)
        for path in found:
            try:
                str(path).encode()
            except UnicodeEncodeError:
                raise InputError(f"{self}: expected names in UTF-8, got {os.fsencode(path)!r}") from None
        return sorted((path.relative_to(folder).as_posix(), _size(path)) for path in found)

    def read(self) -> bytes:
        """The content of the file.

        Raises:
            OSError: it cannot be read.
        """
        with self.filesystem.open_input_stream(self.path, compression=None) as file:
            return bytes(file.read())

    def write(self, content: bytes) -> None:
        """Write the file whole or not at all; a reader finds the old content or the new.

        Raises:
            WriteError: it cannot be written.
        """
        direct = _is_object_store(self.filesystem)
        folder, name = posixpath.split(self.path)
        target = self.path if direct else posixpath.join(folder, f".{name}.{uuid4().hex}.tmp")
        try:
            if not direct:
                self.filesystem.create_dir(folder, recursive=True)
            with self.filesystem.open_output_stream(target, compression=None) as file:
                file.write(content)
            if not direct:
                self.filesystem.move(target, self.path)
        except Exception as error:  # fsspec's stores raise what they like
            if not direct:
                with suppress(Exception):
                    self.filesystem.delete_file(target)
            raise WriteError(f"{self}: expected a place to write to, got {error}") from error

    def remove(self) -> None:
        """Remove the file, ignoring one that is missing or cannot be removed."""
        with suppress(Exception):
            self.filesystem.delete_file(self.path)

    def remove_folder(self) -> None:
        """Remove the folder and what is in it, ignoring one that is missing or cannot be removed."""
        with suppress(Exception):
            self.filesystem.delete_dir(self.path)


def place_of(path: str | os.PathLike[str], filesystem: object = None, *, argument: str = "path") -> Place:
    """A path, a URI such as s3://bucket/photos, or a path of a given filesystem.

    Args:
        path: see above.
        argument: its name, for messages.
        filesystem: of pyarrow or of fsspec; by default what the URI names, else this machine's. URIs that
            pyarrow does not know are left to fsspec.

    Raises:
        InputError: an empty path, something else than a path, or an unknown kind of URI or filesystem.
        MissingDependencyError: pyarrow is not installed.
    """
    fs, text = _fs(), check_path(path, argument)
    if filesystem is not None:
        return Place(_adapt(filesystem), re.sub(r"^\w+://", "", text).rstrip("/"))
    if "://" not in text:
        return Place(fs.LocalFileSystem(), os.path.abspath(text).replace(os.sep, "/"))
    head, tail = text, ""
    if wild := _WILDCARDS.search(text):
        head = text[: wild.start()].rpartition("/")[0]
        tail = text[len(head) + 1 :]
    try:
        found, inner = fs.FileSystem.from_uri(head)
    except ImportError:
        raise
    except Exception as problem:
        found, inner = _by_fsspec(head, problem)
    inner = inner.rstrip("/")
    return Place(found, f"{inner}/{tail}" if tail else inner)


def check_path(path: str | os.PathLike[str], argument: str) -> str:
    """A path as text.

    Raises:
        InputError: it is empty, which pathlib takes for the current folder, or no path.
    """
    arguments.check_path(argument, path)  # its pathlib.Path would spoil a URI
    if not (text := str(os.fspath(path))):
        raise InputError(f"{argument}: expected a path, got {path!r}")
    return text


def has_wildcards(path: str) -> bool:
    """Whether a path is a pattern of paths."""
    return bool(_WILDCARDS.search(path))


def split_pattern(path: str) -> tuple[str, re.Pattern[str]]:
    """The folder above a pattern's first wildcard, and what matches the rest of a path below it.

    `*` and `?` stand for parts of one name, `**` for any number of folders.
    """
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if _WILDCARDS.search(part))
    words = []
    for part in parts[first:-1]:
        words.append("(?:[^/]+/)*" if part == "**" else _one_name(part) + "/")
    words.append(".*" if parts[-1] == "**" else _one_name(parts[-1]))
    return "/".join(parts[:first]) or "/", re.compile("".join(words) + r"\Z", re.DOTALL)


@contextmanager
def reading(place: Place) -> Iterator[None]:
    """Raise an InputError where a store or a table cannot be read.

    Raises:
        InputError: anything but an error of ours was raised in the block.
    """
    try:
        yield
    except FaceLandmarksError:
        raise
    except Exception as error:
        raise InputError(f"{place}: expected a place to read from, got {error}") from error


def _one_name(pattern: str) -> str:
    """A regular expression for one name, without folders."""
    words = []
    for word in re.findall(r"\[!?\]?[^\]]*\]|.", pattern, re.DOTALL):
        if word in "*?":
            words.append("[^/]*" if word == "*" else "[^/]")
        elif len(word) > 1:
            negated = word[1] == "!"
            words.append(f"[{'^/' * negated}{re.escape(word[1 + negated : -1]).replace(chr(92) + '-', '-')}]")
        else:
            words.append(re.escape(word))
    return "".join(words)


def _size(path: str | Path) -> int:
    """Bytes of a file of this machine; -1 for a link to nothing, a pipe, a folder and the like."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a null byte
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def _is_object_store(filesystem: Any) -> bool:
    return bool(_OBJECT_STORES & set(re.findall(r"\w+", filesystem.type_name)))


def _by_fsspec(uri: str, problem: Exception) -> tuple[Any, str]:
    """The filesystem and the path of a URI that pyarrow cannot open."""
    core = import_extra("fsspec.core", "ray", "URIs that pyarrow cannot open")
    try:
        found, path = core.url_to_fs(uri)
    except Exception as error:
        raise InputError(
            f"{uri}: expected a path or a URI that pyarrow or fsspec can open, got {problem}; {error}"
        ) from error
    return _adapt(found), path


def _adapt(filesystem: Any) -> Any:
    """Any filesystem as one of pyarrow."""
    fs = _fs()
    if isinstance(filesystem, fs.FileSystem):
        return filesystem
    if hasattr(filesystem, "protocol") and hasattr(filesystem, "open"):
        known = filesystem.protocol
        if "file" in ((known,) if isinstance(known, str) else known):  # of this machine
            return fs.LocalFileSystem()
        return fs.PyFileSystem(fs.FSSpecHandler(filesystem))
    raise InputError(f"filesystem: expected one of pyarrow or fsspec, got {type(filesystem).__name__}")


def _fs() -> Any:
    return import_extra("pyarrow.fs", "ray", "data sets")
