"""The command `face-landmarks video`: what it prints, draws and writes, and how it ends."""

import json
import re
import warnings

import numpy as np
import pytest
from crossing import ASTRONAUT, write_crossing
from films import import_av, join_films
from interrupted import interrupt

from face_landmarks import FaceAligner, FaceTracker, Video, VideoWriter, cli, read_image
from face_landmarks.cli import main
from face_landmarks.models.registry import DEFAULT_VIDEO_MODEL
from face_landmarks.video import TruncatedVideoWarning


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_crossing(tmp_path_factory.mktemp("video") / "clip.mp4", 4)


def test_the_command_draws_and_writes_a_line_per_frame(clip, tmp_path, capsys):
    drawn, lines = tmp_path / "deep" / "out.mp4", tmp_path / "out.jsonl"
    assert main(["video", str(clip), "--draw", str(drawn), "--json", str(lines), "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["frame"] for row in rows] == [0, 1, 2, 3]
    assert rows[3]["seconds"] == pytest.approx(0.12) and rows[0]["identities"] == [0, 1]
    assert np.array(rows[0]["landmarks"]).shape == (2, 68, 2)
    changed = [np.abs(a.astype(int) - b).max() for a, b in zip(Video(drawn), Video(clip), strict=True)]
    assert min(changed) > 80
    output = capsys.readouterr()
    assert output.out == "" and "4 frames, 2 faces" in output.err and "frames/s" in output.err


def test_frames_of_another_size_are_scaled_to_fit_the_drawn_video(tmp_path, capsys):
    import_av()  # OpenCV stretches such frames as it reads them
    photo = read_image(ASTRONAUT)  # 512 x 512 pixels
    for name, frame in (("wide.mp4", photo[:256, 32:480]), ("square.mp4", photo)):
        with VideoWriter(tmp_path / name, 25) as writer:
            for _ in range(3):
                writer.write(frame)
    clip, drawn, lines = tmp_path / "clip.ts", tmp_path / "drawn.mp4", tmp_path / "out.jsonl"
    join_films(clip, [tmp_path / "wide.mp4", tmp_path / "square.mp4"])
    words = ["video", str(clip), "--draw", str(drawn), "--json", str(lines), "--device", "cpu"]
    assert main(words) == 0
    assert capsys.readouterr().err.count("frames of 512 x 512 pixels are scaled to fit") == 1
    wide, *_, square = (json.loads(line)["landmarks"] for line in lines.read_text().splitlines())
    np.testing.assert_allclose(square, np.add(wide, (32, 0)), atol=6)  # in the photo's own pixels
    frames = list(Video(drawn))
    assert [frame.shape for frame in frames] == [(256, 448, 3)] * 6
    half = photo.reshape(256, 2, 256, 2, 3).mean((1, 3))
    assert frames[5][:, :94].max() < 12 > frames[5][:, -94:].max()
    assert np.abs(frames[5][:, 96:-96] - half)[128:].mean() < 8  # below the face


def test_the_command_stops_where_it_is_told_and_prints(clip, capsys):
    assert main(["video", str(clip), "--frames", "2", "--raw", "--device", "cpu"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("raw", [False, True])
def test_landmarks_are_smoothed_unless_they_are_asked_for_as_measured(raw, clip, capsys):
    words = ["video", str(clip), "--frames", "2", "--device", "cpu", "--detect-every", "1"]
    assert main([*words, "--raw"] if raw else words) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    tracker = FaceTracker(
        FaceAligner(DEFAULT_VIDEO_MODEL, device="cpu"), detect_every=1, frame_rate=25, smooth=False
    )
    frames = zip(Video(clip), rows, strict=False)
    distances = [np.abs(tracker.update(f).faces.landmarks - row["landmarks"]).max() for f, row in frames]
    assert distances[0] < 1e-3 and (distances[1] < 1e-3) == raw


def test_the_command_without_a_video_exits_with_two(tmp_path, capsys):
    assert main(["video", str(tmp_path / "missing.mp4")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_cut_off_video_exits_with_one_and_a_warning(tmp_path, capsys):
    whole = write_crossing(tmp_path / "film.mkv", 24)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    lines = tmp_path / "out.jsonl"
    with pytest.warns(TruncatedVideoWarning):
        count = len(list(Video(whole)))
    words = ["video", str(whole), "--json", str(lines), "--device", "cpu"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(words) == 1
    assert 5 < len(lines.read_text().splitlines()) == count < 20
    announced = r"face-landmarks: warning: video: expected (24 frames|\d+\.\d\d s), as"  # by either reader
    assert re.search(announced, capsys.readouterr().err)
    assert main([*words, "--frames", "3"]) == 0 and len(lines.read_text().splitlines()) == 3


@pytest.mark.parametrize("camera", [False, True])
def test_ctrl_c_keeps_what_was_written(camera, clip, tmp_path, capsys, monkeypatch):
    lines, drawn = tmp_path / "out.jsonl", tmp_path / "out.mp4"

    class Stopped(FaceTracker):
        frames = 0

        def update(self, frame, **options):
            self.frames += 1
            if self.frames == 3:
                raise KeyboardInterrupt
            return super().update(frame, **options)

    class Camera(Video):
        def __init__(self, source):
            super().__init__(source)
            self.frame_count = 0

    monkeypatch.setattr(cli.commands.video, "FaceTracker", Stopped)
    if camera:
        monkeypatch.setattr(cli.commands.video, "Video", Camera)
    code = main(["video", str(clip), "--json", str(lines), "--draw", str(drawn), "--device", "cpu"])
    *_, report, last = ["", *capsys.readouterr().err.splitlines()]
    if camera:
        assert code == 0 and "2 frames, 2 faces" in last
    else:
        assert code == 130 and "2 frames, 2 faces" in report
        assert last == "face-landmarks: stopped, 2 of 4 frames done"
    assert [json.loads(line)["frame"] for line in lines.read_text().splitlines()] == [0, 1]
    assert len(list(Video(drawn))) == 2


def test_a_signal_stops_a_video_in_one_line(tmp_path):
    """A real signal to a real process."""
    film, lines = write_crossing(tmp_path / "film.mp4", 30), tmp_path / "out.jsonl"
    words = [
        "video",
        film,
        "--json",
        lines,
        "--draw",
        tmp_path / "out.mp4",
        "--detect-every",
        "1",
        "--refine",
    ]
    code, error = interrupt(words, lambda: lines.exists() and lines.stat().st_size)
    done = len(lines.read_text().splitlines())
    assert code == 130 and done < 30
    (count,) = re.findall(r"^face-landmarks: stopped, (\d+) of 30 frames done$", error, re.MULTILINE)
    drawn = len(list(Video(tmp_path / "out.mp4")))
    assert int(count) <= drawn <= done <= int(count) + 1  # the signal may come between the two files
    assert "Traceback" not in error


def test_a_drawing_of_another_type_is_refused_before_anything_is_written(clip, tmp_path, capsys):
    words = ["video", str(clip), "--draw", str(tmp_path / "out.gif"), "--json", str(tmp_path / "out.jsonl")]
    assert main(words) == 2
    assert "file type" in capsys.readouterr().err and not list(tmp_path.iterdir())
