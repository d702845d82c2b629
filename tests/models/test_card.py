"""Model cards: read, refused, frozen."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import CONTENT, sha256
from tiny_model import tiny_card as card

from face_landmarks._system.frozen import FrozenMapping
from face_landmarks.errors import WeightsFormatError
from face_landmarks.models.card import Calibration, ModelCard
from face_landmarks.models.registry import embedded_models, get_card, list_models
from face_landmarks.models.weights_file import WeightsFile


def test_a_card_survives_json() -> None:
    for original in (get_card("2dfan4"), card()):
        assert ModelCard.from_dict(json.loads(json.dumps(original.to_dict()))) == original


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lean": None}, "right types"),
        ({"surprise": 1}, "unknown \\['surprise'\\]"),
        ({"layout": "ibug-69"}, "layout: expected one of"),
        ({"network": {"landmarks": 3}}, "network: expected 68 landmarks"),
        ({"network": [68]}, "network: .*must be a mapping"),
        ({"format": "pickle"}, "format: expected 'native' or 'fan'"),
        ({"crop_scale": 0.0}, "crop_scale: expected a positive number"),
        ({"crop_shift": float("nan")}, "numbers: expected finite values"),
        ({"offset": [1.0]}, "offset: expected \\(x, y\\)"),
        ({"window": 0}, "window: expected an odd number of cells"),
        ({"window": 4}, "window: expected an odd number of cells"),
        ({"temperature": -1.0}, "temperature: expected a positive number"),
        ({"summary": 5}, "words: expected strings"),
        ({"file": {"name": "a"}}, "missing \\['sha256'\\]"),
        ({"file": {"name": "a", "sha256": "11f355bf06"}}, "64 hex digits"),
        ({"file": "a"}, "expected a mapping, got str"),
        ({"file": ""}, "expected a mapping, got str"),
        ({"file": {}}, "missing \\['name', 'sha256'\\]"),
        ({"scores": [1]}, "scores: expected a mapping"),
        ({"calibration": {"scale": [1.0] * 68, "own": "x", "face": 0.5}}, "right types"),
        ({"calibration": {"scale": [1.0] * 68, "own": math.nan, "face": 0.5}}, "expected finite powers"),
        ({"calibration": {"scale": 1.0, "own": 0.5, "face": 0.5}}, "right types"),
    ],
)
def test_an_impossible_card_is_refused_by_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsFormatError, match=message):
        ModelCard.from_dict({**card().to_dict(), **change})


@pytest.mark.parametrize("change", [{"heads": 2}, {"features": "96"}, {"features": 95}, {"crop_size": 100}])
def test_a_network_that_cannot_be_built_is_a_fault_of_the_card(change: dict[str, Any]) -> None:
    with pytest.raises(WeightsFormatError, match="card of tiny: network: "):
        values = card().to_dict()
        ModelCard.from_dict({**values, "network": {**values["network"], **change}})


def test_a_card_without_a_key_is_refused() -> None:
    values = card().to_dict()
    del values["licence"]
    with pytest.raises(WeightsFormatError, match="missing \\['licence'\\]"):
        ModelCard.from_dict(values)
    with pytest.raises(WeightsFormatError, match="expected a mapping, got list"):
        ModelCard.from_dict([])  # type: ignore[arg-type]


def test_a_damaged_registry_entry_is_named(pretrained: Path) -> None:
    (pretrained / "bad.json").write_text("{")
    with pytest.raises(WeightsFormatError, match="bad.json: expected a model card in JSON"):
        list_models()


def test_a_card_cannot_be_changed_through_any_path() -> None:
    """Whatever can be reached from a card is a plain value, a tuple, or refuses to be changed."""
    scores = {"photos": {"faces": 3, "NME by part": [1.5, 2.5]}}
    frozen = card(scores=scores, calibration=Calibration([1.0] * 68, 0.5, 0.1))  # type: ignore[arg-type]
    file = WeightsFile("a", sha256(CONTENT), urls=["https://a.example"])  # type: ignore[arg-type]
    scores["photos"]["faces"] = 4
    assert frozen.scores["photos"]["faces"] == 3
    for start in (get_card("2dfan4"), *map(get_card, embedded_models()), replace(frozen, file=file)):
        waiting: list[Any] = [start]
        while waiting:
            value = waiting.pop()
            if value is None or isinstance(value, (str, int, float)):
                continue
            if isinstance(value, tuple):
                waiting += value
                continue
            if isinstance(value, FrozenMapping):
                with pytest.raises(TypeError, match="item assignment"):
                    value["photos"] = {}  # type: ignore[index]
                waiting += value.values()
                continue
            for field in dataclasses.fields(value):
                with pytest.raises(dataclasses.FrozenInstanceError):
                    setattr(value, field.name, None)
                waiting.append(getattr(value, field.name))
    with pytest.raises(TypeError, match="item assignment"):
        frozen.scores["photos"] = {}  # type: ignore[index]
    thawed = frozen.to_dict()
    thawed["scores"]["photos"]["NME by part"].append(0.0)
    thawed["network"]["stacks"] = 9
    assert frozen == card(
        scores={"photos": {"faces": 3, "NME by part": (1.5, 2.5)}}, calibration=frozen.calibration
    )


def test_equal_cards_have_equal_hashes() -> None:
    for name in list_models():
        assert hash(get_card(name)) == hash(get_card(name))
    reordered = [card(scores={"a": 1, "b": {"c": 2}}), card(scores={"b": {"c": 2}, "a": 1})]
    assert reordered[0] == reordered[1] and len(set(reordered)) == 1
    assert len({card(), card(lean=0.5), card(scores={"a": 1})}) == 3


def test_scores_read_as_the_dict_they_were_given_as() -> None:
    scores = {"photos": {"NME": 3.5, "none": None}}
    frozen = card(scores=scores).scores
    assert frozen == scores and frozen["photos"]["NME"] == 3.5 and repr(frozen) == repr(scores)
    assert pickle.loads(pickle.dumps(frozen)) == frozen


def test_scores_that_json_does_not_have_are_refused() -> None:
    with pytest.raises(
        WeightsFormatError, match="scores: expected values that JSON can represent, got ndarray"
    ):
        card(scores={"NME": np.zeros(2)})


def test_a_network_that_is_no_configuration_is_refused() -> None:
    with pytest.raises(WeightsFormatError, match="network: expected 68 landmarks"):
        card(network={"landmarks": 68})
