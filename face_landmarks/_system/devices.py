"""The device that networks run on."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from face_landmarks._system.arguments import shown
from face_landmarks.errors import InputError


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device of this name, tested for presence; by default CUDA if present, else the CPU.

    Raises:
        InputError: torch does not know the device, it is not present, or it is MPS, which has no float64.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        if chosen.type == "mps":
            raise NotImplementedError("MPS is not supported, as it has no float64, in which crops are placed")
        if chosen.type != "cpu":
            torch.zeros(1, dtype=torch.float32, device=chosen).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"device: expected one that is present, such as 'cpu' or 'cuda:0', got {shown(device)}: {reason}"
        ) from error
    return chosen


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device; to CUDA from pinned memory, so that the CPU does not wait for it."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
