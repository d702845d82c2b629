"""Folders of this machine and of object stores, by pyarrow's filesystems or fsspec's."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from face_landmarks._system.extras import import_extra
from face_landmarks.errors import FaceLandmarksError, InputError, WriteError

# Stores where a new object appears whole when its upload ends; elsewhere a file is renamed into its place.
_OBJECT_STORES: Final = {"s3", "s3a", "gcs", "gs", "abfs", "abfss", "az"}
_WILDCARDS: Final = re.compile(r"[*?\[]")


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
        return self.path if self.is_local else f"{self.filesystem.type_name}:{self.path}"

    def __truediv__(self, name: str) -> Place:
        return Place(self.filesystem, posixpath.join(self.path, name))

    @property
    def is_local(self) -> bool:
        """Whether this is a path of the machine itself."""
        return isinstance(self.filesystem, _fs().LocalFileSystem)

    def kind(self) -> str:
        """One of "file", "folder" and "nothing".

        Raises:
            InputError: the store does not answer.
        """
        with reading(self):
            found = self.filesystem.get_file_info(self.path)
        return {"File": "file", "Directory": "folder"}.get(found.type.name, "nothing")

    def files(self, recursive: bool = True) -> list[tuple[str, int]]:
        """The names of all files below, with slashes, and their sizes in bytes, in order.

        Files and folders whose name begins with a dot are left out.

        Raises:
            InputError: the folder cannot be listed.
        """
        selector = _fs().FileSelector(self.path, recursive=recursive, allow_not_found=True)
        root = self.path.rstrip("/") + "/"
        with reading(self):
            found = self.filesystem.get_file_info(selector)
            try:
                names = [(info.path.removeprefix(root), info.size) for info in found if info.is_file]
            except UnicodeDecodeError as error:
                raise InputError(f"{self}: expected names in UTF-8, got {error.object!r}") from error
        return sorted((name, size) for name, size in names if not re.search(r"(^|/)\.", name))

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


def place_of(path: str | os.PathLike[str], filesystem: object = None) -> Place:
    """A path, a URI such as s3://bucket/photos, or a path of a given filesystem.

    Args:
        path: see above.
        filesystem: of pyarrow or of fsspec; by default what the URI names, else this machine's. URIs that
            pyarrow does not know are left to fsspec.

    Raises:
        InputError: an unknown kind of URI or filesystem.
        MissingDependencyError: pyarrow is not installed.
    """
    fs, text = _fs(), os.fspath(path)
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
        return fs.PyFileSystem(fs.FSSpecHandler(filesystem))
    raise InputError(f"filesystem: expected one of pyarrow or fsspec, got {type(filesystem).__name__}")


def _fs() -> Any:
    return import_extra("pyarrow.fs", "ray", "data sets")
