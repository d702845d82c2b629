"""Forked processes: a child has none of torch's threads and would wait for them forever, so it uses one.

It would also wait for locks whose holders it lacks.

The package imports this module at once, so that a fork between that import and torch's is noticed, too.
"""

from __future__ import annotations

import os
import threading

_process = os.getpid()


def settle_threads() -> None:
    """Set torch to one thread in a process that was forked after the package was imported.

    The workers of torch's DataLoader do the same. It is done once per process, so a later call of
    `torch.set_num_threads` is respected.
    """
    global _process
    if _process != os.getpid():
        import torch

        torch.set_num_threads(1)
        _process = os.getpid()


class ForkableLock:
    """A lock, as a context, that a forked process finds open: its holder may not have come along."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()
