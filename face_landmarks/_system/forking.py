"""Forked processes: a child has none of torch's threads and would wait for them forever, so it uses one.

The package imports this module at once, so that a fork between that import and torch's is noticed, too.
"""

from __future__ import annotations

import os

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
