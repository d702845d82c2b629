"""From a training run to a weights file that `FaceAligner` loads."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from face_landmarks.errors import InputError
from face_landmarks.hourglass import HourglassConfig
from face_landmarks.training.config import AugmentConfig, TrainConfig
from face_landmarks.weights import ModelCard, save_weights

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
        dtype: type the weights are stored in; they compute in float32 again after loading.

    Returns:
        The card, with the file's hash and size.

    Raises:
        InputError: the folder holds no finished validation.
        WeightsError: the file cannot be written.
    """
    best = Path(folder) / "best.pt"
    if not best.exists():
        raise InputError(f"{folder}: expected a training run with a best.pt, got none")
    run = torch.load(best, map_location="cpu", weights_only=True)
    config = restore_config(run["config"])
    card = ModelCard(
        name=name,
        summary=summary,
        licence=licence,
        layout=config.layout,
        network=dataclasses.asdict(config.network),
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
    state = {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in run["average"].items()
    }
    return save_weights(path, state, card)


def restore_config(values: dict[str, Any]) -> TrainConfig:
    """The configuration a checkpoint was written with."""
    network = HourglassConfig(**values["network"])
    augment = AugmentConfig(**values["augment"])
    return TrainConfig(**{**values, "network": network, "augment": augment})
