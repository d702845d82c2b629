"""Measure the confidence: expected errors against real ones, and scores of faces against other scores.

    python examples/lab/accuracy/measure_confidence.py 300w/photos/val [--others infants] [--plot out.png]

1. The calibration is fitted on four fifths of the faces and tested on the others, five times: the share of
   landmarks within the radius that should contain 68 % and 95 % of them, among others, beside the same for
   errors taken as Rayleigh distributed; and, for tenths of the landmarks from the smallest expected error
   to the largest, the expected and the mean real error.
2. The calibration is fitted on all these faces and tested on others: on the same faces, each half hidden
   behind a piece of background, all landmarks and the visible ones alone; and on the faces of --others.
3. How well the mean score of a face tells whole faces from the same photos with the face half hidden, or cut
   off at the middle by the photo's edge, and from boxes of background without an annotated face (AUROC: 1
   always, 0.5 never).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks import FaceAligner, read_image
from face_landmarks.benchmarks.annotations import AnnotatedImage, read_folder
from face_landmarks.geometry import boxes_from_landmarks
from face_landmarks.models.confidence import coverage_radius, expected_errors, fit_calibration

FOLDS = 5
SHARES = (0.5, 0.68, 0.8, 0.9, 0.95)

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]


def cross_validated(scores: torch.Tensor, errors: torch.Tensor) -> tuple[torch.Tensor, dict[float, float]]:
    """From calibrations that have not seen a face: expected errors (N, K), and what the radii contain.

    The latter is, by nominal share, the share of the landmarks within the radius.
    """
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(0))
    expected, inside = torch.empty_like(scores), dict.fromkeys(SHARES, 0)
    for fold in range(FOLDS):
        held_out = order[fold::FOLDS]
        others = order[torch.arange(len(order)) % FOLDS != fold]
        calibration = fit_calibration(scores[others], errors[others])
        expected[held_out] = expected_errors(scores[held_out], calibration)
        ratio = errors[held_out] / expected[held_out]
        for share in SHARES:
            inside[share] += int((ratio < coverage_radius(share, calibration)).sum())
    return expected, {share: count / scores.numel() for share, count in inside.items()}


def auroc(higher: Floats, lower: Floats) -> float:
    """Share of pairs in which the first is higher; ties count half."""
    difference = higher[:, None] - lower[None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def background(
    image: Image, boxes: Floats, side: float, random: np.random.Generator
) -> tuple[float, float, float, float] | None:
    """A square box of this side that touches none of the boxes; None if a hundred throws find none."""
    height, width = image.shape[:2]
    if side >= min(height, width):
        return None
    for _ in range(100):
        x, y = random.uniform(0, width - side), random.uniform(0, height - side)
        apart = (boxes[:, 0] > x + side) | (boxes[:, 2] < x) | (boxes[:, 1] > y + side) | (boxes[:, 3] < y)
        if apart.all():
            return x, y, x + side, y + side
    return None


def half_hidden(image: Image, box: Floats, patch: Image, random: np.random.Generator) -> tuple[Image, Floats]:
    """A photo with one half of the face, left, right, upper or lower, behind a piece of background.

    Returns:
        The photo, and (4,) x0 y0 x1 y1 of the hidden part.
    """
    x0, y0, x1, y1 = box.astype(int).tolist()
    middle_x, middle_y = (x0 + x1) // 2, (y0 + y1) // 2
    halves = ((x0, y0, middle_x, y1), (middle_x, y0, x1, y1), (x0, y0, x1, middle_y), (x0, middle_y, x1, y1))
    place = np.clip(halves[random.integers(4)], 0, [*image.shape[1::-1]] * 2)
    left, top, right, bottom = place.tolist()
    hidden = image.copy()
    rows = np.linspace(0, len(patch) - 1, bottom - top).astype(int)
    columns = np.linspace(0, patch.shape[1] - 1, right - left).astype(int)
    hidden[top:bottom, left:right] = patch[rows][:, columns]
    return hidden, place.astype(np.float64)


def measure(
    aligner: FaceAligner, images: Iterable[Path | Image], truth: Sequence[NDArray[np.float32]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (N, K), and errors (N, K) in crop pixels, of faces in their true boxes."""
    found = aligner.align_batch(images, [boxes_from_landmarks(landmarks) for landmarks in truth])
    sides = np.concatenate([(faces.boxes[:, 2:] - faces.boxes[:, :2]).sum(axis=1) for faces in found])
    pixel = torch.from_numpy(sides * aligner.card.crop_scale / aligner.crop_size)  # image per crop pixel
    points = np.concatenate([faces.landmarks for faces in found])
    distance = torch.from_numpy(np.linalg.norm(points - np.concatenate(truth), axis=2))
    scores = np.concatenate([faces.landmark_scores for faces in found])
    return torch.from_numpy(scores), distance / pixel[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", help="whole photos with .pts files")
    parser.add_argument("--model", default="shr-fan-68")
    parser.add_argument("--others", nargs="*", default=[], help="folders of other faces with .pts files")
    parser.add_argument("--plot", help="draw the reliability diagram and the scores here")
    options = parser.parse_args()
    aligner = FaceAligner(options.model, detector=None)
    samples = read_folder(options.folder)
    scores, errors = measure(aligner, (s.source for s in samples), [s.landmarks for s in samples])
    print(f"{aligner.card.name}, {len(scores)} faces of {options.folder}")
    rows = print_cross_validation(scores, errors)

    whole, groups = scratch_cases(samples, np.random.default_rng(0))
    calibration = fit_calibration(scores, errors)
    print(
        "\n| fitted on all of these, tested on | landmarks | error / expected | within 68 % | within 95 % |"
    )
    print("|---|---|---|---|---|")

    def print_coverage(name: str, ratio: torch.Tensor) -> None:
        inside = [(ratio < coverage_radius(share, calibration)).double().mean() for share in (0.68, 0.95)]
        print(f"| {name} | {ratio.numel()} | {ratio.mean():.2f} | {inside[0]:.1%} | {inside[1]:.1%} |")

    cases = groups["half hidden"]
    found, wrong = measure(aligner, [case.image for case in cases], [case.landmarks[None] for case in cases])
    ratio = wrong / expected_errors(found, calibration)
    visible = torch.from_numpy(np.stack([case.visible for case in cases]))
    print_coverage("half hidden", ratio)
    print_coverage("half hidden, visible landmarks", ratio[visible])
    for folder in options.others:
        others = read_folder(folder)
        found, wrong = measure(aligner, (s.source for s in others), [s.landmarks for s in others])
        print_coverage(f"{folder}, {len(found)} faces", wrong / expected_errors(found, calibration))

    def mean_scores(cases: Sequence[Case]) -> Floats:
        results = aligner.align_batch([case.image for case in cases], [case.box[None] for case in cases])
        return np.array([faces.landmark_scores.mean() for faces in results])

    sure = mean_scores(whole)
    print("\n| against whole faces | cases | mean score | AUROC |\n|---|---|---|---|")
    print(f"| whole faces | {len(sure)} | {sure.mean():.2f} (lowest {sure.min():.2f}) | |")
    unsure = {name: mean_scores(cases) for name, cases in groups.items()}
    for name, values in unsure.items():
        print(f"| {name} | {len(values)} | {values.mean():.2f} | {auroc(sure, values):.3f} |")
    if options.plot:
        draw(options.plot, rows, {"whole faces": sure, **unsure})


def print_cross_validation(scores: torch.Tensor, errors: torch.Tensor) -> list[tuple[float, float]]:
    """Print part 1; returns the expected and the mean real error of each tenth of the landmarks."""
    expected, inside = cross_validated(scores, errors)
    ratio = errors / expected
    print(f"\n| nominal share, {FOLDS}-fold | within its radius | within Rayleigh's |\n|---|---|---|")
    for share in SHARES:
        rayleigh = (ratio < coverage_radius(share)).double().mean()
        print(f"| {share:.0%} | {inside[share]:.1%} | {rayleigh:.1%} |")
    tenths = expected.flatten().argsort().chunk(10)
    rows = [(expected.flatten()[t].mean().item(), errors.flatten()[t].mean().item()) for t in tenths]
    print("\n| tenth of the landmarks | expected error, crop px | real error, crop px |\n|---|---|---|")
    for number, (nominal, real) in enumerate(rows, 1):
        print(f"| {number} | {nominal:.2f} | {real:.2f} |")
    return rows


class Case(NamedTuple):
    """A place in a photo: its box (4,), and of a face the landmarks (K, 2) and which are visible (K,)."""

    image: Image
    box: Floats
    landmarks: NDArray[np.float32]
    visible: NDArray[np.bool_]


def scratch_cases(
    samples: list[AnnotatedImage], random: np.random.Generator
) -> tuple[list[Case], dict[str, list[Case]]]:
    """Whole faces, and the same photos with the face hidden in part, cut off, or elsewhere."""
    whole: list[Case] = []
    groups: dict[str, list[Case]] = {"half hidden": [], "cut off at the middle": [], "background": []}
    for sample in samples:
        image = read_image(sample.source)
        boxes = boxes_from_landmarks(sample.landmarks).astype(np.float64)
        for box, landmarks in zip(boxes, sample.landmarks, strict=True):
            seen = np.full(len(landmarks), True)
            whole.append(Case(image, box, landmarks, seen))
            side = float((box[2:] - box[:2]).mean())
            middle = int((box[0] + box[2]) / 2)
            if 0 < middle < image.shape[1]:
                left = np.ascontiguousarray(image[:, :middle])
                groups["cut off at the middle"].append(Case(left, box, landmarks, landmarks[:, 0] < middle))
            place = background(image, boxes, side, random)
            if place is not None:
                groups["background"].append(Case(image, np.array(place), landmarks, ~seen))
                x0, y0, x1, y1 = map(int, place)
                hidden, part = half_hidden(image, box, image[y0 : y1 + 1, x0 : x1 + 1], random)
                inside = ((landmarks >= part[:2]) & (landmarks < part[2:])).all(axis=1)
                groups["half hidden"].append(Case(hidden, box, landmarks, ~inside))
    return whole, groups


def draw(path: str, rows: list[tuple[float, float]], certainties: dict[str, Floats]) -> None:
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    nominal, real = zip(*rows, strict=True)
    left.plot([0, max(nominal)], [0, max(nominal)], color="0.7", linewidth=1)
    left.plot(nominal, real, marker="o")
    left.set(xlabel="expected error (crop pixels)", ylabel="real error (crop pixels)")
    for name, values in certainties.items():
        right.hist(values, bins=np.linspace(0, 1, 41), density=True, alpha=0.55, label=name)
    right.set(xlabel="mean score of a face", yticks=[])
    right.legend(frameon=False, loc="upper left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
