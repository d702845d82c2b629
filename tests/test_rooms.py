"""The rooms of the package: importing it costs nothing extra."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "face_landmarks"

IMPORT_REPORT = """
import sys, warnings
import cv2, numpy, torch
filters = list(warnings.filters)
import face_landmarks
assert warnings.filters == filters, "a warning filter was changed"
print(*sorted(sys.modules))
"""


def test_importing_the_package_imports_no_plots_no_detector_no_training_and_makes_no_folder(
    tmp_path: Path, temporary_home: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_REPORT],
        env={
            **os.environ,
            "PYTHONPATH": str(PACKAGE.parent),
            "HOME": str(tmp_path),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "face_landmarks" in loaded
    assert not loaded & {"matplotlib", "facenet_pytorch", "face_landmarks.training", "requests"}
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    assert list(temporary_home.iterdir()) == []
