"""Settings of a training run, changed by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from face_landmarks.errors import InputError
from face_landmarks.models.hourglass import HourglassConfig
from face_landmarks.training.config import AugmentConfig, TrainConfig

_Config = TypeVar("_Config", TrainConfig, HourglassConfig, AugmentConfig)


def override(config: TrainConfig, settings: Sequence[str]) -> TrainConfig:
    """A configuration with some fields replaced, e.g. ["steps=100", "network.features=64"].

    Raises:
        InputError: an unknown field, or a value of another type.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator:
            raise InputError(f"--set: expected name=value, got {setting!r}")
        *groups, name = path.split(".")
        node = changes
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise InputError(f"--set: {group!r} is set as one value and as a group, in {setting!r}")
        node[name] = text
    return _replace(config, changes)


def _replace(config: _Config, changes: dict[str, Any]) -> _Config:
    """The changes of one group of settings, made together, as they may depend on each other."""
    new = {}
    for name, change in changes.items():
        if name not in {field.name for field in dataclasses.fields(config)}:
            raise InputError(f"--set: {type(config).__name__} has no setting {name!r}")
        value = getattr(config, name)
        if dataclasses.is_dataclass(value) != isinstance(change, dict):
            raise InputError(
                f"--set: {name!r} is {'a group' if dataclasses.is_dataclass(value) else 'one value'}"
            )
        new[name] = _replace(value, change) if isinstance(change, dict) else _parse(name, change, type(value))
    return dataclasses.replace(config, **new)


def _parse(name: str, text: str, kind: type) -> Any:
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise InputError(f"--set {name}: expected {kind.__name__}, got {text!r}") from None
