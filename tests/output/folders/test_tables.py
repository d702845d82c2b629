"""Results as tables, without a model."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rings import faces_at, ring

from face_landmarks import Faces
from face_landmarks.layouts import IBUG_68
from face_landmarks.output.folders.tables import convert


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """The result of one photo: a face whose errors are unknown, and one whose errors are k / 10."""
    pair = faces_at(ring((40, 80), 25), ring((110, 80), 25))
    errors = np.stack([np.full(68, np.nan), np.arange(68) / 10])
    faces = Faces(pair.landmarks, pair.landmark_scores, pair.boxes, [0.5, 1], landmark_errors=errors)
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps({"image": "a.jpg", "bytes": 1, **faces.to_dict()}) + "\n")
    return path


def test_an_unknown_error_is_nan_in_a_csv_file(lines: Path, tmp_path: Path) -> None:
    convert(lines, tmp_path / "out.csv", 68)
    with (tmp_path / "out.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["image"], first["face"], second["face"]) == ("a.jpg", "0", "1")
    assert (first["score"], second["score"]) == ("0.5", "1.0")
    assert first["error_3"] == "nan" and second["error_3"] == "0.3"
    assert (float(second["x_0"]), float(second["y_0"])) == (135, 80)  # the first point of the ring


def test_names_with_ends_of_lines_keep_their_row_in_a_csv_file(lines: Path, tmp_path: Path) -> None:
    names = ["a\rb.jpg", "a\nb.jpg", "a\r\nb.jpg", 'a",b.jpg', "a\u2028b.jpg"]
    row = json.loads(lines.read_text())
    lines.write_text("".join(json.dumps({**row, "image": name}) + "\n" for name in names))
    convert(lines, tmp_path / "out.csv", 68)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [face["image"] for face in table[::2]] == names and len(table) == 2 * len(names)
    assert all(float(face["x_0"]) > 0 for face in table)


def test_an_unknown_error_is_nan_in_a_parquet_file(lines: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    convert(lines, tmp_path / "out.parquet", 68)
    table = parquet.read_table(tmp_path / "out.parquet")
    first, second = table["error_3"].to_pylist()
    assert math.isnan(first) and second == 0.3


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_may_have_the_names_of_the_landmarks(lines: Path, tmp_path: Path, kind: str) -> None:
    numbered, named = tmp_path / f"numbered.{kind}", tmp_path / f"named.{kind}"
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    convert(lines, numbered, 68)
    convert(lines, named, 68, IBUG_68.names)
    by_number, by_name = table_of(numbered), table_of(named)
    assert [len(by_number), len(by_name)] == [7 + 4 * 68] * 2
    assert list(by_name)[7:11] == ["jaw_right_1_x", "jaw_right_1_y", "jaw_right_1_score", "jaw_right_1_error"]
    assert by_name["nose_tip_x"] == by_number["x_30"] and by_name["mouth_left_y"] == by_number["y_54"]
    assert list(map(str, by_name.values())) == list(map(str, by_number.values()))  # nan is not equal to nan


def table_of(path: Path) -> dict[str, list[object]]:
    """The columns of a table and their values."""
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        columns: dict[str, list[object]] = parquet.read_table(path).to_pydict()
        return columns
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return {name: list(values) for name, *values in zip(header, *rows, strict=True)}
