"""Model cards, and the state dicts they describe.

A model is a name, a file or a URL. Its card says how to use it, its hash what it is; where the
bytes come from is the business of `downloads`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from face_landmarks.errors import (
    CacheError,
    ChecksumError,
    InputError,
    UnknownModelError,
    WeightsError,
    WeightsFormatError,
)
from face_landmarks.layouts import LAYOUTS
from face_landmarks.models.downloads import (
    Place,
    WeightsFile,
    cache_folder,
    obtain,
    remove,
    sha256_of,
    size_of,
)

if TYPE_CHECKING:  # torch is imported when weights are read; cards and files do without
    from torch import Tensor

__all__ = [
    "CachedFile",
    "Calibration",
    "ModelCard",
    "WeightsFile",
    "cache_folder",
    "cached_files",
    "check_state_dict",
    "clear_cache",
    "download",
    "embedded_models",
    "get_card",
    "list_models",
    "load_weights",
    "save_weights",
    "write_whole",
]

_PRETRAINED = Path(__file__).with_name("pretrained")
_SUFFIXES = (".safetensors", ".pth.tar", ".pth", ".pt")

_Card = TypeVar("_Card", "ModelCard", "WeightsFile", "Calibration")


# --- Cards ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """What turns the heights of a model's peaks into expected errors; see `confidence`.

    Attributes:
        scale: (K,) expected error of each landmark at a peak of one half, in crop pixels.
        own: power of the landmark's own doubt.
        face: power of the mean doubt of its face.
    """

    scale: tuple[float, ...]
    own: float
    face: float


@dataclass(frozen=True)
class ModelCard:
    """Everything needed to use a model, and to judge it.

    Attributes:
        name: the model's name, e.g. "shr-fan-68-fast".
        summary: what it is, in one sentence.
        licence: of the weights, not of this package's code.
        layout: name of the landmark layout, e.g. "ibug-68".
        network: the fields of `HourglassConfig`.
        format: keys of the state dict: "native", this package's own; "fan", those of the
            published FAN models.
        crop_scale: side of the square crop, in units of the face box's width + height.
        crop_shift: how far the crop's centre lies below the box's, in box heights.
        window: side of the decoder's window, in heatmap cells.
        temperature: of the decoder's softmax.
        offset: (x, y) of predicted minus true position, in crop pixels; subtracted after decoding.
        lean: how far to the right the training labels lie of what a mirror-symmetric predictor
            finds, in inter-ocular distances; 0 where it is unknown.
        training_data: what the weights were trained on.
        command: what trained them.
        scores: measured results, by benchmark and metric.
        file: where the weights are; None inside the file itself, which cannot hold its own hash.
        calibration: of the expected errors, on held-out faces; None where none was made.
    """

    name: str
    summary: str
    licence: str
    layout: str
    network: dict[str, Any]
    format: Literal["native", "fan"]
    crop_scale: float
    crop_shift: float
    window: int
    temperature: float
    offset: tuple[float, float]
    lean: float
    training_data: str
    command: str
    scores: dict[str, Any]
    file: WeightsFile | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        words = (self.name, self.summary, self.licence, self.layout, self.training_data, self.command)
        numbers = (self.crop_scale, self.crop_shift, self.temperature, self.lean, *self.offset)
        self._expect(all(isinstance(word, str) for word in words), "words", "strings", words)
        self._expect(self.layout in LAYOUTS, "layout", f"one of {', '.join(LAYOUTS)}", self.layout)
        landmarks = len(LAYOUTS[self.layout])
        found = self.network.get("landmarks")
        self._expect(found == landmarks, "network", f"{landmarks} landmarks, as in {self.layout}", found)
        sizes = [self.network.get(side) for side in ("crop_size", "heatmap_size")]
        whole = all(isinstance(size, int) and size > 0 for size in sizes)
        self._expect(whole, "network", "crop_size and heatmap_size in pixels", sizes)
        self._expect(self.format in ("native", "fan"), "format", "'native' or 'fan'", self.format)
        self._expect(all(map(math.isfinite, numbers)), "numbers", "finite values", numbers)
        self._expect(len(self.offset) == 2, "offset", "(x, y)", self.offset)
        self._expect(self.crop_scale > 0, "crop_scale", "a positive number", self.crop_scale)
        odd = isinstance(self.window, int) and self.window > 0 and self.window % 2 == 1
        self._expect(odd, "window", "an odd number of cells", self.window)
        self._expect(self.temperature > 0, "temperature", "a positive number", self.temperature)
        if self.calibration is not None:
            scale = self.calibration.scale
            usable = len(scale) == landmarks and all(math.isfinite(error) and error > 0 for error in scale)
            self._expect(usable, "calibration", f"{landmarks} positive errors", scale)

    def _expect(self, holds: bool, field: str, expected: str, got: object) -> None:
        if not holds:
            raise WeightsFormatError(f"card of {self.name}: {field}: expected {expected}, got {got!r}")

    def to_dict(self) -> dict[str, Any]:
        """The card as JSON-able values; `from_dict` reads it back."""
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k not in ("file", "calibration") or v is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelCard:
        """Read a card.

        Raises:
            WeightsFormatError: a key is missing or unknown, or a value is impossible.
        """
        if not isinstance(values, Mapping):
            return _from_dict(cls, values)
        parts = {"file": WeightsFile, "calibration": Calibration}
        given = {k: _from_dict(kind, values[k]) for k, kind in parts.items() if values.get(k)}
        return _from_dict(cls, {**values, **given})


def _from_dict(kind: type[_Card], values: Mapping[str, Any]) -> _Card:
    if not isinstance(values, Mapping):
        raise WeightsFormatError(f"{kind.__name__}: expected a mapping, got {type(values).__name__}")
    fields = dataclasses.fields(kind)
    required = {field.name for field in fields if field.default is dataclasses.MISSING}
    missing, unknown = required - values.keys(), values.keys() - {field.name for field in fields}
    if missing or unknown:
        raise WeightsFormatError(
            f"{kind.__name__} {values.get('name')!r}: expected other keys: "
            f"missing {sorted(missing) or 'none'}, unknown {sorted(unknown) or 'none'}"
        )
    try:
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return kind(**arguments)
    except (TypeError, AttributeError, ValueError) as error:
        raise WeightsFormatError(
            f"{kind.__name__} {values.get('name')!r}: expected values of the right types, got: {error}"
        ) from error


# --- Registry ---------------------------------------------------------------------------------

# Classic FAN targets are Gaussians of 1.75 cells, read well by the default decoder.
#
# The offset is DERIVED, NOT MEASURED: no face has been scored with it. Training read one-based
# labels as if they were zero-based and cut its 256 px crops from 360 px of the photo: one photo
# pixel, less the half that pixel centres account for, is 0.36 crop pixels. Mirrored training cancels
# it in x. To measure it: `face-landmarks evaluate --model 2dfan4` prints the mean signed error.
_FAN = ModelCard(
    name="2dfan4",
    summary=(
        "2DFAN-4 as published with ICCV 2017: four stacks, classic heatmaps. The offset is derived "
        "from its published training code, not measured."
    ),
    licence="as published by its authors; its training data, 300W-LP, is for research only",
    layout="ibug-68",
    network={
        "landmarks": 68,
        "stacks": 4,
        "features": 256,
        "depth": 4,
        "crop_size": 256,
        "heatmap_size": 64,
        "norm": "before",
    },
    format="fan",
    crop_scale=200 / 195,
    crop_shift=-0.12,
    window=5,
    temperature=10.0,
    offset=(0.0, 0.36),
    lean=0.0,
    training_data="300W-LP (Zhu et al. 2016)",
    command="https://github.com/1adrianb/face-alignment-training",
    scores={},
    file=WeightsFile(
        name="2DFAN4-11f355bf06.pth.tar",
        sha256="11f355bf0693120222f5955ce3f9dc8fb5763ebb30a47d7906e509490d32e4aa",
        size=95_641_761,
        urls=("https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",),
    ),
)


def list_models() -> list[str]:
    """Names of all models; `get_card` tells more of each."""
    return sorted(_registry())


def embedded_models() -> list[str]:
    """Names of the models that come with the package and need no network."""
    return [name for name, card in sorted(_registry().items()) if not _file(card).urls]


def get_card(name: str) -> ModelCard:
    """The card of a model, by its name.

    Raises:
        UnknownModelError: no model has this name.
    """
    cards = _registry()
    try:
        return cards[name]
    except KeyError:
        known = sorted(cards)
        close = difflib.get_close_matches(name, known, n=1)
        guess = f" (did you mean {close[0]!r}?)" if close else ""
        raise UnknownModelError(
            f"model: expected one of {', '.join(known)}, a weights file, or an https URL with its "
            f"sha256; got {name!r}{guess}"
        ) from None


def _registry() -> dict[str, ModelCard]:
    cards = [_FAN]
    for path in _PRETRAINED.glob("*.json"):
        try:
            cards.append(ModelCard.from_dict(json.loads(path.read_text(encoding="utf-8"))))
        except ValueError as error:
            raise WeightsFormatError(f"{path}: expected a model card in JSON, got: {error}") from error
    return {card.name: card for card in cards}


def _file(card: ModelCard) -> WeightsFile:
    if card.file is None:
        raise WeightsFormatError(f"card of {card.name}: file: expected the weights file, got none")
    return card.file


# --- Loading ----------------------------------------------------------------------------------


def load_weights(
    model: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    progress: bool | None = None,
) -> tuple[ModelCard, dict[str, Tensor]]:
    """A model's card and state dict, on the CPU, from wherever they can be had.

    Args:
        model: a name; a local file (.safetensors with its card inside, or a .pth, .pt
            or .pth.tar state dict with the keys of FAN); or an https URL of such a file.
        sha256: full hash the file must have; required for a URL.
        progress: show a bar on stderr while downloading; by default if stderr is a terminal.

    Returns:
        The card, always with `file` filled, and the state dict as stored, keys in `card.format`.

    Raises:
        UnknownModelError: neither a model's name, nor a file, nor a URL.
        WeightsError: one of its children says what is wrong with which file, and what to do.
        InputError: sha256 is missing or malformed.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise InputError(f"sha256: expected 64 hexadecimal digits, got {sha256!r}")
    sha256 = sha256 and sha256.lower()

    if isinstance(model, str) and "://" in model:
        if sha256 is None:
            raise InputError(f"sha256: expected the full hash of {model}, got None")
        return _read(*obtain(model, _file_behind(model, sha256), _PRETRAINED, progress=progress))
    if not isinstance(model, str) or "/" in model or os.sep in model or model.endswith(_SUFFIXES):
        return _read(*_local(Path(model), sha256))
    card = get_card(model)
    file = replace(_file(card), sha256=sha256) if sha256 else _file(card)
    return _read(*obtain(card.name, file, _PRETRAINED, progress=progress), card)


def download(model: str, *, progress: bool | None = None) -> Path:
    """Make sure that a model's file is on this machine, whole, and say where.

    Raises:
        UnknownModelError: no model has this name.
        WeightsError: as in `load_weights`.
    """
    card = get_card(model)
    place, _ = obtain(card.name, _file(card), _PRETRAINED, progress=progress)
    return place.path


def check_state_dict(
    card: ModelCard,
    state: Mapping[str, Tensor],
    expected_shapes: Mapping[str, Sequence[int]],
) -> None:
    """Compare a state dict with what the card's network needs.

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
            "\n  by hand   the file is whole, but of another network: name its own model, or mend its card"
        )
        raise WeightsFormatError(
            f"{card.name}: expected the {len(expected_shapes)} tensors of the card's network "
            f"{card.network}, got {len(state)}, and these do not fit:\n    "
            + "\n    ".join(sorted(faults)[:5] + more)
            + (file or "")
        )


def _file_behind(url: str, sha256: str) -> WeightsFile:
    """A URL's file, named in the cache after the URL and the hash."""
    name = re.sub(r"[^\w.-]", "_", re.split(r"[?#]", url)[0].rsplit("/", 1)[-1])
    suffix = next(filter(name.endswith, _SUFFIXES), "")
    return WeightsFile(f"{name.removesuffix(suffix)}-{sha256}{suffix}", sha256, urls=(url,))


def _local(path: Path, sha256: str | None) -> tuple[Place, bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{path}: expected a weights file or the name of a model ({', '.join(list_models())}), "
            f"got {error.strerror or error}"
        ) from error
    found = sha256_of(data)
    file = WeightsFile(path.name, sha256 or found, len(data))
    place = Place(path.name, file, path, "get the file again and compare its sha256")
    if file.sha256 != found:
        raise place.failure(ChecksumError, "the file is not the one asked for", data)
    return place, data


def _read(place: Place, data: bytes, card: ModelCard | None = None) -> tuple[ModelCard, dict[str, Tensor]]:
    """Card and state dict out of verified bytes; without a card the file must tell its own."""
    read = _read_safetensors if data[8:9] == b"{" else _read_pickle  # a safetensors header is JSON
    card, state = read(place, data, card)
    return replace(card, file=replace(place.file, size=len(data))), state


def _read_safetensors(
    place: Place, data: bytes, card: ModelCard | None
) -> tuple[ModelCard, dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state = load(data)
        if card is None:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            card = ModelCard.from_dict(json.loads(header["__metadata__"]["card"]))
    except KeyError:
        problem = "expected a model card in the file's metadata (save_weights puts it there), got none"
        raise place.failure(WeightsFormatError, problem, data) from None
    except (SafetensorError, ValueError, WeightsFormatError) as error:
        raise place.failure(WeightsFormatError, f"not a safetensors model: {error}", data) from error
    return card, state


def _read_pickle(place: Place, data: bytes, card: ModelCard | None) -> tuple[ModelCard, dict[str, Tensor]]:
    import io

    import torch

    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # torch raises whatever a damaged file makes it; its advice is to trust the file
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
        card = replace(_FAN, name=place.model, network={**_FAN.network, "stacks": stacks})
    return card, state


# --- Saving -----------------------------------------------------------------------------------


def save_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor], card: ModelCard) -> ModelCard:
    """Write a .safetensors file that carries its own card; the same input gives the same bytes.

    Args:
        path: the file; replaced in one step, so a reader finds the old or the new one, whole.
        state: tensors in the type they are to be stored in, e.g. half precision.
        card: the model's card.

    Returns:
        The card with `file` filled in, as it belongs in the registry.

    Raises:
        InputError: the path does not end in .safetensors.
        WeightsError: the file cannot be written.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"path: expected a name that ends in .safetensors, got {path.name!r}")
    inner = json.dumps(replace(card, file=None).to_dict())
    data = save({key: value.detach().cpu().contiguous() for key, value in state.items()}, {"card": inner})
    write_whole(path, data)
    return replace(card, file=WeightsFile(path.name, sha256_of(data), len(data)))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step, so that a reader finds the old one or the new one.

    Raises:
        WeightsError: the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        remove(temporary)
        raise WeightsError(f"{path}: expected a place to write to, got {error.strerror or error}") from error


# --- Cache ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CachedFile:
    """A file of this package in the cache folder.

    Attributes:
        path: where it is.
        size: in bytes.
        sha256: the hash it should have; None for a download that is not complete.
    """

    path: Path
    size: int
    sha256: str | None

    def verify(self) -> bool:
        """Whether the file is complete and has its hash."""
        return self.sha256 is not None and sha256_of(self.path.read_bytes()) == self.sha256


def cached_files() -> list[CachedFile]:
    """What this package has in the cache folder, complete or begun; other files are not listed."""
    return [
        CachedFile(path, size_of(path), None if path.suffix == ".part" else sha256)
        for path, sha256 in _own_files()
        if path.suffix not in (".etag", ".lock")
    ]


def clear_cache() -> list[CachedFile]:
    """Remove what `cached_files` lists, with its traces, and say what it was.

    Raises:
        CacheError: a file cannot be removed.
    """
    files = cached_files()
    for path, _ in _own_files():
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CacheError(f"{path}: expected to remove it, got {error.strerror or error}") from error
    return files


def _own_files() -> list[tuple[Path, str]]:
    """Files in the cache folder that this package made or was given, with the hash they belong to."""
    known = {_file(card).name: _file(card).sha256 for card in _registry().values() if _file(card).urls}
    files = []
    for path in sorted(cache_folder().glob("*")):
        name = re.sub(r"\.(part|etag|lock)$", "", path.name)
        named = re.search(r"-([0-9a-f]{64})(?:\.|$)", name)
        sha256 = known.get(name) or (named and named[1])
        if sha256 and path.is_file():
            files.append((path, sha256))
    return files
