"""A frozen mapping is a dict in all but that it cannot be changed."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from face_landmarks import Faces, get_layout
from face_landmarks._system.frozen import FrozenMapping
from face_landmarks.models.registry import get_card


def test_it_equals_its_dict_and_keeps_its_order_and_values() -> None:
    items: dict[str, Any] = {"b": 1, "a": (2, 3)}
    frozen = FrozenMapping(items)
    assert frozen == items == dict(frozen) and list(frozen) == ["b", "a"] and len(frozen) == 2
    items["c"] = 4
    assert "c" not in frozen
    assert hash(frozen) == hash(FrozenMapping({"a": (2, 3), "b": 1})) and repr(frozen) == repr(dict(frozen))
    with pytest.raises(TypeError):
        frozen["a"] = 5  # type: ignore[index]


def test_it_can_be_copied_and_pickled() -> None:
    frozen = FrozenMapping({"a": 1})
    for other in (copy.copy(frozen), copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert type(other) is FrozenMapping and other == frozen


def test_what_holds_one_becomes_a_dict() -> None:
    layout = get_layout("ibug-68")
    assert dataclasses.asdict(layout)["groups"] == layout.groups
    assert dataclasses.asdict(Faces.empty(layout))["layout"]["name"] == "ibug-68"
    card = get_card("shr-fan-68")
    assert dataclasses.asdict(card)["scores"] == card.scores
