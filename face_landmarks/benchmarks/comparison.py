"""An aligner's scores on a benchmark, beside the paper's.

result = evaluate_benchmark(FaceAligner(), get_benchmark("300w"), "data/300w")
str(result)  # the paper's columns beside ours
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_landmarks.benchmarks import metrics
from face_landmarks.benchmarks.evaluation import (
    Aligner,
    BoxSource,
    Evaluation,
    evaluate,
    finite,
    save_summary,
    save_table,
)
from face_landmarks.benchmarks.protocols import Benchmark, Column
from face_landmarks.benchmarks.readers import Masks
from face_landmarks.errors import InputError


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """The scores of an aligner on a benchmark, column by column beside the paper's.

    Attributes:
        benchmark: what was measured.
        evaluation: of all its faces, by the normaliser of the first column.
        subsets: name -> (N,) bool, which faces are in it.
    """

    benchmark: Benchmark
    evaluation: Evaluation
    subsets: Masks

    def __str__(self) -> str:
        return self.table()

    def part(self, subset: str, normaliser: metrics.Normaliser | None = None) -> Evaluation:
        """The evaluation of one subset, by the first column's normaliser or by another."""
        part = self.evaluation.subset(self.subsets[subset])
        return part if normaliser is None else replace(part, normaliser=normaliser)

    def score(self, column: Column) -> float:
        """Our value of a column, in percent; NaN for a subset without faces, or without any found."""
        if not self.subsets[column.subset].any():
            return math.nan
        part = self.part(column.subset, column.normaliser)
        if column.threshold is None:
            return part.nme
        return part.auc(column.threshold) if column.score == "AUC" else part.failure_rate(column.threshold)

    @property
    def deviations(self) -> tuple[str, ...]:
        """Subsets with another number of faces than the protocol's, in words; empty if there is none."""
        found = {name: int(mask.sum()) for name, mask in self.subsets.items()}
        return tuple(
            f"{name}: expected {count} faces, got {found[name]}"
            for name, count in self.benchmark.faces.items()
            if found[name] != count
        )

    def summary(self) -> dict[str, Any]:
        """The columns, and all scores of all faces, ready for JSON."""
        columns = [
            {
                "subset": column.subset,
                "faces": int(self.subsets[column.subset].sum()),
                "score": column.score,
                "normaliser": column.normaliser,
                "threshold": column.threshold,
                "paper": column.published,
                "ours": finite(self.score(column)),
            }
            for column in self.benchmark.columns
        ]
        return {
            "benchmark": self.benchmark.name,
            "deviations": list(self.deviations),
            "columns": columns,
            "all_faces": self.evaluation.summary(),
        }

    def table(self) -> str:
        """The columns as a plain text table."""
        evaluation = self.evaluation
        x, y = evaluation.signed_error
        lines = [
            f"{self.benchmark.title}: {len(evaluation)} faces, {evaluation.found_share:.2f} % of them found, "
            f"boxes: {evaluation.boxes}",
            *(f"not the published protocol: {deviation}" for deviation in self.deviations),
            f"{'in %':14}{'':22}{'faces':>7}{'paper':>8}{'ours':>8}",
        ]
        for column in self.benchmark.columns:
            faces = int(self.subsets[column.subset].sum())
            paper = "-" if column.published is None else f"{column.published:.2f}"
            score = f"{self.score(column):.2f}"
            lines.append(f"{column.subset:14}{column!s:22}{faces:7}{paper:>8}{score:>8}")
        signed = f"signed error x, y, in % of {evaluation.normaliser}: {x:+.2f}, {y:+.2f}"
        return "\n".join([*lines, signed])

    def errors(self) -> dict[str, NDArray[np.float64]]:
        """NME of the faces of each subset that has any, by the first column's normaliser, for `plot_ced`."""
        return {name: self.evaluation.errors[mask] for name, mask in self.subsets.items() if mask.any()}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write summary.json and faces.csv: a row per face, its NME by each normaliser, and its subsets.

        Raises:
            WriteError: a file cannot be written.
        """
        root = save_summary(folder, self.summary())
        normalisers = list(dict.fromkeys(column.normaliser for column in self.benchmark.columns))
        errors = [replace(self.evaluation, normaliser=normaliser).errors for normaliser in normalisers]
        names = [
            "image",
            "face",
            "found",
            *(f"nme_{normaliser}" for normaliser in normalisers),
            *self.subsets,
        ]
        rows = (
            [
                *record[:3],
                *(values[index] for values in errors),
                *(int(mask[index]) for mask in self.subsets.values()),
            ]
            for index, record in enumerate(self.evaluation.records())
        )
        save_table(root / "faces.csv", names, rows)


def evaluate_benchmark(
    aligner: Aligner,
    benchmark: Benchmark,
    root: str | os.PathLike[str],
    *,
    boxes: BoxSource = "truth",
    progress: bool = False,
) -> BenchmarkResult:
    """Score an aligner by the protocol of one of the paper's benchmarks.

    Args:
        aligner: a `FaceAligner`, or anything with its `layout` and `align_batch`.
        benchmark: see `benchmarks.get_benchmark`.
        root: folder of the official files.
        boxes: "truth": those given with the data or made from the true landmarks; or "detector".
        progress: show a progress bar on stderr.

    Raises:
        AnnotationError: files are missing or damaged.
        InputError: the aligner finds other landmarks than the benchmark has.
        MissingDependencyError: SciPy or h5py is needed and not installed.
    """
    if aligner.layout is not benchmark.layout:
        expected = f"a model of {benchmark.layout.name}, as {benchmark.title} has it"
        raise InputError(f"layout: expected {expected}, got one of {aligner.layout.name}")
    found = benchmark.read(root)
    normaliser = benchmark.columns[0].normaliser
    evaluation = evaluate(aligner, found.samples, boxes=boxes, normaliser=normaliser, progress=progress)
    if benchmark.given_boxes:
        given = np.concatenate([sample.boxes for sample in found.samples if sample.boxes is not None])
        evaluation = replace(evaluation, given_boxes=given)
    return BenchmarkResult(benchmark, evaluation, found.subsets)
