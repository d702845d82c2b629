"""Forked processes: a child has none of torch's threads and would wait for them forever, so it uses one.

It would also wait for locks whose holders it lacks, and for the threads of what it deletes.

The package imports this module at once, so that a fork between that import and torch's is noticed, too.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref

_process = os.getpid()
_with_threads: set[weakref.ref[object]] = set()
_held: list[list[object]] = []  # during a fork


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


def keep_in_children(thing: object) -> None:
    """Let no forked process delete this object, as that would wait for its threads, which the parent has.

    A child deletes what belongs to the parent's other threads before it goes on, and the rest when it ends:
    every object gets a reference that is never given back, from before the fork.
    """
    _with_threads.add(weakref.ref(thing, _with_threads.discard))


def _hold_all() -> None:
    _held.append([thing for reference in list(_with_threads) if (thing := reference()) is not None])


def _release() -> None:
    _held.pop()


def _keep_all() -> None:
    while _held:
        for thing in _held.pop():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_all, after_in_parent=_release, after_in_child=_keep_all)


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
