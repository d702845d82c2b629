"""Random kills of a folder run: after all of them, every photo has its line once, with the right landmarks.

    python examples/lab/checks/kill_runs.py [--kills 100] [--photos 200] [--workers 2] [--seed 0]

`face-landmarks align` runs over a folder, and is called again until it is done. Meanwhile SIGKILL is sent, at
random moments, to the process that writes the file or to one of its workers. At the end no worker is left,
and the lines are compared with those of a run in one process. Exit code 1 if a photo is lost, doubled, or has
an error, or if a landmark is off by more than 0.01 pixels. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

PHOTO = Path(__file__).parents[2] / "data" / "astronaut.jpg"
ALIGN = (sys.executable, "-m", "face_landmarks", "align", "--model", "shr-fan-68-fast", "--device", "cpu")
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def draw_photos(folder: Path, count: int) -> None:
    """Small photos, all different."""
    folder.mkdir()
    face = cv2.resize(cv2.imread(str(PHOTO))[:256, 96:352], (160, 160), interpolation=cv2.INTER_AREA)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:05}.png"), np.roll(face, number % 40, axis=1))


def workers_of(process: int) -> list[int]:
    """The ids of its worker processes."""
    found = []
    with suppress(OSError):
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            with suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_and_resume(command: list[str], kills: int, longest: float, chance: random.Random) -> Counter[str]:
    """Run a command until it is done, with that many kills on the way; who was killed how often."""
    killed: Counter[str] = Counter()
    seen: set[int] = set()
    while True:
        run, before = subprocess.Popen(command, **QUIET), killed.total()
        while run.poll() is None and killed.total() < kills:
            moment = time.monotonic() + chance.uniform(0, longest)
            while run.poll() is None and time.monotonic() < moment:
                time.sleep(0.01)
            workers = workers_of(run.pid)
            seen.update(workers)
            if run.poll() is None:
                victim = chance.choice([run.pid, *workers])
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    killed["writer" if victim == run.pid else "worker"] += 1
                if victim == run.pid:
                    break
        code = run.wait()
        # A run gives up, with exit code 2, when workers die again and again before they are ready.
        assert code == 0 or killed.total() > before, f"exit code {code} of a run that nobody disturbed"
        if code == 0 and killed.total() >= kills:
            break
        if code == 0:
            killed["done early"] += kills - killed.total()
    deadline = time.monotonic() + 30
    while left := [worker for worker in seen if is_running(worker)]:
        assert time.monotonic() < deadline, f"workers are left: {left}"
        time.sleep(0.1)
    return killed


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder, out, expected = (Path(place) / name for name in ("photos", "out.jsonl", "expected.jsonl"))
        draw_photos(folder, options.photos)
        subprocess.run([*ALIGN, str(folder), "--out", str(expected)], check=True, **QUIET)
        longest = time.monotonic() - start  # of the pauses between kills: about that of a whole run
        command = [*ALIGN, str(folder), "--out", str(out), "--workers", str(options.workers)]
        killed = kill_and_resume(command, options.kills, longest, random.Random(options.seed))
        found, wanted = rows_of(out), rows_of(expected)
    times = Counter(row["image"] for row in found)
    doubled = [name for name, count in times.items() if count > 1]
    lost = [row["image"] for row in wanted if row["image"] not in times]
    errors = [row["image"] for row in found if "error" in row]
    landmarks = {row["image"]: row.get("landmarks") for row in found}
    off = 0.0
    for row in wanted:
        if landmarks.get(row["image"]):
            off = max(off, float(np.abs(np.subtract(landmarks[row["image"]], row["landmarks"])).max()))
    print(
        f"{options.photos} photos, {dict(killed)} killed, {time.monotonic() - start:.0f} s: "
        f"{len(lost)} lost, {len(doubled)} doubled, {len(errors)} with an error, "
        f"landmarks off by {off:.4f} pixels at most"
    )
    return int(bool(lost or doubled or errors or off > 0.01))


if __name__ == "__main__":
    sys.exit(main())
