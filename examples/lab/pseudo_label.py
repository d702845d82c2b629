"""Label photos that have no landmarks with what a model is sure of, to train on them.

    python examples/lab/pseudo_label.py fairface --out runs/pseudo [--model shr-fan-68] [--min-score 0.75]
    face-landmarks train ... --large-pose runs/pseudo --set large_pose_share=0.2

Each photo with one face surer than the least score is copied beside its .pts file. The model looks at every
face in the mirror too, so that its student learns from an answer a little better than its own.

Reference:
    Xie et al. Self-training with Noisy Student improves ImageNet classification. CVPR 2020.
    https://arxiv.org/abs/1911.04252
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from tqdm import tqdm

from face_landmarks import FaceAligner
from face_landmarks.pts import write_pts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="photos (.jpg), mostly of one face")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="shr-fan-68")
    parser.add_argument("--min-score", type=float, default=0.75, help="mean landmark score of a face")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    aligner = FaceAligner(options.model, flip=True)
    photos = sorted(options.folder.glob("*.jpg"))
    kept = 0
    for start in tqdm(range(0, len(photos), aligner.batch_size)):
        batch = photos[start : start + aligner.batch_size]
        for photo, faces in zip(batch, aligner.align_batch(batch), strict=True):
            if len(faces) == 1 and faces.landmark_scores.mean() >= options.min_score:
                shutil.copy(photo, options.out)
                write_pts(options.out / f"{photo.stem}.pts", faces.landmarks[0])
                kept += 1
    print(f"{kept} of {len(photos)} photos of {options.folder} labelled in {options.out}")


if __name__ == "__main__":
    main()
