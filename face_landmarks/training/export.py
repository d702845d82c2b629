"""From a training run to a weights file that `FaceAligner` loads."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import nn

from face_landmarks.errors import InputError
from face_landmarks.models.card import Calibration, ModelCard
from face_landmarks.models.confidence import fit_calibration, fit_doubtful_score
from face_landmarks.models.hourglass import StackedHourglass
from face_landmarks.models.weights import save_weights
from face_landmarks.training.config import TrainConfig, restore_config
from face_landmarks.training.data import FaceSet
from face_landmarks.training.loop import predict

RESEARCH_ONLY = (
    "research only, no commercial use: the licence of the 300-W annotations it was trained on "
    "(iBUG, Imperial College London)"
)


def export_model(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    name: str,
    summary: str,
    training_data: str,
    command: str,
    licence: str = RESEARCH_ONLY,
    scores: dict[str, Any] | None = None,
    validation: FaceSet | None = None,
    dtype: torch.dtype = torch.float16,
) -> ModelCard:
    """Write the best averaged weights of a run as a .safetensors file that carries its card.

    Args:
        folder: the run's folder, holding `best.pt`.
        path: the .safetensors file to write.
        name: the model's name.
        summary: what it is, in one sentence.
        training_data: what it was trained on.
        command: what trained it.
        licence: of the weights.
        scores: measured results, by benchmark and metric.
        validation: held-out faces, one crop wide, on which expected errors are calibrated.
        dtype: type the weights are stored in; they compute in float32 again after loading.

    Returns:
        The card, with the file's hash and size.

    Raises:
        InputError: the folder holds no finished validation.
        WriteError: the file cannot be written.
    """
    run = load_best(folder)
    config = restore_config(run["config"])
    network = StackedHourglass(config.network)
    network.load_state_dict(run["average"], strict=True)
    card = ModelCard(
        name=name,
        summary=summary,
        licence=licence,
        layout=config.layout,
        network=config.network,
        format="native",
        crop_scale=config.crop_scale,
        crop_shift=config.crop_shift,
        window=config.window,
        temperature=config.temperature,
        offset=(0.0, 0.0),
        lean=config.lean,
        training_data=training_data,
        command=command,
        scores=scores or {},
    )
    if validation is not None:
        card = replace(card, **calibrate(network, config, validation))
    state = {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in run["average"].items()
    }
    return save_weights(path, state, card)


class Calibrated(TypedDict):
    """The fields of a card that are fitted on held-out faces."""

    calibration: Calibration
    doubtful_score: float


def calibrate(network: nn.Module, config: TrainConfig, validation: FaceSet) -> Calibrated:
    """Fit the expected errors of a network and its doubtful score on held-out faces, one crop wide."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    points, scores = predict(network.eval().to(device), validation.pictures.to(device), config)
    errors = (points - validation.landmarks).norm(dim=-1)
    return {
        "calibration": fit_calibration(scores, errors),
        "doubtful_score": fit_doubtful_score(scores),
    }


def load_config(folder: str | os.PathLike[str]) -> TrainConfig:
    """The configuration of a run.

    Raises:
        InputError: the folder holds no finished validation.
    """
    return restore_config(load_best(folder)["config"])


def load_best(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The best checkpoint of a run: its "config" and "average" weights, on the CPU.

    Raises:
        InputError: the folder holds no finished validation.
    """
    best = Path(folder) / "best.pt"
    if not best.exists():
        raise InputError(f"{folder}: expected a training run with a best.pt, got none")
    run: dict[str, Any] = torch.load(best, map_location="cpu", weights_only=True)
    return run
