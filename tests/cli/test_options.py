"""Every option of the command reaches what it is for; nothing is aligned here."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from face_landmarks import FaceAligner, VideoWriter
from face_landmarks.cli import main
from face_landmarks.cli.options import make_aligner, model_options
from face_landmarks.errors import InputError
from face_landmarks.models.registry import DEFAULT_VIDEO_MODEL


class Recorder:
    """Stands for a class or function: keeps its arguments and raises an error of ours."""

    def __init__(self) -> None:
        self.words: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def __call__(self, *words: Any, **options: Any) -> None:
        self.words, self.options = words, options
        raise InputError("recorded")


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--flip"], "flip", True),
        (["--refine"], "refine", True),
        (["--detector", "yunet"], "detector", "yunet"),
        (["--rotations", "always"], "rotations", "always"),
        (["--device", "cuda:1"], "device", "cuda:1"),
        (["--batch-size", "7"], "batch_size", 7),
        (["--backend", "onnxruntime"], "backend", "onnxruntime"),
        (["--dtype", "bfloat16"], "dtype", torch.bfloat16),
    ],
)
def test_each_option_of_a_model_reaches_the_aligner(
    monkeypatch: pytest.MonkeyPatch, words: list[str], name: str, value: object
) -> None:
    aligner = Recorder()
    monkeypatch.setattr("face_landmarks.cli.options.FaceAligner", aligner)
    default = inspect.signature(FaceAligner).parameters[name].default
    assert value != default
    for given, expected in ((words, value), ([], default)):
        with pytest.raises(InputError, match="recorded"):
            make_aligner(model_options().parse_args(["--model", "mine", *given]))
        assert aligner.words == ("mine",) and aligner.options[name] == expected


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [([], "smooth", True), (["--raw"], "smooth", False), ([], "detect_every", 30),
     (["--detect-every", "7"], "detect_every", 7), ([], "frame_rate", 12.5)],
)  # fmt: skip
def test_each_option_of_a_video_reaches_the_tracker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], name: str, value: object
) -> None:
    with VideoWriter(tmp_path / "in.mp4", 12.5) as writer:
        writer.write(np.zeros((32, 48, 3), np.uint8))
    tracker = Recorder()
    monkeypatch.setattr("face_landmarks.cli.commands.video.FaceTracker", tracker)
    monkeypatch.setattr("face_landmarks.cli.commands.video.make_aligner", lambda options: options.model)
    assert main(["video", str(tmp_path / "in.mp4"), *words]) == 2
    assert tracker.words == (DEFAULT_VIDEO_MODEL,) and tracker.options[name] == value


@pytest.mark.parametrize("given", ["truth", "detector"])
def test_each_option_of_evaluate_reaches_the_evaluation(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    score = Recorder()
    monkeypatch.setattr("face_landmarks.cli.commands.evaluate.evaluate", score)
    monkeypatch.setattr("face_landmarks.cli.commands.evaluate.evaluate_benchmark", score)
    monkeypatch.setattr("face_landmarks.cli.commands.evaluate.make_aligner", lambda options: options.model)
    monkeypatch.setattr("face_landmarks.cli.commands.evaluate.read_folder", lambda folder: folder)
    assert main(["evaluate", "photos", "--boxes", given, "--normaliser", "box"]) == 2
    assert score.words == ("shr-fan-68", "photos")
    assert score.options["boxes"] == given and score.options["normaliser"] == "box"
    assert main(["evaluate", "--benchmark", "300w", "--root", "data", "--boxes", given]) == 2
    assert score.words[0] == "shr-fan-68" and score.words[1].name == "300w" and score.words[2] == "data"
    assert score.options["boxes"] == given
