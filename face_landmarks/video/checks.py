"""Which values are usable numbers."""

from __future__ import annotations

import math
from numbers import Integral, Real


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
