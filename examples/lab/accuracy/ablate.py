"""What each part of the method contributes: one small network and budget, with and without each of them.

    python examples/lab/accuracy/ablate.py 300w/crops/train 300w/crops/val --out runs/ablation [--seeds 0 1]

Every run is a one-stack hourglass of 64 features, unless its name says otherwise, trained for the same
number of steps and validated with every decoder. FAN-4, of four stacks, has 0.8 times the multiplications
with 32 features and 3 times with 64. The last column is how far the landmarks move on the face when the
crop is moved by half a pixel along x and y, root mean square in crop pixels, ideally not at all.

A finished run is a small JSON file in the folder and is not run again; the table is made from all that
are there, so variants and seeds may be run side by side (--only, --seeds).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from face_landmarks.benchmarks.metrics import nme, normaliser
from face_landmarks.geometry import resize_matrix, sample, transform_points
from face_landmarks.heatmap import DecodeMethod, decode_heatmaps
from face_landmarks.layouts import IBUG_68
from face_landmarks.models.hourglass import HourglassConfig
from face_landmarks.training.config import RECIPES, TrainConfig
from face_landmarks.training.data import FaceSet, TrainingData, load_faces
from face_landmarks.training.loop import Trainer

MOVEMENT = "movement, crop px"
DECODERS: tuple[DecodeMethod, ...] = ("argmax", "quarter", "log-parabola", "local-soft-argmax")


def small(crop_size: int = 128, **changes: Any) -> HourglassConfig:
    ours: dict[str, Any] = {"stacks": 1, "features": 64, "depth": 3, "norm": "after"}
    return HourglassConfig(crop_size=crop_size, heatmap_size=crop_size // 4, **(ours | changes))


HEATMAPS_ALONE = replace(
    RECIPES["shr-fan-68-fast"], network=small(), batch_size=32, siamese_weight=0.0, coordinate_weight=0.0
)
SIAMESE = replace(HEATMAPS_ALONE, siamese_weight=0.5)
FULL = replace(SIAMESE, coordinate_weight=1.0)
VARIANTS: dict[str, TrainConfig] = {
    "rounded targets": replace(HEATMAPS_ALONE, rounded=True),
    "continuous targets": HEATMAPS_ALONE,
    "+ Siamese term": SIAMESE,
    "+ coordinate term": FULL,
    "+ agreement of landmarks": replace(FULL, siamese_coordinate_weight=0.5),
    "+ near views": replace(FULL, near_every=2, near_weight=30.0),
    "sigma 1": replace(FULL, sigma=1.0),
    "sigma 2": replace(FULL, sigma=2.0),
    "FAN's order of norms": replace(FULL, network=small(norm="before")),
    "stem pooled with a blur": replace(FULL, network=small(stem_pool="blur")),
    "FAN-4 of 32 features": replace(FULL, network=small(stacks=4, features=32, depth=4, norm="before")),
    "FAN-4 of 64 features": replace(FULL, network=small(stacks=4, depth=4, norm="before")),
    "labels mirrored plainly": replace(FULL, lean=0.0),
    "crop 192": replace(FULL, network=small(192)),
    "crop 256": replace(FULL, network=small(256)),
}


@cache
def faces(root: str, crop_size: int, margin: float) -> FaceSet:
    return load_faces(
        root, crop_size=crop_size, crop_scale=FULL.crop_scale, crop_shift=FULL.crop_shift, margin=margin
    )


@torch.inference_mode()
def scores(trainer: Trainer, faces: FaceSet, config: TrainConfig) -> dict[str, float]:
    """Inter-ocular NME in percent of the averaged weights, by decoder, and their movement."""
    network = config.network
    shift = torch.eye(3)
    shift[:2, 2] = 0.5

    def heatmaps_of(crop_to_picture: Tensor) -> Tensor:
        return torch.cat(
            [
                trainer.average(
                    sample(batch.float() / 255, crop_to_picture.expand(len(batch), 3, 3), network.crop_size)
                )
                for batch in torch.split(faces.pictures, 32)
            ]
        )

    heatmaps = heatmaps_of(torch.eye(3))
    to_crop = resize_matrix(network.crop_size / network.heatmap_size)
    truth = faces.landmarks.numpy()
    inter_ocular = normaliser(truth, "inter-ocular", IBUG_68)
    found = {
        method: transform_points(to_crop, decode_heatmaps(heatmaps, method=method)[0]).numpy()
        for method in DECODERS
    }
    errors = {method: float(nme(points, truth, inter_ocular).mean()) for method, points in found.items()}
    moved = transform_points(to_crop, decode_heatmaps(heatmaps_of(shift))[0]).numpy() + 0.5
    movement = np.square(moved - found["local-soft-argmax"]).sum(axis=-1).mean() ** 0.5
    return errors | {MOVEMENT: float(movement)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("train", help="photos with .pts files")
    parser.add_argument("val", help="others, never trained on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="VARIANT"
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=1200, help="300 are too few to tell anything")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for name in options.only:
            done = options.out / f"{name}, seed {seed}, {options.steps} steps.json"
            if done.exists():
                continue
            config = replace(VARIANTS[name], seed=seed, steps=options.steps, validate_every=options.steps)
            size = config.network.crop_size
            data = TrainingData(
                faces(options.train, size, config.source_margin), faces(options.val, size, 1.0)
            )
            torch.compiler.reset()
            trainer = Trainer(config, data, done.with_suffix(""), compile=not options.no_compile)
            trainer.run()
            done.write_text(json.dumps(scores(trainer, data.validation, config)))

    table: dict[str, list[dict[str, float]]] = defaultdict(list)
    for name in VARIANTS:
        for path in sorted(options.out.glob(f"{name}, seed *, {options.steps} steps.json")):
            table[name].append(json.loads(path.read_text()))
    views = options.steps * FULL.batch_size
    print(f"inter-ocular NME in %, {options.val}, after {views} views; mean (and spread) over the seeds")
    columns = (*DECODERS, MOVEMENT)
    print(f"| | seeds | {' | '.join(columns)} |")
    print(f"|---|---|{'---|' * len(columns)}")
    for name, runs in table.items():
        cells = [np.array([run[column] for run in runs]) for column in columns]
        shown = [f"{c.mean():.2f}" + (f" (±{np.ptp(c) / 2:.2f})" if len(c) > 1 else "") for c in cells]
        print(f"| {name} | {len(runs)} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
