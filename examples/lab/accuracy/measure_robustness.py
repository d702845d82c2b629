"""How landmarks bear a wrong box: NME against shift, size and turn of the box.

    python examples/lab/accuracy/measure_robustness.py 300w/crops/val [--model NAME] [--plot out.png]

Each face is aligned in its true box, moved by a share of the box's size in eight directions,
scaled, or with the photo turned about the box's centre. Inter-ocular NME in percent.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks import FaceAligner, read_image
from face_landmarks.benchmarks.annotations import AnnotatedImage, read_folder
from face_landmarks.benchmarks.metrics import nme, normaliser
from face_landmarks.geometry import boxes_from_landmarks

SHIFTS = (0.0, 0.05, 0.1, 0.15, 0.2)
SCALES = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)
TURNS = (-60, -45, -30, -15, 0, 15, 30, 45, 60)

Boxes = NDArray[np.float32]


def shifted(boxes: Boxes, share: float, direction: int) -> Boxes:
    """Boxes moved by a share of their mean side towards one of eight directions."""
    angle = direction * math.pi / 4
    side = (boxes[:, 2:] - boxes[:, :2]).mean(axis=1, keepdims=True)
    step = np.array([math.cos(angle), math.sin(angle)], np.float32)
    moved: Boxes = boxes + np.tile(share * side * step, 2)
    return moved


def scaled(boxes: Boxes, scale: float) -> Boxes:
    """Boxes grown about their centres."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, scale * (boxes[:, 2:] - boxes[:, :2]) / 2
    return np.concatenate((centre - half, centre + half), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", help="photos with .pts files")
    parser.add_argument("--model", default="shr-fan-68-fast")
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--plot", help="draw the curves here")
    options = parser.parse_args()
    aligner = FaceAligner(options.model, detector=None, flip=options.flip)
    samples = read_folder(options.folder)
    images = [read_image(sample.source) for sample in samples]

    def score(move: Callable[[Boxes], Boxes]) -> float:
        boxes = [move(boxes_from_landmarks(sample.landmarks)) for sample in samples]
        found = np.concatenate([faces.landmarks for faces in aligner.align_batch(images, boxes)])
        truth = np.concatenate([sample.landmarks for sample in samples])
        return float(nme(found, truth, normaliser(truth, "inter-ocular", aligner.layout)).mean())

    def turned(sample: AnnotatedImage, image: NDArray[np.uint8], degrees: float) -> tuple[Boxes, Boxes]:
        """Found and true landmarks of a photo turned about its middle."""
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
        truth = (sample.landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        photo = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC)
        # The box a detector gives keeps its size and place; that of turned landmarks would grow.
        return aligner.align(photo, boxes_from_landmarks(sample.landmarks)).landmarks, truth

    def score_turn(degrees: float) -> float:
        pairs = [turned(s, image, degrees) for s, image in zip(samples, images, strict=True)]
        found, truth = (np.concatenate(part) for part in zip(*pairs, strict=True))
        return float(nme(found, truth, normaliser(truth, "inter-ocular", aligner.layout)).mean())

    def score_shift(share: float) -> float:
        directions = range(8 if share else 1)
        return float(np.mean([score(partial(shifted, share=share, direction=d)) for d in directions]))

    curves: dict[str, dict[float, float]] = {
        "shift, share of the box": {s: score_shift(s) for s in SHIFTS},
        "scale of the box": {s: score(partial(scaled, scale=s)) for s in SCALES},
        "turn, degrees": {t: score_turn(t) for t in TURNS},
    }
    print(f"{aligner.card.name}, {options.folder}, inter-ocular NME in %")
    for name, curve in curves.items():
        print(name)
        print("".join(f"{x:>8}" for x in curve))
        print("".join(f"{y:8.2f}" for y in curve.values()))
    if options.plot:
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained", sharey=True)
        for ax, (name, curve) in zip(axes, curves.items(), strict=True):
            ax.plot(list(curve), list(curve.values()), marker="o")
            ax.set(xlabel=name)
            ax.grid(color="0.9")
        axes[0].set(ylabel="NME (%)", ylim=(0, 1.05 * max(max(curve.values()) for curve in curves.values())))
        figure.savefig(options.plot, dpi=120)


if __name__ == "__main__":
    main()
