"""The models with a name: the package's own, and the published FAN."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from face_landmarks.errors import InputError, UnknownModelError, WeightsFormatError
from face_landmarks.models.card import ModelCard
from face_landmarks.models.fan import FAN_CARD
from face_landmarks.models.weights_file import WeightsFile

PRETRAINED = Path(__file__).with_name("pretrained")
DEFAULT_MODEL: Final = "shr-fan-68"
DEFAULT_VIDEO_MODEL: Final = "shr-fan-68-tiny"

_ZOO: Final = "models/face_detection_yunet/face_detection_yunet_2026may.onnx"


@dataclass(frozen=True)
class DetectorCard:
    """A face detector whose file is downloaded.

    Attributes:
        name: what `FaceAligner(detector=...)` calls it.
        summary: what it is, in one sentence.
        licence: of its file.
        file: where the file is.
    """

    name: str
    summary: str
    licence: str
    file: WeightsFile


YUNET: Final = DetectorCard(
    name="yunet",
    summary="YuNet, a face detector of one small network, from OpenCV's model zoo.",
    licence="MIT",
    file=WeightsFile(
        "face_detection_yunet_2026may.onnx",
        "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
        229738,
        (
            f"https://github.com/opencv/opencv_zoo/raw/main/{_ZOO}",
            f"https://media.githubusercontent.com/media/opencv/opencv_zoo/main/{_ZOO}",
            "https://huggingface.co/opencv/face_detection_yunet/resolve/main/face_detection_yunet_2026may.onnx",
        ),
    ),
)
DETECTORS: Final = {YUNET.name: YUNET}  # those with a file of their own


def list_models() -> list[str]:
    """Names of all models; `get_card` describes each."""
    return sorted(known_cards())


def embedded_models() -> list[str]:
    """Names of the models that are part of the package and need no download."""
    return [name for name, card in sorted(known_cards().items()) if not file_of(card).urls]


def get_card(name: str) -> ModelCard:
    """The card of a model, by its name.

    Raises:
        UnknownModelError: no model has this name.
        InputError: the name is not a string.
    """
    if not isinstance(name, str):
        raise InputError(f"model: expected a name, got {name!r}")
    cards = known_cards()
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


def known_cards() -> dict[str, ModelCard]:
    """The card of each model, by name.

    Raises:
        WeightsFormatError: a card in the package is damaged.
    """
    cards = [FAN_CARD]
    for path in PRETRAINED.glob("*.json"):
        try:
            cards.append(ModelCard.from_dict(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, RecursionError) as error:
            raise WeightsFormatError(f"{path}: expected a model card in JSON, got: {error}") from error
    return {card.name: card for card in cards}


def known_files() -> dict[str, WeightsFile]:
    """The file of every model and detector, by name.

    Raises:
        WeightsFormatError: a card of the package is damaged, or names no file.
    """
    return {name: card.file for name, card in DETECTORS.items()} | {
        name: file_of(card) for name, card in known_cards().items()
    }


def file_of(card: ModelCard) -> WeightsFile:
    """The weights file of a card.

    Raises:
        WeightsFormatError: the card has none.
    """
    if card.file is None:
        raise WeightsFormatError(f"card of {card.name}: file: expected the weights file, got none")
    return card.file
