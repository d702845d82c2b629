"""Ray: the connection to a cluster, one call there, and a pool of actors that Ray Data feeds."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from face_landmarks._system.extras import import_extra
from face_landmarks.errors import FaceLandmarksError, InputError

_STORE_BYTES: Final = 2**28  # of the object store of a cluster of our own: parts and counts are small
_AHEAD: Final = 2  # parts that an actor has, the one it works at included
_BLOCK_BYTES: Final = 2**20  # of counts, or of a part's names, at most


@dataclass(frozen=True)
class Share:
    """What each worker gets of the cluster.

    Attributes:
        workers: how many at most; None for as many as fit.
        num_cpus: of each, at least 1.
        num_gpus: of each.
    """

    workers: int | None
    num_cpus: int
    num_gpus: float

    def __post_init__(self) -> None:
        for name, value, least in (
            ("workers", 1 if self.workers is None else self.workers, 1),
            ("num_cpus", self.num_cpus, 1),
            ("num_gpus", self.num_gpus, 0),
        ):
            if not value >= least:
                raise InputError(f"{name}: expected at least {least}, got {value}")


@contextmanager
def connect(address: str | None, share: Share) -> Iterator[int]:
    """Connect to a cluster, or start one on this machine; give the number of workers.

    What was connected or started is left again at the end.

    Raises:
        InputError: the cluster cannot be reached, or is too small for one worker.
        MissingDependencyError: Ray is not installed.
    """
    ray = _ray()
    mine = not ray.is_initialized()
    if mine:
        _start(ray, address or os.environ.get("RAY_ADDRESS"), share)
    elif address is not None:
        raise InputError(f"address: expected None, as ray.init was called before, got {address!r}")
    try:
        yield _count(ray.cluster_resources(), share)
    finally:
        if mine:
            ray.shutdown()


def run_once(share: Share, function: Callable[..., Any], *arguments: object) -> Any:
    """The result of a function that is called in a process of the cluster, where a worker would be."""
    ray = _ray()
    remote = ray.remote(num_cpus=share.num_cpus, num_gpus=share.num_gpus)(function)
    try:
        future = remote.remote(*arguments)
    except TypeError as error:  # of pickling; the message tells which part, at length
        problem = str(error).strip().partition("\n")[0]
        raise InputError(f"aligner: expected one that can be copied to a worker, got {problem}") from error
    with _own_errors():
        return ray.get(future)


def run_actors(
    workers: int, share: Share, actor: type, arguments: Sequence[object], parts: Sequence[bytes]
) -> Iterator[dict[str, Any]]:
    """Give each part to one of several actors; what they return, decoded from JSON, as it comes.

    A part whose actor dies is given to another one, or to the same one after it was started again, as often
    as it takes.
    """
    if not parts:
        return
    data = _ray_data()
    with _context(data), _own_errors():
        results = data.from_items(
            [{"part": part} for part in parts], override_num_blocks=len(parts)
        ).map_batches(
            actor,
            fn_constructor_args=arguments,
            batch_size=1,
            batch_format="numpy",
            compute=data.ActorPoolStrategy(
                size=min(workers, len(parts)), max_tasks_in_flight_per_actor=_AHEAD
            ),
            num_cpus=share.num_cpus,
            num_gpus=share.num_gpus,
        )
        for row in results.iter_rows():
            yield json.loads(row["counts"])


def _start(ray: Any, address: str | None, share: Share) -> None:
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    if address not in (None, "local"):
        options = {"address": address}
    elif share.workers is not None:
        options["num_cpus"] = max(share.workers * share.num_cpus, 1)
    try:
        ray.init(
            address=options.pop("address", "local"),
            configure_logging=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **options,
        )
    except Exception as error:
        raise InputError(f"address: expected a cluster of Ray at {address}, got {error}") from error


def _count(resources: dict[str, float], share: Share) -> int:
    """How many workers the cluster has room for, and at most as many as wanted."""
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    room = int(cpus // share.num_cpus)
    if share.num_gpus:
        room = min(room, int(gpus / share.num_gpus + 1e-6))
    if not room:
        raise InputError(
            f"num_cpus, num_gpus: expected a cluster with room for a worker of {share.num_cpus} CPUs and "
            f"{share.num_gpus} GPUs, got {cpus:g} CPUs and {gpus:g} GPUs"
        )
    return room if share.workers is None else min(room, share.workers)


@contextmanager
def _context(data: Any) -> Iterator[None]:
    """Settings of Ray Data meanwhile: no progress and plans on the screen, and small blocks.

    Its log files have what is not shown. Until the first part is done, Ray Data takes what each will return
    for as large as a block may be, 128 MB by default, and gives parts to as many workers only as the object
    store has room for: where it is small, to one.
    """
    context, logger = data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.target_max_block_size, logger.level
    context.enable_progress_bars, context.target_max_block_size = False, _BLOCK_BYTES
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars, context.target_max_block_size, level = before
        logger.setLevel(level)


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raise what was raised in a worker as it was raised there, not as an error of Ray."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, FaceLandmarksError):
                raise cause from error
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise


def _ray() -> Any:
    return import_extra("ray", "ray", "clusters")


def _ray_data() -> Any:
    return import_extra("ray.data", "ray", "clusters")
