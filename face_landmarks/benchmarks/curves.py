"""Cumulative error curves, plotted with matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from face_landmarks._system.extras import import_extra
from face_landmarks._system.files import replacing
from face_landmarks.benchmarks.metrics import auc, cumulative_errors, failure_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_ced(errors: Mapping[str, ArrayLike], ax: Axes | None = None, max_error: float = 10.0) -> Axes:
    """Plot cumulative error distributions: the share of faces up to each error.

    Args:
        errors: name -> (N,) NME in percent, infinite for a missed face, as `Evaluation.errors`.
        ax: where to plot; by default the only axes of a new figure, which is the caller's to
            show, save or close.
        max_error: right end of the plot in percent; the legend's AUC and failure rate (FR) are
            taken there.

    Returns:
        The axes.

    Raises:
        InputError: no faces, or NaN among their errors; max_error not positive.
        MissingDependencyError: matplotlib is not installed.
    """
    legend = {
        name: f"{name}   AUC {auc(values, max_error):.1f} %   FR {failure_rate(values, max_error):.1f} %"
        for name, values in errors.items()
    }
    plt = _pyplot()
    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    for name, values in errors.items():
        sorted_errors = np.sort(np.asarray(values, dtype=np.float64))
        steps = np.concatenate(([0.0], sorted_errors[sorted_errors < max_error], [max_error]))
        ax.step(steps, cumulative_errors(values, steps), where="post", linewidth=1.8, label=legend[name])
    ax.set(xlim=(0, max_error), ylim=(0, 100), xlabel="NME (%)", ylabel="Faces (%)")
    ax.grid(color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower right", frameon=False)
    return ax


def save_ced(errors: Mapping[str, ArrayLike], path: str | os.PathLike[str], max_error: float = 10.0) -> None:
    """Write `plot_ced` to a picture file, and leave no figure open.

    Raises:
        InputError, MissingDependencyError: as `plot_ced`.
        WriteError: the file cannot be written.
    """
    plt = _pyplot()
    figure, ax = plt.subplots(layout="constrained")
    try:
        plot_ced(errors, ax, max_error)
        with replacing(Path(path)) as temporary:
            figure.savefig(temporary, dpi=150, format=Path(path).suffix[1:] or None)
    finally:
        plt.close(figure)


def _pyplot() -> Any:
    return import_extra("matplotlib.pyplot", "plot", "plots")
