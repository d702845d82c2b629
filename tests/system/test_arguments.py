"""Arguments: wrong types and ranges are one kind of error, which says expected and got."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from face_landmarks._system.arguments import (
    check_choice,
    check_flag,
    check_number,
    check_path,
    check_whole,
    shown,
)
from face_landmarks.errors import InputError


def test_numbers_are_real_finite_and_in_their_range() -> None:
    for value in (0, 1, 0.5, np.float32(0.5), Fraction(1, 2), np.int64(1)):
        assert check_number("x", value, "a share", least=0, most=1) == value
    assert type(check_number("x", 1, "a share")) is int
    for wrong in (True, math.nan, math.inf, -0.1, 1.1, "1", None, 1j, Decimal(1), np.ones(2), torch.ones(2)):
        with pytest.raises(InputError, match="x: expected a share, got"):
            check_number("x", wrong, "a share", least=0, most=1)
    with pytest.raises(InputError, match="x: expected a number"):
        check_number("x", 10**400, "a number")


def test_whole_numbers_are_so_by_type() -> None:
    for value in (2, np.uint8(2), torch.tensor(2)):
        assert check_whole("n", value) == 2
    for wrong in (0, True, 2.0, "2", None, np.ones(1), np.ones(2, int), torch.ones(2), 10**30):
        with pytest.raises(InputError, match="n: expected a whole number, at least 1, got"):
            check_whole("n", wrong)


def test_flags_are_true_or_false_and_nothing_that_is_like_them() -> None:
    assert check_flag("f", True) is True and check_flag("f", np.False_) is False
    for wrong in (1, 0, None, "no", [], np.zeros(1, bool), torch.tensor(True)):
        with pytest.raises(InputError, match="f: expected True or False, got"):
            check_flag("f", wrong)


def test_choices_are_named() -> None:
    check_choice("c", "a", ("a", "b", "c"))
    for wrong in ("d", None, ["a"], np.array(["a"]), {}):
        with pytest.raises(InputError, match="c: expected 'a', 'b' or 'c', got"):
            check_choice("c", wrong, ("a", "b", "c"))


def test_paths_are_text_and_end_as_they_must() -> None:
    assert (
        check_path("p", "a/b.onnx", suffix=".onnx") == Path("a/b.onnx") == check_path("p", Path("a/b.onnx"))
    )
    for wrong in (3, None, b"a.onnx", ["a.onnx"]):
        with pytest.raises(InputError, match="p: expected a path, got"):
            check_path("p", wrong)
    with pytest.raises(InputError, match=r"p: expected a name that ends in \.onnx, got 'b\.pt'"):
        check_path("p", "a/b.pt", suffix=".onnx")


def test_a_value_in_a_message_is_short() -> None:
    assert shown("a") == "'a'" and shown(Path) == "the class Path"
    assert shown(np.zeros((2, 3), np.float32)) == "ndarray of shape (2, 3) of float32"
    assert shown(torch.zeros(2)) == "Tensor of shape (2,) of torch.float32"
    assert shown("x" * 100) == "str" and shown([1] * 100) == "list"
