"""Optional dependencies: imported where they are used, with an error that says how to install them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from face_landmarks.errors import MissingDependencyError


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: its full name, e.g. "matplotlib.pyplot".
        extra: the extra of this package that installs it, e.g. "plot".
        purpose: what needs it, in the plural, e.g. "plots".

    Raises:
        MissingDependencyError: it is not installed, or cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingDependencyError(
            f'{purpose} need {package}, pip install "shr-fan[{extra}]": {error}'
        ) from error
