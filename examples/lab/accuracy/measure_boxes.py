"""Where a detector's box lies relative to the landmarks: the numbers behind `boxes_from_landmarks`.

    python examples/lab/accuracy/measure_boxes.py 300w/crops/train --photos 600 --detector mtcnn

Prints the median and the spread of a detector's box edges in units of the tight box around the
landmarks, and how far its centre and size stray from `boxes_from_landmarks`, which is the noise
that training imitates.
"""

from __future__ import annotations

import argparse

import numpy as np

from face_landmarks import read_image
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.benchmarks.evaluation import match_boxes
from face_landmarks.detection.contract import run_detector
from face_landmarks.detection.named import DETECTOR_NAMES, make_detector
from face_landmarks.geometry import boxes_from_landmarks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", help="photos with .pts files")
    parser.add_argument("--photos", type=int, help="how many, evenly spaced; all if not given")
    parser.add_argument("--detector", choices=DETECTOR_NAMES, default="mtcnn")
    options = parser.parse_args()
    samples = read_folder(options.folder)
    if options.photos:
        samples = [samples[i] for i in np.linspace(0, len(samples) - 1, options.photos).astype(int)]

    detector = make_detector(options.detector)
    edges, shifts, sizes = [], [], []
    for sample in samples:
        boxes = run_detector(detector, read_image(sample.source)).boxes
        derived = boxes_from_landmarks(sample.landmarks)
        faces, found = match_boxes(derived, boxes)
        low, high = sample.landmarks[faces].min(axis=1), sample.landmarks[faces].max(axis=1)
        extent = high - low
        edges.append((boxes[found] - np.tile(low, 2)) / np.tile(extent, 2))
        centre = (boxes[found, :2] + boxes[found, 2:] - derived[faces, :2] - derived[faces, 2:]) / 2
        shifts.append(centre / extent.max(axis=1, keepdims=True))
        size, expected = ((b[:, 2:] - b[:, :2]).sum(axis=1) for b in (boxes[found], derived[faces]))
        sizes.append(np.log(size / expected))
    columns = {
        **dict(zip(("x0", "y0", "x1", "y1"), np.concatenate(edges).T, strict=True)),
        **dict(zip(("centre x", "centre y"), np.concatenate(shifts).T, strict=True)),
        "log size": np.concatenate(sizes),
    }
    print(f"{len(columns['x0'])} of {sum(len(s.landmarks) for s in samples)} faces found")
    print(f"{'':10}{'median':>9}{'mean':>9}{'std':>9}{'5 %':>9}{'95 %':>9}")
    for name, values in columns.items():
        row = (np.median(values), values.mean(), values.std(), *np.percentile(values, [5, 95]))
        print(f"{name:10}" + "".join(f"{value:9.3f}" for value in row))


if __name__ == "__main__":
    main()
