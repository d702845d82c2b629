"""The short examples do what their first line says."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np

from face_landmarks import Video, VideoWriter, read_image

EXAMPLES = Path(__file__).parents[1] / "examples"
PHOTO = EXAMPLES / "data" / "astronaut.jpg"


def run(name, *words, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


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
