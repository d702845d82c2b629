"""The process of a worker: groups of photos in, their lines out, until its pipe is closed."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import cv2
import torch

from face_landmarks.output.folders.groups import Group, align_groups
from face_landmarks.output.folders.journal import Row
from face_landmarks.output.folders.lists import Photo


class Started(NamedTuple):
    """The process runs and waits for its `Task`."""


class Ready(NamedTuple):
    """The worker has its aligner and waits for groups."""


class Unusable(NamedTuple):
    """The aligner could not be unpickled.

    Attributes:
        reason: what was raised.
    """

    reason: str


class Warned(NamedTuple):
    """A warning was given."""

    message: str
    category: type[Warning]


@dataclass(frozen=True)
class Task:
    """What all workers of a run are given.

    Attributes:
        aligner: pickled.
        place: the current folder.
        settings: of the aligner.
        threads: of each worker.
        opencv_level: of OpenCV's log.
    """

    aligner: bytes
    place: str
    settings: Row
    threads: int
    opencv_level: int


def work(pipe: Connection, gpu: str | None) -> None:
    """Take a `Task` from a pipe, then groups to align, and send back a `Group` for each.

    The first message back is `Started`, upon which the task is awaited, the second `Ready` or `Unusable`. The
    task is no argument of the process: those are written to a pipe that nobody reads if the process dies as
    it starts, so that whoever starts it would wait for ever. The process ends at once when the other end of
    the pipe is closed, as it is when the process there dies.

    Args:
        pipe: to the process that writes the file.
        gpu: the one that CUDA is to see; None for all.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the one that writes says so
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        pipe.send(Started())
        task: Task = pipe.recv()
    except (EOFError, ConnectionError):
        os._exit(1)
    os.chdir(task.place)
    torch.set_num_threads(task.threads)
    cv2.setNumThreads(task.threads)
    getattr(cv2.utils, "logging", cv2).setLogLevel(task.opencv_level)
    sending = threading.Lock()

    def send(message: object) -> None:
        with sending:
            pipe.send(message)

    def warn(message: Warning | str, category: type[Warning], *_place: Any, **_more: Any) -> None:
        send(Warned(str(message), _known(category)))

    warnings.showwarning = warn
    try:
        aligner = pickle.loads(task.aligner)
    except Exception as error:
        send(Unusable(f"{type(error).__name__}: {error}"))
        return
    send(Ready())
    groups: queue.SimpleQueue[Sequence[Photo]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, groups), daemon=True).start()
    try:
        for group in align_groups(aligner, task.settings, _endless(groups)):
            send(group._replace(failure=_portable(group)))
    except ConnectionError:  # the process that writes the file has ended
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # not to wait for threads


def _receive(pipe: Connection, groups: queue.SimpleQueue[Sequence[Photo]]) -> None:
    """Take groups from the pipe until it ends, and the process with it."""
    while True:
        try:
            groups.put(pipe.recv())
        except BaseException:
            os._exit(1)


def _endless(groups: queue.SimpleQueue[Sequence[Photo]]) -> Iterator[Sequence[Photo]]:
    while True:
        yield groups.get()


def _portable(group: Group) -> Exception | None:
    """What was raised, in a form that other processes can unpickle."""
    try:
        pickle.loads(pickle.dumps(group.failure))
    except Exception:
        return RuntimeError(group.lines[0].error)
    return group.failure


def _known(category: type[Warning]) -> type[Warning]:
    """The kind of a warning, if every process knows it."""
    return category if category.__module__ in ("builtins", "face_landmarks") else UserWarning
