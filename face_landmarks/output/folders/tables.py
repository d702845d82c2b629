"""The results of a folder as a list, JSON, as a table, CSV or Parquet, or as .pts files."""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from face_landmarks._system.extras import import_extra
from face_landmarks._system.files import make_folder, replacing, writing
from face_landmarks.errors import InputError
from face_landmarks.output.folders.journal import Row, read_rows
from face_landmarks.pts import write_pts

TABLES: Final = (".json", ".csv", ".parquet")
_BOX: Final = ("x0", "y0", "x1", "y1")
_VALUES: Final = ("x", "y", "score", "error")  # of a landmark
_AT_ONCE: Final = 1024  # rows of a Parquet table that are written at once; bounds memory


def convert(lines: Path, out: Path, landmarks: int, names: Sequence[str] | None = None) -> None:
    """Write the finished lines in their final format, whole or not at all.

    Args:
        lines: the file of lines.
        out: a .json, .csv or .parquet file, or a folder for .pts files.
        landmarks: K, which tells the columns also where there is no face.
        names: (K,) of the landmarks, for columns such as nose_tip_x instead of x_30.

    Raises:
        WriteError: something cannot be written.
        MissingDependencyError: .parquet without pyarrow.
    """
    if not out.suffix:
        with writing(out):
            _write_folder(lines, out)
        return
    suffix = out.suffix.lower()
    with replacing(out) as temporary:
        if suffix == ".json":
            _write_list(temporary, lines)
            return
        write = _write_parquet if suffix == ".parquet" else _write_csv
        points = _point_columns(landmarks, names)
        columns = ["image", "face", *_BOX, "score", *chain.from_iterable(points)]
        write(temporary, columns, _faces(read_rows(lines), points))


def import_pyarrow() -> Any:
    """Pyarrow, which writes Parquet.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return import_extra("pyarrow.parquet", "tables", ".parquet files")


def check_free(out: Path, photos: Iterable[str]) -> None:
    """Raise if a table, or .pts files of these photos, perhaps drawn by hand, would be overwritten.

    Raises:
        InputError: one of these.
    """
    if out.suffix:
        if out.exists():
            raise InputError(f"out: expected a new file, as only .jsonl files are added to, got {out}")
        return
    stems = {str(out / Path(photo).with_suffix("")): photo for photo in photos}
    for path in sorted(out.rglob("*.pts")) if stems else ():
        stem = str(path.with_suffix(""))
        photo = stems.get(stem) or stems.get(re.sub(r"\.\d+$", "", stem))
        if photo:
            raise InputError(f"out: expected a folder without landmarks of {photo}, got {path}")


def check_stems(photos: Iterable[str]) -> None:
    """Raise unless the .pts file of every face has its own name, however many faces a photo has.

    Raises:
        InputError: two photos would share a name, or a photo's path leads out of the folder.
    """
    photos = set(photos)
    for photo in photos:
        if Path(photo).is_absolute() or ".." in Path(photo).parts:
            raise InputError(
                f"out: expected relative paths without .., as .pts files are named after them, got {photo}"
            )
    stems = Counter(str(Path(photo).with_suffix("")) for photo in photos)
    for stem, count in stems.items():
        if count > 1:
            raise InputError(
                f"out: expected one photo named {stem}.*, as .pts files are named after them, got {count}"
            )
        whole, _, number = stem.rpartition(".")
        if number.isdecimal() and whole in stems:
            raise InputError(
                f"out: expected no photo named {stem}.* beside {whole}.*, whose faces may get its .pts file"
            )


def _write_folder(lines: Path, out: Path) -> None:
    """A .pts file per face: written to a hidden folder first, then moved to their places."""
    staged = out / f".{os.getpid()}.tmp"
    make_folder(staged)
    try:
        names = []
        for row in read_rows(lines):
            faces = row.get("landmarks", ())
            for number, landmarks in enumerate(faces, start=1):
                names.append(Path(row["image"]).with_suffix(f".{number}.pts" if len(faces) > 1 else ".pts"))
                make_folder((staged / names[-1]).parent)
                write_pts(staged / names[-1], landmarks)
        for name in names:
            make_folder((out / name).parent)
            if not (out / name).exists():  # it is of an earlier run, and perhaps corrected since
                os.replace(staged / name, out / name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _write_list(path: Path, lines: Path) -> None:
    """The lines as one list of JSON, with a line for each."""
    with path.open("wb") as file, lines.open("rb") as rows:
        before = b"[\n"
        for row in rows:
            file.write(before + row.rstrip(b"\n"))
            before = b",\n"
        file.write(b"[]\n" if before == b"[\n" else b"\n]\n")


def _write_csv(path: Path, columns: list[str], faces: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        quoting = csv.DictWriter(file, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        for face in faces:  # before Python 3.13 a lone carriage return is not quoted, and splits the row
            (quoting if "\r" in face["image"] else writer).writerow(face)


def _write_parquet(path: Path, columns: list[str], faces: Iterator[Row]) -> None:
    parquet = import_pyarrow()
    pyarrow = import_extra("pyarrow", "tables", ".parquet files")
    kinds = {"image": pyarrow.string(), "face": pyarrow.int64()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in columns])
    with parquet.ParquetWriter(path, schema) as writer:
        while rows := list(islice(faces, _AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def _point_columns(landmarks: int, names: Sequence[str] | None) -> list[tuple[str, ...]]:
    """The columns of each of K landmarks: x, y, score, error."""
    if names is None:
        return [tuple(f"{value}_{k}" for value in _VALUES) for k in range(landmarks)]
    return [tuple(f"{name}_{value}" for value in _VALUES) for name in names]


def _faces(rows: Iterable[Row], columns: Sequence[tuple[str, ...]]) -> Iterator[Row]:
    """A flat row per face, with these columns for each landmark."""
    for row in rows:
        photo = row["image"].encode("utf-8", "backslashreplace").decode()  # a file name need not be text
        for number, box in enumerate(row.get("boxes", ())):
            face = {"image": photo, "face": number, **dict(zip(_BOX, map(float, box), strict=True))}
            face["score"] = float(row["box_scores"][number])
            arrays = (row[name][number] for name in ("landmarks", "landmark_scores", "landmark_errors"))
            for names, (x, y), score, error in zip(columns, *arrays, strict=True):
                values = (x, y, score, math.nan if error is None else error)
                face |= dict(zip(names, values, strict=True))
            yield face
