"""The folder of a training run: its checkpoints, its log, and a fingerprint of what it is trained on."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from face_landmarks._system.files import replacing, writing
from face_landmarks.errors import InputError, WeightsFormatError
from face_landmarks.training.config import TrainConfig, restore_config
from face_landmarks.training.data import FaceSet, TrainingData

logger = logging.getLogger(__name__)

CHECKPOINT, BEST, LOG = "checkpoint.pt", "best.pt", "log.csv"
LOG_FIELDS = (
    "step", "faces", "seconds", "learning_rate", "loss", "heatmap", "coordinate", "siamese",
    "agreement", "near", "teacher", "teacher_coordinate", "gradient", "val_nme", "val_x", "val_y",
)  # fmt: skip
_HASHED_PICTURES = 256  # of a set that is kept in a file
_ADVICE = "choose an empty folder, or the same settings and data"


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint in one step, so that an interrupted run leaves no damaged one.

    Raises:
        WriteError: the file cannot be written.
    """
    with replacing(path) as temporary:
        torch.save(dict(state), temporary)


def load_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint, its tensors on a device.

    Raises:
        WeightsFormatError: the file is missing, damaged, or not of a training run.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises whatever a damaged file makes it
        reason = str(error).partition("\n")[0]
        raise WeightsFormatError(f"{path}: expected a checkpoint of a training run, got: {reason}") from error
    if not isinstance(state, dict) or not {"config", "step", "best", "average"} <= state.keys():
        raise WeightsFormatError(f"{path}: expected a checkpoint of a training run, got another file")
    return state


def load_best(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The best checkpoint of a run: its "config" and "average" weights, on the CPU.

    Raises:
        InputError: the folder holds no finished validation.
        WeightsFormatError: the checkpoint is damaged.
    """
    best = Path(folder) / BEST
    if not best.exists():
        raise InputError(f"{folder}: expected a training run with a {BEST}, got none")
    return load_state(best)


def load_config(folder: str | os.PathLike[str]) -> TrainConfig:
    """The configuration of a run.

    Raises:
        InputError: the folder holds no finished validation.
        WeightsFormatError: the checkpoint is damaged.
    """
    return restore_config(load_best(folder)["config"])


def load_checkpoint(
    folder: str | os.PathLike[str], config: TrainConfig, device: torch.device | str = "cpu"
) -> dict[str, Any] | None:
    """What a run continues from: the folder's checkpoint, or None if it holds none.

    Raises:
        InputError: the checkpoint is of another configuration.
        WeightsFormatError: it is damaged.
    """
    path = Path(folder) / CHECKPOINT
    if not path.exists():
        return None
    state = load_state(path, device)
    if restore_config(state["config"]) != config:
        raise InputError(
            f"{path}: expected a checkpoint of this configuration, got one of another; {_ADVICE}"
        )
    if not {"network", "optimiser", "generator", "seconds"} <= state.keys():
        raise WeightsFormatError(f"{path}: expected a checkpoint to continue from, got weights alone")
    return state


def check_fingerprint(path: Path, found: Mapping[str, str] | None, expected: Mapping[str, str]) -> None:
    """Raise unless a checkpoint is of a run on the same data, from the same weights, in the same type.

    Raises:
        InputError: it is of another run; the message names what differs.
    """
    if found is None:
        logger.warning("%s: an older version wrote it; its data and initial weights are not compared", path)
        return
    if others := [name for name, value in expected.items() if found.get(name) != value]:
        raise InputError(
            f"{path}: expected a checkpoint of the same {', '.join(others)}, got one of others; {_ADVICE}"
        )


def fingerprint(
    data: TrainingData,
    initial: Mapping[str, Tensor] | None,
    teacher: Mapping[str, Tensor] | None,
    precision: torch.dtype,
) -> dict[str, str]:
    """What the weights of a run depend on besides its configuration, as short hashes by name.

    Of a large set, whose pictures are kept in a file, only some of the pictures are read.
    """
    sets = {
        "training faces": data.labelled,
        "validation faces": data.validation,
        "secondary faces": data.large_pose,
        "unlabelled faces": data.unlabelled,
    }
    weights = {"initial weights": initial, "teacher": teacher}
    return {
        **{name: "none" if faces is None else _hash_faces(faces) for name, faces in sets.items()},
        **{name: "none" if state is None else _hash_tensors(state) for name, state in weights.items()},
        "normaliser": data.normaliser,
        "precision": str(precision),
    }


def _hash_faces(faces: FaceSet) -> str:
    step = max(1, len(faces) // _HASHED_PICTURES) if faces.mapped else 1
    parts = {"landmarks": faces.landmarks, "pictures": faces.pictures[::step]}
    return _hash_tensors(parts, "\n".join(faces.names))


def _hash_tensors(tensors: Mapping[str, Tensor], words: str = "") -> str:
    digest = hashlib.sha256(words.encode())
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def open_log(folder: Path, step: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Append rows to the run's log, after dropping those later than the step the run continues from.

    Raises:
        WriteError: the log cannot be written.
    """
    path = folder / LOG
    rows: list[dict[str, Any]] = []
    if path.exists() and step > 0:
        with writing(path), path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = [row for row in csv.DictReader(file) if _is_up_to(row.get("step"), step)]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, LOG_FIELDS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    with writing(path), path.open("a", newline="", buffering=1, encoding="utf-8") as file:
        writer = csv.DictWriter(file, LOG_FIELDS)
        yield lambda row: writer.writerow(
            {name: value if isinstance(value, int) else f"{value:.6g}" for name, value in row.items()}
        )


def _is_up_to(text: str | None, step: int) -> bool:
    """Whether a row of the log is whole and not later than a step."""
    return text is not None and text.isdecimal() and int(text) <= step
