"""The face-landmarks command: what it prints, what it writes, how it exits."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_landmarks import FaceAligner, __version__
from face_landmarks.cli import main
from face_landmarks.pts import write_pts

ASTRONAUT = Path(__file__).parents[2] / "examples" / "data" / "astronaut.jpg"


@pytest.fixture(scope="module")
def astronaut():
    return FaceAligner(device="cpu").align(ASTRONAUT)


def run(*words):
    return main([str(word) for word in words])


def test_landmarks_go_to_stdout_as_json(capsys, astronaut):
    assert run("align", ASTRONAUT, "--device", "cpu") == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["image"] == str(ASTRONAUT)
    np.testing.assert_allclose(result["landmarks"], astronaut.landmarks, atol=1e-3)


def test_landmarks_go_to_a_file_and_the_drawing_to_another(tmp_path, capsys):
    json_file, picture = tmp_path / "deep" / "out.json", tmp_path / "out.png"
    assert run("align", ASTRONAUT, "--json", json_file, "--draw", picture) == 0
    assert len(json.loads(json_file.read_text())[0]["landmarks"][0]) == 68
    drawn, photo = cv2.imread(str(picture)), cv2.imread(str(ASTRONAUT))
    assert drawn.shape == photo.shape
    changed = np.abs(drawn.astype(int) - photo).max(axis=2) > 30
    assert changed[60:190, 170:270].sum() > 300 and not changed[300:].any()
    assert capsys.readouterr().out == ""


def test_many_photos_are_drawn_into_a_folder(tmp_path):
    second = tmp_path / "second.jpg"
    second.write_bytes(ASTRONAUT.read_bytes())
    assert run("align", ASTRONAUT, second, "--draw", tmp_path / "drawn") == 0
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["astronaut.png", "second.png"]


def test_one_unreadable_photo_does_not_stop_the_others(tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a photo")
    assert run("align", broken, ASTRONAUT) == 1
    output = capsys.readouterr()
    assert [r["image"] for r in json.loads(output.out)] == [str(ASTRONAUT)]
    assert "broken.jpg" in output.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["align", ASTRONAUT, "--model", "shr-fan-86"], "shr-fan-86"),
        (["align", ASTRONAUT, "--draw", "out.nonsense"], "picture type"),
        (["align", ASTRONAUT, ASTRONAUT, "--draw", "out.png"], "expected a folder"),
        (["align", ASTRONAUT, ASTRONAUT, "--draw", "folder"], "different names"),
        (["align", ASTRONAUT, "--json", "/dev/null/out.json"], "expected a place to write to"),
        (["align", ASTRONAUT, "--device", "toaster"], "toaster"),
        (["align", ASTRONAUT, "--draw", "a.png", "--json", "a.png"], "different names"),
        (["evaluate", "no/such/folder"], "no/such/folder"),
        (["evaluate", ".", "--save", "/dev/null"], "/dev/null: expected a place to write to"),
        (["download", "shr-fan-86"], "shr-fan-86"),
    ],
)
def test_what_cannot_be_done_exits_with_two_and_a_reason(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize(
    "words",
    [
        ["align", "photo.png", "--draw", "."],
        ["align", "photo.png", "--draw", "./photo.png"],
        ["align", "photo.png", "--json", "photo.png"],
        ["video", "photo.png", "--json", "photo.png"],
    ],
)
def test_what_is_read_is_not_written_over(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.png", cv2.imread(str(ASTRONAUT)))
    before = Path("photo.png").read_bytes()
    assert run(*words) == 2
    assert "photo.png, which is read" in capsys.readouterr().err
    assert Path("photo.png").read_bytes() == before


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-W", "ignore", "-m", "face_landmarks", "models", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_a_command_is_needed():
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 2


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        run("--version")
    assert __version__ in capsys.readouterr().out


def test_models_are_listed_with_licence_and_scores(capsys):
    assert run("models") == 0
    text = capsys.readouterr().out
    assert "shr-fan-68-fast" in text and "2dfan4: download" in text and "research only" in text
    assert "23.82 M parameters, 25.24 GMAC a face" in text
    assert run("models", "--json") == 0
    names = [card["name"] for card in json.loads(capsys.readouterr().out)]
    assert names == sorted(names) and "shr-fan-68-fast" in names


def test_evaluating_its_own_answers_gives_no_error(tmp_path, astronaut, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(ASTRONAUT.read_bytes())
    write_pts(folder / "a.pts", astronaut.landmarks[0])
    assert run("evaluate", folder, "--boxes", "detector", "--save", tmp_path / "scores") == 0
    assert "1 faces in 1 photos" in capsys.readouterr().out
    assert json.loads((tmp_path / "scores" / "summary.json").read_text())["nme"] < 1e-3
    assert (tmp_path / "scores" / "ced.png").exists()


def test_the_cache_is_shown_and_cleared(capsys, temporary_home):
    cache = temporary_home / "face_landmarks"
    cache.mkdir(parents=True)
    weights = cache / "2DFAN4-11f355bf06.pth.tar"
    weights.write_bytes(b"half a file")
    assert run("cache") == 0
    output = capsys.readouterr().out
    assert str(cache) in output and weights.name in output
    assert run("cache", "verify") == 1
    assert "damaged" in capsys.readouterr().out
    assert run("cache", "clear") == 0 and not weights.exists()


def test_training_is_handed_over(capsys, tmp_path):
    words = ["train", "--train", tmp_path / "none", "--val", tmp_path, "--out", tmp_path / "run", "--quiet"]
    assert run(*words) == 2
    assert "none" in capsys.readouterr().err
