"""Boxes of faces from a file, for the photos of a command.

=============  ==================================================================================
file           holds
=============  ==================================================================================
NAME.csv       columns image, x0, y0, x1, y1, further ones are ignored: a row per face; a row with
               four empty cells for a photo without a face
NAME.json      {"a.jpg": [[x0, y0, x1, y1], ...], "b.jpg": []}, or a list of objects with "image" and
               "boxes", as `align` writes it
NAME.jsonl     such objects, one per line
=============  ==================================================================================
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from face_landmarks.cli.photos import Photo
from face_landmarks.detection.contract import check_boxes
from face_landmarks.errors import InputError

Boxes: TypeAlias = NDArray[np.float32]

_CORNERS: Final = ("x0", "y0", "x1", "y1")


def read_boxes(file: str, photos: Sequence[Photo]) -> dict[str, Boxes]:
    """The boxes of each photo: its path -> (N, 4) float32.

    A photo is named in the file by its path as the command has it, or by its path in the folder that was
    given, or by the name of its file.

    Raises:
        InputError: the file cannot be read or holds something else, or a photo has no entry.
    """
    known = _read(Path(file))
    boxes, missing = {}, []
    for photo in photos:
        name = next((n for n in (photo.path, str(photo.name), photo.name.name) if n in known), None)
        if name is None:
            missing.append(photo.path)
            continue
        try:
            boxes[photo.path] = check_boxes(known[name])
        except InputError as error:
            raise InputError(f"{file}: {name}: {error}") from error
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{file}: expected boxes of every photo, got none of {missing[0]}{more}; a photo without a face "
            "has an empty list in JSON, four empty cells in CSV"
        )
    return boxes


def _read(file: Path) -> Mapping[str, list[Any]]:
    """Name -> boxes, unchecked."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no text, or a null byte in the path
        reason = getattr(error, "strerror", None) or "bytes that are not text"
        raise InputError(f"{file}: expected a file of boxes, got {reason}") from error
    suffix = file.suffix.lower()
    try:
        if suffix == ".csv":
            return _from_table(text)
        if suffix == ".json":
            return _from_json(json.loads(text))
        if suffix == ".jsonl":
            return _from_json([json.loads(line) for line in text.split("\n") if line.strip()])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{file}: expected boxes of photos, got {error}") from error
    raise InputError(f"--boxes: expected a .csv, .json or .jsonl file, got {file.name!r}")


def _from_json(values: Any) -> dict[str, list[Any]]:
    if isinstance(values, list):
        rows = [row for row in values if "error" not in row]
        values = {row["image"]: row["boxes"] for row in rows}
    if not isinstance(values, dict) or not all(isinstance(boxes, list) for boxes in values.values()):
        raise TypeError("something else than an object, or a list of objects with image and boxes")
    return values


def _from_table(text: str) -> dict[str, list[Any]]:
    lines: Iterable[str] = text.splitlines(keepends=True)
    table = csv.DictReader(lines)
    if missing := {"image", *_CORNERS} - set(table.fieldnames or ()):
        raise ValueError(f"a table without the columns {', '.join(sorted(missing))}")
    boxes: dict[str, list[Any]] = defaultdict(list)
    for row in table:
        cells = [(row[name] or "").strip() for name in _CORNERS]
        mine = boxes[row["image"]]
        if any(cells):
            mine.append([_number(cell, table.line_num) for cell in cells])
    return dict(boxes)


def _number(cell: str, line: int) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{cell!r} in line {line} instead of a number") from None
