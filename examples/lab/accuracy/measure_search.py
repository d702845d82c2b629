"""What the search over doubtful faces is worth: off, as it is, and with other margins and tolerances.

    python examples/lab/accuracy/measure_search.py infants --model shr-fan-68-fast

Faces are given by their true boxes, as they lie. NME is in percent of the box; a face is believed if its mean
score is above 0.5. The last column counts faces within 6 % that are not believed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from face_landmarks import FaceAligner, read_image
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.benchmarks.metrics import nme, normaliser
from face_landmarks.geometry import boxes_from_landmarks
from face_landmarks.locating import search

BELIEVED = 0.5
MARGINS = (0.0, 0.05, 0.15)  # beside the one in use
TOLERANCES = (0.008, 0.01, 0.014, 0.02, 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="photos with .pts files")
    parser.add_argument("--model", default="shr-fan-68-fast")
    parser.add_argument("--sweep", action="store_true", help="try other margins and tolerances, too")
    options = parser.parse_args()
    samples = read_folder(options.folder)
    images = [read_image(sample.source) for sample in samples]
    boxes = [boxes_from_landmarks(sample.landmarks) for sample in samples]
    truth = np.concatenate([sample.landmarks for sample in samples]).astype(float)
    aligner = FaceAligner(options.model, detector=None)
    scale = normaliser(truth, "box", aligner.layout)

    def row(name: str) -> None:
        results = aligner.align_batch(images, boxes)
        error = nme(np.concatenate([faces.landmarks for faces in results]), truth, scale)
        believed = np.concatenate([faces.landmark_scores.mean(axis=1) for faces in results]) > BELIEVED
        counts = [(error > limit).sum() for limit in (7, 10)]
        counts += [((error > limit) & believed).sum() for limit in (7, 10)]
        lost = ((error < 6) & ~believed).sum()
        print(f"| {name} | {error.mean():.2f} | {' | '.join(map(str, counts))} | {lost} |", flush=True)

    print(f"{aligner.card.name}, doubtful below {aligner.card.doubtful_score}, {len(truth)} faces\n")
    print("| search | NME, box | > 7 % | > 10 % | > 7 %, believed | > 10 %, believed | < 6 %, not believed |")
    print("|---|---|---|---|---|---|---|")
    aligner.search = False
    row("off")
    aligner.search = True
    margin, tolerance = search._MARGIN, search._TOLERANCE
    row(f"margin {margin}, tolerance {tolerance}")
    for other in MARGINS if options.sweep else ():
        search._MARGIN = other  # type: ignore[misc]
        row(f"margin {other}")
    search._MARGIN = margin  # type: ignore[misc]
    for other in TOLERANCES if options.sweep else ():
        search._TOLERANCE = other  # type: ignore[misc]
        row(f"tolerance {other:g}")


if __name__ == "__main__":
    main()
