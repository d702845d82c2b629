"""Arguments: one check for each kind, with one form of message."""

from __future__ import annotations

import inspect
import math
import operator
import os
import sys
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final, TypeVar

from face_landmarks.errors import InputError

_T = TypeVar("_T")
_LONGEST: Final = 80  # letters of a value in a message


def shown(value: object) -> str:
    """A value for a message: its `repr`, or its type and shape where that is long or takes several lines."""
    if inspect.isclass(value) or isinstance(getattr(value, "shape", None), Iterable):
        return kind_of(value)
    text = repr(value)
    return text if len(text) <= _LONGEST and "\n" not in text else kind_of(value)


def counted(number: int, noun: str) -> str:
    """A number of things in words: 1 face, 2 faces."""
    return f"{number} {noun}{'s' * (number != 1)}"


def kind_of(value: object) -> str:
    """The type of a value, and its shape and type of numbers if it has these, for a message."""
    if inspect.isclass(value):
        return f"the class {value.__qualname__}"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    parts = [type(value).__name__]
    if isinstance(shape, Iterable):
        parts += [f"of shape {tuple(shape)}", *([] if dtype is None else [f"of {dtype}"])]
    return " ".join(parts)


def as_number(value: object) -> float:
    """A finite real number as a float; NaN, which fails every comparison, for anything else."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def is_whole(value: object, least: int) -> bool:
    """Whether a value is an integer, in type as well, of at least `least`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def check_number(
    name: str, value: object, expected: str, *, least: float = -math.inf, most: float = math.inf
) -> float:
    """A finite real number from `least` to `most`, as an int or a float.

    Args:
        name: of the argument, for the message.
        value: what was given; True and False are not numbers.
        expected: the range in words, for the message.
        least: the smallest number allowed.
        most: the largest.

    Raises:
        InputError: another type, not finite, or out of the range.
    """
    number = as_number(value)
    if math.isfinite(number):
        number = value if isinstance(value, int) else number
        if least <= number <= most:
            return number
    raise InputError(f"{name}: expected {expected}, got {shown(value)}")


def check_whole(name: str, value: object, *, least: int = 1) -> int:
    """A whole number of at least `least` that fits a machine word, as an int.

    Raises:
        InputError: a smaller or larger number, or another type, such as True, False or 2.0.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except Exception:  # arrays and tensors raise what they like
        number = least - 1
    if not least <= number <= sys.maxsize:
        raise InputError(f"{name}: expected a whole number, at least {least}, got {shown(value)}")
    return number


def check_flag(name: str, value: object) -> bool:
    """True or False, also NumPy's.

    Raises:
        InputError: anything else; 1, "no" or an array would be taken for an answer that nobody gave.
    """
    if isinstance(value, bool):
        return value
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise InputError(f"{name}: expected True or False, got {shown(value)}")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise unless a value is one of some words.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, str) or value not in choices:
        words = [repr(choice) for choice in choices]
        raise InputError(f"{name}: expected {', '.join(words[:-1])} or {words[-1]}, got {shown(value)}")


def check_path(name: str, value: object, *, suffix: str = "") -> Path:
    """A path, whose name ends in a suffix.

    Raises:
        InputError: another type, a path in bytes, or another suffix.
    """
    path = value
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
    if not isinstance(path, str):
        raise InputError(f"{name}: expected a path, got {shown(value)}")
    if suffix and Path(path).suffix != suffix:
        raise InputError(f"{name}: expected a name that ends in {suffix}, got {Path(path).name!r}")
    return Path(path)


def check_kind(name: str, value: Any, kind: type[_T]) -> _T:
    """Return a value, or raise unless it is of a type.

    Raises:
        InputError: it is of another type.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name}: expected {kind.__name__}, got {shown(value)}")
    return value
