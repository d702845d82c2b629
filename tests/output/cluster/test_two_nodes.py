"""Two Ray nodes, one of which is killed in mid-run: every photo is there exactly once."""

import json
import os
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_landmarks import FaceAligner, Faces, read_image

ROOT = Path(__file__).parents[3]
BOX = [[52.0, 38.0, 150.0, 158.0]]
PHOTOS = 24

if find_spec("ray") is None:
    pytest.skip('needs Ray Data: pip install "shr-fan[ray]"', allow_module_level=True)


@pytest.fixture
def photos(tmp_path):
    """24 photos that differ, each with a corner of a grey level of its own, and one that is damaged."""
    face = cv2.imread(str(ROOT / "examples" / "data" / "astronaut.jpg"))[20:200, 120:320]
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for number in range(PHOTOS):
        photo = np.roll(face, number, axis=1)
        photo[:8, :8] = number
        cv2.imwrite(str(folder / ("deep" if number % 3 else "") / f"{number:02}.png"), photo)
    (folder / "zz-broken.jpg").write_text("not a photo")  # the last one, in a part of its own
    return folder


def run(*words):
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "/tmp"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def test_a_node_that_is_killed_in_mid_run_costs_no_photo_and_doubles_none(photos, tmp_path):
    from pyarrow import dataset

    done = run(ROOT / "tests/support/two_nodes.py", photos, tmp_path / "out", tmp_path / "log.txt")
    images, faces, unreadable = json.loads(done.stdout.splitlines()[-1])
    assert (images, faces, list(unreadable)) == (PHOTOS, PHOTOS, ["zz-broken.jpg"])

    rows = dataset.dataset(tmp_path / "out").to_table().to_pylist()
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    assert sorted(row["image"] for row in rows) == names  # each of them, once

    lines = (tmp_path / "log.txt").read_text().splitlines()
    before, after = lines[: lines.index("killed")], lines[lines.index("killed") + 1 :]
    on_second = [int(line.split()[1]) for line in before if line.startswith("second")]
    begun = Counter(int(line.split()[1]) for line in before + after)
    assert len(on_second) == 6 and not any(line.startswith("second") for line in after)
    assert [begun[photo] for photo in on_second] == [1, 1, 1, 1, 2, 2]  # a part committed, and one cut short
    assert len(begun) == PHOTOS and sum(begun.values()) == PHOTOS + 2

    aligner = FaceAligner("shr-fan-68-fast", detector=None, device="cpu")
    for row in rows:
        if row["error"] is None:
            expected = aligner.align(read_image(photos / row["image"]), BOX)
            np.testing.assert_allclose(Faces.from_dict(row).landmarks, expected.landmarks, atol=0.02)
