"""The published 2DFAN-4 as its users meet it: downloaded, verified, loaded, run on a photo.

The weights themselves cannot be had here; a generated file with their key names, shapes and format,
served by this machine, stands in for them.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fault_server import FaultServer, Reply
from published import generated_state, heatmaps_of, written_by_torch_0_3

from face_landmarks import FaceAligner, WeightsFormatError, get_layout, load_model, read_image
from face_landmarks.cli import main
from face_landmarks.geometry import crop_matrices, transform_points, warp
from face_landmarks.heatmap import decode_heatmaps
from face_landmarks.models import registry
from face_landmarks.models.registry import get_card

ASTRONAUT = Path(__file__).parents[2] / "examples" / "data" / "astronaut.jpg"
BOXES = np.array([[178, 59, 267, 175]], np.float32)


@pytest.fixture(scope="module")
def state():
    return generated_state(stacks=4)


@pytest.fixture(scope="module")
def content(state):
    return written_by_torch_0_3(state)


@pytest.fixture
def server(request, monkeypatch):
    """A server that has the file, or what a test puts in its place, and a registry that expects it."""
    content = getattr(request, "param", None) or request.getfixturevalue("content")
    with FaultServer(content) as running:
        digest = hashlib.sha256(content).hexdigest()
        fan = get_card("2dfan4")
        file = replace(fan.file, sha256=digest, size=len(content), urls=(running.url(),))
        monkeypatch.setattr(registry, "FAN_CARD", replace(fan, file=file))
        yield running


def test_the_generated_file_is_as_long_as_the_published_one(content):
    """To a few bytes of 95 million: so the keys, the shapes and the format are right."""
    difference = len(content) - get_card("2dfan4").file.size
    assert abs(difference) < 16


def test_the_published_weights_come_load_and_run_on_a_photo(server, state):
    server.script[:] = [Reply(cut_after=50_000_000)]
    aligner = FaceAligner("2dfan4", device="cpu")
    assert server.ranges == [None, "bytes=50000000-"]
    assert (aligner.card.name, aligner.layout) == ("2dfan4", get_layout("ibug-68"))

    faces = aligner.align(ASTRONAUT)
    assert faces.landmarks.shape == (1, 68, 2) and np.isfinite(faces.landmarks).all()

    # The same by the published names and rules, without this package's network or aligner.
    boxes = torch.tensor(faces.boxes)
    image_to_crop = crop_matrices(boxes, 256, 200 / 195, -0.12)
    with torch.inference_mode():
        heatmaps = heatmaps_of(state, warp(read_image(ASTRONAUT), image_to_crop, 256), stacks=4)
    cells, _ = decode_heatmaps(heatmaps)
    crop_points = 4 * cells + 1.5 - torch.tensor(aligner.card.offset)
    expected = transform_points(image_to_crop.inverse(), crop_points)
    distances = np.linalg.norm(faces.landmarks - expected.numpy(), axis=2)
    assert np.median(distances) < 1e-3 and (distances < 0.01).mean() > 0.9


@pytest.mark.parametrize("server", [b"weights " * 250_000], indirect=True, ids=["2 MB"])
def test_on_the_command_line_it_is_fetched_shown_verified_and_cleared(server, temporary_home, capsys):
    content = server.content
    path = temporary_home / "face_landmarks" / "2DFAN4-11f355bf06.pth.tar"
    server.otherwise = Reply(status=404)
    assert main(["download", "2dfan4"]) == 2
    error = capsys.readouterr().err
    for fact in (server.url(), str(path), f"{len(content)} bytes", "404", "by hand"):
        assert fact in error

    server.otherwise = Reply()
    assert main(["download", "2dfan4"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"{path.parent}\n  {path.name}  2.0 MB\n"
    assert main(["cache", "verify"]) == 0
    assert capsys.readouterr().out.endswith("2.0 MB  whole\n")

    path.write_bytes(content[:-1])
    assert main(["cache", "verify"]) == 1
    assert capsys.readouterr().out.endswith("2.0 MB  damaged\n")
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"removed {path}\n"
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"{path.parent}\n  empty\n"


def test_a_file_put_there_by_hand_needs_no_network(server, content, temporary_home, monkeypatch):
    monkeypatch.setenv("FACE_LANDMARKS_OFFLINE", "1")
    hub = temporary_home / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / "2DFAN4-11f355bf06.pth.tar").write_bytes(content)
    assert load_model("2dfan4").card.network.stacks == 4
    assert server.requests == []


def test_a_file_with_other_shapes_or_names_is_refused_by_name(tmp_path):
    path = tmp_path / "mine.pth"
    state = generated_state(stacks=1)
    for change, fault in (
        ({"l0.weight": torch.zeros(5, 256, 1, 1)}, "expected (68, 256, 1, 1), got (5, 256, 1, 1)"),
        ({"surprise": torch.zeros(1)}, "unknown surprise"),
    ):
        torch.save({**state, **change}, path)
        with pytest.raises(WeightsFormatError) as caught:
            load_model(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        for fact in ("mine.pth", fault, digest, f"{path.stat().st_size} bytes", "by hand"):
            assert fact in str(caught.value)
