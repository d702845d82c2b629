"""State dicts with their cards: loaded by name, from a file or from a URL, and saved.

A card states how to use a model, and its hash identifies the file; `downloads` gets the bytes.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from face_landmarks._system.arguments import check_path, shown
from face_landmarks._system.files import write_whole
from face_landmarks._system.forking import settle_threads
from face_landmarks.errors import ChecksumError, InputError, WeightsError, WeightsFormatError
from face_landmarks.models import registry
from face_landmarks.models.card import ModelCard
from face_landmarks.models.downloads import obtain
from face_landmarks.models.fan import FAN_CARD, convert_fan_state_dict
from face_landmarks.models.hourglass import StackedHourglass, fold_batch_norms
from face_landmarks.models.registry import DEFAULT_MODEL, file_of, get_card, list_models
from face_landmarks.models.weights_file import Place, WeightsFile, sha256_of

_SUFFIXES = (".safetensors", ".pth.tar", ".pth", ".pt")


@dataclass(frozen=True, repr=False)
class LandmarkModel:
    """A landmark network and the card that says how to use it.

    Attributes:
        card: layout, crop rule, decoder settings.
        network: crops (B, 3, crop_size, crop_size) in [0, 1] -> heatmaps (B, K, H, W).
    """

    card: ModelCard
    network: nn.Module

    def __repr__(self) -> str:
        return f"<LandmarkModel {self.card.name!r}: {self.card.layout}, {type(self.network).__name__}>"


def load_model(model: str | os.PathLike[str] = DEFAULT_MODEL, *, sha256: str | None = None) -> LandmarkModel:
    """Load a network with its weights, on the CPU, ready for inference.

    Args:
        model: a name from `list_models()`, a weights file, or an https URL.
        sha256: the file's full hash; required for a URL.

    Raises:
        UnknownModelError: no such name.
        WeightsError: the weights cannot be found or downloaded, are damaged, or do not fit their card.
        InputError: another type of model, or sha256 is missing or malformed.
    """
    settle_threads()
    card, state = load_weights(model, sha256=sha256)
    with torch.device("meta"):  # shapes alone: the weights come with the state
        network = StackedHourglass(card.network)
    if card.format == "fan":
        state = convert_fan_state_dict(state, card.network)
    check_state_dict(card, state, {name: value.shape for name, value in network.state_dict().items()})
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    network.load_state_dict(state, strict=True, assign=True)
    return LandmarkModel(card, fold_batch_norms(network, in_place=True))


def load_weights(
    model: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    progress: bool | None = None,
) -> tuple[ModelCard, dict[str, Tensor]]:
    """A model's card and state dict, on the CPU.

    Args:
        model: a name; a local file (.safetensors with its card inside, or a .pth, .pt
            or .pth.tar state dict with the keys of FAN); or an https URL of such a file.
        sha256: full hash that the file must have; required for a URL, and of no use with a name.
        progress: show a bar on stderr while downloading; by default if stderr is a terminal.

    Returns:
        The card, with `file` filled in, and the state dict as stored, its keys in `card.format`.

    Raises:
        UnknownModelError: neither the name of a model, nor a file, nor a URL.
        WeightsError: a subclass; the message states the file, its fault, and what to do.
        InputError: another type of model, or sha256 is missing or malformed.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise InputError(f"model: expected a name, a path or a URL, got {shown(model)}")
    if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch("[0-9a-fA-F]{64}", sha256)):
        raise InputError(f"sha256: expected 64 hexadecimal digits, got {shown(sha256)}")
    sha256 = sha256 and sha256.lower()

    if isinstance(model, str) and "://" in model:
        if sha256 is None:
            raise InputError(f"sha256: expected the full hash of {model}, got None")
        return _read(*obtain(model, _file_behind(model, sha256), registry.PRETRAINED, progress=progress))
    if not isinstance(model, str) or "/" in model or os.sep in model or model.endswith(_SUFFIXES):
        return _read(*_local(check_path("model", model), sha256))
    card = get_card(model)
    file = file_of(card)
    if sha256 not in (None, file.sha256):
        raise ChecksumError(
            f"sha256: expected that of {model}, {file.sha256}, got {sha256}; a name needs none: its file is "
            "compared with its card"
        )
    return _read(*obtain(card.name, file, registry.PRETRAINED, progress=progress), card)


def download(model: str, *, progress: bool | None = None) -> Path:
    """Download the file of a model or detector unless it is on this machine, and return its path.

    Raises:
        UnknownModelError: no model or detector has this name.
        WeightsError: as in `load_weights`.
    """
    file = registry.DETECTORS[model].file if model in registry.DETECTORS else file_of(get_card(model))
    place, _ = obtain(model, file, registry.PRETRAINED, progress=progress)
    return place.path


def check_state_dict(
    card: ModelCard,
    state: Mapping[str, Tensor],
    expected_shapes: Mapping[str, Sequence[int]],
) -> None:
    """Raise unless a state dict has the tensors that the card's network needs.

    Raises:
        WeightsFormatError: a tensor is missing, unknown, or of another shape.
    """
    faults = [f"missing {key}" for key in expected_shapes.keys() - state.keys()]
    faults += [f"unknown {key}" for key in state.keys() - expected_shapes.keys()]
    faults += [
        f"{key}: expected {tuple(expected_shapes[key])}, got {tuple(state[key].shape)}"
        for key in expected_shapes.keys() & state.keys()
        if tuple(expected_shapes[key]) != tuple(state[key].shape)
    ]
    if faults:
        more = [f"and {len(faults) - 5} more"] if len(faults) > 5 else []
        file = card.file and (
            f"\n  url       {' '.join(card.file.urls) or 'none'}"
            f"\n  file      {card.file.name}, {card.file.size} bytes, sha256 {card.file.sha256}"
            "\n  by hand   the file is whole, but of another network: use its own model, or correct its card"
        )
        raise WeightsFormatError(
            f"{card.name}: expected the {len(expected_shapes)} tensors of the card's network "
            f"{card.network}, got {len(state)}, and these do not fit:\n    "
            + "\n    ".join(sorted(faults)[:5] + more)
            + (file or "")
        )


def _file_behind(url: str, sha256: str) -> WeightsFile:
    """The file of a URL; its name in the cache is made of the URL and the hash."""
    name = re.sub(r"[^\w.-]", "_", re.split(r"[?#]", url)[0].rsplit("/", 1)[-1])
    suffix = next(filter(name.endswith, _SUFFIXES), "")
    return WeightsFile(f"{name.removesuffix(suffix)}-{sha256}{suffix}", sha256, urls=(url,))


def _local(path: Path, sha256: str | None) -> tuple[Place, bytes]:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise WeightsError(
            f"{path}: expected a weights file or the name of a model ({', '.join(list_models())}), "
            f"got {getattr(error, 'strerror', None) or error}"
        ) from error
    found = sha256_of(data)
    file = WeightsFile(path.name, sha256 or found, len(data))
    place = Place(path.name, file, path, "get the file again and compare its sha256")
    if file.sha256 != found:
        raise place.failure(ChecksumError, "the file has another hash than the one given", data)
    return place, data


def _read(place: Place, data: bytes, card: ModelCard | None = None) -> tuple[ModelCard, dict[str, Tensor]]:
    """Card and state dict from verified bytes; without a given card the file must contain one."""
    read = _read_safetensors if data[8:9] == b"{" else _read_pickle  # a safetensors header is JSON
    card, state = read(place, data, card)
    return replace(card, file=replace(place.file, size=len(data))), state


def _read_safetensors(
    place: Place, data: bytes, card: ModelCard | None
) -> tuple[ModelCard, dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        with torch.device("cpu"):
            state = load(data)
        if card is None:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            card = ModelCard.from_dict(json.loads(header["__metadata__"]["card"]))
    except KeyError:
        problem = "expected a model card in the file's metadata (save_weights puts it there), got none"
        raise place.failure(WeightsFormatError, problem, data) from None
    except (SafetensorError, ValueError, RecursionError, WeightsFormatError) as error:
        raise place.failure(WeightsFormatError, f"not a safetensors model: {error}", data) from error
    return card, state


def _read_pickle(place: Place, data: bytes, card: ModelCard | None) -> tuple[ModelCard, dict[str, Tensor]]:
    try:
        with torch.device("cpu"):
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # a damaged file can raise anything; torch's own message advises to trust the file
        problem = "not a plain state dict of tensors, so it was refused; nothing in it was run"
        raise place.failure(WeightsFormatError, problem, data) from None
    if not (
        isinstance(state, dict)
        and all(isinstance(value, torch.Tensor) for value in state.values())
        and {"conv1.weight", "m0.b1_1.conv1.weight", "l0.weight"} <= state.keys()
    ):
        problem = "expected a state dict with the keys of FAN; other models are .safetensors with a card"
        raise place.failure(WeightsFormatError, problem, data)
    if card is None:
        stacks = sum(re.fullmatch(r"l\d+\.weight", key) is not None for key in state)
        card = replace(FAN_CARD, name=place.model, network=replace(FAN_CARD.network, stacks=stacks))
    return card, state


def save_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor], card: ModelCard) -> ModelCard:
    """Write a .safetensors file that contains its card; the same input gives the same bytes.

    Args:
        path: the file; readers find the old or the new one, whole.
        state: tensors in the type to store them in, e.g. half precision.
        card: the model's card.

    Returns:
        The card with `file` filled in, as the registry needs it.

    Raises:
        InputError: the path does not end in .safetensors.
        WriteError: the file cannot be written.
    """
    from safetensors.torch import save

    path = check_path("path", path, suffix=".safetensors")
    inner = json.dumps(replace(card, file=None).to_dict())
    data = save({key: value.detach().cpu().contiguous() for key, value in state.items()}, {"card": inner})
    write_whole(path, data)
    return replace(card, file=WeightsFile(path.name, sha256_of(data), len(data)))
