"""Parts of a data set: the results of some hundred photos, one Parquet file each, written whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from face_landmarks._system.extras import import_extra
from face_landmarks.errors import InputError
from face_landmarks.output.cluster.places import Place, Stamp, reading
from face_landmarks.output.cluster.sources import Photo

Row: TypeAlias = "dict[str, Any]"

_METADATA: Final = b"face_landmarks"  # key of a part's settings, in its schema
_TABLES: Final = b"face_landmarks.tables"  # key of the tables that its photos came from


@dataclass(frozen=True)
class Part:
    """Photos that are aligned and committed together.

    Attributes:
        name: of the file that holds, or will hold, their results.
        photos: to align.
        repair: whether the file exists, with results of other photos that stay and of these, which failed.
    """

    name: str
    photos: Sequence[Photo]
    repair: bool = False


class Stored(NamedTuple):
    """What the file of a part holds.

    Attributes:
        rows: of the columns that were asked for.
        tables: Parquet files that the photos came from, by name, as they were; empty if they were files.
    """

    rows: list[Row]
    tables: dict[str, Stamp]


@dataclass(frozen=True)
class Counts:
    """What a part holds.

    Attributes:
        images: photos that were aligned.
        faces: faces in them.
        unreadable: photo -> why it could not be read.
        failed: photo -> what the detector or the aligner raised.
    """

    images: int
    faces: int
    unreadable: Mapping[str, str]
    failed: Mapping[str, str]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Counts:
        """Count rows, of which the columns image, error, retry and box_scores are read."""
        images, faces = 0, 0
        unreadable: dict[str, str] = {}
        failed: dict[str, str] = {}
        for row in rows:
            if row["error"] is None:
                images, faces = images + 1, faces + len(row["box_scores"])
            else:
                (failed if row["retry"] else unreadable)[row["image"]] = row["error"]
        return cls(images, faces, unreadable, failed)


def part_name(photos: Iterable[Photo]) -> str:
    """The file of new photos: the same photos always have the same one, so that it is never written twice."""
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(photo.name.encode("utf-8", "surrogatepass") + b"\0")
    return f"part-{digest.hexdigest()[:24]}.parquet"


def is_part(name: str) -> bool:
    """Whether this is the name of a part."""
    return name.startswith("part-") and name.endswith(".parquet") and "/" not in name


def schema() -> Any:
    """The columns of a part: a row for each photo."""
    arrow = _arrow()
    numbers = arrow.list_(arrow.float32())  # a value for each face, N
    of_landmarks = arrow.list_(numbers)  # (N, K)
    return arrow.schema(
        [
            ("image", arrow.string()),
            ("bytes", arrow.int64()),
            ("error", arrow.string()),
            ("retry", arrow.bool_()),
            ("layout", arrow.string()),
            ("landmarks", arrow.list_(of_landmarks)),  # (N, K, 2)
            ("landmark_scores", of_landmarks),
            ("landmark_errors", of_landmarks),
            ("boxes", of_landmarks),  # (N, 4)
            ("box_scores", numbers),
        ]
    )


def write_part(place: Place, rows: Sequence[Row], settings: Row, tables: Mapping[str, Stamp]) -> None:
    """Write a part whole, or not at all.

    Args:
        place: its file.
        rows: of its photos.
        settings: that made them.
        tables: that the photos came from.

    Raises:
        WriteError: it cannot be written.
    """
    arrow, parquet = _arrow(), import_extra("pyarrow.parquet", "ray", "data sets")
    metadata = {_METADATA: json.dumps(settings), _TABLES: json.dumps(tables)}
    table = arrow.Table.from_pylist(list(rows), schema().with_metadata(metadata))
    buffer = arrow.BufferOutputStream()
    parquet.write_table(table, buffer, compression="zstd")
    place.write(buffer.getvalue().to_pybytes())


def read_part(place: Place, settings: Row, columns: list[str] | None = None) -> Stored:
    """The rows of a part, and the tables that they came from.

    Raises:
        InputError: it is damaged, or holds results of other settings.
    """
    parquet = import_extra("pyarrow.parquet", "ray", "data sets")
    with reading(place), place.filesystem.open_input_file(place.path) as file:
        table = parquet.read_table(file, columns=columns)
        found = table.schema.metadata or {}
        check_settings(place, json.loads(found.get(_METADATA, b"{}")), settings)
        tables = json.loads(found.get(_TABLES, b"{}"))
        return Stored(table.to_pylist(), {name: Stamp(*stamp) for name, stamp in tables.items()})


def check_settings(place: Place, found: Row, settings: Row) -> None:
    """Raise unless results were made by these settings.

    Raises:
        InputError: by others; the message names the first that differs.
    """
    for name, value in settings.items():
        if (got := found.get(name, "nothing")) != value:
            raise InputError(f"{place}: expected results of {name} {value}, got {got}; choose another folder")


def _arrow() -> Any:
    return import_extra("pyarrow", "ray", "data sets")
