"""Model cards: how a model is used, and what it scores."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import Tensor

from face_landmarks._system.frozen import FrozenMapping
from face_landmarks.errors import InputError, WeightsFormatError
from face_landmarks.geometry import crop_matrices
from face_landmarks.heatmap import decode_heatmaps
from face_landmarks.layouts import LAYOUTS
from face_landmarks.models.hourglass import HourglassConfig
from face_landmarks.models.weights_file import WeightsFile

_Card = TypeVar("_Card", "ModelCard", "WeightsFile", "Calibration")


@dataclass(frozen=True)
class Calibration:
    """Converts the peak heights of a model's heatmaps into expected errors; see `confidence`.

    With d = 1 / height - 1 for each landmark, and log d averaged over the face, the expected error is
    scale * exp(own * log d + face * mean log d).

    Attributes:
        scale: (K,) expected error of each landmark where d = 1 (a peak of one half), in crop pixels.
        own: exponent of the landmark's own d.
        face: exponent of the geometric mean of d over the face.
        radii: pairs of a share and the radius, in expected errors, that contained this share of the
            landmarks, both increasing; none for a Rayleigh distribution.
    """

    scale: tuple[float, ...]
    own: float
    face: float
    radii: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(self.scale))
        object.__setattr__(self, "radii", tuple((float(a), float(b)) for a, b in self.radii))
        if not all(math.isfinite(power) for power in (self.own, self.face)):
            raise WeightsFormatError(f"calibration: expected finite powers, got {self.own}, {self.face}")


@dataclass(frozen=True)
class ModelCard:
    """What is needed to use a model, and how it was made and measured; immutable and hashable.

    Attributes:
        name: the model's name, e.g. "shr-fan-68-fast".
        summary: what it is, in one sentence.
        licence: of the weights, not of this package's code.
        layout: name of the landmark layout, e.g. "ibug-68".
        network: shape of the network.
        format: keys of the state dict: "native", this package's own; "fan", those of the
            published FAN models.
        crop_scale: side of the square crop, in units of the face box's width + height.
        crop_shift: distance of the crop's centre below the box's centre, in box heights.
        window: side of the decoder's window, in heatmap cells.
        temperature: of the decoder's softmax.
        offset: (x, y) of predicted minus true position, in crop pixels; subtracted after decoding.
        lean: mean offset of the training labels to the right (+x) of the landmarks of a predictor that
            treats an image and its mirror image alike, in inter-ocular distances; about 0.01 in 300-W.
            Averaging with the mirror image removes it, and `FaceAligner(flip=True)` adds it again. 0 where
            it was not measured.
        training_data: the data that the weights were trained on.
        command: the command that trained them.
        scores: measured results, by benchmark and metric; the given dict is copied and frozen.
        file: the weights file; None in the card inside that file, which cannot contain its own hash.
        calibration: of the expected errors, from held-out faces; None where it was not measured.
        doubtful_score: mean landmark score below which a face is located again, upright and turned
            (`locating.search`): on held-out faces, the score that one upright face in a hundred stays
            below. 0.5 where it was not measured.
    """

    name: str
    summary: str
    licence: str
    layout: str
    network: HourglassConfig
    format: Literal["native", "fan"]
    crop_scale: float
    crop_shift: float
    window: int
    temperature: float
    offset: tuple[float, float]
    lean: float
    training_data: str
    command: str
    scores: Mapping[str, Any]
    file: WeightsFile | None = None
    calibration: Calibration | None = None
    doubtful_score: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "offset", tuple(self.offset))
        object.__setattr__(self, "scores", _freeze(self.scores))
        words = (self.name, self.summary, self.licence, self.layout, self.training_data, self.command)
        numbers = (self.crop_scale, self.crop_shift, self.temperature, self.lean, *self.offset)
        self._expect(all(isinstance(word, str) for word in words), "words", "strings", words)
        self._expect(isinstance(self.scores, Mapping), "scores", "a mapping", self.scores)
        self._expect(self.layout in LAYOUTS, "layout", f"one of {', '.join(LAYOUTS)}", self.layout)
        landmarks = len(LAYOUTS[self.layout])
        found = getattr(self.network, "landmarks", self.network)
        self._expect(found == landmarks, "network", f"{landmarks} landmarks, as in {self.layout}", found)
        self._expect(self.format in ("native", "fan"), "format", "'native' or 'fan'", self.format)
        self._expect(all(map(math.isfinite, numbers)), "numbers", "finite values", numbers)
        self._expect(len(self.offset) == 2, "offset", "(x, y)", self.offset)
        self._expect(self.crop_scale > 0, "crop_scale", "a positive number", self.crop_scale)
        odd = isinstance(self.window, int) and self.window > 0 and self.window % 2 == 1
        self._expect(odd, "window", "an odd number of cells", self.window)
        self._expect(self.temperature > 0, "temperature", "a positive number", self.temperature)
        self._expect(0 <= self.doubtful_score <= 1, "doubtful_score", "0 to 1", self.doubtful_score)
        if self.calibration is not None:
            scale = self.calibration.scale
            usable = len(scale) == landmarks and all(math.isfinite(error) and error > 0 for error in scale)
            self._expect(usable, "calibration", f"{landmarks} positive errors", scale)
            radii = self.calibration.radii
            corners = [(0.0, 0.0), *radii]
            rising = all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(corners))
            bounded = all(share < 1 and math.isfinite(radius) for share, radius in radii)
            self._expect(
                rising and bounded, "calibration", "shares below 1 and radii, both increasing", radii
            )

    def _expect(self, holds: bool, field: str, expected: str, got: object) -> None:
        if not holds:
            raise WeightsFormatError(f"card of {self.name}: {field}: expected {expected}, got {got!r}")

    def image_to_crop(self, boxes: Tensor, rolls: Tensor | None = None) -> Tensor:
        """How the model's crops are cut: (B, 3, 3) float64.

        Args:
            boxes: (B, 4) face boxes in pixels of the image.
            rolls: (B,) radians, by which each box is turned about its centre, clockwise on the screen.
        """
        return crop_matrices(boxes, self.network.crop_size, self.crop_scale, self.crop_shift, rolls)

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, K, 2) in cells and scores (B, K) of the model's heatmaps (B, K, H, W)."""
        return decode_heatmaps(heatmaps, window=self.window, temperature=self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """The card as values that JSON can represent; `from_dict` reads it back."""
        values = {**dataclasses.asdict(self), "scores": _thaw(self.scores)}
        return {k: v for k, v in values.items() if k not in ("file", "calibration") or v is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelCard:
        """Read a card.

        Raises:
            WeightsFormatError: a key is missing or unknown, or a value is invalid.
        """
        if not isinstance(values, Mapping):
            return _from_dict(cls, values)
        parts = {"file": WeightsFile, "calibration": Calibration}
        given: dict[str, Any] = {
            k: _from_dict(kind, values[k]) for k, kind in parts.items() if values.get(k) is not None
        }
        if "network" in values:
            given["network"] = _network(values.get("name"), values["network"])
        return _from_dict(cls, {**values, **given})


def _freeze(value: Any) -> Any:
    """Values that JSON can represent, as immutable ones at every level."""
    if isinstance(value, Mapping):
        return FrozenMapping({key: _freeze(inner) for key, inner in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(map(_freeze, value))
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise WeightsFormatError(f"scores: expected values that JSON can represent, got {type(value).__name__}")


def _thaw(value: Any) -> Any:
    """The reverse of `_freeze`: new dicts and lists."""
    if isinstance(value, Mapping):
        return {key: _thaw(inner) for key, inner in value.items()}
    return list(map(_thaw, value)) if isinstance(value, tuple) else value


def _network(card: object, values: Mapping[str, Any]) -> HourglassConfig:
    """The shape of a card's network.

    Raises:
        WeightsFormatError: this version cannot build such a network.
    """
    try:
        return HourglassConfig(**values)
    except (TypeError, InputError) as error:
        raise WeightsFormatError(f"card of {card}: network: {error}") from error


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
