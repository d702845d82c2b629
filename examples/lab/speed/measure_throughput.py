"""Photos and faces a second, with one process and two, stage by stage: the tables of docs/throughput.md.

    python examples/lab/speed/measure_throughput.py [--model shr-fan-68] [--detector mtcnn] [--seconds 8]

It takes two to three minutes on two idle cores. Photos are files of one face, small (512 x 512) and large
(4000 x 3000), from the page cache; the results are written as JSON lines. Every stage of one thread is warmed
up and repeated for a share of --seconds. Whole runs are counted for --seconds after all processes are
ready. What other programs take of the cores meanwhile is printed: measure on an idle machine. The last
table is arithmetic from these numbers. Linux only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import torch

from face_landmarks import FaceAligner, read_image
from face_landmarks.geometry import warp
from face_landmarks.output.folders.groups import TOGETHER, Group, align_groups, line_of
from face_landmarks.output.folders.journal import append, settings_of
from face_landmarks.output.folders.lists import Photo
from face_landmarks.output.folders.workers import Workers

PHOTO = Path(__file__).parents[2] / "data" / "astronaut.jpg"
Stages = dict[str, tuple[dict[str, float], int]]  # of each size: seconds of each stage, bytes of a line
SIZES = {"small": (512, 512), "large": (4000, 3000)}


def write_photo(folder: Path, size: tuple[int, int]) -> Path:
    """The astronaut in this size (W, H), filled up at the sides."""
    photo, (width, height) = cv2.imread(str(PHOTO)), size
    photo = cv2.resize(photo, (height, height), interpolation=cv2.INTER_CUBIC)
    photo = cv2.copyMakeBorder(photo, 0, 0, 0, width - height, cv2.BORDER_REFLECT_101)
    path = folder / f"{width}x{height}.jpg"
    cv2.imwrite(str(path), photo, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return path


def median_seconds(work: Callable[[], object], seconds: float) -> float:
    """The median of repeats, after a warm-up."""
    work()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@torch.inference_mode()
def stages(aligner: FaceAligner, path: Path, seconds: float, folder: Path) -> tuple[dict[str, float], int]:
    """Seconds of each stage of a photo on one thread, and bytes of its line."""
    pixels = read_image(path)
    faces = aligner.align(pixels)
    assert len(faces) == 1, "the photo has one face"
    settings, detector, card = settings_of(aligner), aligner.detector, aligner.card
    matrices = card.image_to_crop(torch.from_numpy(faces.boxes.copy()).repeat(TOGETHER, 1))

    def crop() -> torch.Tensor:
        return warp(pixels, matrices, aligner.crop_size, aligner.device)

    crops = crop()
    heatmaps = aligner.network(crops)
    line = line_of("photo.jpg", path.stat().st_size, settings, faces)

    def write() -> None:
        lines = [line_of("photo.jpg", 1, settings, faces).text for _ in range(TOGETHER)]
        append(folder / "lines.jsonl", lines)

    assert detector is not None
    work: dict[str, tuple[Callable[[], object], int]] = {
        "read and decode the file": (lambda: read_image(path), 1),
        "detect": (lambda: detector(pixels), 1),
        "crop": (crop, TOGETHER),
        "network": (lambda: aligner.network(crops), TOGETHER),
        "decode heatmaps": (lambda: card.decode(heatmaps), TOGETHER),
        "write the line": (write, TOGETHER),
    }
    times = {name: median_seconds(f, seconds / 5) / share for name, (f, share) in work.items()}
    return times, len(line.text)


def rate(aligner: FaceAligner, path: Path, workers: int, threads: int, seconds: float, folder: Path) -> float:
    """Photos a second of whole runs, written to a file, after all processes are ready."""
    torch.set_num_threads(threads)
    end = [float("inf")]

    def groups() -> Iterator[list[Photo]]:
        while time.perf_counter() < end[0]:
            yield [Photo(path.name, path)] * TOGETHER

    def count(aligned: Iterator[Group], is_ready: Callable[[], bool]) -> float:
        photos, start, margin = 0, 0.0, 2 * workers
        for group in aligned:
            append(folder / "run.jsonl", [line.text for line in group.lines])
            if start:
                photos += len(group.lines)
                last = time.perf_counter()
            elif is_ready():
                margin -= 1
                if margin == 0:
                    start = time.perf_counter()
                    end[0] = start + seconds
            if start and time.perf_counter() > end[0] and photos:
                break  # what is still under way is not counted
        return photos / (last - start)

    settings = settings_of(aligner)
    if workers == 1:
        return count(align_groups(aligner, settings, groups()), lambda: True)
    with Workers(aligner, settings, workers) as pool:
        return count(pool.align(groups()), lambda: pool.ready == workers)


def cpu_seconds() -> tuple[float, float]:
    """Seconds of all cores so far: at work, and at work for this process and those it started and ended."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    ticks = os.sysconf("SC_CLK_TCK")
    busy = (sum(fields) - fields[3] - fields[4]) / ticks
    return busy, sum(os.times()[:4])


def per_million(photos_per_second: float, cores: int) -> float:
    """Core-hours of a million photos."""
    return cores * 1e6 / photos_per_second / 3600


def show_stages(measured: Stages) -> None:
    print(f"\n| stage, ms on one thread | {' | '.join(measured)} |\n|---|{'---|' * len(measured)}")
    for stage in next(iter(measured.values()))[0]:
        print(f"| {stage} | {' | '.join(f'{1e3 * times[stage]:.2f}' for times, _ in measured.values())} |")
    sums = [f"{1e3 * sum(times.values()):.1f}" for times, _ in measured.values()]
    print(f"| together | {' | '.join(sums)} |")


def show_rates(rates: dict[str, dict[str, float]], cores: int) -> None:
    sizes = list(next(iter(rates.values())))
    print(f"\n| photos a second | {' | '.join(sizes)} |\n|---|{'---|' * len(sizes)}")
    for name, row in rates.items():
        print(f"| {name} | {' | '.join(f'{row[size]:.2f}' for size in sizes)} |")
    both = list(rates.values())[2]
    for name, row in list(rates.items())[:2]:
        gains = (f"{both[size] / row[size]:.2f} times" for size in sizes)
        print(f"| 2 workers against {name} | {' | '.join(gains)} |")
    hours = [f"{per_million(both[s], cores):.0f}" for s in sizes]
    print(f"| core-hours per million photos, 2 workers | {' | '.join(hours)} |")


def show_paper(
    measured: dict[str, tuple[dict[str, float], int]],
    rates: dict[str, dict[str, float]],
    files: dict[str, int],
) -> None:
    """What larger machines would need: products of the numbers above, not measurements."""
    both = list(rates.values())[2]
    print("\n| on paper | " + " | ".join(both) + " |\n|---|" + "---|" * len(both))

    def row(name: str, value: Callable[[str], str]) -> None:
        print(f"| {name} | {' | '.join(value(size) for size in both)} |")

    row("16 cores, 16 workers: photos a second", lambda s: f"{8 * both[s]:.0f}")
    row("their files, MB/s", lambda s: f"{8 * both[s] * files[s] / 1e6:.1f}")
    row("their lines, MB/s", lambda s: f"{8 * both[s] * measured[s][1] / 1e6:.2f}")
    row("100 machines of 16 cores: photos a second", lambda s: f"{800 * both[s]:.0f}")
    row("their files, Gbit/s from a store", lambda s: f"{800 * both[s] * files[s] * 8 / 1e9:.2f}")
    row("hours for ten million photos on them", lambda s: f"{1e7 / (800 * both[s]) / 3600:.2f}")
    read = "read and decode the file"
    row("photos a second that one core reads", lambda s: f"{1 / measured[s][0][read]:.0f}")
    row("cores that read for 100 photos a second", lambda s: f"{100 * measured[s][0][read]:.1f}")
    row("files of these, MB/s", lambda s: f"{100 * files[s] / 1e6:.0f}")
    cap = "photos a second that one process can write"
    row(cap, lambda s: f"{1 / measured[s][0]['write the line']:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="shr-fan-68")
    parser.add_argument("--detector", default="mtcnn")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--seconds", type=float, default=8, help="of each whole run")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    started, (busy, own) = time.perf_counter(), cpu_seconds()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    aligner = FaceAligner(options.model, detector=options.detector, backend=options.backend, device="cpu")
    measured: Stages = {}
    files: dict[str, int] = {}
    rates: dict[str, dict[str, float]] = {
        "1 process, 1 thread": {},
        "1 process, 2 threads": {},
        "2 workers, 1 thread each": {},
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, size in SIZES.items():
            path = write_photo(folder, size)
            files[name] = path.stat().st_size
            measured[name] = stages(aligner, path, options.seconds / 2, folder)
            for row, (workers, threads) in zip(rates.values(), ((1, 1), (1, 2), (2, 2)), strict=True):
                row[name] = rate(aligner, path, workers, threads, options.seconds, folder)
    now, own_now = cpu_seconds()
    taken = time.perf_counter() - started
    others = (now - busy - (own_now - own)) / taken
    print(
        f"{options.model}, {options.detector}, {options.backend} in float32, {cores} cores, torch "
        f"{torch.__version__}, {taken:.0f} s; other programs took {max(0.0, others):.2f} cores on average"
    )
    names = ", ".join(f"{n} {w} x {h}, {files[n] / 1e3:.0f} kB" for n, (w, h) in SIZES.items())
    print(f"Photos: {names}; a line has {next(iter(measured.values()))[1] / 1e3:.1f} kB.")
    show_stages(measured)
    show_rates(rates, min(2, cores))
    show_paper(measured, rates, files)


if __name__ == "__main__":
    sys.exit(main())
