"""Torch's process-wide state, which a caller may have changed: it must not reach our networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

# Multiply-adds of small layers, up to which torch's threads cost as much as they save: see docs/speed.md.
FOR_ONE_THREAD: Final = 400_000_000


@contextmanager
def own_types(device: torch.device) -> Iterator[None]:
    """Run networks in their own type: `torch.autocast` around the call has no effect inside.

    The other two defaults, of type and of device, need no context: whatever makes a tensor in the
    inference path names both.
    """
    with torch.autocast("cpu", enabled=False):
        if device.type == "cpu":
            yield
            return
        with torch.autocast(device.type, enabled=False):
            yield


@contextmanager
def fitting_threads(products: float, device: torch.device) -> Iterator[None]:
    """Compute a small batch, of so many multiply-adds on the CPU, on the calling thread alone.

    A network has some sixty layers; to wake another thread for each costs more than the thread does. The
    number of threads is the calling thread's own: others that compute meanwhile keep theirs.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or products > FOR_ONE_THREAD or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
