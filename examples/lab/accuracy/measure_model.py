"""One table that a model is chosen by: easy and hard faces, whole photos, movement and confidence.

    python examples/lab/accuracy/measure_model.py --model shr-fan-68 \
        --crops 300w/crops/val --photos 300w/photos/val --hard infants --five-points mtfl

Rows are printed for the folders that are given:

- crops: true boxes; NME (inter-ocular, percent), the jaw's error along and across its contour, the share of
  the jaw's length in the two steps beside the chin, mean signed error, how far landmarks move when the crop
  moves by fractions of its pixel (root mean square, crop pixels), and the share of landmarks within the
  radii that should contain 68 and 95 %.
- photos: through each detector of --detectors; faces found and NME.
- hard: faces with 68 points, in their true boxes, not turned upright; NME in percent of the box, by the roll
  of the face, and the number of faces beyond 7 and 10 %, also of those whose mean score is above 0.5. What a
  convention of the labels adds: the rows of the jaw as above, and the NME that is left without each
  landmark's mean offset, which for each face is that of the others, in axes that turn and grow with the face.
- five points: a folder with points.csv (name, part, pose and five points: eye centres, nose tip and mouth
  corners), faces centred, their tight landmark box FACE_SIZE px long; the mean distance of the five from the
  hand-drawn ones, in percent of FACE_SIZE, by pose. Rows of the part "val" are measured.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_landmarks import FaceAligner, read_image
from face_landmarks.benchmarks.annotations import AnnotatedImage, read_folder
from face_landmarks.benchmarks.evaluation import evaluate
from face_landmarks.benchmarks.metrics import nme, normaliser
from face_landmarks.geometry import boxes_from_landmarks
from face_landmarks.models.confidence import coverage_radius

Array = NDArray[np.floating]
FACE_SIZE = 100.0  # longer side of the tight landmark box of the faces with five points, in pixels
SURE = 0.5  # mean landmark score above which a face counts as sure
FRACTIONS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)  # of a crop pixel
DIRECTIONS = ((1, 0), (0, 1), (1, 1))
POSES = {1: "left profile", 2: "left", 3: "frontal", 4: "right", 5: "right profile"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="shr-fan-68", help="a name or a weights file")
    for name in ("--crops", "--photos", "--hard", "--five-points"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--detectors", nargs="+", default=["mtcnn"])
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    options = parser.parse_args()
    aligner = FaceAligner(options.model, detector=None, backend=options.backend)
    table: dict[str, float] = {}
    if options.crops:
        table |= measure_crops(aligner, options.crops)
    for detector in options.detectors if options.photos else ():
        table |= measure_photos(FaceAligner(options.model, detector=detector), options.photos, detector)
    if options.hard:
        table |= measure_hard(aligner, options.hard)
    if options.five_points:
        table |= measure_five_points(aligner, options.five_points)
    print(aligner.card.name)
    for name, value in table.items():
        print(f"  {name:<44}{value:10.3f}")
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def measure_crops(aligner: FaceAligner, folder: Path) -> dict[str, float]:
    samples = read_folder(folder)
    images = [read_image(sample.source) for sample in samples]
    boxes = [boxes_from_landmarks(sample.landmarks) for sample in samples]
    results = aligner.align_batch(images, boxes)
    found = np.concatenate([faces.landmarks for faces in results]).astype(float)
    truth = np.concatenate([sample.landmarks for sample in samples]).astype(float)
    scale = normaliser(truth, "inter-ocular", aligner.layout)
    relative = 100 * (found - truth) / scale[:, None, None]
    distance = np.linalg.norm(relative, axis=-1)
    along, across = contour_errors(relative, truth)
    expected = np.concatenate([faces.landmark_errors for faces in results])
    ratio = np.linalg.norm(found - truth, axis=-1) / expected
    moved, median = movement(aligner, images, boxes)
    row = {
        "NME": distance.mean(),
        "jaw": distance[:, :17].mean(),
        "jaw, along the contour": along,
        "jaw, across": across,
        **chin_steps(truth, found),
        "eyebrows": distance[:, 17:27].mean(),
        "nose": distance[:, 27:36].mean(),
        "eyes": distance[:, 36:48].mean(),
        "mouth": distance[:, 48:].mean(),
        "signed x": relative[..., 0].mean(),
        "signed y": relative[..., 1].mean(),
        "beyond 8 %, share of faces": 100 * (distance.mean(axis=1) > 8).mean(),
        "movement, crop px": moved,
        "movement, median face": median,
    }
    for share in (0.68, 0.95):
        radius = coverage_radius(share, aligner.card.calibration)
        row[f"within the {share:.0%} radius"] = 100 * (ratio < radius).mean()
    return {f"crops ({len(truth)}): {name}": float(value) for name, value in row.items()}


def contour_errors(relative: Array, truth: Array) -> tuple[float, float]:
    """Mean error of the jaw's inner points along their contour and across it."""
    tangent = truth[:, 2:17] - truth[:, 0:15]  # (N, 15, 2)
    tangent = tangent / np.linalg.norm(tangent, axis=-1, keepdims=True)
    normal = tangent[..., ::-1] * (-1, 1)
    jaw = relative[:, 1:16]
    along, across = (np.abs((jaw * axis).sum(axis=-1)).mean() for axis in (tangent, normal))
    return float(along), float(across)


def chin_steps(truth: Array, found: Array) -> dict[str, float]:
    """Percent of the jaw's length in the two steps beside the chin, of labels and of predictions."""
    row = {}
    for name, landmarks in (("labels", truth), ("found", found)):
        steps = np.linalg.norm(np.diff(landmarks[:, :17], axis=1), axis=-1)  # (N, 16)
        row[f"jaw, beside the chin: {name}, %"] = 100 * (steps[:, 7:9].sum(axis=1) / steps.sum(axis=1)).mean()
    return row


def movement(
    aligner: FaceAligner, images: list[NDArray[np.uint8]], boxes: list[NDArray[np.float32]]
) -> tuple[float, float]:
    """Movement with the crop, in crop pixels: root mean square of all, and of the median face."""
    pixels = [(box[:, 2:] - box[:, :2]).sum(1) * aligner.card.crop_scale / aligner.crop_size for box in boxes]

    def landmarks(step: tuple[float, float]) -> Array:
        moved = [box + pixel[:, None] * np.tile(step, 2) for box, pixel in zip(boxes, pixels, strict=True)]
        return np.concatenate([faces.landmarks for faces in aligner.align_batch(images, moved)])

    still, pixel = landmarks((0, 0)), np.concatenate(pixels)
    squares = np.stack(
        [
            (np.linalg.norm(landmarks((f * x, f * y)) - still, axis=-1) / pixel[:, None]) ** 2
            for f in FRACTIONS
            for x, y in DIRECTIONS
        ]
    )  # (D, N, K)
    return float(np.sqrt(squares.mean())), float(np.median(np.sqrt(squares.mean(axis=(0, 2)))))


def measure_photos(aligner: FaceAligner, folder: Path, detector: str) -> dict[str, float]:
    result = evaluate(aligner, read_folder(folder), boxes="detector")
    head = f"photos ({len(result)}), {detector}"
    return {f"{head}: found, %": result.found_share, f"{head}: NME": result.nme}


def measure_hard(aligner: FaceAligner, folder: Path) -> dict[str, float]:
    samples: list[AnnotatedImage] = read_folder(folder)
    truth = np.concatenate([sample.landmarks for sample in samples]).astype(float)
    results = aligner.align_batch(
        [sample.source for sample in samples], [boxes_from_landmarks(s.landmarks) for s in samples]
    )
    found = np.concatenate([faces.landmarks for faces in results])
    score = np.concatenate([faces.landmark_scores.mean(axis=1) for faces in results])
    size = normaliser(truth, "box", aligner.layout)
    error, roll = nme(found, truth, size), face_rolls(truth)
    relative = 100 * (found - truth) / size[:, None, None]
    along, across = contour_errors(relative, truth)
    head = f"hard ({len(truth)})"
    row = {
        f"{head}: NME, box": error.mean(),
        f"{head}: NME without mean offsets": np.linalg.norm(without_offsets(relative, roll), axis=-1).mean(),
        f"{head}: jaw, along the contour": along,
        f"{head}: jaw, across": across,
        **{f"{head}: {name}": value for name, value in chin_steps(truth, found).items()},
        f"{head}: median": np.median(error),
        f"{head}: beyond 7 %": (error > 7).sum(),
        f"{head}: beyond 7 %, score above {SURE}": ((error > 7) & (score > SURE)).sum(),
        f"{head}: beyond 10 %": (error > 10).sum(),
        f"{head}: beyond 10 %, score above {SURE}": ((error > 10) & (score > SURE)).sum(),
    }
    for low, high in ((0, 15), (15, 45), (45, 90), (90, 181)):
        chosen = (np.abs(roll) >= low) & (np.abs(roll) < high)
        if chosen.any():
            row[f"{head}: turned {low} to {high} degrees ({chosen.sum()})"] = error[chosen].mean()
    return {name: float(value) for name, value in row.items()}


def without_offsets(relative: Array, roll: Array) -> Array:
    """Errors (N, K, 2) of faces turned by (N,) degrees, less each landmark's mean on the others."""
    angle = np.radians(roll)
    across = np.stack((np.cos(angle), np.sin(angle)), axis=-1)  # (N, 2), from eye to eye
    axes = np.stack((across, across[:, ::-1] * (-1, 1)), axis=-1)  # (N, 2, 2), columns
    upright = relative @ axes
    difference: Array = upright - (upright.sum(axis=0) - upright) / (len(upright) - 1)
    return difference


def face_rolls(landmarks: Array) -> Array:
    """Degrees each face is turned in the plane, from the line through the eye centres."""
    eyes = landmarks[:, 42:48].mean(axis=1) - landmarks[:, 36:42].mean(axis=1)
    degrees: Array = np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0]))
    return degrees


def measure_five_points(aligner: FaceAligner, folder: Path) -> dict[str, float]:
    with (folder / "points.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "val"]
    points = np.array([[float(value) for value in list(row.values())[-10:]] for row in rows]).reshape(
        -1, 5, 2
    )
    photos = [folder / f"{row['name']}.webp" for row in rows]
    box = centred_box(read_image(photos[0]).shape[1])
    results = aligner.align_batch(photos, [box] * len(photos))
    found = five_points(np.concatenate([faces.landmarks for faces in results]))
    error = 100 * np.linalg.norm(found - points, axis=-1).mean(axis=1) / FACE_SIZE
    pose = np.array([int(row["pose"]) for row in rows])
    head = f"five points ({len(rows)})"
    return {f"{head}: error, % of the face": float(error.mean())} | {
        f"{head}: {name} ({(pose == number).sum()})": float(error[pose == number].mean())
        for number, name in POSES.items()
    }


def centred_box(width: int) -> list[list[float]]:
    """(1, 4) the face box of a face in the middle of a square photo, whose landmarks span FACE_SIZE px."""
    middle = (width - 1) / 2
    low, high = middle - FACE_SIZE / 2, middle + FACE_SIZE / 2
    corners = np.array([[[low, low], [high, high]]], np.float32)
    landmarks = np.repeat(corners, 34, axis=1)  # boxes are made from the extent of 68 landmarks
    box: list[list[float]] = boxes_from_landmarks(landmarks).tolist()
    return box


def five_points(landmarks: Array) -> Array:
    """(N, 5, 2) eye centres as means of their six points, nose tip and mouth corners of (N, 68, 2)."""
    eyes = [landmarks[:, 36:42].mean(axis=1), landmarks[:, 42:48].mean(axis=1)]
    return np.stack([*eyes, landmarks[:, 30], landmarks[:, 48], landmarks[:, 54]], axis=1)


if __name__ == "__main__":
    main()
