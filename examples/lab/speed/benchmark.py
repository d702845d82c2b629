"""Where the time goes, stage by stage: median and spread over many repeats, as the tables of docs/speed.md.

    python examples/lab/speed/benchmark.py [--model NAME] [--device cpu] [--peers] [--save times.json]

Every stage is warmed up, then repeated for --seconds; CUDA is synchronised before each reading of
the clock. The machine's own peak, of matrix products and of copies, is measured in the same run, and
every installed backend. --peers measures other libraries on the same photo, each if it is installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from face_landmarks import FaceAligner, FaceTracker, read_image
from face_landmarks.detection.contract import run_detector
from face_landmarks.geometry import boxes_from_landmarks, crop_matrices, transform_points, warp
from face_landmarks.heatmap import decode_heatmaps

PHOTO = Path(__file__).parents[2] / "data" / "astronaut.jpg"
START = """
import time; start = time.perf_counter()
import torch
from face_landmarks import FaceAligner
FaceAligner(%r, device=%r, backend=%r, dtype=%s).get_landmarks(%r)
print(time.perf_counter() - start)
"""
IMPORTS = """
import time, torch; start = time.perf_counter()
import face_landmarks
print(time.perf_counter() - start)
"""
Times = list[float]  # milliseconds, of each repeat


class Clock:
    """Repeats work and takes its time."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device = device
        self.seconds = seconds

    def __call__(self, work: Callable[[], object], share: int = 1) -> Times:
        """Milliseconds of each repeat, divided by the faces that share them."""
        for _ in range(3):
            self._once(work)
        times: Times = []
        while sum(times) < 1e3 * self.seconds or len(times) < 5:
            times.append(self._once(work))
        return [t / share for t in times]

    def _once(self, work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return 1e3 * (time.perf_counter() - start)


def measure_process(code: str, repeats: int) -> Times:
    """Milliseconds that a fresh interpreter reports for a piece of code; the first run is warm-up."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    return [1e3 * float(subprocess.check_output(command, text=True)) for _ in range(repeats + 1)][1:]


def runs(device: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each way to run the network that is at hand: its name, and the arguments of `FaceAligner`."""
    half = torch.float16 if device.startswith("cuda") else torch.bfloat16
    yield "torch", {"backend": "torch", "dtype": torch.float32}
    yield f"torch, {str(half).removeprefix('torch.')}", {"backend": "torch", "dtype": half}
    if device == "cpu" and find_spec("onnxruntime") and find_spec("onnx"):
        yield "onnxruntime", {"backend": "onnxruntime", "dtype": torch.float32}
    if device == "cpu" and find_spec("openvino") and find_spec("onnx"):
        yield "openvino", {"backend": "openvino", "dtype": torch.float32}
        yield "openvino, bfloat16", {"backend": "openvino", "dtype": torch.bfloat16}


def crowd(side: int) -> np.ndarray:
    """A photo, 4 * side x 3 * side pixels, of twelve faces."""
    face = cv2.resize(read_image(PHOTO)[:256, 96:352], (side, side), interpolation=cv2.INTER_AREA)
    return np.tile(face, (3, 4, 1))


@torch.inference_mode()
def stages(aligner: FaceAligner, batch: int, clock: Clock) -> dict[str, Times]:
    """Times of each stage for a batch of faces, per face."""
    pixels = read_image(PHOTO)
    card, size = aligner.card, aligner.crop_size
    boxes = np.repeat(
        boxes_from_landmarks(aligner.align(pixels, [[179, 59, 267, 175]]).landmarks), batch, axis=0
    )

    def crop() -> torch.Tensor:
        matrices = crop_matrices(torch.from_numpy(boxes), size, card.crop_scale, card.crop_shift)
        return warp(pixels, matrices, size, aligner.device)

    crops = crop()
    heatmaps = aligner.network(crops)

    def decode() -> torch.Tensor:
        points, _ = decode_heatmaps(heatmaps, window=card.window, temperature=card.temperature)
        return transform_points(aligner.heatmap_to_crop, points.cpu())

    work: dict[str, Callable[[], object]] = {
        "crop": crop,
        "network": lambda: aligner.network(crops),
        "decode": decode,
        "boxes to landmarks": lambda: aligner.align(pixels, boxes),
    }
    return {name: clock(f, batch) for name, f in work.items()}


def photos(aligner: FaceAligner, clock: Clock) -> dict[str, Times]:
    """Times of reading, of detection, and of the whole path, per photo."""
    pixels, data = read_image(PHOTO), PHOTO.read_bytes()
    detector, twelve = aligner.detector, crowd(256)
    assert detector is not None
    frame = cv2.copyMakeBorder(pixels[:480, :], 0, 0, 64, 64, cv2.BORDER_REPLICATE)  # 640 x 480
    tracker = FaceTracker(aligner, detect_every=10**9)
    times = {
        "read (JPEG, 512 x 512)": clock(lambda: read_image(data)),
        "photo to landmarks, 1 face": clock(lambda: aligner.align(pixels)),
        "photo to landmarks, 12 faces (1024 x 768)": clock(lambda: aligner.align(twelve)),
        "video frame, tracked (640 x 480)": clock(lambda: tracker.update(frame)),
    }
    for side in (256, 512, 1024, 2048):
        photo = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
        times[f"detect (MTCNN, {side} x {side})"] = clock(partial(detector, photo))
    return times


def peaks(device: torch.device, dtype: torch.dtype, clock: Clock) -> tuple[float, float]:
    """What the machine can do: 10^9 multiplications and additions, and 10^9 bytes, a second."""
    side = 4096 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = statistics.median(clock(lambda: torch.mm(a, b)))
    source = torch.empty(2**28, dtype=torch.uint8, device=device)  # larger than caches
    target = torch.empty_like(source)
    copy = statistics.median(clock(lambda: target.copy_(source)))
    return side**3 / product / 1e6, 2 * len(source) / copy / 1e6


def cost(aligner: FaceAligner) -> tuple[float, float]:
    """10^9 multiplications with additions, and 10^6 bytes in and out of layers, of a face in float32."""
    network = FaceAligner(aligner.card.name, detector=None, device="cpu").network
    assert isinstance(network, torch.nn.Module)
    touched = 0

    def count(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal touched
        tensors = (*inputs, output, *layer.parameters(recurse=False))
        touched += sum(tensor.nbytes for tensor in tensors)

    for layer in network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(count)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, aligner.crop_size, aligner.crop_size))
    return counter.get_total_flops() / 2e9, touched / 1e6


def show(title: str, rows: dict[str, Times]) -> None:
    print(f"\n| {title} | median ms | 10 % | 90 % |\n|---|---|---|---|")
    for name, values in rows.items():
        low, high = np.percentile(values, [10, 90])
        print(f"| {name} | {statistics.median(values):.2f} | {low:.2f} | {high:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="shr-fan-68-fast")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="torch's threads; its own choice if not given")
    parser.add_argument("--backends", nargs="+", default=["torch", "onnxruntime", "openvino"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=2, help="of repeats of each stage")
    parser.add_argument(
        "--starts", type=int, default=5, help="of fresh processes, each way; at least 2, or 0"
    )
    parser.add_argument("--peers", action="store_true", help="also measure other libraries")
    parser.add_argument("--pfld", type=Path, help="an ONNX file of PFLD, one more peer")
    parser.add_argument("--save", type=Path, help="write every time here, as JSON")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    clock = Clock(device, options.seconds)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "onnxruntime", "openvino")
                if find_spec(name)]  # fmt: skip
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"{options.model} on {place}, {torch.get_num_threads()} threads; {', '.join(versions)}")

    saved: dict[str, Any] = {"machine": place, "threads": torch.get_num_threads(), "versions": versions}
    start = {"import after torch": measure_process(IMPORTS, options.starts)} if options.starts else {}
    ceilings: dict[torch.dtype, tuple[float, float]] = {}
    roofline = []
    for name, arguments in runs(options.device):
        if arguments["backend"] not in options.backends:
            continue
        aligner = FaceAligner(options.model, device=options.device, **arguments)
        if options.starts:
            code = START % (
                options.model,
                options.device,
                arguments["backend"],
                arguments["dtype"],
                str(PHOTO),
            )
            start[f"start to first landmarks, {name}"] = measure_process(code, options.starts)
        per_face = {
            f"{stage}, batch {batch}": times
            for batch in options.batches
            for stage, times in stages(aligner, batch, clock).items()
        }
        show(f"{name}: a face", per_face)
        saved[f"{name}: a face"] = per_face
        if arguments["dtype"] not in ceilings:
            ceilings[arguments["dtype"]] = peaks(device, arguments["dtype"], clock)
        peak, bandwidth = ceilings[arguments["dtype"]]
        operations, bytes_touched = cost(aligner)
        for batch in options.batches:
            taken = statistics.median(per_face[f"network, batch {batch}"])
            roofline.append(
                (name, batch, taken, operations / taken * 1e3, peak, bytes_touched / taken, bandwidth)
            )
        if name in ("torch", "openvino, bfloat16"):
            per_photo = photos(aligner, clock)
            show(f"{name}: a photo", per_photo)
            saved[f"{name}: a photo"] = per_photo
    if start:
        show("start", start)
        saved["start"] = start

    print(
        f"\nThe network, a face: {operations:.2f} GMAC, "
        f"{bytes_touched:.1f} MB in and out of its layers in float32."
    )
    print("\n| network | batch | ms a face | GMAC/s | of the peak | GB/s in float32 | copies reach |")
    print("|---|---|---|---|---|---|---|")
    for name, batch, taken, rate, peak, traffic, bandwidth in roofline:
        share = f"{100 * rate / peak:.0f} % of {peak:.0f}"
        print(f"| {name} | {batch} | {taken:.2f} | {rate:.0f} | {share} | {traffic:.1f} | {bandwidth:.0f} |")
    saved["roofline"] = roofline

    if options.peers or options.pfld:
        from peers import peers

        pixels = read_image(PHOTO)
        ours = FaceAligner(options.model, device=options.device)
        assert ours.detector is not None
        box = run_detector(ours.detector, pixels).boxes[0]
        compared = {"face_landmarks, from a box": clock(lambda: ours.align(pixels, box[None]))}
        compared["face_landmarks, from the photo"] = clock(lambda: ours.align(pixels))
        compared |= {name: clock(work) for name, work in peers(pixels, box, options.pfld)}
        show("peers: one face", compared)
        for name, times in compared.items():
            whole = "from the photo" in name
            base = compared[f"face_landmarks, {'from the photo' if whole else 'from a box'}"]
            print(f"{name}: {statistics.median(times) / statistics.median(base):.1f} times ours")
        saved["peers"] = compared
    if options.save:
        options.save.write_text(json.dumps(saved))


if __name__ == "__main__":
    main()
