"""From a training run to a weights file that `FaceAligner` loads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from face_landmarks._system.devices import choose_device
from face_landmarks.errors import ExportError
from face_landmarks.models.card import Calibration, ModelCard
from face_landmarks.models.confidence import fit_calibration, fit_doubtful_score
from face_landmarks.models.hourglass import StackedHourglass, random_network
from face_landmarks.models.weights import save_weights
from face_landmarks.training.config import TrainConfig, restore_config
from face_landmarks.training.data import FaceSet
from face_landmarks.training.loop import predict
from face_landmarks.training.runs import load_best

_ROUNDINGS = 64  # that the heatmaps may differ by, in units of the type's relative precision
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
    device: torch.device | str | None = "cpu",
) -> ModelCard:
    """Write the best averaged weights of a run as a .safetensors file that carries its card.

    The network with the stored weights is compared with the float32 one before the file is written.

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
        dtype: type the weights are stored in; after loading they are float32 again.
        device: where the network runs for the calibration.

    Returns:
        The card, with the file's hash and size.

    Raises:
        InputError: the folder holds no finished validation.
        WeightsFormatError: its checkpoint is damaged.
        ExportError: the weights are not finite numbers in this type, or the heatmaps change.
        WriteError: the file cannot be written.
    """
    run = load_best(folder)
    config = restore_config(run["config"])
    state = _stored(run["average"], dtype)
    network = _network(config, {key: value.to(run["average"][key].dtype) for key, value in state.items()})
    _compare(network, _network(config, run["average"]), config, dtype, validation)
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
        card = replace(card, **calibrate(network, config, validation, device))
    return save_weights(path, state, card)


def _stored(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights in the type of the file.

    Raises:
        ExportError: a weight is not a finite number in that type.
    """
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    for key, value in stored.items():
        if not value.isfinite().all():
            largest = float(state[key].abs().max())
            raise ExportError(
                f"{key}: expected weights up to {torch.finfo(dtype).max:.5g}, the largest in {dtype}, "
                f"got {largest:.5g}; store them as torch.float32"
            )
    return stored


def _network(config: TrainConfig, state: Mapping[str, Tensor]) -> StackedHourglass:
    network = random_network(config.network)
    network.load_state_dict(state, strict=True)
    return network.eval()


@torch.inference_mode()
def _compare(
    stored: nn.Module, exact: nn.Module, config: TrainConfig, dtype: torch.dtype, faces: FaceSet | None
) -> None:
    """Raise unless rounding the weights leaves the heatmaps of a few crops as they are, but for rounding.

    Raises:
        ExportError: they differ by more, or are not finite.
    """
    size = config.network.crop_size
    generator = torch.Generator("cpu").manual_seed(0)
    noise = torch.rand(2, 3, size, size, generator=generator, dtype=torch.float32, device="cpu")
    crops = noise if faces is None else torch.cat((noise, faces.pictures[:6].float().cpu() / 255))
    expected, found = exact(crops), stored(crops)
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= _ROUNDINGS * torch.finfo(dtype).eps:
        raise ExportError(
            f"expected the heatmaps of the float32 network, to {_ROUNDINGS * torch.finfo(dtype).eps:.2g} of "
            f"their largest value, got {difference:.2g} with weights stored as {dtype}; use torch.float32"
        )


class Calibrated(TypedDict):
    """The fields of a card that are fitted on held-out faces."""

    calibration: Calibration
    doubtful_score: float


def calibrate(
    network: nn.Module,
    config: TrainConfig,
    validation: FaceSet,
    device: torch.device | str | None = "cpu",
) -> Calibrated:
    """Fit the expected errors and the doubtful score of a network on held-out faces.

    Args:
        network: it stays on the device afterwards.
        config: its crop size and decoder.
        validation: faces with landmarks, in pictures one crop wide.
        device: where to run; the best present if None.
    """
    device = choose_device(device)
    points, scores = predict(network.eval().to(device), validation.pictures.to(device), config)
    errors = (points - validation.landmarks.cpu()).norm(dim=-1)
    return {
        "calibration": fit_calibration(scores, errors),
        "doubtful_score": fit_doubtful_score(scores),
    }
