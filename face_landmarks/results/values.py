"""Numbers of results: checked, compared, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from face_landmarks.errors import InputError

_DECIMALS: Final = range(3, 10)  # float32 values of landmarks and scores need so many


def numbers(name: str, values: object, unknown: bool = False) -> NDArray[np.float32]:
    """Real numbers as a new float32 array; with `unknown`, None becomes NaN."""
    if type(values) is np.ndarray and values.dtype == np.float32:
        return values.copy()
    try:
        array = np.asarray(values)
        if unknown and array.dtype == object:
            array = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # ragged, or not on the CPU
        raise InputError(f"Faces.{name}: expected an array, got {type(values).__name__}: {error}") from error
    if array.dtype.kind not in "iuf":
        raise InputError(f"Faces.{name}: expected numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):
        return np.array(array, np.float32, order="C")


def equal(one: object, other: object, names: Iterable[str]) -> bool:
    """Compare arrays by name; NaN equals NaN."""
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in names)


def format_json(values: Mapping[str, Any]) -> str:
    """JSON with a line for each key, and for each item of a list: in `Faces.to_dict`, for each face."""
    parts = []
    for key, value in values.items():
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"


def decimals(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """(V,) decimal numbers that are short in JSON and read back as these: 0.1, not 0.10000000149011612."""
    exact = values.astype(np.float64)
    short = exact.copy()
    left = np.arange(len(values))
    for digits in _DECIMALS:
        rounded = np.rint(exact[left] * 10.0**digits) / 10.0**digits
        fits = rounded.astype(np.float32) == values[left]
        short[left[fits]] = rounded[fits]
        left = left[~fits]
    return short
