"""The device that networks run on."""

from __future__ import annotations

import torch

from face_landmarks.errors import InputError


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device of this name, proven to be there; CUDA if present, else the CPU, by default.

    Raises:
        InputError: torch knows no such device, or it is not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        if chosen.type != "cpu":
            torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"device: expected one that is present, such as 'cpu' or 'cuda:0', got {device!r}: {reason}"
        ) from error
    return chosen
