"""One network's heatmaps read by every decoder: what reading below the cell is worth.

    python examples/lab/accuracy/sweep_decoders.py 300w/crops/val [--model shr-fan-68-fast]

The network runs once on every annotated face, cut out by its true box. Prints inter-ocular NME
and mean signed error, in percent, for each decoder, window and temperature.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from face_landmarks import FaceAligner, read_image
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.benchmarks.metrics import nme, normaliser, signed_error
from face_landmarks.geometry import boxes_from_landmarks, crop_matrices, transform_points, warp
from face_landmarks.heatmap import DecodeMethod, decode_heatmaps

PLAIN: tuple[DecodeMethod, ...] = ("argmax", "quarter", "log-parabola")
TEMPERATURES = (2.0, 5.0, 7.0, 10.0, 15.0, 20.0)
WINDOWS = (3, 5, 7, 9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", help="photos with .pts files")
    parser.add_argument("--model", default="shr-fan-68-fast")
    options = parser.parse_args()
    aligner = FaceAligner(options.model, detector=None)
    card = aligner.card

    heatmaps, truth, matrices = [], [], []
    with torch.inference_mode():
        for sample in read_folder(options.folder):
            boxes = torch.from_numpy(boxes_from_landmarks(sample.landmarks))
            image_to_crop = crop_matrices(boxes, aligner.crop_size, card.crop_scale, card.crop_shift)
            crops = warp(read_image(sample.source), image_to_crop, aligner.crop_size)
            heatmaps.append(aligner.network(crops.to(aligner.device, aligner.dtype)).float().cpu())
            truth.append(sample.landmarks)
            matrices.append(image_to_crop)
    stack, labels = torch.cat(heatmaps), np.concatenate(truth)
    heatmap_to_image = torch.cat(matrices).inverse() @ aligner.heatmap_to_crop
    scale = normaliser(labels, "inter-ocular", aligner.layout)

    def score(method: DecodeMethod, window: int, temperature: float) -> str:
        cells, _ = decode_heatmaps(stack, method=method, window=window, temperature=temperature)
        landmarks = transform_points(heatmap_to_image, cells).numpy()
        x, y = signed_error(landmarks, labels, scale)
        return f"{nme(landmarks, labels, scale).mean():8.3f}{x:+9.3f}{y:+9.3f}"

    print(f"{card.name}, {len(labels)} faces of {options.folder}, inter-ocular NME in %")
    print(f"{'decoder':34}{'NME':>8}{'x':>9}{'y':>9}")
    for method in PLAIN:
        print(f"{method:34}{score(method, 5, 10)}")
    for temperature in TEMPERATURES:
        name = f"soft-argmax, tau {temperature:g}"
        print(f"{name:34}{score('soft-argmax', 5, temperature)}")
    for window in WINDOWS:
        for temperature in TEMPERATURES:
            name = f"local soft-argmax, d {window}, tau {temperature:g}"
            print(f"{name:34}{score('local-soft-argmax', window, temperature)}")


if __name__ == "__main__":
    main()
