"""The models known by name."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from face_landmarks.errors import InputError, UnknownModelError
from face_landmarks.models.registry import embedded_models, get_card
from face_landmarks.models.weights import load_weights
from face_landmarks.models.weights_file import cache_folder

SOURCE = Path(__file__).parents[2]


def test_the_published_fan_is_known_by_its_full_hash() -> None:
    file = get_card("2dfan4").file
    assert file is not None
    assert file.name == f"2DFAN4-{file.sha256[:10]}.pth.tar"
    assert all(url.startswith("https://") and url.endswith(file.name) for url in file.urls)


def test_an_embedded_model_is_known_only_when_it_is_there(pretrained: Path) -> None:
    with pytest.raises(UnknownModelError) as caught:
        get_card("shr-fan-68")
    assert "expected one of 2dfan4, a weights file" in str(caught.value)


def test_an_unknown_name_lists_the_known_ones_and_guesses() -> None:
    with pytest.raises(UnknownModelError, match="2dfan4.*got '2dfan5' \\(did you mean '2dfan4'\\?\\)"):
        load_weights("2dfan5")


@pytest.mark.parametrize("name", [None, 5, ["shr-fan-68"], Path("shr-fan-68")])
def test_a_name_is_a_string(name: object) -> None:
    with pytest.raises(InputError, match="model: expected a name, got"):
        get_card(name)  # type: ignore[arg-type]


def test_embedded_models_load_with_every_socket_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    for name in embedded_models():
        found, state = load_weights(name)
        assert found.file == get_card(name).file
        assert "research" in found.licence
        assert state
    assert not cache_folder().exists()


@pytest.mark.parametrize("name", embedded_models())
def test_the_commands_on_a_card_name_scripts_that_are_there(name: str) -> None:
    command = get_card(name).command
    scripts = re.findall(r"\bpython (\S+\.py)", command)
    assert "face-landmarks train " in command
    for script in scripts:
        assert (Path(__file__).parents[2] / script).is_file(), script


SEALED = """
import sys
used = []
def refuse(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        used.append((event, arguments))
        raise PermissionError(f"{event} {arguments}")
sys.addaudithook(refuse)
from face_landmarks import FaceAligner
faces = FaceAligner(device="cpu").align(sys.argv[1])
assert faces.landmarks.shape == (1, 68, 2)
print(*{event for event, _ in used} - {"socket.__new__"})
"""


def test_a_photo_becomes_landmarks_with_every_socket_closed(temporary_home: Path) -> None:
    """From the import to MTCNN and back; urllib3 tries at its import whether a socket can be had."""
    photo = SOURCE / "examples" / "data" / "astronaut.jpg"
    done = subprocess.run(
        [sys.executable, "-c", SEALED, str(photo)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "HOME": str(temporary_home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n"
    assert not cache_folder().exists()
