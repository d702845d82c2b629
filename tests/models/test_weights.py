"""Weights arrive whole or not at all, and every failure says what to do."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest
import requests  # noqa: F401  (imported early: a test without rights could not read it later)
import torch
import tqdm  # noqa: F401
from fault_server import FaultServer, Reply, wait_until

from face_landmarks.errors import (
    CacheError,
    ChecksumError,
    DownloadError,
    InputError,
    UnknownModelError,
    WeightsError,
    WeightsFormatError,
)
from face_landmarks.models import downloads, weights
from face_landmarks.models.hourglass import config_of
from face_landmarks.models.weights import ModelCard, WeightsFile

CONTENT = bytes(range(7, 71))  # 64 bytes, all different
OTHER = bytes(reversed(CONTENT))
SOURCE = Path(__file__).parents[2]

STATE = {"conv.weight": torch.arange(6.0).view(3, 2), "bn.steps": torch.tensor(7)}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
    monkeypatch.setattr(weights, "_PRETRAINED", folder)
    return folder


@pytest.fixture
def cache(temporary_home: Path) -> Path:
    """The cache folder, which nobody has made yet."""
    return temporary_home / "face_landmarks"


def card(**changes: Any) -> ModelCard:
    return replace(weights.get_card("2dfan4"), name="tiny", format="native", file=None, **changes)


def register(pretrained: Path, *urls: str, data: bytes = CONTENT, name: str = "tiny") -> Path:
    """Enter a downloadable model `tiny` into the registry; its path in the cache."""
    file = WeightsFile(f"{name}.bin", sha256(data), len(data), urls)
    entry = replace(card(), name=name, file=file)
    (pretrained / f"{name}.json").write_text(json.dumps(entry.to_dict()))
    return weights.cache_folder() / file.name


# --- Cards ------------------------------------------------------------------------------------


def test_a_card_survives_json() -> None:
    for original in (weights.get_card("2dfan4"), card()):
        assert ModelCard.from_dict(json.loads(json.dumps(original.to_dict()))) == original


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lean": None}, "right types"),
        ({"surprise": 1}, "unknown \\['surprise'\\]"),
        ({"layout": "ibug-69"}, "layout: expected one of"),
        ({"network": {"landmarks": 3}}, "network: expected 68 landmarks"),
        ({"network": [68]}, "right types"),
        ({"format": "pickle"}, "format: expected 'native' or 'fan'"),
        ({"crop_scale": 0.0}, "crop_scale: expected a positive number"),
        ({"crop_shift": float("nan")}, "numbers: expected finite values"),
        ({"offset": [1.0]}, "offset: expected \\(x, y\\)"),
        ({"window": 0}, "window: expected an odd number of cells"),
        ({"window": 4}, "window: expected an odd number of cells"),
        ({"temperature": -1.0}, "temperature: expected a positive number"),
        ({"summary": 5}, "words: expected strings"),
        ({"file": {"name": "a"}}, "missing \\['sha256'\\]"),
        ({"file": {"name": "a", "sha256": "11f355bf06"}}, "64 hex digits"),
        ({"file": "a"}, "expected a mapping, got str"),
    ],
)
def test_an_impossible_card_is_refused_by_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsFormatError, match=message):
        ModelCard.from_dict({**card().to_dict(), **change})


@pytest.mark.parametrize("change", [{"heads": 2}, {"features": "96"}, {"features": 95}, {"crop_size": 100}])
def test_a_network_that_cannot_be_built_is_a_fault_of_the_card(change: dict[str, Any]) -> None:
    with pytest.raises(WeightsFormatError, match="card of tiny: network: "):
        config_of(replace(card(), network={**card().network, **change}))


def test_a_card_without_a_key_is_refused() -> None:
    values = card().to_dict()
    del values["licence"]
    with pytest.raises(WeightsFormatError, match="missing \\['licence'\\]"):
        ModelCard.from_dict(values)
    with pytest.raises(WeightsFormatError, match="expected a mapping, got list"):
        ModelCard.from_dict([])  # type: ignore[arg-type]


def test_a_damaged_registry_entry_is_named(pretrained: Path) -> None:
    (pretrained / "bad.json").write_text("{")
    with pytest.raises(WeightsFormatError, match="bad.json: expected a model card in JSON"):
        weights.list_models()


# --- Registry ---------------------------------------------------------------------------------


def test_the_published_fan_is_known_by_its_full_hash() -> None:
    file = weights.get_card("2dfan4").file
    assert file is not None
    assert file.name == f"2DFAN4-{file.sha256[:10]}.pth.tar"
    assert all(url.startswith("https://") and url.endswith(file.name) for url in file.urls)


def test_an_embedded_model_is_known_only_when_it_is_there(pretrained: Path) -> None:
    with pytest.raises(UnknownModelError) as caught:
        weights.get_card("shr-fan-68")
    assert "expected one of 2dfan4, a weights file" in str(caught.value)


def test_an_unknown_name_lists_the_known_ones_and_guesses() -> None:
    with pytest.raises(UnknownModelError, match="2dfan4.*got '2dfan5' \\(did you mean '2dfan4'\\?\\)"):
        weights.load_weights("2dfan5")


def test_embedded_models_load_with_every_socket_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    for name in weights.embedded_models():
        found, state = weights.load_weights(name)
        assert found.file == weights.get_card(name).file
        assert "research" in found.licence
        assert state
    assert not weights.cache_folder().exists()


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
    assert not weights.cache_folder().exists()


# --- Files ------------------------------------------------------------------------------------


def test_a_saved_model_describes_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    saved = weights.save_weights(path, {key: value.half() for key, value in STATE.items()}, card(lean=0.008))
    found, state = weights.load_weights(path)
    assert found == saved
    assert found.lean == 0.008
    assert found.file == WeightsFile("mine.safetensors", sha256(path.read_bytes()), path.stat().st_size)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[key], STATE[key].half()) for key in STATE)
    assert weights.load_weights(str(path), sha256=sha256(path.read_bytes()).upper())[0] == saved
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.safetensors"]


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        weights.save_weights(tmp_path / name, STATE, card())
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_transposed_tensor_is_saved_as_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights.save_weights(path, {"w": STATE["conv.weight"].t()}, card())
    assert torch.equal(weights.load_weights(path)[1]["w"], STATE["conv.weight"].t())


def test_saving_needs_the_right_name_and_a_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ends in .safetensors, got 'a.pth'"):
        weights.save_weights(tmp_path / "a.pth", STATE, card())
    with pytest.raises(WeightsError, match="expected a place to write to, got No such file"):
        weights.save_weights(tmp_path / "nowhere" / "a.safetensors", STATE, card())


def test_a_failed_save_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    weights.save_weights(path, STATE, card())
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(WeightsError, match="No space left"):
        weights.save_weights(path, {}, card())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_embedded_model_is_its_json_and_its_file(pretrained: Path) -> None:
    saved = weights.save_weights(pretrained / "tiny.safetensors", STATE, card(scores={"nme": 3.5}))
    (pretrained / "tiny.json").write_text(json.dumps(saved.to_dict()))
    assert weights.list_models() == ["2dfan4", "tiny"]
    assert weights.embedded_models() == ["tiny"]
    assert weights.load_weights("tiny")[0] == saved
    assert weights.download("tiny") == pretrained / "tiny.safetensors"
    with pytest.raises(ChecksumError, match="tiny: a file of the package is damaged"):
        weights.load_weights("tiny", sha256=sha256(OTHER))
    (pretrained / "tiny.safetensors").write_bytes(CONTENT)
    with pytest.raises(ChecksumError, match=f"found     64 bytes, sha256 {sha256(CONTENT)}"):
        weights.load_weights("tiny")
    (pretrained / "tiny.safetensors").unlink()
    with pytest.raises(WeightsError, match="tiny: a file of the package is missing[^$]*reinstall"):
        weights.load_weights("tiny")


def test_a_local_file_that_is_missing_or_another_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="gone.safetensors: expected a weights file or the name"):
        weights.load_weights("gone.safetensors")
    with pytest.raises(WeightsError, match="got Is a directory"):
        weights.load_weights(tmp_path)
    path = tmp_path / "a.safetensors"
    path.write_bytes(CONTENT)
    with pytest.raises(ChecksumError) as caught:
        weights.load_weights(path, sha256=sha256(OTHER))
    assert sha256(OTHER) in str(caught.value)
    assert sha256(CONTENT) in str(caught.value)


@pytest.mark.parametrize("data", [b"", CONTENT, b"12345678{", b"\x02" + bytes(7) + b"{}", b"PK\x03\x04"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsFormatError, match=f"found     {len(data)} bytes"):
        weights.load_weights(path)


def test_safetensors_without_a_card_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save

    for metadata, message in ((None, "got none"), ({"card": "{"}, "not a safetensors model: Expecting")):
        (tmp_path / "a.safetensors").write_bytes(save(STATE, metadata))
        with pytest.raises(WeightsFormatError, match=message):
            weights.load_weights(tmp_path / "a.safetensors")


class Hostile:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, harm = tmp_path / "a.pth", tmp_path / "harm"
    torch.save({"conv1.weight": Hostile(harm)}, path)
    new = path.read_bytes()
    torch.save({"conv1.weight": Hostile(harm)}, path, _use_new_zipfile_serialization=False)
    for data in (new, path.read_bytes(), pickle.dumps(Hostile(harm))):
        path.write_bytes(data)
        with pytest.raises(WeightsFormatError, match="refused; nothing in it was run") as caught:
            weights.load_weights(path)
        assert "weights_only" not in str(caught.value)
        assert not harm.exists()


def fan_state(stacks: int) -> dict[str, torch.Tensor]:
    names = ["conv1.weight"]
    for i in range(stacks):
        names += [f"m{i}.b1_1.conv1.weight", f"l{i}.weight"]
    return {name: torch.full((1,), float(i)) for i, name in enumerate(names)}


def test_a_local_state_dict_is_read_if_it_is_fans(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth.tar"
    torch.save(fan_state(stacks=2), path)
    found, state = weights.load_weights(path)
    assert (found.name, found.format, found.network["stacks"]) == ("mine.pth.tar", "fan", 2)
    assert state.keys() == fan_state(stacks=2).keys()
    for other in ({"conv1.weight": torch.zeros(1)}, {**fan_state(1), "epoch": 3}, [torch.zeros(1)]):
        torch.save(other, path)
        with pytest.raises(WeightsFormatError, match="expected a state dict with the keys of FAN"):
            weights.load_weights(path)


def test_a_state_dict_of_another_network_is_explained() -> None:
    expected = {"conv.weight": (3, 2), "bn.steps": ()}
    weights.check_state_dict(card(), STATE, expected)
    with pytest.raises(WeightsFormatError) as caught:
        weights.check_state_dict(card(), STATE, {"conv.weight": (3, 5), "head": (1,)})
    for fault in ("missing head", "unknown bn.steps", "conv.weight: expected (3, 5), got (3, 2)"):
        assert fault in str(caught.value)
    fan = weights.get_card("2dfan4")
    with pytest.raises(WeightsFormatError, match="2dfan4: expected") as caught:
        weights.check_state_dict(fan, STATE, expected | {"head": (1,)})
    for fact in (fan.file.urls[0], fan.file.name, str(fan.file.size), fan.file.sha256, "by hand"):
        assert fact in str(caught.value)
    with pytest.raises(WeightsFormatError, match="and 4 more"):
        weights.check_state_dict(card(), {}, {f"layer{n}": (1,) for n in range(9)})


# --- Downloads --------------------------------------------------------------------------------


def test_a_model_is_downloaded_once_and_leaves_no_traces(server: FaultServer, pretrained: Path) -> None:
    path = register(pretrained, server.url())
    assert weights.download("tiny") == path
    assert weights.download("tiny") == path
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert {entry.name for entry in path.parent.iterdir()} <= {"tiny.bin", "tiny.bin.lock"}
    assert server.requests[0].headers["User-Agent"].startswith("face-landmarks/")


def test_a_url_is_a_model_with_its_hash(server: FaultServer, tmp_path: Path, cache: Path) -> None:
    saved = weights.save_weights(tmp_path / "a.safetensors", STATE, card())
    server.content = (tmp_path / "a.safetensors").read_bytes()
    assert saved.file is not None
    url, digest = server.url("/folder/my%20model.safetensors?download=true"), saved.file.sha256
    for _ in range(2):
        found, state = weights.load_weights(url, sha256=digest)
        assert torch.equal(state["conv.weight"], STATE["conv.weight"])
    assert found.file == WeightsFile(f"my_20model-{digest}.safetensors", digest, len(server.content), (url,))
    assert (cache / found.file.name).read_bytes() == server.content
    assert len(server.requests) == 1


def test_the_published_fan_comes_through_the_network(server: FaultServer, pretrained: Path) -> None:
    buffer = io.BytesIO()
    torch.save(fan_state(stacks=4), buffer)
    server.content = buffer.getvalue()
    fan = weights.get_card("2dfan4")
    file = WeightsFile("2DFAN4.pth.tar", sha256(server.content), urls=(server.url(),))
    (pretrained / "2dfan4.json").write_text(json.dumps(replace(fan, file=file).to_dict()))
    found, state = weights.load_weights("2dfan4")
    assert found == replace(fan, file=replace(file, size=len(server.content)))
    assert state.keys() == fan_state(stacks=4).keys()


def test_a_url_needs_a_hash_and_https() -> None:
    with pytest.raises(InputError, match="sha256: expected the full hash of https://example.com/a.pth"):
        weights.load_weights("https://example.com/a.pth")
    with pytest.raises(InputError, match="sha256: expected 64 hexadecimal digits, got '11f355bf06'"):
        weights.load_weights("https://example.com/a.pth", sha256="11f355bf06")
    for url in (
        "http://example.com/a.pth",
        "ftp://127.0.0.1/a",
        "http://127.0.0.1@example.com/a",
        "http://[",
    ):
        with pytest.raises(DownloadError, match="refused: not an https URL"):
            weights.load_weights(url, sha256=sha256(CONTENT))


def test_a_connection_cut_at_any_byte_is_resumed_there(server: FaultServer, pretrained: Path) -> None:
    for position in range(len(CONTENT)):
        path = register(pretrained, server.url())
        server.script[:] = [Reply(cut_after=position)]
        server.requests.clear()
        weights.download("tiny")
        assert path.read_bytes() == CONTENT
        assert server.ranges == [None, f"bytes={position}-" if position else None]
        if position:
            assert server.requests[1].headers["If-Range"] == '"one"'
        path.unlink()


@pytest.mark.parametrize(
    ("version", "condition"),
    [
        ({"etag": None}, None),
        ({"etag": 'W/"one"'}, None),
        ({"etag": None, "last_modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, "Wed, 21 Oct 2015 07:28:00 GMT"),
    ],
)
def test_a_download_resumes_by_whatever_names_the_version(
    server: FaultServer, pretrained: Path, version: dict[str, Any], condition: str | None
) -> None:
    path = register(pretrained, server.url())
    server.script[:] = [Reply(cut_after=20, **version), Reply(**version)]
    weights.download("tiny")
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=20-"]
    assert server.requests[1].headers.get("If-Range") == condition


def test_a_body_without_length_that_ends_early_is_resumed(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, server.url())
    server.script[:] = [Reply(announce=False, cut_after=20), Reply(announce=False)]
    assert weights.download("tiny").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=20-"]


def test_a_later_start_resumes_an_earlier_one(server: FaultServer, pretrained: Path) -> None:
    path = register(pretrained, server.url())
    server.script[:] = [Reply(cut_after=20), Reply(status=404)]
    with pytest.raises(DownloadError, match="the first 20 bytes, kept in tiny.bin.part"):
        weights.download("tiny")
    assert weights.download("tiny") == path
    assert server.ranges == [None, "bytes=20-", "bytes=20-"]


def test_a_server_without_ranges_sends_it_all_again(server: FaultServer, pretrained: Path) -> None:
    path = register(pretrained, server.url())
    server.script[:] = [Reply(cut_after=20), Reply(honest_range=False)]
    assert weights.download("tiny").read_bytes() == CONTENT
    assert len(server.requests) == 2
    assert not path.with_name("tiny.bin.part").exists()


def test_a_file_that_changed_is_sent_whole(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, server.url())
    server.script[:] = [Reply(body=OTHER, cut_after=20), Reply(etag='"two"')]
    assert weights.download("tiny").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=20-"]


def test_two_halves_of_different_files_are_thrown_away(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, server.url())
    server.script[:] = [Reply(body=OTHER, cut_after=20), Reply(etag='"two"', check_version=False)]
    assert weights.download("tiny").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=20-", None]


@pytest.mark.parametrize("left", [CONTENT, OTHER, CONTENT + b"more", b"\0" * 30])
def test_whatever_a_part_holds_the_file_comes_out_right(
    server: FaultServer, pretrained: Path, left: bytes
) -> None:
    path = register(pretrained, server.url())
    path.parent.mkdir()
    path.with_name("tiny.bin.part").write_bytes(left)
    path.with_name("tiny.bin.etag").write_bytes(b"\0\r\n\xff")
    assert weights.download("tiny").read_bytes() == CONTENT
    assert len(server.requests) == (1 if left == CONTENT else 2)


def test_another_range_than_asked_for_is_not_appended(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = register(pretrained, server.url())
    path.parent.mkdir()
    path.with_name("tiny.bin.part").write_bytes(CONTENT[:20])
    whole = FaultServer._range_holds
    monkeypatch.setattr(  # a server that starts one byte late
        FaultServer,
        "_range_holds",
        staticmethod(
            lambda reply, request: (
                whole(reply, request)
                and request.headers.update(Range=f"bytes={int(request.headers['Range'][6:-1]) + 1}-") is None
            )
        ),
    )
    assert weights.download("tiny").read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_the_wrong_file_is_never_kept(server: FaultServer, pretrained: Path, cache: Path) -> None:
    register(pretrained, server.url())
    for wrong in (OTHER, CONTENT[:40], CONTENT + b"more", b""):
        server.content = wrong
        with pytest.raises(ChecksumError) as caught:
            weights.download("tiny")
        for fact in ("tiny: ", server.url(), str(cache / "tiny.bin"), f"64 bytes, sha256 {sha256(CONTENT)}"):
            assert fact in str(caught.value)
        assert not (cache / "tiny.bin").exists()
        assert not (cache / "tiny.bin.part").exists()


def test_an_endless_body_is_stopped_at_the_known_size(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, server.url())
    server.otherwise = Reply(body=bytes(1 << 22), announce=False, piece=1 << 13)
    with pytest.raises(ChecksumError, match="sent another file"):
        weights.download("tiny")
    assert server.requests[0].sent < 1 << 22


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final_and_says_what_to_do(
    server: FaultServer, pretrained: Path, cache: Path, status: int
) -> None:
    register(pretrained, server.url())
    server.otherwise = Reply(status=status)
    with pytest.raises(DownloadError) as caught:
        weights.download("tiny")
    assert len(server.requests) == 1
    lines = str(caught.value).splitlines()
    assert lines[0] == "tiny: no server gave the file"
    assert lines[1].startswith(f"  tried     {server.url()}: {status} ")
    assert lines[2:6] == [
        f"  url       {server.url()}",
        f"  path      {cache / 'tiny.bin'}",
        f"  expected  64 bytes, sha256 {sha256(CONTENT)}",
        "  found     nothing",
    ]
    assert lines[6].startswith("  by hand   get the file from the url in any way")
    assert len(lines) == 7


def test_missing_certificates_are_no_fault_of_the_cache(
    server: FaultServer, pretrained: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    register(pretrained, "https://localhost:1/tiny.bin")
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "tiny.bin.part").write_bytes(CONTENT[:9])
    with pytest.raises(DownloadError, match="certificate"):
        weights.download("tiny")
    assert (cache / "tiny.bin.part").read_bytes() == CONTENT[:9]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_passing_fault_is_tried_three_times(server: FaultServer, pretrained: Path, status: int) -> None:
    register(pretrained, server.url())
    server.script[:] = [Reply(status=status)] * 2
    assert weights.download("tiny").read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_three_tries_are_all(server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(pretrained, server.url())
    pauses: list[float] = []
    monkeypatch.setattr(downloads, "_BACKOFF", 1.0)
    monkeypatch.setattr(downloads.time, "sleep", pauses.append)
    server.otherwise = Reply(status=500)
    with pytest.raises(DownloadError, match="500 Internal Server Error"):
        weights.download("tiny")
    assert len(server.requests) == 3
    assert pauses == [1.0, 2.0]


def test_tries_that_bring_much_are_not_counted(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_WORTHWHILE", 10)
    register(pretrained, server.url())
    server.otherwise = Reply(cut_after=10)
    assert weights.download("tiny").read_bytes() == CONTENT
    assert len(server.requests) == 7


def test_mirrors_are_asked_in_turn(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, *(server.url(f"/{n}") for n in range(4)))
    server.script[:] = [Reply(status=404), Reply(body=OTHER), *[Reply(status=500)] * 3]
    assert weights.download("tiny").read_bytes() == CONTENT
    assert [request.path for request in server.requests] == ["/0", "/1", "/2", "/2", "/2", "/3"]


def test_a_proxy_is_asked_as_requests_would(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, server.url(""))
    register(pretrained, "http://127.0.0.1:1/a.bin")  # nobody listens there
    assert weights.download("tiny").read_bytes() == CONTENT
    assert [request.path for request in server.requests] == ["http://127.0.0.1:1/a.bin"]
    register(pretrained, "https://example.com/other.bin", data=OTHER)  # it refuses to tunnel
    with pytest.raises(
        DownloadError, match="Tunnel connection failed: 501[^$]*behind a proxy set HTTPS_PROXY"
    ):
        weights.download("tiny")


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
def test_a_certificate_authority_is_believed_as_requests_would(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    request = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    )
    files = ["-out", str(certificate), "-keyout", str(key)]
    subprocess.run([*request.split(), *files], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with FaultServer(CONTENT, tls=tls) as server:
        register(pretrained, server.url())
        with pytest.raises(DownloadError, match="CERTIFICATE_VERIFY_FAILED[^$]*REQUESTS_CA_BUNDLE"):
            weights.download("tiny")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert weights.download("tiny").read_bytes() == CONTENT
        assert len(server.requests) == 1


def test_redirects_are_followed(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, server.url("/old"))
    server.script[:] = [
        Reply(status=302, location="/new"),
        Reply(cut_after=20),
        Reply(status=307, location="/new"),
    ]
    assert weights.download("tiny").read_bytes() == CONTENT
    assert [request.path for request in server.requests] == ["/old", "/new", "/old", "/new"]
    assert server.ranges == [None, None, "bytes=20-", "bytes=20-"]


def test_redirects_in_a_circle_or_away_from_https_are_refused(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, server.url())
    server.otherwise = Reply(status=302, location="/weights.bin")
    with pytest.raises(DownloadError, match="[Ee]xceeded .* redirects"):
        weights.download("tiny")
    server.otherwise = Reply(status=302, location="http://example.com/a")
    with pytest.raises(DownloadError, match="refused: redirected to http://example.com/a, not an https"):
        weights.download("tiny")


def test_a_slow_body_arrives(server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_TIMEOUTS", (1.0, 0.3))
    register(pretrained, server.url())
    server.otherwise = Reply(piece=8, pause=0.06)  # 0.5 s in all, longer than the time-out
    assert weights.download("tiny").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_stalled_body_is_resumed_and_a_mute_server_given_up(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_TIMEOUTS", (1.0, 0.1))
    server.content = CONTENT * 1000
    register(pretrained, server.url(), data=server.content)
    server.script[:] = [Reply(stall_after=40_000)]
    assert weights.download("tiny").read_bytes() == server.content
    assert server.ranges == [None, "bytes=40000-"]
    weights.clear_cache()
    server.requests.clear()
    server.otherwise = Reply(stall_after=-1)
    with pytest.raises(DownloadError, match="Read timed out"):
        weights.download("tiny")
    assert len(server.requests) == 3


def test_a_closed_port_is_a_download_error(pretrained: Path) -> None:
    with FaultServer(CONTENT) as gone:
        url = gone.url()
    register(pretrained, url)
    with pytest.raises(DownloadError, match="Connection refused"):
        weights.download("tiny")


@pytest.mark.parametrize("kind", [DownloadError, ChecksumError, CacheError, WeightsFormatError])
def test_every_failure_tells_all_there_is_to_know(
    server: FaultServer, pretrained: Path, cache: Path, kind: type[WeightsError]
) -> None:
    path, found = register(pretrained, server.url()), "nothing"
    if kind is DownloadError:
        server.otherwise = Reply(status=404)
    elif kind is ChecksumError:
        server.content, found = OTHER, f"64 bytes, sha256 {sha256(OTHER)}"
    elif kind is CacheError:
        cache.write_bytes(b"in the way")
    else:  # the right bytes, which are no model
        found = f"64 bytes, sha256 {sha256(CONTENT)}"
    with pytest.raises(WeightsError) as caught:
        weights.load_weights("tiny")
    assert type(caught.value) is kind
    problem, *facts = [line for line in str(caught.value).splitlines() if "tried" not in line]
    assert problem.startswith("tiny: ")
    assert facts[:4] == [
        f"  url       {server.url()}",
        f"  path      {path}",
        f"  expected  64 bytes, sha256 {sha256(CONTENT)}",
        f"  found     {found}",
    ]
    assert facts[4].startswith("  by hand   ") and len(facts) == 5


# --- Cache ------------------------------------------------------------------------------------


def test_a_damaged_file_is_fetched_again_once(
    server: FaultServer, pretrained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = register(pretrained, server.url())
    path.parent.mkdir()
    for damage in (CONTENT[:30], b"", OTHER):
        path.write_bytes(damage)
        server.requests.clear()
        with caplog.at_level(logging.WARNING, "face_landmarks"):
            assert weights.download("tiny").read_bytes() == CONTENT
        assert len(server.requests) == 1
        assert caplog.messages == [f"tiny: {path} is damaged and will be replaced"]
        caplog.clear()


def test_a_file_put_there_by_hand_is_found(
    server: FaultServer, pretrained: Path, temporary_home: Path
) -> None:
    path = register(pretrained, server.url())
    hub = temporary_home / "torch" / "hub" / "checkpoints" / "tiny.bin"
    for place, other in ((hub, path), (path, hub)):
        place.parent.mkdir(parents=True)
        place.write_bytes(CONTENT)
        assert weights.download("tiny") == place
        place.write_bytes(OTHER)
        assert not other.exists()
        place.unlink()
    assert server.requests == []


def test_offline_touches_no_network(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = register(pretrained, server.url())
    monkeypatch.setenv("FACE_LANDMARKS_OFFLINE", "1")
    with pytest.raises(
        DownloadError, match="FACE_LANDMARKS_OFFLINE forbids the network[^$]*found     nothing"
    ):
        weights.download("tiny")
    assert not path.parent.exists()
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert weights.download("tiny") == path
    path.write_bytes(OTHER)
    with pytest.raises(ChecksumError, match=f"found     64 bytes, sha256 {sha256(OTHER)}"):
        weights.download("tiny")
    assert server.requests == []
    monkeypatch.setenv("FACE_LANDMARKS_OFFLINE", "0")
    assert weights.download("tiny") == path


def test_a_mirror_replaces_the_host(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = register(pretrained, "https://example.com/a/b.bin?v=1", "https://example.org/a/b.bin?v=1")
    for mirror, asked in ((server.url(""), "/a/b.bin?v=1"), (server.url("/m/"), "/m/a/b.bin?v=1")):
        monkeypatch.setenv("FACE_LANDMARKS_MIRROR", mirror)
        assert weights.download("tiny") == path
        assert server.requests.pop().path == asked
        assert server.requests == []
        path.unlink()
    monkeypatch.setenv("FACE_LANDMARKS_MIRROR", "mirror.invalid")
    with pytest.raises(DownloadError, match="tried     https://mirror.invalid/a/b.bin\\?v=1: "):
        weights.download("tiny")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named_and_not_left_full(server: FaultServer, pretrained: Path) -> None:
    path = register(pretrained, server.url())
    path.parent.mkdir()
    path.with_name("tiny.bin.part").symlink_to("/dev/full")
    with pytest.raises(CacheError, match="cannot be used: No space left on device[^$]*FACE_LANDMARKS_HOME"):
        weights.download("tiny")
    assert not path.with_name("tiny.bin.part").is_symlink()
    assert weights.download("tiny") == path


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder with tiny.bin that this process, even if it belongs to root, cannot write to."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs POSIX rights")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "cache")
        cache.mkdir()
        (cache / "tiny.bin").write_bytes(CONTENT)
        cache.chmod(0o555)
        os.chmod(folder, 0o755)
        monkeypatch.setenv("FACE_LANDMARKS_HOME", str(cache))
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
            yield cache
        finally:
            os.seteuid(user)
            cache.chmod(0o755)


def test_a_read_only_cache_is_named_unless_the_file_is_there(
    server: FaultServer, tmp_path: Path, read_only: Path
) -> None:
    file = WeightsFile("tiny.bin", sha256(CONTENT), len(CONTENT), (server.url(),))
    assert downloads.obtain("tiny", file, tmp_path)[1] == CONTENT
    with pytest.raises(CacheError, match=f"{read_only} cannot be used: Permission denied"):
        downloads.obtain("tiny", replace(file, name="other.bin"), tmp_path)
    assert server.requests == []


def test_a_cache_that_cannot_be_made_is_named(server: FaultServer, pretrained: Path, cache: Path) -> None:
    register(pretrained, server.url())
    cache.write_bytes(b"in the way")
    with pytest.raises(CacheError, match="cannot be used"):
        weights.download("tiny")
    assert server.requests == []


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"FACE_LANDMARKS_HOME": "/here"}, "/here"),
        ("linux", {"FACE_LANDMARKS_HOME": "~/here"}, "/home/me/here"),
        ("linux", {}, "/home/me/.cache/face_landmarks"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/face_landmarks"),
        ("darwin", {}, "/home/me/Library/Caches/face_landmarks"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/face_landmarks"),
        ("win32", {}, "/home/me/AppData/Local/face_landmarks"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    for name in ("FACE_LANDMARKS_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(downloads.sys, "platform", platform)
    assert weights.cache_folder() == Path(expected)


def test_the_cache_lists_verifies_and_clears_its_own_files_only(
    server: FaultServer, pretrained: Path, cache: Path
) -> None:
    assert weights.cached_files() == []
    register(pretrained, server.url())
    weights.download("tiny")
    url_file, part = f"a-{sha256(OTHER)}.pth", "2DFAN4-11f355bf06.pth.tar.part"
    for name, data in {url_file: CONTENT, part: b"123", "notes.txt": b"mine"}.items():
        (cache / name).write_bytes(data)
    files = {file.path.name: (file.size, file.verify()) for file in weights.cached_files()}
    assert files == {
        "tiny.bin": (64, True),
        url_file: (64, False),
        part: (3, False),
    }
    assert len(weights.clear_cache()) == 3
    assert [entry.name for entry in cache.iterdir()] == ["notes.txt"]
    assert weights.cached_files() == []


@pytest.mark.parametrize(("progress", "shown"), [(None, False), (False, False), (True, True)])
def test_progress_is_on_stderr_when_asked_for(
    server: FaultServer,
    pretrained: Path,
    capsys: pytest.CaptureFixture[str],
    progress: bool | None,
    shown: bool,
) -> None:
    register(pretrained, server.url())
    weights.download("tiny", progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("tiny" in err) == shown


def test_progress_is_shown_on_a_terminal(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    register(pretrained, server.url())
    weights.download("tiny")
    assert "tiny" in terminal.getvalue() and "64.0/64.0" in terminal.getvalue()


# --- Many processes ---------------------------------------------------------------------------

# The downloader alone, without the package around it: quick to start, and without torch's threads.
ALONE = """
import importlib.util, os, sys
from pathlib import Path
spec = importlib.util.find_spec("face_landmarks")
package = sys.modules["face_landmarks"] = importlib.util.module_from_spec(spec)
package.__version__ = "0"
import filelock, requests, tqdm
from face_landmarks.models.downloads import WeightsFile, obtain
assert "torch" not in sys.modules
base, sha256 = sys.argv[1:]
"""
CROWD = (
    ALONE
    + """
good = 0
for repeat in range(20):
    file = WeightsFile(f"{repeat}.bin", sha256, None, (f"{base}/{repeat}",))
    children = []
    for _ in range(8):
        children.append(os.fork())
        if not children[-1]:
            os._exit(obtain("crowd", file, Path("."))[0].path.name != file.name)
    good += sum(os.waitpid(child, 0)[1] == 0 for child in children)
print(good)
"""
)
ONE = ALONE + """obtain("one", WeightsFile("tiny.bin", sha256, None, (base,)), Path("."))"""


def start(program: str, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, url, sha256(CONTENT)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_eight_processes_at_once_share_one_download_twenty_times(server: FaultServer, cache: Path) -> None:
    server.otherwise = Reply(piece=32, pause=0.02)
    with start(CROWD, server.url("")) as crowd:
        out, err = crowd.communicate(timeout=60)
    assert (out, err) == ("160\n", "")
    assert Counter(request.path for request in server.requests) == {f"/{n}": 1 for n in range(20)}
    assert all((cache / f"{n}.bin").read_bytes() == CONTENT for n in range(20))


def test_after_a_killed_downloader_the_next_start_succeeds(
    server: FaultServer, pretrained: Path, cache: Path
) -> None:
    path = register(pretrained, server.url())
    server.content = CONTENT * 1000
    register(pretrained, server.url(), data=server.content)
    server.script[:] = [Reply(stall_after=40_000)]
    with start(ONE, server.url()) as killed:
        wait_until(lambda: downloads.size_of(path.with_name("tiny.bin.part")) >= 16_384)
        killed.kill()
        killed.communicate(timeout=10)
    assert (cache / "tiny.bin.lock").exists()
    assert weights.download("tiny").read_bytes() == server.content
    assert len(server.requests) == 2
    assert server.ranges[1] is not None


def test_a_living_but_stuck_downloader_is_not_waited_for_in_vain(
    server: FaultServer, pretrained: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_PATIENCE", 0.05)
    register(pretrained, server.url())
    cache.mkdir()
    message = "another process holds .*tiny.bin.lock and its download does not grow"
    with filelock.FileLock(cache / "tiny.bin.lock"), pytest.raises(CacheError, match=message):
        weights.download("tiny")
    assert weights.download("tiny").read_bytes() == CONTENT
