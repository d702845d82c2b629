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


def test_an_unknown_error_is_nan_in_a_parquet_file(lines: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    convert(lines, tmp_path / "out.parquet", 68)
    table = parquet.read_table(tmp_path / "out.parquet")
    first, second = table["error_3"].to_pylist()
    assert math.isnan(first) and second == 0.3
