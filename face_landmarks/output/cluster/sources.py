"""Photos to align: files of a folder, a pattern or a list, or a column of bytes in Parquet tables."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Final, NamedTuple, TypeAlias

from face_landmarks._system.extras import import_extra
from face_landmarks.errors import ImageError, InputError
from face_landmarks.images import PHOTO_SUFFIXES
from face_landmarks.output.cluster.places import (
    Place,
    Stamp,
    check_path,
    has_wildcards,
    place_of,
    reading,
    split_pattern,
)
from face_landmarks.output.folders.reading_ahead import no_file

Source: TypeAlias = "Files | Tables"
Load: TypeAlias = Callable[[], bytes]

_TABLE_SUFFIXES: Final = frozenset({".parquet"})


class Photo(NamedTuple):
    """A photo of a source.

    Attributes:
        name: its name in the results, unique in the source.
        size: bytes of its file; -1 if they are not known before it is read, or it is not there.
        table: the Parquet file that holds it.
        group: its row group in that file...
        row: ...and its row in that group.
    """

    name: str
    size: int = -1
    table: str = ""
    group: int = -1
    row: int = -1


@dataclass(frozen=True)
class Files:
    """Photos that are files.

    Attributes:
        root: the folder that relative names start from.
        prefix: of every name, which is no part of its path: "s3://" for example.
        photos: all of them, in order.
    """

    root: Place
    prefix: str
    photos: Sequence[Photo]

    def load(self, photos: Sequence[Photo]) -> Iterator[tuple[Photo, Load]]:
        """Each photo with a function that reads its bytes, and may be called in any thread."""
        for photo in photos:
            yield photo, partial(_content, self.root / photo.name.removeprefix(self.prefix))

    def sizes(self, photos: Sequence[Photo]) -> list[int]:
        """Bytes of each photo as it is now, looked up if they are not known; -1 if it is not there.

        Raises:
            InputError: the store does not answer.
        """
        unknown = [photo.name.removeprefix(self.prefix) for photo in photos if photo.size == -1]
        found = iter(self.root.sizes(unknown))
        return [next(found) if photo.size == -1 else photo.size for photo in photos]

    def tables_of(self, photos: Iterable[Photo]) -> dict[str, Stamp]:
        """No tables: the photos are told by their own sizes."""
        return {}


@dataclass(frozen=True)
class Tables:
    """Photos that are bytes in a column of Parquet files.

    Attributes:
        root: the folder of the files.
        column: of binary values, or of structs with a binary field "bytes", as Hugging Face's data sets are.
        photos: all of them, in order.
        stamps: of each file, as it was when the photos were found.
    """

    root: Place
    column: str
    photos: Sequence[Photo]
    stamps: Mapping[str, Stamp] = field(default_factory=dict)

    def load(self, photos: Sequence[Photo]) -> Iterator[tuple[Photo, Load]]:
        """Each photo with a function that gives its bytes; the photos of a row group must lie together."""
        for (table, group), some in groupby(photos, lambda photo: (photo.table, photo.group)):
            wanted = {photo.row: photo for photo in some}
            with (self.root / table).filesystem.open_input_file((self.root / table).path) as file:
                rows = _rows(file, group, self.column)
                for row in range(max(wanted) + 1):
                    data = next(rows)
                    if row in wanted:
                        yield wanted[row], partial(_bytes, data)

    def sizes(self, photos: Sequence[Photo]) -> list[int]:
        """-1 for each photo: its bytes are not known before the table is read."""
        return [-1] * len(photos)

    def tables_of(self, photos: Iterable[Photo]) -> dict[str, Stamp]:
        """The tables that hold some photos, and what tells each from a later one of its name."""
        return {table: self.stamps[table] for table in sorted({photo.table for photo in photos})}


def find_photos(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    column: str | None = None,
    names: str | None = None,
    root: str | os.PathLike[str] | None = None,
    recursive: bool = True,
    filesystem: object = None,
) -> Source:
    """All photos of a source; see `align_dataset` for the arguments.

    Raises:
        InputError: there is no such source, two photos have one name, or one has a name that is no text.
    """
    if names is not None and column is None:
        raise InputError(f"names: expected it with column, which holds the photos, got {names!r} alone")
    if not isinstance(source, (str, os.PathLike)):
        if column is not None:
            raise InputError("source: expected a file, folder or pattern of Parquet files, got a list")
        paths = [check_path(path, f"source: entry {number}") for number, path in enumerate(source)]
        return _listed(paths, root, filesystem)
    if root is not None:
        raise InputError(f"root: expected it with a list of files, got {os.fspath(root)!r} with {source}")
    place = place_of(source, filesystem, argument="source")
    kind, suffixes = place.kind(), PHOTO_SUFFIXES if column is None else _TABLE_SUFFIXES
    if kind == "nothing" and has_wildcards(place.path):
        above, pattern = split_pattern(place.path)
        folder = Place(place.filesystem, above)
        found = [file for file in folder.files(suffixes=suffixes) if pattern.match(file[0])]
    elif kind == "folder":
        folder, found = place, place.files(recursive, suffixes)
    elif kind == "file":
        above, name = posixpath.split(place.path)
        folder = Place(place.filesystem, above)
        found = [(name, place.stamp().size)]
    else:
        got = (place.local and no_file(place.local)) or "not there"
        raise InputError(f"source: expected a folder, a file or a pattern, got {place}, which is {got}")
    if column is None:
        return Files(folder, "", [Photo(*file) for file in found])
    stamps = {table: (folder / table).stamp() for table, _ in found}  # before what is in them is read
    photos = [photo for table in stamps for photo in _photos_of(folder, table, column, names)]
    if names is not None:
        _check_unique([photo.name for photo in photos])
    return Tables(folder, column, photos, stamps)


def _listed(paths: list[str], root: str | os.PathLike[str] | None, filesystem: object) -> Files:
    """Photos named one by one, all on the filesystem of the root, or of the first."""
    _check_unique(paths)
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise InputError(f"source: expected names in UTF-8, got {path!r}") from None
    if root is not None:
        if others := [path for path in paths if "://" in path]:
            raise InputError(f"source: expected paths that a root may be put before, got {others[0]!r}")
        return Files(place_of(root, filesystem, argument="root"), "", [Photo(path) for path in paths])
    first = place_of(paths[0] if paths else ".", filesystem)
    prefix = paths[0][: -len(first.path)] if paths and "://" in paths[0] else ""
    for path in paths:
        if not path.startswith(prefix) or (not prefix and "://" in path):
            raise InputError(f"source: expected paths of one filesystem, got {paths[0]!r} and {path!r}")
    folder = Place(first.filesystem, "") if prefix or filesystem is not None else place_of(".")
    return Files(folder, prefix, [Photo(path) for path in paths])


def _content(place: Place) -> bytes:
    """The bytes of a file.

    Raises:
        ImageError: what is there is no file; it is not opened.
        OSError: it cannot be read, or whatever a store raises.
    """
    if got := place.local and no_file(place.local):
        raise ImageError(f"image: expected an image file, got {str(place)!r}, which is {got}")
    return place.read()


def _photos_of(root: Place, table: str, column: str, names: str | None) -> Iterator[Photo]:
    """The rows of a Parquet file, of which only the metadata and the column of names are read."""
    parquet = import_extra("pyarrow.parquet", "ray", "Parquet tables")
    place = root / table
    if got := place.local and no_file(place.local):
        raise InputError(f"{place}: expected a Parquet file, got {got}")
    with reading(place), place.filesystem.open_input_file(place.path) as file:
        reader = parquet.ParquetFile(file)
        for name in filter(None, (column, names)):
            if name not in reader.schema_arrow.names:
                got = ", ".join(reader.schema_arrow.names)
                raise InputError(f"{place}: expected a column {name!r}, got {got}")
        _check_binary(reader.schema_arrow.field(column), place)
        number = 0
        for group in range(reader.num_row_groups):
            if names is None:
                labels = [
                    f"{table}#{number + row}" for row in range(reader.metadata.row_group(group).num_rows)
                ]
            else:
                values = reader.read_row_group(group, [names]).column(names).to_pylist()
                labels = [_label(value, place, names, number + row) for row, value in enumerate(values)]
            yield from (Photo(label, -1, table, group, row) for row, label in enumerate(labels))
            number += len(labels)


def _label(value: object, place: Place, column: str, row: int) -> str:
    """The name of a photo in a column of names."""
    if not isinstance(value, (str, int)) or isinstance(value, bool) or value == "":
        raise InputError(
            f"{place}: expected text or whole numbers in column {column!r}, got {value!r} in row {row}"
        )
    return str(value)


def _rows(file: Any, group: int, column: str) -> Iterator[Any]:
    """The bytes of each row of a row group, a few in memory at a time."""
    parquet = import_extra("pyarrow.parquet", "ray", "Parquet tables")
    for batch in parquet.ParquetFile(file).iter_batches(16, row_groups=[group], columns=[column]):
        yield from batch.column(0)


def _bytes(value: Any) -> bytes:
    """The bytes of a photo: an Arrow scalar, or the field "bytes" of one."""
    data = value.as_py()
    if isinstance(data, dict):
        data = data["bytes"]
    return data if isinstance(data, bytes) else b""


def _check_binary(field: Any, place: Place) -> None:
    types = import_extra("pyarrow", "ray", "Parquet tables").types
    kind = field.type
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (types.is_binary(kind) or types.is_large_binary(kind)):
        raise InputError(f"{place}: expected bytes in column {field.name!r}, got {field.type}")


def _check_unique(names: list[str]) -> None:
    if len(set(names)) < len(names):
        name = Counter(names).most_common(1)[0][0]
        raise InputError(f"source: expected photos of different names, got {name!r} more than once")
