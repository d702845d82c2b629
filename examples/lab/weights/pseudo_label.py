"""Label photos of single faces with what models agree on over several views, to train on them.

    python examples/lab/weights/pseudo_label.py fairface --out runs/pseudo-fairface [--model shr-fan-68 ...]
    python examples/lab/weights/pseudo_label.py mtfl --points mtfl/points.csv --out runs/pseudo-mtfl
    face-landmarks train ... --large-pose runs/pseudo-fairface runs/pseudo-mtfl --set large_pose_share=0.3

Every face is first found by the detector or, with --points, placed by its hand-drawn points. Then each
model sees it upright, shifted, scaled and turned a little, each time also in the mirror. The label is the
mean of all answers. A face is kept if its answers agree, if its mean score is high enough and, with --points,
if the label is close to the hand-drawn eye centres, nose tip and mouth corners. Left out are photos without
a detected face, or with several, and rows of points.csv whose part is not "train".

Reference:
    Xie et al. Self-training with Noisy Student improves ImageNet classification. CVPR 2020.
    https://arxiv.org/abs/1911.04252
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from face_landmarks import MTCNN, FaceAligner, read_image
from face_landmarks.benchmarks import write_pts
from face_landmarks.geometry import crop_matrices, transform_points, upright_boxes, warp
from face_landmarks.images import find_photos
from face_landmarks.locating.locate import Locator
from face_landmarks.training.augment import mirror_landmarks

# Of the views of a face: turn in degrees, shift along x and y in box sides, scale.
VIEWS = ((0, 0, 0, 1), (8, 0.03, -0.02, 0.94), (-8, -0.03, 0.03, 1.07), (4, -0.02, -0.03, 1.03))
FACE_SIZE = 100.0  # longer side of the tight landmark box of the faces with hand-drawn points, in pixels
FIVE = (tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,))
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="photos, mostly of one face each")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--model", nargs="+", default=["shr-fan-68"], help="names or weights files, 68 landmarks"
    )
    parser.add_argument("--points", type=Path, help="CSV of name, part and five hand-drawn points")
    parser.add_argument("--min-score", type=float, default=0.6, help="mean landmark score of a face")
    parser.add_argument("--spread", type=float, default=1.5, help="largest disagreement, percent of the face")
    parser.add_argument("--distance", type=float, default=4.0, help="largest mean distance from the points")
    parser.add_argument("--bfloat16", action="store_true", help="faster on processors with matrix units")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    locators = [locator_of(name, torch.bfloat16 if options.bfloat16 else None) for name in options.model]
    drawn = read_points(options.points) if options.points else None
    photos, boxes, rolls = detect(options.folder) if drawn is None else place(options.folder, drawn)
    reasons: Counter[str] = Counter()
    for start in tqdm(range(0, len(photos), BATCH)):
        part = slice(start, start + BATCH)
        with torch.inference_mode():
            images = [read_image(photo) for photo in photos[part]]
            labels, spreads, scores = label(locators, images, boxes[part], rolls[part])
        for photo, landmarks, spread, score in zip(photos[part], labels, spreads, scores, strict=True):
            distance = 0.0 if drawn is None else distance_from(drawn[photo.stem], landmarks)
            if score < options.min_score:
                reasons["score too low"] += 1
            elif spread > options.spread:
                reasons["views disagree"] += 1
            elif distance > options.distance:
                reasons["far from the points"] += 1
            else:
                reasons["kept"] += 1
                shutil.copy(photo, options.out)
                write_pts(options.out / f"{photo.stem}.pts", landmarks.numpy())
    print(f"{len(photos)} faces of {options.folder}: {dict(reasons)}")


def locator_of(name: str, dtype: torch.dtype | None) -> Locator:
    aligner = FaceAligner(name, device="cpu", dtype=dtype, backend="torch")
    if len(aligner.layout) != 68:
        raise SystemExit(f"{name}: expected a model of 68 landmarks")
    return Locator(aligner.network, aligner.card, aligner.device)


def read_points(path: Path) -> dict[str, NDArray[np.float32]]:
    """(5, 2) hand-drawn points by photo name, of the training part."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "train"]
    return {row["name"]: np.array(list(row.values())[-10:], np.float32).reshape(5, 2) for row in rows}


def place(folder: Path, drawn: dict[str, NDArray[np.float32]]) -> tuple[list[Path], Tensor, Tensor]:
    """Photos with hand-drawn points, upright face boxes (N, 4) about them and the faces' rolls (N,)."""
    by_name = {path.stem: path for path in find_photos(folder)}
    if missing := [name for name in drawn if name not in by_name]:
        raise SystemExit(f"{folder}: expected a photo for each row, got none named {missing[0]}")
    points = torch.from_numpy(np.stack(list(drawn.values()))).double()  # (N, 5, 2)
    across = points[:, 1] - points[:, 0]
    down = (points[:, 3] + points[:, 4]) / 2 - (points[:, 0] + points[:, 1]) / 2
    rolls = torch.atan2(across[:, 1] - down[:, 0], across[:, 0] + down[:, 1])
    middle, half = points.mean(dim=1), 0.6 * FACE_SIZE
    return [by_name[name] for name in drawn], torch.cat((middle - half, middle + half), dim=1), rolls


def detect(folder: Path) -> tuple[list[Path], Tensor, Tensor]:
    """Photos with exactly one detected face, its box (N, 4), and rolls (N,) of zero."""
    detector = MTCNN()
    photos, found = [], []
    for photo in tqdm(find_photos(folder), desc="detecting"):
        boxes = detector(read_image(photo)).boxes
        if len(boxes) == 1:
            photos.append(photo)
            found.append(np.asarray(boxes[0], np.float64))
    placed = torch.from_numpy(np.array(found).reshape(-1, 4))
    return photos, placed, torch.zeros(len(photos), dtype=torch.float64)


def label(
    locators: Sequence[Locator], images: list[NDArray[np.uint8]], boxes: Tensor, rolls: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean landmarks (B, K, 2) of all views, their spread in percent of the face (B,), and scores (B,)."""
    first, _ = see(locators[0], images, boxes, rolls, mirrored=False)
    upright, rolls = upright_boxes(first, locators[0].layout.eyes)
    side = (upright[:, 2:] - upright[:, :2]).mean(dim=1, keepdim=True)  # (B, 1)
    centre, half = (upright[:, :2] + upright[:, 2:]) / 2, (upright[:, 2:] - upright[:, :2]) / 2
    answers, scores = [], []
    for locator, (turn, x, y, scale), mirrored in itertools.product(locators, VIEWS, (False, True)):
        middle = centre + side * torch.tensor([[x, y]])
        moved = torch.cat((middle - scale * half, middle + scale * half), dim=1)
        points, score = see(locator, images, moved, rolls + math.radians(turn), mirrored=mirrored)
        answers.append(points)
        scores.append(score.mean(dim=1))
    views = torch.stack(answers)  # (V, B, K, 2)
    mean = views.mean(dim=0)
    spread = (views - mean).norm(dim=-1).mean(dim=(0, 2)) / side[:, 0]
    return mean, 100 * spread, torch.stack(scores).mean(dim=0)


def see(
    locator: Locator, images: list[NDArray[np.uint8]], boxes: Tensor, rolls: Tensor, *, mirrored: bool
) -> tuple[Tensor, Tensor]:
    """Landmarks (B, K, 2) in the photos, and scores (B, K), from one view of each face."""
    card, layout = locator.card, locator.layout
    image_to_crop = crop_matrices(boxes, locator.crop_size, card.crop_scale, card.crop_shift, rolls)
    crops = warp(images, image_to_crop, locator.crop_size)
    points, scores = locator.decode(locator.network(crops.flip(-1) if mirrored else crops))
    if mirrored:
        points = mirror_landmarks(points, locator.crop_size, layout, card.lean)
        scores = scores[:, list(layout.mirror)]
    return transform_points(image_to_crop.inverse(), points).float(), scores


def distance_from(points: NDArray[np.float32], landmarks: Tensor) -> float:
    """Mean distance of a label (68, 2) from five hand-drawn points, in percent of the face."""
    five = torch.stack([landmarks[list(part)].mean(dim=0) for part in FIVE])
    return 100 * float((five - torch.from_numpy(points)).norm(dim=-1).mean()) / FACE_SIZE


if __name__ == "__main__":
    main()
