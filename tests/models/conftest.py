"""A server, a cache folder and a registry of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests  # noqa: F401  (imported early: a test without rights could not read it later)
import tqdm  # noqa: F401
from fault_server import FaultServer
from tiny_model import CONTENT

from face_landmarks.models import downloads, registry


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between tries."""
    monkeypatch.setattr(downloads, "_BACKOFF", 0.0)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(CONTENT) as running:
        yield running


@pytest.fixture
def pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the package's own weights."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    monkeypatch.setattr(registry, "PRETRAINED", folder)
    return folder


@pytest.fixture
def cache(temporary_home: Path) -> Path:
    """The cache folder, which nobody has made yet."""
    return temporary_home / "face_landmarks"
