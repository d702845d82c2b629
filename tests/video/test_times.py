"""Times, sound and rotation of films, through PyAV."""

from __future__ import annotations

import logging
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import import_av, join_films, sound_of, write_film

from face_landmarks.errors import ImageError, InputError, MissingDependencyError
from face_landmarks.video import TruncatedVideoWarning, Video, VideoWriter, encoders, writing

UNEVEN = [0, 0.04, 0.08, 0.5, 0.54, 1.2, 1.21]


@pytest.fixture(autouse=True)
def with_pyav() -> Any:
    return import_av()


def copy(source: Path, path: Path, **options: Any) -> None:
    """The frames at their times, with the sound."""
    video = Video(source)
    with VideoWriter(path, video.frame_rate, sound=source, **options) as writer:
        for seconds, frame in video.timed():
            writer.write(frame, seconds)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("begin", [0, 1.5])
def test_a_film_of_uneven_times_is_copied_with_its_sound(tmp_path: Path, suffix: str, begin: float) -> None:
    source, path = tmp_path / f"source{suffix}", tmp_path / f"copy{suffix}"
    frames = write_film(source, UNEVEN, begin=begin)
    copy(source, path)
    read = list(Video(path).timed())
    np.testing.assert_allclose([seconds for seconds, _ in read], UNEVEN, atol=0.0011)
    for (_, pixels), frame in zip(read, frames, strict=True):
        assert np.abs(pixels.astype(int) - frame).mean() < 4
    original, copied = sound_of(source), sound_of(path)
    assert len(copied) > 40 and [data for _, data in copied] == [data for _, data in original][: len(copied)]
    shift = original[0][0] - copied[0][0]
    assert shift == pytest.approx(begin, abs=0.03)
    np.testing.assert_allclose(
        [time for time, _ in copied], [time - shift for time, _ in original[: len(copied)]], atol=0.0011
    )
    assert 1.1 < copied[-1][0] < 1.21 + 1 / 5  # up to the end of the picture, not of the source


def test_the_frames_of_a_matroska_film_of_uneven_times_are_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"  # it has no number of frames; at its 25 frames per second there would be 31
    write_film(path, UNEVEN)
    assert len(list(Video(path))) == len(UNEVEN)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.warns(
        TruncatedVideoWarning, match=r"expected 1\.\d\d s, as .* got \d frames, the last at 0\.\d\d s"
    ):
        assert len(list(Video(path))) < len(UNEVEN)


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_frames_are_upright_and_stay_so(tmp_path: Path, rotation: int, backend: Any) -> None:
    source, path = tmp_path / "source.mp4", tmp_path / "copy.mp4"
    stored = write_film(source, [0, 0.04], rotation=rotation)
    frames = list(Video(source, backend=backend))
    for frame, drawn in zip(frames, stored, strict=True):
        upright = np.rot90(drawn, rotation // 90)
        assert frame.shape == upright.shape and frame.flags.c_contiguous
        assert np.abs(frame.astype(int) - upright).mean() < 4
    copy(source, path)
    for again, frame in zip(Video(path, backend=backend), frames, strict=True):
        assert np.abs(again.astype(int) - frame).mean() < 4


@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_times_are_those_of_the_file_and_always_later(tmp_path: Path, backend: Any) -> None:
    path = tmp_path / "film.mp4"
    write_film(path, UNEVEN)
    times = [seconds for seconds, _ in Video(path, backend=backend).timed()]
    np.testing.assert_allclose(times, UNEVEN, atol=0.0011)
    video = Video(path, backend=backend)
    frame = np.zeros((2, 2, 3), np.uint8)
    video._decoder.frames = lambda: iter([(t, frame) for t in (0, 0.5, 0.5, 0.45, 0.9)])  # type: ignore[method-assign]
    video.frame_count = 0
    video._decoder.duration = 0
    assert [seconds for seconds, _ in video.timed()] == pytest.approx([0, 0.5, 0.501, 0.502, 0.9])


@pytest.mark.parametrize("begin", [0, 0.5])
@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_joined_streams_follow_each_other(tmp_path: Path, backend: Any, begin: float) -> None:
    first, second, joined = (tmp_path / name for name in ("first.mp4", "second.mp4", "joined.ts"))
    write_film(first, [0.04 * n for n in range(25)], begin=begin)
    write_film(second, [0.04 * n for n in (0, 1, 2, *range(4, 20))])
    join_films(joined, [first, second])
    times = [seconds for seconds, _ in Video(joined, backend=backend).timed()]
    np.testing.assert_allclose(times, [0.04 * n for n in (*range(28), *range(29, 45))], atol=1e-3)
    copy(joined, tmp_path / "copy.mp4")
    assert len(list(Video(tmp_path / "copy.mp4"))) == 44
    sound = np.array([time for time, _ in sound_of(tmp_path / "copy.mp4")])
    assert 1.75 < sound[-1] < 1.8
    np.testing.assert_allclose(np.diff(sound), 1024 / 44_100, atol=1e-3)  # without a gap


@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_frames_without_times_come_at_the_frame_rate(tmp_path: Path, with_pyav: Any, backend: Any) -> None:
    path = tmp_path / "film.h264"  # which has no container, and so no times
    write_film(path, [0, 0.04, 0.08, 0.12], sound=None)
    video = Video(path, backend=backend)
    assert 20 < video.frame_rate < 40  # the container's, and FFmpeg's and OpenCV's own guesses
    times = [seconds for seconds, _ in video.timed()]
    assert times == pytest.approx([n / video.frame_rate for n in range(4)])


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0, 0], "after the last frame's, 0, got 0"),
        ([0, 0.5, 0.4], "after the last frame's, 0.5, got 0.4"),
        ([-1], "a time from 0, got -1"),
        ([float("nan")], "a time from 0, got nan"),
        (["1"], "a time from 0, got '1'"),
        ([0, float("inf")], "after the last frame's, 0, got inf"),
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_a_time_that_is_not_later_is_refused(
    tmp_path: Path, times: list[Any], message: str, backend: Any
) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    with VideoWriter(tmp_path / "out.mp4", backend=backend) as writer:
        for seconds in times[:-1]:
            writer.write(frame, seconds)
        with pytest.raises(InputError, match=f"seconds: expected .*{message}"):
            writer.write(frame, times[-1])
        writer.write(frame)  # one that is refused does not end the file
    assert len(list(Video(tmp_path / "out.mp4"))) == len(times)


def test_frames_without_a_time_follow_at_the_frame_rate(tmp_path: Path) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    with VideoWriter(tmp_path / "out.mp4", 10) as writer:
        for seconds in (None, 0.5, None, None):
            writer.write(frame, seconds)
    times = [seconds for seconds, _ in Video(tmp_path / "out.mp4").timed()]
    assert times == pytest.approx([0, 0.5, 0.6, 0.7], abs=1e-4)


def test_sound_that_the_format_cannot_hold_is_named_and_the_picture_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, path = tmp_path / "source.mov", tmp_path / "copy.mp4"
    write_film(source, [0, 0.04, 0.08], sound="pcm_mulaw")
    copy(source, path)
    assert len(list(Video(path))) == 3 and sound_of(path) == []
    (line,) = [record.message for record in caplog.records if record.name.startswith("face_landmarks")]
    assert f"the sound of {source}, pcm_mulaw, cannot be in a .mp4 file" in line
    caplog.clear()
    copy(source, tmp_path / "copy.mov")
    assert sound_of(tmp_path / "copy.mov") and not caplog.records


def test_uncompressed_sound_is_left_out_of_mp4(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "source.mkv"
    write_film(source, [0, 0.04, 0.08], sound="pcm_s16le")
    copy(source, tmp_path / "copy.mp4")
    assert len(list(Video(tmp_path / "copy.mp4"))) == 3 and sound_of(tmp_path / "copy.mp4") == []
    assert f"the sound of {source}, pcm_s16le, cannot be in a .mp4 file" in caplog.text
    copy(source, tmp_path / "copy.mov")
    assert sound_of(tmp_path / "copy.mov")


def test_a_file_of_sound_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.m4a").write_text("no sound")
    with (
        pytest.raises(ImageError, match=r"sound: expected a file with sound, got '.*text.m4a'"),
        VideoWriter(tmp_path / "out.mp4", sound=tmp_path / "text.m4a") as writer,
    ):
        writer.write(np.zeros((32, 32, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["text.m4a"]


def test_a_film_whose_begin_cannot_be_read_gives_no_sound(
    tmp_path: Path, with_pyav: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any) -> float:
        raise with_pyav.error.InvalidDataError(1094995529, "Invalid data found when processing input")

    write_film(tmp_path / "source.mp4", UNEVEN)
    monkeypatch.setattr(encoders, "_first_time", damaged)
    with pytest.raises(ImageError, match="sound: expected a file with sound, got"):
        copy(tmp_path / "source.mp4", tmp_path / "copy.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["source.mp4"]


def test_damaged_sound_ends_early_and_the_picture_is_written(
    tmp_path: Path, with_pyav: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, path = tmp_path / "source.mp4", tmp_path / "copy.mp4"
    frames = write_film(source, UNEVEN)
    begin = encoders.Sound.__init__

    def damaged(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        packets = self._packets

        def some() -> Any:
            yield from islice(packets, 5)
            raise with_pyav.error.InvalidDataError(1094995529, "Invalid data found when processing input")

        self._packets = some()

    monkeypatch.setattr(encoders.Sound, "__init__", damaged)
    copy(source, path)
    assert len(list(Video(path))) == len(frames) and len(sound_of(path)) == 5
    assert f"the sound of {source} ends early" in caplog.text


def test_a_silent_film_is_copied_silently(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_film(tmp_path / "source.mp4", [0, 0.04], sound=None)
    copy(tmp_path / "source.mp4", tmp_path / "copy.mp4")
    assert len(list(Video(tmp_path / "copy.mp4"))) == 2 and not caplog.records


@pytest.mark.parametrize("sound", [3, b"clip.mp4", ["a"]])
def test_what_names_no_sound_is_refused(tmp_path: Path, sound: Any) -> None:
    with pytest.raises(InputError, match="sound: expected the path of a file"):
        VideoWriter(tmp_path / "out.mp4", sound=sound)


def test_sound_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        VideoWriter(tmp_path / "out.mp4", sound=tmp_path / "missing.mp4")


def test_a_file_of_sound_alone_is_no_video(tmp_path: Path, with_pyav: Any) -> None:
    path = tmp_path / "tone.wav"
    with with_pyav.open(str(path), "w") as out:
        tone = out.add_stream("pcm_s16le", rate=8000)
        frame = with_pyav.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        out.mux(tone.encode(frame))
        out.mux(tone.encode())
    with pytest.raises(ImageError, match="which has no picture"):
        Video(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.avi", {"backend": "pyav"}),
        ("a.avi", {"sound": __file__}),
        ("a.mp4", {"backend": "opencv", "sound": __file__}),
    ],
)
def test_what_cannot_be_written_together_is_refused(tmp_path: Path, name: str, options: Any) -> None:
    with pytest.raises(InputError, match=r"for PyAV and for sound|as OpenCV writes none"):
        VideoWriter(tmp_path / name, **options)


def test_without_pyav_opencv_says_once_what_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_film(tmp_path / "source.mp4", [0, 0.04])
    monkeypatch.setitem(sys.modules, "av", None)  # as if it were not installed
    monkeypatch.setattr("face_landmarks.video.reading.find_spec", lambda name: None)
    writing._tell_what_is_lost.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name in ("a.mp4", "b.mov", "c.mp4"):
            copy(tmp_path / "source.mp4", tmp_path / name)
    (line,) = [record.message for record in caplog.records if record.name.startswith("face_landmarks")]
    assert "without sound, at one frame rate" in line and 'pip install "shr-fan[video]"' in line
    assert len(list(Video(tmp_path / "c.mp4"))) == 2
    for make in (
        lambda: Video(tmp_path / "a.mp4", "pyav"),
        lambda: VideoWriter(tmp_path / "d.mp4", backend="pyav"),
    ):
        with pytest.raises(MissingDependencyError, match=r'pip install "shr-fan\[video\]"'):
            make()
