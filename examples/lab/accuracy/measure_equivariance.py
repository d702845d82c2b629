"""How far landmarks move on the photo when their crop moves by a fraction of a pixel: ideally, not at all.

    python examples/lab/accuracy/measure_equivariance.py 300w/crops/val [--model shr-fan-68] [--flip]

Each face is aligned in its true box, and in the box moved by fractions of a crop pixel along x, y
and both; the landmarks should stay where they are on the photo. What they move by, root mean square
over faces and landmarks, is given in crop pixels and in per mille of the inter-ocular distance; and the
median over the faces of each face's own, which a single landmark that jumps does not rule.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from face_landmarks import FaceAligner, read_image
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.benchmarks.metrics import normaliser
from face_landmarks.geometry import boxes_from_landmarks

FRACTIONS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)  # of a crop pixel
DIRECTIONS = ((1, 0), (0, 1), (1, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", help="photos with .pts files")
    parser.add_argument("--model", default="shr-fan-68")
    parser.add_argument("--flip", action="store_true")
    options = parser.parse_args()
    aligner = FaceAligner(options.model, detector=None, flip=options.flip)
    samples = read_folder(options.folder)
    images = [read_image(sample.source) for sample in samples]
    boxes = [boxes_from_landmarks(sample.landmarks) for sample in samples]
    truth = np.concatenate([sample.landmarks for sample in samples])
    sides = np.concatenate([(b[:, 2:] - b[:, :2]).sum(axis=1) for b in boxes]) * aligner.card.crop_scale
    pixel = sides / aligner.crop_size  # (N,) image pixels in a crop pixel

    def landmarks(step: tuple[float, float]) -> NDArray[np.float32]:
        """With every box moved by (x, y) crop pixels."""
        scales = np.split(pixel, np.cumsum([len(b) for b in boxes])[:-1])
        moved = [b + s[:, None] * np.tile(step, 2) for b, s in zip(boxes, scales, strict=True)]
        return np.concatenate([faces.landmarks for faces in aligner.align_batch(images, moved)])

    still = landmarks((0, 0))
    print(f"{aligner.card.name}, {len(truth)} faces of {options.folder}; root mean square movement")
    print(f"{'shift (crop px)':>16}{'crop px':>10}{'median face':>14}{'per mille of inter-ocular':>28}")
    squares = []
    for fraction in FRACTIONS:
        moves = np.stack([landmarks((fraction * x, fraction * y)) - still for x, y in DIRECTIONS])
        distance = np.linalg.norm(moves, axis=-1)  # (3, N, K) image pixels
        squares.append((distance / pixel[:, None]) ** 2)
        relative = distance / normaliser(truth, "inter-ocular", aligner.layout)[:, None]
        rms, per_mille = np.sqrt(squares[-1].mean()), 1000 * np.sqrt((relative**2).mean())
        print(f"{fraction:16.3f}{rms:10.3f}{median_face(squares[-1]):14.3f}{per_mille:28.2f}")
    together = np.concatenate(squares)
    print(f"{'all':>16}{np.sqrt(together.mean()):10.3f}{median_face(together):14.3f}")


def median_face(squares: NDArray[np.floating]) -> float:
    """Of squared movements (D, N, K): the root mean square of the face in the middle of all N."""
    return float(np.median(np.sqrt(squares.mean(axis=(0, 2)))))


if __name__ == "__main__":
    main()
