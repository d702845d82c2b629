"""A report of an evaluation: annotated faces with their true and their found landmarks, the worst first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.arguments import counted
from face_landmarks.benchmarks.evaluation import Evaluation
from face_landmarks.reports.page import (
    Page,
    ShownFace,
    ShownPhoto,
    check_bounds,
    check_page_path,
    write_page,
)
from face_landmarks.reports.results import MAX_SIZE, MOST


def write_evaluation_report(
    evaluation: Evaluation,
    path: str | os.PathLike[str],
    *,
    title: str = "Facial landmarks, evaluated",
    most: int = MOST,
    max_size: int = MAX_SIZE,
    progress: bool = False,
) -> Path:
    """Write a page that shows each annotated face with its true and its found landmarks, the worst first.

    Faces that were not found come before all others. The page and the other arguments are those of
    `write_report`; it shows at most `most` faces, the worst.

    Returns:
        The path.

    Raises:
        InputError: a file name that does not end in .html, or unusable bounds.
        WriteError: the page cannot be written.
    """
    file = check_page_path(path)
    check_bounds(most, max_size)
    chosen = np.zeros(len(evaluation), bool)
    chosen[np.argsort(-evaluation.errors, kind="stable")[:most]] = True
    shown = f"; the {most} worst are shown" if len(evaluation) > most else ""
    page = Page(
        kind="evaluation",
        title=title,
        summary=f"{counted(len(evaluation), 'face')}, {evaluation.found_share:.1f} % found, "
        f"boxes: {evaluation.boxes}, NME {evaluation.nme:.2f} % ({evaluation.normaliser}){shown}",
        photos=_shown(evaluation, chosen),
    )
    write_page(page, file, max_size=max_size, progress=progress)
    return file


def _shown(evaluation: Evaluation, chosen: NDArray[np.bool_]) -> Iterator[ShownPhoto]:
    """The photos of which a face is chosen, with these faces."""
    rows = enumerate(evaluation.records())
    for image, group in groupby(rows, key=lambda row: row[1].image):
        faces = tuple(_shown_face(evaluation, index, row.face) for index, row in group if chosen[index])
        if faces:
            yield ShownPhoto(str(image), image if isinstance(image, Path) else image.read, faces)


def _shown_face(evaluation: Evaluation, index: int, number: int) -> ShownFace:
    truth, predicted = evaluation.truth[index], evaluation.predicted[index]
    found = bool(evaluation.found[index])
    if evaluation.given_boxes is None:
        box = np.concatenate([truth.min(axis=0), truth.max(axis=0)])
    else:
        box = evaluation.given_boxes[index]
    errors = np.linalg.norm(predicted - truth, axis=1) if found else None
    return ShownFace(
        number,
        evaluation.layout,
        box,
        points=predicted if found else None,
        errors=errors,
        truth=truth,
        error=None if errors is None else float(errors.mean()),
        nme=float(evaluation.errors[index]) if found else None,
    )
