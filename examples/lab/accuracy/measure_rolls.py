"""From which roll on a detector's five points should turn the crop? NME on photos for several least rolls.

    python examples/lab/accuracy/measure_rolls.py 300w/photos/val --detector mtcnn --turn 0

With --turn the photos are turned first, by degrees clockwise. At a least roll of 180 points are not used.
Faces are not searched for again, so that the crop alone decides; the last columns count the faces whose crop
is turned, and those whose landmarks differ from those without points.
"""

from __future__ import annotations

import argparse

import numpy as np
from measure_turned_photos import turned

from face_landmarks import FaceAligner, read_image
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.benchmarks.evaluation import match_boxes
from face_landmarks.benchmarks.metrics import nme, normaliser
from face_landmarks.detection.contract import run_detector
from face_landmarks.detection.named import DETECTOR_NAMES, make_detector
from face_landmarks.detection.upright import upright_faces
from face_landmarks.geometry import boxes_from_landmarks

LEAST_ROLLS = (180, 30, 25, 20, 15, 10, 5, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", help="whole photos with .pts files")
    parser.add_argument("--model", default="shr-fan-68-fast")
    parser.add_argument("--detector", choices=DETECTOR_NAMES, default="mtcnn")
    parser.add_argument("--rotations", choices=("never", "fallback", "always"), default="never")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth photo alone")
    parser.add_argument("--turn", type=float, default=0.0, metavar="DEGREES")
    options = parser.parse_args()
    detector = make_detector(options.detector, rotations=options.rotations)
    aligner = FaceAligner(options.model, detector=None, search=False)
    images, truths, detections = [], [], []
    for sample in read_folder(options.folder)[:: options.every]:
        image, matrix = turned(read_image(sample.source), options.turn)
        truth = sample.landmarks @ matrix[:, :2].T + matrix[:, 2]
        found = run_detector(detector, image)
        assert found.points is not None
        true, mine = match_boxes(boxes_from_landmarks(truth), found.boxes)
        images.append(image)
        truths.append(truth[true])
        detections.append(found._replace(boxes=found.boxes[mine], points=found.points[mine]))
    truth = np.concatenate(truths)
    scale = normaliser(truth, "inter-ocular", aligner.layout)
    print(f"{aligner.card.name}, {detector}, turned by {options.turn} degrees, {len(truth)} faces")
    print("\n| least roll | NME, % | above 15 % | crops turned | landmarks changed |\n|---|---|---|---|---|")
    plain = None
    for least in LEAST_ROLLS:
        boxes, rolls = zip(*(upright_faces(found, least) for found in detections), strict=True)
        results = aligner.align_batch(images, boxes, rolls)
        landmarks = np.concatenate([faces.landmarks for faces in results])
        error = nme(landmarks, truth, scale)
        plain = landmarks if plain is None else plain
        changed = (landmarks != plain).any(axis=(1, 2)).sum()
        turns = sum(int((roll != 0).sum()) for roll in rolls)
        print(f"| {least} | {error.mean():.3f} | {(error > 15).sum()} | {turns} | {changed} |", flush=True)


if __name__ == "__main__":
    main()
