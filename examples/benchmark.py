"""Where the time goes, stage by stage: median and spread over many repeats.

    python examples/benchmark.py [--model shr-fan-68-fast] [--device cpu] [--json times.json]

Every stage is warmed up, then repeated for at least two seconds; CUDA is synchronised before
each reading of the clock. Times are per face, in milliseconds; detection and start-up per photo.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from face_landmarks import MTCNN, FaceAligner, read_image
from face_landmarks.geometry import crop_matrices, transform_points, warp
from face_landmarks.heatmap import decode_heatmaps

PHOTO = Path(__file__).parent / "data" / "astronaut.jpg"
START = """
import time; start = time.perf_counter()
from face_landmarks import FaceAligner
FaceAligner(%r, device=%r).get_landmarks(%r)
print(time.perf_counter() - start)
"""
IMPORTS = """
import time, torch; start = time.perf_counter()
import face_landmarks
print(time.perf_counter() - start)
"""


def measure(work: Callable[[], object], device: torch.device, seconds: float = 2.0) -> list[float]:
    """Milliseconds of each repeat."""

    def once() -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return 1e3 * (time.perf_counter() - start)

    for _ in range(5):
        once()
    times: list[float] = []
    while sum(times) < 1e3 * seconds or len(times) < 10:
        times.append(once())
    return times


def measure_process(code: str, repeats: int = 5) -> list[float]:
    """Milliseconds that a fresh interpreter reports for a piece of code; the first run is warm-up."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    times = [1e3 * float(subprocess.check_output(command, text=True)) for _ in range(repeats + 1)]
    return times[1:]


@torch.inference_mode()
def stages(aligner: FaceAligner, batch: int) -> dict[str, list[float]]:
    """Times of each stage for a batch of faces, per face."""
    pixels = read_image(PHOTO)
    boxes = torch.from_numpy(aligner.align(pixels).boxes[:1]).repeat(batch, 1)
    card, device = aligner.card, aligner.device

    def crop() -> torch.Tensor:
        return warp(
            pixels,
            crop_matrices(boxes, aligner.crop_size, card.crop_scale, card.crop_shift),
            aligner.crop_size,
        )

    def place(crops: torch.Tensor) -> torch.Tensor:
        return crops.to(device, aligner.dtype).contiguous(memory_format=torch.channels_last)

    crops = place(crop())
    heatmaps = aligner.network(crops)

    def decode() -> torch.Tensor:
        points, _ = decode_heatmaps(heatmaps, window=card.window, temperature=card.temperature)
        return transform_points(aligner.heatmap_to_crop, points.cpu())

    numpy_boxes = boxes.numpy()
    work: dict[str, Callable[[], object]] = {
        "crop": lambda: place(crop()),
        "network": lambda: aligner.network(crops),
        "decode": decode,
        "boxes to landmarks": lambda: aligner.align(pixels, numpy_boxes),
    }
    return {name: [t / batch for t in measure(f, device)] for name, f in work.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="shr-fan-68-fast")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="torch's threads; its own choice if not given")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--json", type=Path, help="write every time here")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    aligner = FaceAligner(options.model, device=options.device)
    detector, pixels = MTCNN(device=options.device), read_image(PHOTO)

    times = {
        "import after torch": measure_process(IMPORTS),
        "start to first landmarks": measure_process(START % (options.model, options.device, str(PHOTO))),
        "detect (MTCNN, 512 x 512)": measure(lambda: detector(pixels), aligner.device),
        "photo to landmarks": measure(lambda: aligner.align(pixels), aligner.device),
    }
    for batch in options.batches:
        times |= {f"{stage}, batch {batch}": t for stage, t in stages(aligner, batch).items()}

    machine = f"{aligner.device}, {torch.get_num_threads()} threads, {platform.machine()}"
    print(f"{options.model} on {machine}, torch {torch.__version__}")
    print(f"{'stage':32}{'median ms':>10}{'10 %':>9}{'90 %':>9}{'repeats':>9}")
    for name, values in times.items():
        low, *_, high = statistics.quantiles(values, n=10)
        print(f"{name:32}{statistics.median(values):10.2f}{low:9.2f}{high:9.2f}{len(values):9}")
    if options.json:
        options.json.write_text(json.dumps(times))


if __name__ == "__main__":
    main()
