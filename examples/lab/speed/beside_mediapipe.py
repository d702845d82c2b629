"""mediapipe's FaceMesh and this package on the same photos and frames, in one run: time and accuracy.

    python examples/lab/speed/beside_mediapipe.py [--models shr-fan-68-fast ...] [--photos 300w/photos/val]

Each round times every way once, in turn, so that a change of the machine's pace meets all alike. A way's time
is the median over all rounds; its ratio is the median of its ratios to mediapipe within a round.

Accuracy is measured on annotated photos (NAME.jpg with NAME.pts, or NAME.1.pts, ...), each read whole: the
share of the faces found, and the NME (percent of the inter-ocular distance) of the 51 points without the
line of the jaw, on the faces that all ways found. mediapipe has 468 points and no two layouts mean quite
the same by a point, so its mean distance from the annotation at each point, in the frame of the eyes, is
also taken off, as learned from every second photo and applied to the others; so is ours, for both to be
read alike. It is read at POINTS; none lies on the jaw, as the edge of its mesh is not the line that
300-W annotates.

Needs mediapipe 0.10.14 (`pip install mediapipe==0.10.14`).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks import MTCNN, FaceAligner, FaceTracker, YuNet, read_image
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.detection.named import runtime_beside

PHOTO = Path(__file__).parents[2] / "data" / "astronaut.jpg"
# mediapipe's points at 300-W's 18th to 68th: brows, nose, eyes, outer and inner lips.
POINTS = (
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    *(168, 6, 195, 4, 98, 97, 2, 326, 327),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),
    *(78, 81, 13, 311, 308, 402, 14, 178),
)
RIGHT, LEFT = 36 - 17, 45 - 17  # outer corners of the eyes
PARTS = {"brows": slice(0, 10), "nose": slice(10, 19), "eyes": slice(19, 31), "mouth": slice(31, 51)}
Points = NDArray[np.float64]  # (51, 2)
Finder = Callable[[NDArray[np.uint8]], list[Points]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["shr-fan-68-fast"])
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--yunet-sizes", type=int, nargs="+", default=[640], help="its max_size")
    parser.add_argument("--threads", type=int, default=2, help="of torch and OpenCV")
    parser.add_argument("--rounds", type=int, default=40, help="0 leaves the times out")
    parser.add_argument("--photos", type=Path, help="folder of annotated photos; without it no accuracy")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    names = ("torch", "mediapipe", "onnxruntime", "opencv-python")
    print(
        ", ".join(f"{name} {version(name)}" for name in names), f"on {processor()}, {options.threads} threads"
    )
    detectors: dict[str, MTCNN | YuNet] = {
        **{f"YuNet at {size} px": YuNet(max_size=size) for size in options.yunet_sizes},
        "MTCNN": MTCNN(device="cpu", runtime=runtime_beside(options.backend)),
    }
    aligners = {
        f"{name} + {model}": FaceAligner(model, device="cpu", backend=options.backend, detector=detector)
        for model in options.models
        for name, detector in detectors.items()
    }
    if options.rounds:
        times(aligners, options.rounds)
    if options.photos:
        accuracy(aligners, options.photos)


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())


def mesh(*, still: bool, faces: int = 1) -> Any:
    import mediapipe

    return mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=still, max_num_faces=faces)


def times(aligners: dict[str, FaceAligner], rounds: int) -> None:
    """Print milliseconds a photo and a tracked frame, and their ratios to mediapipe's."""
    photo = read_image(PHOTO)
    still, moving = mesh(still=True), mesh(still=False)
    photos: dict[str, Callable[[], object]] = {"mediapipe": lambda: still.process(photo)}
    frames: dict[str, Callable[[], object]] = {"mediapipe": playing(photo, moving.process)}
    for name, aligner in aligners.items():
        photos[name] = partial(aligner.align, photo)
        if "MTCNN" in name:  # a tracked frame needs no detector
            tracker = FaceTracker(aligner, detect_every=10**9)
            frames[name.removeprefix("MTCNN + ")] = playing(photo, tracker.update)
    show(f"a photo, {photo.shape[1]} x {photo.shape[0]}", alternate(photos, rounds))
    show("a tracked frame, 640 x 480", alternate(frames, rounds))


def playing(photo: NDArray[np.uint8], process: Callable[[NDArray[np.uint8]], object]) -> Callable[[], object]:
    """Work that gives the next frame of a face that moves on a circle, 640 x 480, at each call."""
    wide = cv2.copyMakeBorder(photo, 32, 32, 96, 96, cv2.BORDER_REPLICATE)
    count = 0

    def step() -> object:
        nonlocal count
        x, y = 32 + 12 * np.cos(count / 10), 32 + 12 * np.sin(count / 10)
        count += 1
        frame = cv2.getRectSubPix(wide, (640, 480), (x + 319.5, y + 239.5))
        return process(np.asarray(frame, np.uint8))

    return step


def alternate(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round of each work; a round is several calls of one and then of the next."""
    for call in work.values():
        for _ in range(5):
            call()
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, call in work.items():
            call()  # not timed: caches and threads are the last way's
            start = time.perf_counter()
            for _ in range(5):
                call()
            taken[name].append(1e3 * (time.perf_counter() - start) / 5)
    return taken


def show(title: str, taken: dict[str, list[float]]) -> None:
    print(f"\n| {title} | median ms | ratio |\n|---|---|---|")
    base = taken["mediapipe"]
    for name, values in taken.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(values, base, strict=True))
        print(f"| {name} | {statistics.median(values):.2f} | {ratio:.2f} |")


def accuracy(aligners: dict[str, FaceAligner], folder: Path) -> None:
    """Print the share of faces found, and the NME of those that every way found."""
    still = mesh(still=True, faces=10)

    def theirs(pixels: NDArray[np.uint8]) -> list[Points]:
        height, width = pixels.shape[:2]
        found = still.process(pixels).multi_face_landmarks or []
        scale = np.array([width, height])
        # Shares of the picture's sides, from its outer edge; pixels are counted from the first one's centre.
        return [
            np.array([[face.landmark[i].x, face.landmark[i].y] for i in POINTS]) * scale - 0.5
            for face in found
        ]

    def ours(aligner: FaceAligner, pixels: NDArray[np.uint8]) -> list[Points]:
        return list(aligner.align(pixels).landmarks[:, 17:].astype(float))

    ways: dict[str, Finder] = {"mediapipe": theirs}
    for name, aligner in aligners.items():
        ways[name] = partial(ours, aligner)
    truths: list[Points] = []
    answers: dict[str, list[Points | None]] = {name: [] for name in ways}
    for photo in read_folder(folder):
        pixels = read_image(photo.source)
        faces = {name: find(pixels) for name, find in ways.items()}
        for truth in photo.landmarks[:, 17:].astype(float):
            truths.append(truth)
            for name in ways:
                answers[name].append(nearest(truth, faces[name]))
    everyone = [i for i in range(len(truths)) if all(answers[name][i] is not None for name in ways)]
    print(f"\n{len(truths)} faces, {len(everyone)} found by all; NME of 51 points, percent")
    heads = ("way", "found %", "NME", "without its mean offset", *PARTS)
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in ways:
        found = 100 * sum(answer is not None for answer in answers[name]) / len(truths)
        errors = np.stack([in_eye_frame(answers[name][i], truths[i]) for i in everyone])  # (N, 51, 2)
        plain = 100 * np.linalg.norm(errors, axis=-1)
        adjusted = 100 * np.linalg.norm(without_offset(errors), axis=-1)
        parts = " | ".join(f"{adjusted[:, part].mean():.2f}" for part in PARTS.values())
        print(f"| {name} | {found:.1f} | {plain.mean():.2f} | {adjusted.mean():.2f} | {parts} |")


def nearest(truth: Points, faces: Sequence[Points]) -> Points | None:
    """The face whose points lie nearest, if they lie within half the inter-ocular distance on average."""
    limit = 0.5 * float(np.linalg.norm(truth[LEFT] - truth[RIGHT]))
    distances = [float(np.linalg.norm(face - truth, axis=-1).mean()) for face in faces]
    if not distances or min(distances) > limit:
        return None
    return faces[int(np.argmin(distances))]


def in_eye_frame(answer: Points | None, truth: Points) -> Points:
    """Errors (51, 2) along and across the line of the outer eye corners, in inter-ocular distances."""
    assert answer is not None
    across = truth[LEFT] - truth[RIGHT]
    axes = np.stack((across, np.array([-across[1], across[0]]))) / (across @ across)
    errors: Points = (answer - truth) @ axes.T
    return errors


def without_offset(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors (N, 51, 2) less the mean of the other half of the faces."""
    even = np.arange(len(errors)) % 2 == 0
    rest = errors.copy()
    rest[even] -= errors[~even].mean(axis=0)
    rest[~even] -= errors[even].mean(axis=0)
    return rest


if __name__ == "__main__":
    main()
