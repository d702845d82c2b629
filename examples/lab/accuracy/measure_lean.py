"""How far labels lean to one side of what a mirror-symmetric reader finds.

    python examples/lab/accuracy/measure_lean.py 300w/crops/train [--model shr-fan-68-fast] [--photos 600]

Each face is also looked at in the mirror. The mean of both answers has no side: what the labels
differ from it in x is their lean, and what the model's own answer differs from it is the model's.
Both are printed in percent of the inter-ocular distance; training takes the labels' as `lean`.
"""

from __future__ import annotations

import argparse

import numpy as np

from face_landmarks import FaceAligner, read_image
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.benchmarks.metrics import normaliser
from face_landmarks.geometry import boxes_from_landmarks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", help="photos with .pts files")
    parser.add_argument("--model", default="shr-fan-68-fast")
    parser.add_argument("--photos", type=int, help="how many, evenly spaced; all if not given")
    options = parser.parse_args()
    aligner = FaceAligner(options.model, detector=None)
    samples = read_folder(options.folder)
    if options.photos:
        samples = [samples[i] for i in np.linspace(0, len(samples) - 1, options.photos).astype(int)]

    labels, models = [], []
    for sample in samples:
        image, boxes = read_image(sample.source), boxes_from_landmarks(sample.landmarks)
        last = image.shape[1] - 1
        mirrored_boxes = np.stack((last - boxes[:, 2], boxes[:, 1], last - boxes[:, 0], boxes[:, 3]), axis=1)
        direct = aligner.align(image, boxes).landmarks[..., 0]
        mirrored = aligner.align(image[:, ::-1], mirrored_boxes).landmarks[..., 0]
        symmetric = (direct + last - mirrored[:, list(aligner.layout.mirror)]) / 2
        scale = normaliser(sample.landmarks, "inter-ocular", aligner.layout)
        labels += list(100 * (sample.landmarks[..., 0] - symmetric).mean(axis=1) / scale)
        models += list(100 * (direct - symmetric).mean(axis=1) / scale)
    for name, values in (("labels", labels), (aligner.card.name, models)):
        error = np.std(values) / np.sqrt(len(values))
        print(f"{name:20} lean {np.mean(values):+.3f} +- {error:.3f} % of inter-ocular, {len(values)} faces")


if __name__ == "__main__":
    main()
