"""Memory over many alignments: photos of ever new sizes, found by MTCNN and by given boxes in turn.

    python examples/lab/checks/soak.py [--alignments 2000] [--processes 1] [--warm-up 200] [--threads 1]
        [--model NAME] [--largest 1600]

The alignments are divided among the processes, each with its own aligner and photos. The resident memory of
each is read after each of its alignments; its growth is the median of the last tenth less the median of the
tenth after the warm-up. Exit code 1 if that of any process exceeds --allowed megabytes, or if one dies.
Linux only.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from face_landmarks import FaceAligner, read_image
from face_landmarks.models.registry import DEFAULT_MODEL

PHOTO = Path(__file__).parents[2] / "data" / "astronaut.jpg"


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak(options: argparse.Namespace) -> int:
    """Align in this process; the exit code."""
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(options.seed)
    name = f"process {options.seed + 1}: " if options.processes > 1 else ""
    aligner, pixels = FaceAligner(options.model, device="cpu"), read_image(PHOTO)
    box = aligner.align(pixels).boxes
    memory, faces, start = [], 0, time.perf_counter()
    for count in range(options.alignments):
        width, height = (int(side) for side in rng.integers(48, options.largest, 2))
        photo = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        zoom = np.array([width, height, width, height]) / 512
        faces += len(aligner.align(photo, None if count % 2 else (box + 0.5) * zoom - 0.5))
        memory.append(resident_megabytes())
        if count % 100 == 99:
            print(f"{name}{count + 1:6} alignments, {faces} faces: {memory[-1]:7.1f} MB", flush=True)
    gc.collect()

    settled = memory[options.warm_up :]
    tenth = max(1, len(settled) // 10)
    growth = statistics.median(settled[-tenth:]) - statistics.median(settled[:tenth])
    print(
        f"{name}{options.alignments} alignments, {faces} faces, sides up to {options.largest - 1} px, "
        f"{time.perf_counter() - start:.0f} s, torch {torch.__version__}: resident memory grew by "
        f"{growth:.1f} MB after the first {options.warm_up}, {max(memory):.0f} MB at most",
        flush=True,
    )
    return int(growth > options.allowed)


def soak_in_processes(options: argparse.Namespace) -> int:
    """Divide the alignments among processes of this script; the exit code."""
    share, rest = divmod(options.alignments, options.processes)
    processes = []
    for seed in range(options.processes):
        words = ["--seed", seed, "--processes", options.processes, "--alignments", share + (seed < rest)]
        words += ["--warm-up", options.warm_up, "--allowed", options.allowed]
        words += ["--threads", options.threads, "--largest", options.largest, "--model", options.model]
        processes.append(subprocess.Popen([sys.executable, __file__, *map(str, words)]))
    codes = [process.wait() for process in processes]
    flat = sum(code == 0 for code in codes)
    print(f"{options.alignments} alignments: memory stayed flat in {flat} of {options.processes} processes")
    return int(flat < options.processes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--alignments", type=int, default=2000, help="of all processes together")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--warm-up", type=int, default=200, help="alignments of each process")
    parser.add_argument("--allowed", type=float, default=20, help="megabytes of growth")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--largest", type=int, default=1600, help="longest side of a photo, in pixels")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)  # of one of several processes
    options = parser.parse_args()
    shares = 1 if options.seed is not None else options.processes
    if shares < 1 or options.alignments // shares <= options.warm_up:
        parser.error("expected more alignments in each process than --warm-up")
    if shares > 1:
        return soak_in_processes(options)
    options.seed = options.seed or 0
    return soak(options)


if __name__ == "__main__":
    sys.exit(main())
