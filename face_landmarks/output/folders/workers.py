"""Worker processes that align groups of photos; those that die are replaced, and nothing is lost."""

from __future__ import annotations

import os
import pickle
import signal
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, current_process, get_context
from typing import Any, Final

import cv2
import torch

from face_landmarks.aligner import FaceAligner
from face_landmarks.errors import InputError, WorkerError
from face_landmarks.output.folders.groups import Group, Line, line_of
from face_landmarks.output.folders.journal import Row, size_of
from face_landmarks.output.folders.lists import Photo
from face_landmarks.output.folders.worker import Ready, Started, Task, Unusable, Warned, work

_QUEUED: Final = 2  # groups that a worker has at a time: one to align, and one to read
_AHEAD: Final = 4  # groups a worker that may be finished before the first of them is
_TRIES: Final = (
    2  # deaths at a group before its photos are aligned alone, and at a photo before it has failed
)
_STARTS: Final = 3  # workers in succession that may die before they are ready


@dataclass
class _Job:
    """A group of photos, or one photo of a group whose workers have died.

    Attributes:
        number: of the group.
        photos: of it.
        place: of the photo in its group; None for a group.
        deaths: of the workers that were at it.
    """

    number: int
    photos: list[Photo]
    place: int | None = None
    deaths: int = 0

    @property
    def is_alone(self) -> bool:
        return self.place is not None


@dataclass
class _Worker:
    """A process, its pipe, and the jobs that it was sent."""

    process: Any
    pipe: connection.Connection
    jobs: deque[_Job] = field(default_factory=deque)
    is_ready: bool = False

    def has_room(self, job: _Job) -> bool:
        """Whether it can be sent a job; a photo that is to be aligned alone needs a worker without any."""
        if not self.is_ready or any(other.is_alone for other in self.jobs):
            return False
        return len(self.jobs) < (1 if job.is_alone else _QUEUED)


class Workers:
    """Processes that align groups of photos. Use it in a `with` block, which ends them.

    Each has its own aligner and its share of torch's threads. They are spawned, not forked: threads and GPU
    contexts of this process are no part of them. If the aligner is on "cuda" without an index, they take
    turns over the GPUs.

    Args:
        aligner: which is pickled.
        settings: of the aligner.
        count: of processes; they are started when there is a group for them.

    Raises:
        InputError: the aligner cannot be pickled, or this process may not have processes of its own.
    """

    def __init__(self, aligner: FaceAligner, settings: Row, count: int) -> None:
        check_place(count)
        try:
            pickled = pickle.dumps(aligner)
        except Exception as error:  # PicklingError, AttributeError, TypeError, or what __getstate__ raises
            raise InputError(
                f"aligner: expected a detector and a model that can be pickled, for workers={count}, "
                f"got {aligner.detector!r}: {error}"
            ) from error
        self._task = Task(
            aligner=pickled,
            place=os.getcwd(),
            settings=settings,
            threads=max(1, torch.get_num_threads() // count),
            opencv_level=getattr(cv2.utils, "logging", cv2).getLogLevel(),
        )
        self._gpus = visible_gpus() if str(aligner.device) == "cuda" else [None]
        self._count = count
        self._context = get_context("spawn")
        self._workers: list[_Worker] = []
        self._started = self._died_early = 0
        self._waiting: deque[_Job] = deque()  # by number
        self._done: dict[int, Group] = {}  # groups whose turn has not come
        self._parts: dict[int, dict[int, Line]] = {}  # lines of the photos that were aligned alone
        self._failures: dict[int, list[Exception]] = {}  # what was raised at them
        self._sizes: dict[int, int] = {}  # photos of such a group

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self._workers:
            worker.pipe.close()  # upon which it ends
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()

    @property
    def ready(self) -> int:
        """How many processes have their aligner."""
        return sum(worker.is_ready for worker in self._workers)

    def align(self, groups: Iterator[Sequence[Photo]]) -> Iterator[Group]:
        """The lines of each group, in order.

        A worker that dies is replaced, and its groups are given to others. A group at which two have died
        is split into its photos; a photo at which two more have died has failed.

        Raises:
            WorkerError: workers die before they are ready.
            InputError: a worker cannot unpickle the aligner.
        """
        numbered = enumerate(groups)
        turn = 0
        while True:
            while turn in self._done:
                yield self._done.pop(turn)
                turn += 1
            for _ in range(_QUEUED):
                self._fill(numbered, turn)
                self._hand_out()
            if not self._waiting and not any(worker.jobs for worker in self._workers):
                if turn not in self._done:
                    return
                continue
            self._listen()

    def _fill(self, numbered: Iterator[tuple[int, Sequence[Photo]]], turn: int) -> None:
        """Take groups, as many as there are workers, but not too far from the one whose turn it is."""
        while len(self._waiting) < self._count:
            last = max((job.number for job in self._jobs()), default=turn)
            if max(last, *self._done, turn) - turn >= _AHEAD * self._count:
                return
            following = next(numbered, None)
            if following is None:
                return
            self._waiting.append(_Job(following[0], list(following[1])))

    def _jobs(self) -> Iterator[_Job]:
        yield from self._waiting
        for worker in self._workers:
            yield from worker.jobs

    def _hand_out(self) -> None:
        """Send jobs to the workers that have room, those with none first; start workers for the others."""
        for _ in range(min(self._count, len(self._waiting)) - len(self._workers)):
            self._start()
        for job in list(self._waiting):
            held = any(other.is_alone for other in self._waiting) and not job.is_alone
            free = [w for w in self._workers if w.has_room(job) and not (held and w.jobs)]
            if not free:
                continue
            worker = min(free, key=lambda worker: len(worker.jobs))
            worker.jobs.append(job)
            self._waiting.remove(job)
            with suppress(OSError):  # it has died, which is noticed when its pipe is read
                worker.pipe.send(job.photos)

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        gpu = self._gpus[self._started % len(self._gpus)]
        process = self._context.Process(target=work, args=(theirs, gpu), daemon=True)
        with _interrupts_held():
            process.start()
        theirs.close()
        self._started += 1
        self._workers.append(_Worker(process, ours))

    def _listen(self) -> None:
        """Wait until a worker has something to say, or has died."""
        speakers: dict[Any, _Worker] = {}
        for worker in self._workers:
            speakers[worker.pipe] = speakers[worker.process.sentinel] = worker
        heard = [speakers[speaker] for speaker in connection.wait(list(speakers))]
        for worker in {id(worker): worker for worker in heard}.values():
            is_alive = worker.process.is_alive()  # before reading: what it said to the end is read
            try:
                while worker.pipe.poll():
                    self._hear(worker, worker.pipe.recv())
            except (EOFError, OSError):
                is_alive = False
            if not is_alive:
                self._bury(worker)

    def _hear(self, worker: _Worker, message: object) -> None:
        if isinstance(message, Group):
            job = worker.jobs.popleft()
            if job.place is None:
                self._done[job.number] = message
            else:
                self._put(job, message.lines[0], message.failure)
        elif isinstance(message, Started):
            with suppress(OSError):  # it has died, which is noticed when its pipe is read
                worker.pipe.send(self._task)
        elif isinstance(message, Ready):
            worker.is_ready, self._died_early = True, 0
        elif isinstance(message, Warned):
            warnings.warn(message.message, message.category, stacklevel=2)
        elif isinstance(message, Unusable):
            raise InputError(
                "aligner: expected a detector and a model that a worker process can unpickle, "
                f"got {message.reason}"
            )

    def _bury(self, worker: _Worker) -> None:
        """Take the jobs of a dead worker back."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join()
        code = worker.process.exitcode
        if not worker.is_ready:
            self._died_early += 1
            if code > 0 or self._died_early >= _STARTS:
                raise WorkerError(
                    f"workers: expected {self._count} processes that start, got one that ended with "
                    f"{_reason(code)}; a script that starts workers must be a file and needs "
                    "`if __name__ == '__main__':`"
                )
        if worker.jobs:
            first = worker.jobs.popleft()
            first.deaths += 1
            again = [first]
            if first.deaths >= _TRIES and first.place is None:
                again = [_Job(first.number, [photo], place) for place, photo in enumerate(first.photos)]
                self._parts[first.number], self._failures[first.number] = {}, []
                self._sizes[first.number] = len(first.photos)
            elif first.deaths >= _TRIES:
                (photo,), again = first.photos, []
                error = WorkerError(
                    f"each of the {2 * _TRIES} processes that were given this photo ended, the last with "
                    f"{_reason(code)}"
                )
                line = line_of(photo.name, size_of(photo.file), self._task.settings, error)
                self._put(first, line, error)
            again += worker.jobs
            self._waiting = deque(sorted([*self._waiting, *again], key=lambda j: (j.number, j.place or 0)))

    def _put(self, job: _Job, line: Line, failure: Exception | None) -> None:
        """Keep the line of a photo that was aligned alone; with the last one its group is done."""
        assert job.place is not None
        parts, failures = self._parts[job.number], self._failures[job.number]
        parts[job.place] = line
        if failure:
            failures.append(failure)
        if len(parts) == self._sizes[job.number]:
            lines = [line for _, line in sorted(parts.items())]
            self._done[job.number] = Group(lines, failures[0] if len(failures) == len(lines) else None)
            del self._parts[job.number], self._failures[job.number], self._sizes[job.number]


def check_place(count: int) -> None:
    """Raise unless this process may start workers.

    Raises:
        InputError: it is a daemon, as in `multiprocessing.Pool`, or is itself just starting as a worker.
    """
    process = current_process()
    if process.daemon or getattr(process, "_inheriting", False):
        place = "a script needs `if __name__ == '__main__':`" if not process.daemon else "this is a daemon"
        raise InputError(f"workers: expected 1 in a process that cannot start others, got {count}; {place}")


def visible_gpus() -> list[str | None]:
    """What CUDA_VISIBLE_DEVICES must be for each GPU alone; [None] if there are less than two."""
    count = torch.cuda.device_count()
    if count < 2:
        return [None]
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return list(named.split(",")[:count]) if named else [str(gpu) for gpu in range(count)]


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start a process that Ctrl-C does not reach while it still imports its modules."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reason(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"{signal.Signals(-code).name}{', perhaps out of memory' if code == -9 else ''}"
    return f"signal {-code}"
