"""The short examples do what their first line says."""

import ast
import runpy
import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_landmarks import FaceAligner, Video, VideoWriter, read_image

EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTO = EXAMPLES / "data" / "astronaut.jpg"


def run(name, *words, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.parametrize("script", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.name)
def test_what_an_example_imports_of_the_package_is_there(script):
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("face_landmarks"):
            module = import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or import_module(f"{node.module}.{alias.name}")


def test_align_image_prints_and_draws(tmp_path, monkeypatch, capsys):
    run("align_image.py", PHOTO, tmp_path / "drawn.png", monkeypatch=monkeypatch)
    assert "nose at (22" in capsys.readouterr().out
    assert (read_image(tmp_path / "drawn.png") != read_image(PHOTO)).any()


def test_align_video_follows_and_draws(tmp_path, monkeypatch, capsys):
    with VideoWriter(tmp_path / "in.mp4") as writer:
        for _ in range(3):
            writer.write(read_image(PHOTO))
    run("align_video.py", tmp_path / "in.mp4", tmp_path / "out.mp4", monkeypatch=monkeypatch)
    assert "frame 2: faces [0]" in capsys.readouterr().out
    assert len(list(Video(tmp_path / "out.mp4"))) == 3


def test_bring_your_own_detector_finds_the_face_or_none(tmp_path, monkeypatch, capsys):
    run("bring_your_own_detector.py", PHOTO, monkeypatch=monkeypatch)
    assert "1 face," in capsys.readouterr().out
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((60, 80), 128, np.uint8))
    run("bring_your_own_detector.py", tmp_path / "gray.png", monkeypatch=monkeypatch)
    assert "0 faces" in capsys.readouterr().out


def test_the_benchmark_times_every_stage_and_counts_the_work_of_a_face():
    benchmark = runpy.run_path(str(EXAMPLES / "lab" / "speed" / "benchmark.py"))
    aligner = FaceAligner("shr-fan-68-fast", detector=None, device="cpu")
    operations, megabytes = benchmark["cost"](aligner)
    assert 0.31 < operations < 0.33 and megabytes > 10
    times = benchmark["stages"](aligner, 2, benchmark["Clock"](aligner.device, 0))
    assert list(times) == ["crop", "network", "decode", "boxes to landmarks"]
    assert all(len(values) >= 5 and min(values) > 0 for values in times.values())
    assert benchmark["crowd"](64).shape == (192, 256, 3)
