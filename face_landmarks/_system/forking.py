"""Forked processes: torch's threads stay behind in the parent, and a child would wait for them for ever."""

from __future__ import annotations

import os

import torch

_process = os.getpid()


def settle_threads() -> None:
    """In a process that was forked since the package was imported, compute on one thread.

    So do the workers of torch's DataLoader. It is done once: who knows better may call
    `torch.set_num_threads` afterwards.
    """
    global _process
    if _process != os.getpid():
        torch.set_num_threads(1)
        _process = os.getpid()
