"""Compiling networks with torch.compile, where the machine has what that needs."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch


def can_compile(device: torch.device) -> bool:
    """Whether the compiler that torch.compile calls is installed; a warning says so if not.

    Args:
        device: where the compiled network is to run.
    """
    default = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    names = ("gcc", "clang", "cc") if device.type == "cuda" else (default,)
    chosen = os.environ.get("CC" if device.type == "cuda" else "CXX")
    found = any(map(shutil.which, (chosen,) if chosen else names))
    if not found:
        kind, names = ("C", names) if device.type == "cuda" else ("C++", names)
        warnings.warn(
            f"no {kind} compiler found ({chosen or ', '.join(names)}), so the network runs uncompiled, at "
            "about half the speed; install one, or silence this with --no-compile or compile=False",
            stacklevel=3,
        )
    return found


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled when it is first called; if that fails, itself, with a warning."""
    chosen = torch.compile(function)

    def call(*arguments: Any) -> Any:
        nonlocal chosen
        try:
            return chosen(*arguments)
        except Exception as error:
            compiling = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
            if chosen is function or not compiling:
                raise
            reason = str(error).partition("\n")[0]
            warnings.warn(f"torch.compile failed, so the network runs uncompiled: {reason}", stacklevel=2)
            chosen = function
        return function(*arguments)

    return call
