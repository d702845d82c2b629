"""Optional dependencies: imported where they are used, with an error that says how to install them."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Final

from face_landmarks.errors import MissingDependencyError

# ONNX Runtime 1.29 and later report their use over the network, from a thread that is started by the import:
# without a question, and a process that is forked later waits for that thread when it ends.
_ENVIRONMENT: Final = {"onnxruntime": {"ORT_DISABLE_TELEMETRY": "1"}}


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an optional package, with the environment it needs where the caller has set none.

    Args:
        module: its full name, e.g. "matplotlib.pyplot".
        extra: the extra of this package that installs it, e.g. "plot".
        purpose: what needs it, in the plural, e.g. "plots".

    Raises:
        MissingDependencyError: it is not installed, or cannot be imported.
    """
    package = module.partition(".")[0]
    for name, value in _ENVIRONMENT.get(package, {}).items():
        os.environ.setdefault(name, value)
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f'{purpose} need {package}, pip install "shr-fan[{extra}]": {error}'
        ) from error
