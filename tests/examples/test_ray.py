"""The example on Ray: two workers find what one process finds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_landmarks import FaceAligner, align_folder

EXAMPLES = Path(__file__).parents[2] / "examples"

pytest.importorskip("ray", reason='needs Ray Data: pip install "shr-fan[ray]"')


def rows_by_photo(path):
    rows = map(json.loads, path.read_text().splitlines())
    return {row.pop("image"): row for row in rows}


def test_two_workers_find_what_one_process_finds(tmp_path):
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    face = cv2.imread(str(EXAMPLES / "data" / "astronaut.jpg"))[20:200, 120:320]
    for i in range(20):
        cv2.imwrite(str(photos / ("deep" if i % 3 else "") / f"{i:02}.png"), np.roll(face, i, axis=1))
    cv2.imwrite(str(photos / "nobody.png"), np.full((60, 80, 3), 128, np.uint8))
    (photos / "broken.jpg").write_text("not a photo")

    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "ray_batch.py"), str(photos), str(tmp_path / "ray.jsonl")],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "20 faces in 21 photos, 1 unreadable" in done.stdout

    align_folder(FaceAligner(device="cpu"), photos, tmp_path / "one.jsonl")
    ours, expected = rows_by_photo(tmp_path / "ray.jsonl"), rows_by_photo(tmp_path / "one.jsonl")
    assert ours.keys() == expected.keys() and len(ours) == 22
    for photo, row in expected.items():
        assert row.keys() == ours[photo].keys() and row["model"] == ours[photo]["model"]
        np.testing.assert_allclose(ours[photo].get("landmarks", []), row.get("landmarks", []), atol=1e-2)
