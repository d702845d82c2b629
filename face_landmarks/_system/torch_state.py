"""Torch's process-wide state, which a caller may have changed: it must not reach our networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
