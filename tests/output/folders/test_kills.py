"""Processes killed at random moments: the long form is examples/lab/checks/kill_runs.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers in Linux's /proc")
def test_no_photo_is_lost_or_doubled_by_random_kills():
    words = ["--kills", "3", "--photos", "40"]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "lab" / "checks" / "kill_runs.py", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 doubled, 0 with an error" in done.stdout
