"""How many faces are found, and how well their landmarks, in photos turned all round.

    python examples/lab/accuracy/measure_turned_photos.py 300w/photos/val --detector yunet --rotations always

The photos are turned in steps of 45 degrees; outside them is black. For each step: the faces found, the
inter-ocular NME of those that are found, the median of it, and the faces whose NME is above 15 %.
"""

from __future__ import annotations

import argparse
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks import FaceAligner, read_image
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.benchmarks.evaluation import match_boxes
from face_landmarks.benchmarks.metrics import nme, normaliser
from face_landmarks.detection.named import DETECTOR_NAMES, make_detector
from face_landmarks.geometry import boxes_from_landmarks

STEPS = tuple(range(0, 360, 45))
LOST = 15  # percent of the inter-ocular distance


def turned(image: NDArray[np.uint8], degrees: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The whole image turned clockwise on the screen, and image_to_turned (2, 3)."""
    height, width = image.shape[:2]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    size = (
        round(abs(width * cos) + abs(height * sin)),
        round(abs(width * sin) + abs(height * cos)),
    )
    linear = np.array([[cos, -sin], [sin, cos]])
    offset = (np.array(size) - 1) / 2 - linear @ ((np.array([width, height]) - 1) / 2)
    matrix = np.column_stack([linear, offset])
    return np.asarray(cv2.warpAffine(image, matrix, size), np.uint8), matrix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", help="whole photos with .pts files")
    parser.add_argument("--model", default="shr-fan-68-fast")
    parser.add_argument("--detector", choices=DETECTOR_NAMES, default="mtcnn")
    parser.add_argument("--rotations", choices=("never", "fallback", "always"), default="always")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth photo alone")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="degrees")
    options = parser.parse_args()
    detector = make_detector(options.detector, rotations=options.rotations)
    aligner = FaceAligner(options.model, detector=detector)
    samples = read_folder(options.folder)[:: options.every]
    print(f"{aligner.card.name}, {detector}, {len(samples)} photos")
    print("\n| turned by | faces | found, % | NME, % | median, % | above 15 % | other boxes |")
    print("|---|---|---|---|---|---|---|")
    everything: list[NDArray[np.float64]] = []
    total = 0
    for degrees in options.steps:
        errors, faces, others = [], 0, 0
        for sample in samples:
            image, matrix = turned(read_image(sample.source), degrees)
            truth = sample.landmarks @ matrix[:, :2].T + matrix[:, 2]
            found = aligner.align(image)
            faces += len(truth)
            # A face is found by where its landmarks are, as a turned box is not that of an upright face.
            mine, theirs = match_boxes(boxes_from_landmarks(truth), boxes_from_landmarks(found.landmarks))
            others += len(found) - len(theirs)
            if len(mine):
                scale = normaliser(truth[mine], "inter-ocular", aligner.layout)
                errors.append(nme(found.landmarks[theirs], truth[mine], scale))
        error = np.concatenate([*errors, np.empty(0)])
        total += faces
        everything.append(error)
        print(row(f"{degrees} degrees", faces, error, others), flush=True)
    print(row("all", total, np.concatenate(everything), 0))


def row(name: str, faces: int, error: NDArray[np.float64], others: int) -> str:
    found = 100 * len(error) / faces
    mean, median = (error.mean(), np.median(error)) if len(error) else (math.nan, math.nan)
    return (
        f"| {name} | {faces} | {found:.1f} | {mean:.2f} | {median:.2f} | {(error > LOST).sum()} | {others} |"
    )


if __name__ == "__main__":
    main()
