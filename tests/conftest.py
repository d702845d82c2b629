"""What holds for every test: no network, no lasting files, one thread for each process."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # also for the processes that tests start; pytest runs one for each core
os.environ.setdefault("MPLBACKEND", "agg")

import torch

torch.set_num_threads(1)

_SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def temporary_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for each test, and an environment that says nothing else."""
    for name in ("FACE_LANDMARKS_OFFLINE", "FACE_LANDMARKS_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FACE_LANDMARKS_HOME", str(home / "face_landmarks"))
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return home


@pytest.fixture(autouse=True)
def closed_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections lead nowhere but to this machine; names are not looked up."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(host: object) -> None:
        if host not in (None, "", "localhost") and not _is_loopback(host):
            raise PermissionError(f"a test tried to reach {host!r}: tests have no network")

    def checked_connect(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple):
            check(address[0])
        return connect(self, address)  # type: ignore[arg-type]

    def checked_connect_ex(self: socket.socket, address: object) -> int:
        if isinstance(address, tuple):
            check(address[0])
        return connect_ex(self, address)  # type: ignore[arg-type]

    def checked_look_up(host: object, *args: object, **kwargs: object) -> object:
        check(host)
        return look_up(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", checked_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", checked_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", checked_look_up)


def _is_loopback(host: object) -> bool:
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session")
def shared_data() -> Iterator[Path]:
    """The annotated faces beside the repository, for the tests that measure on them."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("needs the annotated faces of ../shared/data")
    yield _SHARED_DATA


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")
