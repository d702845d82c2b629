"""The face-landmarks command: what it prints, what it writes, how it exits."""

import argparse
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from interrupted import interrupt

from face_landmarks import FaceAligner, __version__, align_folder, cli, merge_results
from face_landmarks.cli import main
from face_landmarks.errors import DetectorError, InputError
from face_landmarks.models.registry import DEFAULT_MODEL, DEFAULT_VIDEO_MODEL, DETECTORS, get_card
from face_landmarks.pts import write_pts
from face_landmarks.results import Faces

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
    first, second = json.loads(output.out)
    assert first.keys() == {"image", "error"} and first["image"] == str(broken)
    assert "broken.jpg" in first["error"] and f"face-landmarks: error: {first['error']}\n" in output.err
    assert second["image"] == str(ASTRONAUT) and len(second["landmarks"]) == 1


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A folder with a photo, and a subfolder that nobody can read, not even root."""
    scan, folder = os.scandir, tmp_path / "photos"
    (folder / "locked").mkdir(parents=True)
    (folder / "one.png").symlink_to(ASTRONAUT)
    (folder / "locked" / "two.png").symlink_to(ASTRONAUT)

    def scandir(place="."):
        if Path(os.fsdecode(place)).name == "locked":
            raise PermissionError(13, "Permission denied", os.fsdecode(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)
    return folder


def test_a_subfolder_that_cannot_be_read_is_an_error_and_the_other_photos_are_done(locked, tmp_path, capsys):
    words = ["align", locked, "--model", "shr-fan-68-fast", "--device", "cpu"]
    assert run(*words) == 1
    output = capsys.readouterr()
    assert [row["image"] for row in json.loads(output.out)] == [str(locked / "one.png")]
    assert f"error: {locked}/locked: Permission denied; the photos in this folder are left out" in output.err
    assert run(*words, "--out", tmp_path / "out.jsonl") == 1
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    (locked / "one.png").unlink()
    assert run(*words) == 1  # and not 3: there may be photos


def test_a_report_names_the_subfolders_that_cannot_be_read(locked, tmp_path):
    aligner = FaceAligner("shr-fan-68-fast", device="cpu")
    report = align_folder(aligner, locked, tmp_path / "out.jsonl")
    assert (report.images, report.folders) == (1, {"locked": "Permission denied"})
    assert align_folder(aligner, locked, tmp_path / "out.jsonl", recursive=False).folders == {}
    with pytest.raises(
        InputError, match="photos: expected folders that can be read, got .*locked: Permission"
    ):
        merge_results([tmp_path / "out.jsonl"], tmp_path / "all.jsonl", photos=locked)


def test_json_has_a_line_for_each_photo(tmp_path, capsys):
    words = ["align", ASTRONAUT, tmp_path / "none.jpg", ASTRONAUT, "--model", "shr-fan-68-fast"]
    assert run(*words) == 1
    printed = capsys.readouterr().out
    assert run(*words, "--json", tmp_path / "out.json") == 1
    assert (tmp_path / "out.json").read_text() == printed
    lines = printed.splitlines()
    assert len(lines) == 5 and (lines[0], lines[-1]) == ("[", "]")
    rows = [json.loads(line.rstrip(",")) for line in lines[1:-1]]
    assert rows == json.loads(printed)
    assert len(Faces.from_dict({k: v for k, v in rows[2].items() if k != "image"})) == 1


def test_without_a_readable_photo_the_json_holds_the_errors(tmp_path, capsys):
    assert run("align", tmp_path / "a.jpg", tmp_path / "b.jpg") == 1
    assert [set(row) for row in json.loads(capsys.readouterr().out)] == [{"image", "error"}] * 2


class Stopping(FaceAligner):
    """Raises at the second photo."""

    error: BaseException = KeyboardInterrupt()
    calls = 0

    def align(self, *arguments):
        self.calls += 1
        if self.calls == 2:
            raise self.error
        return super().align(*arguments)


@pytest.fixture
def stopping(monkeypatch):
    monkeypatch.setattr(cli.commands.align, "make_aligner", lambda options: Stopping("shr-fan-68-fast"))
    return Stopping


@pytest.mark.parametrize("to_file", [False, True])
def test_photos_that_were_done_when_ctrl_c_came_are_kept(to_file, tmp_path, capsys, stopping):
    words = ["--json", tmp_path / "out.json"] if to_file else []
    assert run("align", ASTRONAUT, ASTRONAUT, ASTRONAUT, *words) == 130
    output = capsys.readouterr()
    text = (tmp_path / "out.json").read_text() if to_file else output.out
    assert [row["image"] for row in json.loads(text)] == [str(ASTRONAUT)]
    assert output.err.splitlines()[-1] == "face-landmarks: stopped, 1 of 3 photos done"


def test_photos_that_were_done_before_an_error_are_kept(capsys, stopping, monkeypatch):
    monkeypatch.setattr(stopping, "error", DetectorError("detector: expected boxes, got None"))
    assert run("align", ASTRONAUT, ASTRONAUT, ASTRONAUT) == 2
    output = capsys.readouterr()
    assert len(json.loads(output.out)) == 1
    assert output.err.splitlines()[-1] == "face-landmarks: error: detector: expected boxes, got None"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["align", ASTRONAUT, "--model", "shr-fan-86"], "shr-fan-86"),
        (["align", ASTRONAUT, "--draw", "out.nonsense"], "picture type"),
        (["align", ASTRONAUT, ASTRONAUT, "--draw", "out.png"], "expected a folder"),
        (["align", ASTRONAUT, ASTRONAUT, "--draw", "folder"], "different names"),
        (["align", ASTRONAUT, "--json", "/dev/null/out.json"], "expected a place to write to"),
        (["align", ASTRONAUT, "--json", "."], "expected a file to write to, got a folder"),
        (["align", ASTRONAUT, "--json", ""], "expected a path, got ''"),
        (["align", ASTRONAUT, "--draw", ""], "expected a path, got ''"),
        (["align", ".", "--out", ""], "expected a path, got ''"),
        (["align", "no/such/folder", "--out", "out.jsonl"], "expected a photo or a folder of photos"),
        (["align", ASTRONAUT, "--out", "out.xlsx"], "expected .jsonl"),
        (["align", ASTRONAUT, "--out", "taken"], "taken: expected a place to write to"),
        (["align", ASTRONAUT, "--out", "/proc/out"], "/proc/out: expected a place to write to"),
        (["align", ASTRONAUT, "--out", "/dev/full"], "/dev/full: expected a place to write to"),
        (["align", ASTRONAUT, "--out", "a.jsonl", "--json", "b.json"], "--json: expected no --out"),
        (["align", ASTRONAUT, "--json", "/dev/full"], "/dev/full: expected a place to write to"),
        (["align", ASTRONAUT, "--draw", "/dev/null/drawn"], "expected a place to write to"),
        (["align", ASTRONAUT, "--scores"], "--scores: expected --draw beside it"),
        (
            ["align", ASTRONAUT, "--draw", "d", "--weight", "0"],
            "expected a positive number, at most 100, got '0'",
        ),
        (["align", ASTRONAUT, "--draw", "d", "--weight", "101"], "at most 100, got '101'"),
        (["align", ASTRONAUT, "--boxes", "none.csv"], "none.csv: expected a file of boxes, got No such file"),
        (["align", ASTRONAUT, "--detector", "yunet", "--min-face-size", "20"], "expected --detector mtcnn"),
        (["align", "https://example.org/a.jpg"], "got the URL 'https://example.org/a.jpg'; 'curl -L URL |"),
        (["align", "-", "-"], "expected '-' once"),
        (["align", "-", "--out", "out.jsonl"], "expected photos in files, got '-'"),
        (["align", ASTRONAUT, "--device", "toaster"], "toaster"),
        (["align"], "the following arguments are required: PHOTO, or --list FILE"),
        (["align", ASTRONAUT, "--workers", "2"], "--workers: expected --out with it"),
        (
            ["align", ASTRONAUT, "--workers", "0", "--out", "o.jsonl"],
            "expected a whole number above 0, got '0'",
        ),
        (["align", ASTRONAUT, "--shard", "1/2"], "--shard: expected --out with it"),
        (["align", ASTRONAUT, "--shard", "3/2", "--out", "o.jsonl"], "expected NUMBER/COUNT, such as '3/16'"),
        (["align", ASTRONAUT, "--root", "."], "--root: expected --list with it"),
        (["align", "--list", "photos.txt"], "--list: expected --out with it"),
        (["align", ASTRONAUT, "--list", "l.txt", "--out", "o.jsonl"], "PHOTO: expected no --list beside it"),
        (["align", "--list", "none.txt", "--out", "o.jsonl"], "'none.txt': expected a file with a list"),
        (["merge", "none.jsonl", "--out", "o.csv"], "parts: expected .jsonl files, got none.jsonl"),
        (["align", ASTRONAUT, "--backend", "tensorflow"], "argument --backend: invalid choice"),
        (["align", ASTRONAUT, "--nonsense"], "unrecognized arguments: --nonsense"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        ([], "the following arguments are required: command"),
        (["models", "shr-fan-86"], "did you mean 'shr-fan-68'?"),
        (["cache", "burn"], "invalid choice: 'burn'"),
        (["export", "out.onnx", "--decode", "--flip"], "unrecognized arguments: --flip"),
        (["export", "out.pth"], "onnx"),
        (["export", "shr-fan-86", "out.onnx"], "shr-fan-86"),
        (["evaluate", "."], "expected"),
        (["evaluate", ".", "--save", ""], "expected a path, got ''"),
        (["video", "."], "got the folder '.'"),
        (["video", ""], "no such file"),
        (["video", "99"], "OpenCV can read, got 99"),
        (["video", "x.mp4", "--frames", "0"], "argument --frames: expected a whole number above 0, got '0'"),
        (["video", "x.mp4", "--frames", "few"], "expected a whole number above 0, got 'few'"),
        (["video", "x.mp4", "--detect-every", "2.5"], "expected a whole number above 0, got '2.5'"),
        (["train"], "the following arguments are required: --out"),
        (["train", "--train", ".", "--val", ".", "--out", ASTRONAUT], "expected a place to write to"),
        (["train", "--train", ".", "--val", ".", "--out", ""], "expected a path, got ''"),
        (["train", "--train", ".", "--val", ".", "--out", "run", "--set", "steps"], "steps"),
        (["align", ASTRONAUT, "--draw", "a.png", "--json", "a.png"], "different names"),
        (["evaluate", "no/such/folder"], "no/such/folder"),
        (["evaluate", ".", "--save", "/dev/null"], "/dev/null: expected a place to write to"),
        (["download", "shr-fan-86"], "shr-fan-86"),
    ],
)
def test_what_cannot_be_done_exits_with_two_and_a_reason(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    try:
        code = run(*words)
    except SystemExit as end:  # of argparse
        code = end.code
    assert code == 2
    (line, *more) = capsys.readouterr().err.splitlines()
    assert line.startswith("face-landmarks: error: ") and message in line and not more


def test_every_argument_has_a_help():
    parsers = [cli._parser()]
    for parser in parsers:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
                assert len(action._choices_actions) == len(action.choices) == 10
            else:
                assert action.help, (parser.prog, action.dest)
    assert all(parser.description for parser in parsers)


@pytest.mark.parametrize(
    "command",
    [[], ["align"], ["video"], ["models"], ["evaluate"], ["export"], ["download"], ["cache"], ["train"]],
)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        run(*command, "--help")
    assert end.value.code == 0 and capsys.readouterr().out.startswith("usage: face-landmarks")


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


@pytest.fixture
def closed_pipe():
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    file = open(writing, "w")  # noqa: SIM115
    yield file
    try:
        file.close()
    except BrokenPipeError:
        pytest.fail("Python would report this at its end")


@pytest.mark.parametrize(
    "words",
    [["--help"], ["align", "--help"], ["models"], ["models", "2dfan4"], ["cache"], ["align", ASTRONAUT]],
)
def test_no_command_minds_a_closed_pipe(words, closed_pipe, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", closed_pipe)
    assert run(*words) == 0
    assert "error" not in capsys.readouterr().err


def test_nobody_listening_to_the_progress_does_not_stop_the_work(tmp_path, closed_pipe, monkeypatch):
    monkeypatch.setattr(sys, "stderr", closed_pipe)
    words = ["align", ASTRONAUT, tmp_path / "none.jpg", "--json", tmp_path / "out.json"]
    assert run(*words, "--model", "shr-fan-68-fast") == 1
    assert len(json.loads((tmp_path / "out.json").read_text())) == 2
    with open(os.devnull, "w") as nowhere:  # what is left is dropped
        os.dup2(nowhere.fileno(), closed_pipe.fileno())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error_of_one_line(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run("models") == 2
    assert capsys.readouterr().err == "face-landmarks: error: output: No space left on device\n"


def test_output_that_the_shell_closed_is_dropped(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert run("models") == 0 and run("models", "shr-fan-86") == 2
    sys.stdout.close()
    sys.stderr.close()


def test_log_lines_and_warnings_are_lines_of_the_command(monkeypatch, capsys, caplog):
    def work(options):
        logger = logging.getLogger("face_landmarks.somewhere")
        logger.info("half done")
        logger.warning("not the published protocol")
        logger.debug("a detail")
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn("the file is cut off", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(cli.commands.cache, "_cache", work)
    before = logging.getLogger("face_landmarks").handlers[:]
    for _ in range(2):  # the second call does not print twice
        assert run("cache") == 0
        assert capsys.readouterr().err.splitlines() == [
            "half done",
            "face-landmarks: warning: not the published protocol",
            "face-landmarks: warning: the file is cut off",
        ]
    assert logging.getLogger("face_landmarks").handlers == before
    assert not caplog.records  # a handler of the root does not print them once more


@pytest.mark.parametrize("words", [["video", "99"], ["align", ASTRONAUT, "--draw", "out.nonsense"]])
def test_opencv_prints_nothing_of_its_own(words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENCV_LOG_LEVEL", raising=False)
    opencv = getattr(cv2.utils, "logging", cv2)  # in OpenCV 5, and in OpenCV 4
    level = opencv.getLogLevel()
    assert run(*words) == 2
    assert opencv.getLogLevel() == level
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("face-landmarks: error: ")


def test_ffmpeg_prints_nothing_of_its_own(tmp_path):
    """In a process of its own, as FFmpeg reads its level once."""
    broken = tmp_path / "text.mp4"
    broken.write_text("not a video")
    command = [sys.executable, "-m", "face_landmarks", "video", str(broken)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("face-landmarks: error: video: expected a video") and str(broken) in line


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        run("--version")
    assert __version__ in capsys.readouterr().out


def test_models_are_a_table_of_five_columns_with_the_default_marked(capsys):
    assert run("models") == 0
    table, _, notes = capsys.readouterr().out.partition("\n\n")
    rows = [re.split(r" {2,}", line) for line in table.splitlines()]
    assert rows[0] == ["model", "layout", "weights", "GMAC a face", "licence"]
    assert all(len(row) == 5 for row in rows)
    assert [row[0] for row in rows[1:]] == [
        *("2dfan4", "shr-fan-68 *", "shr-fan-68-fast", "shr-fan-68-tiny", "yunet")
    ]
    assert rows[5][1:] == ["face detector", "0.2 MB, download", "-", "MIT"]
    assert rows[1][1:] == ["ibug-68", "95.6 MB, download", "25.24", "as published by its authors"]
    assert rows[2][2].endswith(", embedded") and rows[2][4] == "research only, no commercial use"
    assert notes.startswith(f"* default; {DEFAULT_VIDEO_MODEL} is the default for videos\n")
    for line in table.splitlines():
        assert line.index(re.split(r" {2,}", line)[2]) == table.index("weights")


def test_the_defaults_are_those_of_the_package():
    assert FaceAligner(detector=None, device="cpu").card.name == DEFAULT_MODEL
    assert cli.commands.video.FaceTracker().aligner.card.name == DEFAULT_VIDEO_MODEL


def test_a_model_is_shown_with_licence_provenance_and_scores(capsys):
    assert run("models", "shr-fan-68-fast") == 0
    text = capsys.readouterr().out
    card = get_card("shr-fan-68-fast")
    assert text.startswith("shr-fan-68-fast\n") and card.licence in text and card.training_data in text
    assert "1.17 M parameters, 0.32 GMAC a face" in text
    for command in card.command.split(" && "):
        assert f"\n    {command}\n" in text
    for benchmark, scores in card.scores.items():
        assert f"\n  {benchmark}:\n" in text
        assert all(f"\n    {name}: {value}\n" in text for name, value in scores.items())
    assert "2dfan4" not in text


def test_a_detector_is_shown_with_licence_and_provenance(capsys):
    assert run("models", "yunet") == 0
    text = capsys.readouterr().out
    assert text.startswith("yunet\n") and "licence: MIT" in text
    assert all(f"\n    {url}\n" in text for url in DETECTORS["yunet"].file.urls)


def test_cards_are_printed_as_json(capsys):
    assert run("models", "--json") == 0
    cards = json.loads(capsys.readouterr().out)
    assert [card["name"] for card in cards] == [
        *("2dfan4", "shr-fan-68", "shr-fan-68-fast", "shr-fan-68-tiny")
    ]
    assert cards[0]["parameters"] == 23_820_176 and cards[0]["multiply_adds"] == 25_235_292_160
    assert run("models", "shr-fan-68", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [cards[1]]


def test_evaluating_its_own_answers_gives_no_error(tmp_path, astronaut, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(ASTRONAUT.read_bytes())
    write_pts(folder / "a.pts", astronaut.landmarks[0])
    assert run("evaluate", folder, "--boxes", "detector", "--save", tmp_path / "scores") == 0
    assert "1 face in 1 photo" in capsys.readouterr().out
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


def test_ctrl_c_stops_a_folder_in_one_line_and_the_next_run_goes_on(tmp_path):
    """A real signal to a real process."""
    photos, out = tmp_path / "photos", tmp_path / "out.jsonl"
    photos.mkdir()
    for number in range(40):
        shutil.copy(ASTRONAUT, photos / f"{number:02}.jpg")
    words = ["align", photos, "--out", out, "--model", "shr-fan-68-fast", "--device", "cpu"]
    code, error = interrupt(words, lambda: out.exists() and out.stat().st_size)
    done = len(out.read_text().splitlines())
    assert 0 < done < 40
    assert error == f"face-landmarks: stopped, {done} of 40 photos done; run it again to go on\n"
    assert code == 130
    assert run(*words) == 0 and len(out.read_text().splitlines()) == 40
