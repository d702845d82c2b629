"""Score an aligner on annotated photos.

    samples = read_folder("300w/photos")
    evaluation = evaluate(FaceAligner(), samples, boxes="detector")
    evaluation.save("results")
    str(evaluation)

Convention:
    Errors, rates and shares are in percent. Every annotated face counts: one that the detector
    did not find has an infinite error in failure rates and areas. Means (NME, signed error) can
    only be taken over the faces found, so the share found is always stated beside them.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from face_landmarks._system.arguments import counted
from face_landmarks._system.files import make_folder, replacing, write_whole
from face_landmarks.benchmarks import metrics
from face_landmarks.benchmarks.annotations import AnnotatedImage, StoredPhoto, face_boxes
from face_landmarks.errors import InputError
from face_landmarks.layouts import Layout
from face_landmarks.results import Faces

BoxSource = Literal["truth", "detector"]
# On annotated photos, MTCNN's box of a face has an overlap of 0.50 or more with the annotated box of the same
# face, and of 0.11 or less with that of another.
_LEAST_OVERLAP = 0.3
_FAILURE_THRESHOLDS = (8, 10)
_AUC_THRESHOLDS = (7, 8, 10)


class Aligner(Protocol):
    """What `evaluate` needs; `FaceAligner` has it, and a wrapper of another library can have it."""

    @property
    def layout(self) -> Layout: ...

    def align_batch(
        self, images: Iterable[Path | NDArray[np.uint8]], boxes: Sequence[NDArray[np.float32]] | None = None
    ) -> Sequence[Faces]: ...


class FaceRecord(NamedTuple):
    """The score of one annotated face.

    Attributes:
        image: path of its photo.
        face: its place among the annotated faces of the photo, from 0.
        found: whether the detector found it.
        nme: percent; infinite if it was not found.
    """

    image: Path | StoredPhoto
    face: int
    found: bool
    nme: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of an aligner, for each face and for all.

    Attributes:
        images: (N,) the photo of each annotated face.
        truth: (N, K, 2) float32 annotated x y in pixels.
        predicted: (N, K, 2) float32 x y in pixels; all NaN for a face that was not found.
        layout: what the K landmarks are.
        normaliser: the distance errors are divided by.
        boxes: where face boxes came from.
        given_boxes: (N, 4) the boxes that the normalisers box and diagonal are measured on; tight if None.
    """

    images: tuple[Path | StoredPhoto, ...]
    truth: NDArray[np.float32]
    predicted: NDArray[np.float32]
    layout: Layout
    normaliser: metrics.Normaliser
    boxes: BoxSource
    given_boxes: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.truth)

    def __str__(self) -> str:
        return self.table()

    @cached_property
    def distances(self) -> NDArray[np.float64]:
        """(N,) the normaliser of each face, in pixels."""
        return metrics.normaliser(self.truth, self.normaliser, self.layout, self.given_boxes)

    @cached_property
    def errors(self) -> NDArray[np.float64]:
        """(N,) NME of each face in percent; infinite if it was not found."""
        return metrics.nme(self.predicted, self.truth, self.distances)

    @property
    def found(self) -> NDArray[np.bool_]:
        """(N,) whether each face was found."""
        return np.isfinite(self.errors)

    @property
    def found_share(self) -> float:
        """Percent of the annotated faces that were found."""
        return float(100 * self.found.mean())

    @property
    def nme(self) -> float:
        """Mean NME of the faces found, in percent; NaN if there are none."""
        return self._mean_found(self.errors)

    @property
    def nme_by_group(self) -> dict[str, float]:
        """Mean NME of each facial part, over the faces found: group name -> percent."""
        groups = metrics.nme_by_group(self.predicted, self.truth, self.distances, self.layout)
        return {name: self._mean_found(errors) for name, errors in groups.items()}

    @property
    def signed_error(self) -> tuple[float, float]:
        """Mean of predicted minus true x and y over the faces found, in percent; NaN without any."""
        x, y = metrics.signed_error(self.predicted, self.truth, self.distances)
        return float(x), float(y)

    def subset(self, chosen: NDArray[np.bool_]) -> Evaluation:
        """The scores of some of the faces, chosen by (N,) bool."""
        return replace(
            self,
            images=tuple(itertools.compress(self.images, chosen)),
            truth=self.truth[chosen],
            predicted=self.predicted[chosen],
            given_boxes=None if self.given_boxes is None else self.given_boxes[chosen],
        )

    def failure_rate(self, threshold: float) -> float:
        """Percent of all annotated faces with NME above the threshold (percent), or not found."""
        return metrics.failure_rate(self.errors, threshold)

    def auc(self, threshold: float) -> float:
        """Area under the cumulative errors of all annotated faces up to the threshold, in percent."""
        return metrics.auc(self.errors, threshold)

    def records(self) -> Iterator[FaceRecord]:
        """The score of each annotated face, in order."""
        faces = Counter[str]()
        for image, found, error in zip(self.images, self.found.tolist(), self.errors.tolist(), strict=True):
            yield FaceRecord(image, faces[str(image)], found, error)
            faces[str(image)] += 1

    def summary(self) -> dict[str, Any]:
        """All scores as plain numbers, ready for JSON; None where no face was found."""
        return {
            "photos": len(set(self.images)),
            "faces": len(self),
            "found": int(self.found.sum()),
            "found_share": self.found_share,
            "boxes": self.boxes,
            "normaliser": self.normaliser,
            "nme": finite(self.nme),
            "signed_error": [finite(error) for error in self.signed_error],
            "failure_rate": {str(t): self.failure_rate(t) for t in _FAILURE_THRESHOLDS},
            "auc": {str(t): self.auc(t) for t in _AUC_THRESHOLDS},
            "nme_by_group": {name: finite(error) for name, error in self.nme_by_group.items()},
        }

    def table(self) -> str:
        """All scores as a plain text table."""
        x, y = self.signed_error
        rows = [
            ("faces found", f"{self.found_share:.2f}"),
            ("NME", f"{self.nme:.2f}"),
            *((f"  {name.replace('_', ' ')}", f"{error:.2f}") for name, error in self.nme_by_group.items()),
            ("signed error x", f"{x:+.2f}"),
            ("signed error y", f"{y:+.2f}"),
            *((f"failure rate, NME > {t} %", f"{self.failure_rate(t):.2f}") for t in _FAILURE_THRESHOLDS),
            *((f"AUC, NME up to {t} %", f"{self.auc(t):.2f}") for t in _AUC_THRESHOLDS),
        ]
        photos = counted(len(set(self.images)), "photo")
        header = f"{counted(len(self), 'face')} in {photos}, boxes: {self.boxes}"
        unit = f"in %, NME normalised by {self.normaliser}"
        return "\n".join([header, unit, *(f"{name:26}{value:>8}" for name, value in rows)])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write summary.json and, face by face, faces.csv; the folder is made if it is missing.

        Raises:
            WriteError: a file cannot be written.
        """
        root = save_summary(folder, self.summary())
        save_table(root / "faces.csv", FaceRecord._fields, self.records())

    def _mean_found(self, errors: NDArray[np.float64]) -> float:
        return float(errors[self.found].mean()) if self.found.any() else math.nan


def evaluate(
    aligner: Aligner,
    samples: Iterable[AnnotatedImage],
    *,
    boxes: BoxSource = "truth",
    normaliser: metrics.Normaliser = "inter-ocular",
    progress: bool = False,
) -> Evaluation:
    """Align annotated photos and compare.

    With boxes="truth" the aligner is given the box that came with each face or is made from its
    true landmarks (`benchmarks.annotations.face_boxes`), so the landmarks alone are scored. With
    boxes="detector" it is given whole photos. Its faces are paired with the annotated ones by their
    boxes (`match_boxes`), never by landmarks, so that a face that is found but badly aligned keeps
    its error. Other people in the photo are ignored.

    Args:
        aligner: a `FaceAligner`, or anything with its `layout` and `align_batch`.
        samples: annotated photos, as `read_folder` gives them.
        boxes: "truth" or "detector".
        normaliser: see `metrics.normaliser`.
        progress: show a progress bar on stderr.

    Raises:
        InputError: no annotated face, landmarks of another layout than the aligner's, or an
            unknown option.
    """
    if boxes not in ("truth", "detector"):
        raise InputError(f"boxes: expected truth or detector, got {boxes!r}")
    samples = [sample for sample in samples if len(sample.landmarks)]
    if not samples:
        raise InputError("samples: expected at least one annotated face, got none")
    layout = aligner.layout
    for sample in samples:
        if sample.landmarks.shape[1] != len(layout):
            got = f"{sample.landmarks.shape[1]} in {sample.image}"
            raise InputError(f"landmarks: expected {len(layout)} of layout {layout.name}, got {got}")
    truth = np.concatenate([sample.landmarks for sample in samples])  # (N, K, 2)
    metrics.normaliser(truth, normaliser, layout)  # refuse what cannot be scored before the work is done

    true_boxes = [face_boxes(sample) for sample in samples]
    photos = (sample.source for sample in tqdm(samples, unit="photo", disable=not progress))
    results = aligner.align_batch(photos, true_boxes if boxes == "truth" else None)

    predicted = np.full_like(truth, np.nan)
    last = 0
    for own_boxes, faces in zip(true_boxes, results, strict=True):
        first, last = last, last + len(own_boxes)
        if boxes == "detector":
            annotated, detected = match_boxes(own_boxes, faces.boxes)
            predicted[first + annotated] = faces.landmarks[detected]
        elif len(faces) == len(own_boxes):
            predicted[first:last] = faces.landmarks
        else:
            raise InputError(f"aligner: expected a face for each of {len(own_boxes)} boxes, got {len(faces)}")
    images = tuple(sample.image for sample in samples for _ in sample.landmarks)
    return Evaluation(images, truth, predicted, layout, normaliser, boxes)


def match_boxes(
    annotated: ArrayLike, detected: ArrayLike, least_overlap: float = _LEAST_OVERLAP
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair annotated with detected boxes, one to one, the largest overlap first.

    Args:
        annotated: (N, 4) x0 y0 x1 y1.
        detected: (M, 4) x0 y0 x1 y1.
        least_overlap: intersection over union that a pair must exceed.

    Returns:
        Indices (P,) into annotated and (P,) into detected, pair by pair; what has no partner is
        left out of both.
    """
    overlaps = _overlaps(np.asarray(annotated, np.float64), np.asarray(detected, np.float64))  # (N, M)
    pairs = []
    while overlaps.size and overlaps.max() > least_overlap:
        row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
        overlaps[row], overlaps[:, column] = 0, 0
        pairs.append((row, column))
    rows, columns = np.array(sorted(pairs), dtype=np.intp).reshape(-1, 2).T
    return rows, columns


def _overlaps(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, M) intersection over union of boxes (N, 4) and (M, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])  # (N, M, 2)
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)  # (N, M)
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    overlaps: NDArray[np.float64] = shared / (area_a[:, None] + area_b[None, :] - shared)
    return overlaps


def save_summary(folder: str | os.PathLike[str], summary: Mapping[str, Any]) -> Path:
    """Write summary.json into a folder, made if it is missing, and return the folder.

    Raises:
        WriteError: it cannot be written.
    """
    root = Path(folder)
    make_folder(root)
    text = json.dumps(summary, indent=2, allow_nan=False)
    write_whole(root / "summary.json", text + "\n")
    return root


def save_table(path: Path, names: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table as CSV.

    Raises:
        WriteError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def finite(value: float) -> float | None:
    """The number, or None where JSON has none."""
    return value if math.isfinite(value) else None
