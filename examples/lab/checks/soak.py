"""Memory over many alignments: photos of ever new sizes, found by MTCNN and by given boxes in turn.

    python examples/lab/checks/soak.py [--alignments 2000] [--warm-up 200] [--threads 1]

Resident memory is read after each alignment; its growth is the median of the last tenth less the
median of the tenth after the warm-up. Exit code 1 if that exceeds --allowed megabytes. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from face_landmarks import FaceAligner, read_image

PHOTO = Path(__file__).parents[2] / "data" / "astronaut.jpg"


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--alignments", type=int, default=2000)
    parser.add_argument("--warm-up", type=int, default=200)
    parser.add_argument("--allowed", type=float, default=20, help="megabytes of growth")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--largest", type=int, default=1600, help="longest side of a photo, in pixels")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    aligner, pixels = FaceAligner(device="cpu"), read_image(PHOTO)
    box = aligner.align(pixels).boxes
    memory, faces, start = [], 0, time.perf_counter()
    for count in range(options.alignments):
        width, height = (int(side) for side in rng.integers(48, options.largest, 2))
        photo = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        zoom = np.array([width, height, width, height]) / 512
        faces += len(aligner.align(photo, None if count % 2 else (box + 0.5) * zoom - 0.5))
        memory.append(resident_megabytes())
        if count % 100 == 99:
            print(f"{count + 1:6} alignments, {faces} faces: {memory[-1]:7.1f} MB", flush=True)
    gc.collect()

    settled = memory[options.warm_up :]
    tenth = max(1, len(settled) // 10)
    growth = statistics.median(settled[-tenth:]) - statistics.median(settled[:tenth])
    print(
        f"{options.alignments} alignments, {faces} faces, sides up to {options.largest - 1} px, "
        f"{time.perf_counter() - start:.0f} s, torch {torch.__version__}: resident memory grew by "
        f"{growth:.1f} MB after the first {options.warm_up}, {max(memory):.0f} MB at most"
    )
    return int(growth > options.allowed)


if __name__ == "__main__":
    sys.exit(main())
