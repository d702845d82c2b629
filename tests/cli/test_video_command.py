"""The command `face-landmarks video`: what it prints, draws and writes, and how it ends."""

import json

import numpy as np
import pytest
from crossing import write_crossing

from face_landmarks import Video
from face_landmarks.cli import main


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


def test_the_command_stops_where_it_is_told_and_prints(clip, capsys):
    assert main(["video", str(clip), "--frames", "2", "--raw", "--device", "cpu"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_command_without_a_video_exits_with_two(tmp_path, capsys):
    assert main(["video", str(tmp_path / "missing.mp4")]) == 2
    assert "no such file" in capsys.readouterr().err
