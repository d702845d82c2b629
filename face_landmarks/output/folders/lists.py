"""Lists of photos of any length: read as a stream, split into shards, remembered in a few bytes a path."""

from __future__ import annotations

import csv
import hashlib
import operator
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BufferedReader, TextIOWrapper
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_landmarks._system.arguments import check_kind
from face_landmarks._system.extras import import_extra
from face_landmarks.aligner import check_boxes
from face_landmarks.errors import InputError

_DIGEST: Final = 16  # bytes; two of ten million paths share one with a probability of 10^-25
_RECENT: Final = 2**19  # paths that are kept unsorted, at most
_AT_ONCE: Final = 2**14  # rows of a Parquet table that are read at once
_LONGEST: Final = 2**16  # bytes of a line

Boxes: TypeAlias = "NDArray[np.float32]"
ListSource: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"


@dataclass(frozen=True)
class Shard:
    """One of several parts of a list, for machines that share the work.

    A photo's part follows from its path as the list or the folder has it, and from nothing else: the first 8
    bytes of the path's BLAKE2b digest of 16 bytes, read as a number with its highest byte first, modulo
    `total`, plus 1.

    Attributes:
        number: of the part, from 1.
        total: of the parts.
    """

    number: int
    total: int

    @classmethod
    def of(cls, value: object) -> Shard:
        """A shard written "3/16" or given as a pair of numbers.

        Raises:
            InputError: something else, or a number outside 1 to `total`.
        """
        problem = InputError(f"shard: expected NUMBER/COUNT, such as '3/16', from 1 to COUNT, got {value!r}")
        if isinstance(value, str):
            found = re.fullmatch(r"([0-9]+)/([0-9]+)", value)
            if not found:
                raise problem
            value = (int(found[1]), int(found[2]))
        try:
            number, total = map(operator.index, value)  # type: ignore[call-overload]
        except (TypeError, ValueError):
            raise problem from None
        if not 1 <= number <= total:
            raise problem
        return cls(number, total)

    def __contains__(self, path: object) -> bool:
        digest = _digest(str(path))
        return int.from_bytes(digest[:8], "big") % self.total == self.number - 1


class PathSet:
    """A set of paths in 16 bytes each: it holds their digests."""

    def __init__(self) -> None:
        self._sorted: NDArray[np.bytes_] = np.empty(0, f"S{_DIGEST}")
        self._recent: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __contains__(self, path: object) -> bool:
        return self._has(_digest(str(path)))

    def add(self, path: str) -> bool:
        """Add a path; whether it is new."""
        digest = _digest(path)
        if self._has(digest):
            return False
        self._recent.add(digest)
        if len(self._recent) >= _RECENT:
            recent = np.array(list(self._recent), self._sorted.dtype)
            self._sorted = np.sort(np.concatenate([self._sorted, recent]), kind="stable")
            self._recent = set()
        return True

    def _has(self, digest: bytes) -> bool:
        if digest in self._recent:
            return True
        wanted = np.array(digest, self._sorted.dtype)
        place = int(self._sorted.searchsorted(wanted))
        return place < len(self._sorted) and bool(self._sorted[place] == wanted)


def _digest(path: str) -> bytes:
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()


class Photo(NamedTuple):
    """A photo of a run.

    Attributes:
        name: in the results.
        file: where it is; None where that is not known.
        boxes: (N, 4) of its faces, or None if they are to be detected.
    """

    name: str
    file: Path | None
    boxes: Boxes | None = None


class PhotoList:
    """The photos of a run, which can be gone through again and again; they need not be in memory.

    Args:
        names: gives their names.
        file_of: the file of a name.
        shard: which of the names; all by default.
        boxes: of each name, if they are given.

    Raises:
        InputError: a photo has no boxes, though some are given, or they cannot be used.
    """

    def __init__(
        self,
        names: Callable[[], Iterator[str]],
        file_of: Callable[[str], Path | None],
        shard: Shard | None = None,
        boxes: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        self._names, self._file_of, self._shard = names, file_of, shard
        self.has_boxes = boxes is not None
        self._boxes: dict[str, Boxes] = {}
        if boxes is not None:
            if missing := [name for name in self if name not in boxes]:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise InputError(f"boxes: expected those of every photo, got none of {missing[0]}{more}")
            self._boxes = {name: check_boxes(boxes[name]) for name in self}

    def __iter__(self) -> Iterator[str]:
        names = self._names()
        return names if self._shard is None else filter(self._shard.__contains__, names)

    def photo(self, name: str) -> Photo:
        """The photo of a name, which need not be one of the list."""
        return Photo(name, self._file_of(name), self._boxes.get(name))


def read_list(source: ListSource, column: str | None = None) -> Callable[[], Iterator[str]]:
    """What goes through a list of paths, as a stream and as often as wanted.

    Args:
        source: a file, or a sequence of paths. A .csv or .parquet file has a column of paths; any other file
            has a path on each line, in UTF-8. Lines that are empty or of spaces only are skipped; others are
            paths as they are, also with spaces around them or a "#" at their beginning.
        column: of a table, "image" by default.

    Raises:
        InputError: no such file or sequence, no such column, or what there is are no paths; also while
            it is gone through.
        MissingDependencyError: .parquet without pyarrow.
    """
    suffix = Path(source).suffix.lower() if isinstance(source, (str, os.PathLike)) else ""
    if column is not None:
        check_kind("column", column, str)
    if column is not None and suffix not in (".csv", ".parquet"):
        raise InputError(f"column: expected None, as only tables have columns, got {column!r}")
    if isinstance(source, (str, os.PathLike)):
        if suffix == ".csv":
            return partial(_csv_column, Path(source), column or "image")
        if suffix == ".parquet":
            return partial(_parquet_column, Path(source), column or "image")
        return partial(_text_lines, Path(source))
    if isinstance(source, (bytes, bytearray)) or not isinstance(source, Sequence):
        raise InputError(
            "photos: expected a file of paths, or a list or tuple, which is gone through twice, "
            f"got {type(source).__name__}"
        )
    return partial(_entries, source)


def _entries(source: Sequence[str | os.PathLike[str]]) -> Iterator[str]:
    for number, entry in enumerate(source):
        name = os.fspath(entry) if isinstance(entry, (str, os.PathLike)) else None
        if not isinstance(name, str) or not name:
            raise InputError(f"photos: expected a path, got {entry!r} as entry {number}")
        yield name


def _text_lines(path: Path) -> Iterator[str]:
    with _open(path) as file:
        for number in count(1):
            line = file.readline(_LONGEST)
            if not line:
                return
            if len(line) == _LONGEST or b"\0" in line:
                raise InputError(f"{path}: expected a path on each line, got {line[:40]!r} as line {number}")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            name = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
            if name.strip(" \t"):
                yield name


def _csv_column(path: Path, column: str) -> Iterator[str]:
    with TextIOWrapper(_open(path), "utf-8-sig", "surrogateescape", newline="") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            if column not in header:
                raise _no_column(path, column, header)
            place = header.index(column)
            for row in reader:
                if row and not (place < len(row) and row[place]):
                    raise InputError(
                        f"{path}: expected a path in {column!r}, got none in line {reader.line_num}"
                    )
                if row:
                    yield row[place]
        except csv.Error as error:
            raise InputError(
                f"{path}: expected a CSV table, got {error} in line {reader.line_num}"
            ) from error


def _parquet_column(path: Path, column: str) -> Iterator[str]:
    parquet = import_extra("pyarrow.parquet", "tables", ".parquet files")
    with _open(path) as file:
        try:
            table = parquet.ParquetFile(file)
            if column not in table.schema_arrow.names:
                raise _no_column(path, column, table.schema_arrow.names)
            for batch in table.iter_batches(_AT_ONCE, columns=[column]):
                for name in batch.column(0).to_pylist():
                    if not isinstance(name, str) or not name:
                        raise InputError(f"{path}: expected paths in {column!r}, got {name!r}")
                    yield name
        except (ValueError, OSError) as error:  # Arrow's errors are among them
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: expected a Parquet table, got {error}") from error


def _no_column(path: Path, column: str, names: Sequence[str]) -> InputError:
    return InputError(f"{path}: expected a column {column!r}, got {', '.join(map(repr, names)) or 'none'}")


def _open(path: Path) -> BufferedReader:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: expected a file of paths, which is read twice, got a pipe or folder")
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{str(path)!r}: expected a file with a list of photos, got {reason}") from error
