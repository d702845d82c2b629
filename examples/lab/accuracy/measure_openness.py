"""Measure openness: the ratios of found landmarks against those of annotated ones.

    python examples/lab/accuracy/measure_openness.py 300w/crops/val [--model shr-fan-68]

Prints quantiles of the annotated ratios of the eyes (mean of both) and of the mouth; and how the found ones
differ, with boxes made from the annotation.
"""

import argparse

import numpy as np

from face_landmarks import FaceAligner, Faces, eye_openness, mouth_openness
from face_landmarks.benchmarks import read_folder
from face_landmarks.geometry import boxes_from_landmarks

QUANTILES = (5, 25, 50, 75, 95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--model", default="shr-fan-68")
    options = parser.parse_args()
    aligner = FaceAligner(options.model, detector=None)
    found, true = [], []
    for sample in read_folder(options.folder):
        boxes = boxes_from_landmarks(sample.landmarks)
        found.append(aligner.align(sample.source, boxes))
        ones = np.ones(sample.landmarks.shape[:2], np.float32)
        true.append(Faces(sample.landmarks, ones, boxes, ones[:, 0], layout=aligner.layout))
    for name, measure in (
        ("eyes", lambda faces: eye_openness(faces).mean(axis=1)),
        ("mouth", mouth_openness),
    ):
        annotated, answered = (measure(Faces.concatenate(faces)) for faces in (true, found))
        difference = answered - annotated
        quantiles = "  ".join(f"{q} %: {np.percentile(annotated, q):.3f}" for q in QUANTILES)
        print(
            f"{name}: {len(annotated)} faces, annotated {quantiles}; found minus annotated: mean "
            f"{difference.mean():+.3f}, standard deviation {difference.std():.3f}, correlation "
            f"{np.corrcoef(annotated, answered)[0, 1]:.3f}"
        )


if __name__ == "__main__":
    main()
