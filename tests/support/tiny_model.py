"""A model of two tensors: its card, its state dict, and bytes for a server to send."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from face_landmarks.models.card import ModelCard
from face_landmarks.models.registry import get_card
from face_landmarks.models.weights_file import WeightsFile, cache_folder

CONTENT = bytes(range(7, 71))  # 64 bytes, all different
OTHER = bytes(reversed(CONTENT))

STATE = {"conv.weight": torch.arange(6.0).view(3, 2), "bn.steps": torch.tensor(7)}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tiny_card(**changes: Any) -> ModelCard:
    return replace(get_card("2dfan4"), name="tiny", format="native", file=None, **changes)


def register(pretrained: Path, *urls: str, data: bytes = CONTENT, name: str = "tiny") -> Path:
    """Enter a downloadable model `tiny` into the registry; its path in the cache."""
    file = WeightsFile(f"{name}.bin", sha256(data), len(data), urls)
    entry = replace(tiny_card(), name=name, file=file)
    (pretrained / f"{name}.json").write_text(json.dumps(entry.to_dict()))
    return cache_folder() / file.name


def fan_state(stacks: int) -> dict[str, torch.Tensor]:
    names = ["conv1.weight"]
    for i in range(stacks):
        names += [f"m{i}.b1_1.conv1.weight", f"l{i}.weight"]
    return {name: torch.full((1,), float(i)) for i, name in enumerate(names)}
