"""Video files: what is written is read, and what is wrong is said."""

import logging
import os
import warnings
from importlib.util import find_spec
from itertools import islice
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from crossing import crossing, write_crossing

from face_landmarks.errors import ImageError, InputError, WriteError
from face_landmarks.video import TruncatedVideoWarning, Video, VideoWriter

NOT_UTF_8 = os.fsdecode(b"film\xff")  # OpenCV crashes at such a name
FORMATS = pytest.mark.parametrize(
    ("suffix", "backend"),
    [(suffix, "opencv") for suffix in (".mp4", ".mov", ".mkv", ".avi")]
    + [(suffix, "pyav") for suffix in (".mp4", ".mov", ".mkv") if find_spec("av")],
)
NO_RATES = (0, -3, 0.001, 1e9, float("nan"), float("inf"), None, "25", True)


BACKENDS = ["opencv", "pyav"] if find_spec("av") else ["opencv"]
BOTH = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_crossing(tmp_path_factory.mktemp("video") / "clip.mp4", 4)


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory):
    """Half of a film of 60 frames."""
    path = tmp_path_factory.mktemp("video") / "film.mkv"
    random = np.random.default_rng(0)
    with VideoWriter(path, 25) as writer:
        for _ in range(60):
            writer.write(cv2.GaussianBlur(random.integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 2))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@BOTH
def test_a_video_is_read_as_it_was_written(clip, backend):
    video = Video(clip, backend=backend)
    assert video.frame_rate == 25 and video.frame_count == 4
    for _ in range(2):  # iterating again starts again
        frames = list(video)
        assert len(frames) == 4 and len({id(frame) for frame in frames}) == 4
        for frame, drawn in zip(frames, crossing(4), strict=True):
            assert frame.dtype == np.uint8 and frame.shape == drawn.shape
            assert np.abs(frame.astype(int) - drawn).mean() < 4  # colours in the right order


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 1, 1.04, 0, 0.04, 0.1], [0, 1, 1.04, 1.08, 1.12, 1.18]),  # two films
        ([0, 1, 1.04, -5, -4.96, -9, -8.9], [0, 1, 1.04, 1.08, 1.12, 1.16, 1.26]),  # three
        ([0, 1, 1.04, 0, 1.12, 1.16], [0, 1, 1.04, 1.08, 1.12, 1.16]),  # one frame's time is wrong
        ([0, 0.08, 0.04, 0.12, 0.12], [0, 0.08, 0.081, 0.12, 0.121]),  # slight disorder
        ([0.1, 0.5, 0.6], [0.1, 0.5, 0.6]),
    ],
)
def test_times_that_start_again_follow_the_last_one(clip, times, expected):
    video = Video(clip)
    video._decoder.frames = lambda: iter([(time, np.zeros((2, 2, 3), np.uint8)) for time in times])
    assert [seconds for seconds, _ in video.timed()] == pytest.approx(expected)


def test_a_path_may_be_bytes(clip):
    assert Video(os.fsencode(clip)).frame_count == 4


@BOTH
def test_a_cut_off_file_gives_its_frames_and_then_warns(cut_off, backend):
    frames = []
    with pytest.warns(
        TruncatedVideoWarning, match=r"expected (60 frames|\d+\.\d\d s), .*film.mkv.* got \d+"
    ) as caught:
        for frame in Video(cut_off, backend=backend):
            frames.append(frame)
    assert 20 < len(frames) < 40 and frames[-1].shape == (48, 64, 3)
    assert caught[0].filename == __file__
    with pytest.warns(TruncatedVideoWarning) as caught:
        assert len(list(Video(cut_off, backend=backend).timed())) == len(frames)
    assert caught[0].filename == __file__


def test_the_warning_can_be_made_an_exception_that_loses_no_frame(cut_off):
    frames = []
    with warnings.catch_warnings(), pytest.raises(TruncatedVideoWarning):
        warnings.simplefilter("error", TruncatedVideoWarning)
        frames.extend(Video(cut_off))
    with pytest.warns(TruncatedVideoWarning):
        assert len(list(Video(cut_off))) == len(frames) > 20


def test_who_stops_early_is_not_warned(cut_off):
    assert len(list(islice(Video(cut_off), 10))) == 10


@pytest.mark.parametrize(
    ("announced", "enough", "too_few"), [(2, 1, 0), (100, 99, 98), (300, 297, 296), (10_000, 9900, 9899)]
)
def test_a_header_may_be_off_by_one_frame_or_one_percent(clip, announced, enough, too_few):
    video = Video(clip)
    video.frame_count = announced
    assert not video.is_truncated(announced + 5) and not video.is_truncated(announced)
    assert not video.is_truncated(enough) and video.is_truncated(too_few)


def test_without_a_count_nothing_is_missing(clip):
    video = Video(clip)
    video.frame_count = 0
    assert not video.is_truncated(0) and not video.is_truncated(5)


@pytest.mark.parametrize(
    ("rate", "count", "expected"),
    [
        (0.0, -9.2e18, (30, 0)),
        (float("nan"), float("nan"), (30, 0)),
        (float("inf"), float("inf"), (30, 0)),
        (-1.0, 7.0, (30, 7)),
        (12.5, 0.0, (12.5, 0)),
    ],
)
def test_a_header_that_says_nothing_is_no_number(clip, monkeypatch, rate, count, expected):
    header = {cv2.CAP_PROP_FPS: rate, cv2.CAP_PROP_FRAME_COUNT: count}
    capture = SimpleNamespace(isOpened=lambda: True, get=header.get, release=lambda: None)
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: capture)
    video = Video(clip, backend="opencv")
    assert (video.frame_rate, video.frame_count) == expected


@BOTH
def test_what_is_no_video_says_so(tmp_path, backend):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ImageError, match="no such file"):
        Video(tmp_path / "missing.mp4", backend=backend)
    with pytest.raises(ImageError, match="got the folder"):
        Video(tmp_path, backend=backend)
    with pytest.raises(ImageError, match=r"expected a video.*text\.mp4"):
        Video(tmp_path / "text.mp4", backend=backend)


@BOTH
def test_a_video_that_is_gone_says_so(clip, tmp_path, backend):
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip.read_bytes())
    video = Video(path, backend=backend)
    path.unlink()
    with pytest.raises(ImageError, match="no such file"):
        next(iter(video))


@BOTH
def test_a_name_may_look_like_a_protocol(clip, tmp_path, monkeypatch, backend):
    monkeypatch.chdir(tmp_path)
    name = "rtmp:5, a %d.mp4" if backend == "pyav" else "a b.mp4"  # OpenCV takes the first for a URL
    with VideoWriter(name, backend=backend) as writer:
        for frame in Video(clip):
            writer.write(frame)
    assert len(list(Video(name, backend=backend))) == 4


def test_an_unknown_backend_is_refused(clip, tmp_path):
    for make in (
        lambda: Video(clip, backend="ffmpeg"),
        lambda: VideoWriter(tmp_path / "a.mp4", backend=None),
    ):
        with pytest.raises(InputError, match=r"backend: expected 'auto', 'pyav' or 'opencv', got"):
            make()
    with pytest.raises(InputError, match="for a camera, got 'pyav'"):
        Video(0, backend="pyav")


@pytest.mark.parametrize("source", [None, 0.5, True, -1, ["clip.mp4"], {}, NOT_UTF_8, "a\0b"], ids=ascii)
def test_what_names_no_source_is_refused(source):
    with pytest.raises(InputError, match="video: expected"):
        Video(source)


@pytest.mark.parametrize("number", [99, np.int64(99), 2**40])
def test_a_camera_that_is_not_there_says_so(number):
    with pytest.raises(ImageError, match=f"OpenCV can read, got {int(number)}"):
        Video(number)


def test_a_video_shows_what_it_is(clip):
    video = Video(clip)
    assert repr(video) == f"Video({str(clip)!r}, 25 frames/s, 4 frames)"
    video.frame_count = 0
    assert repr(video) == f"Video({str(clip)!r}, 25 frames/s)"


def test_a_video_cannot_be_written_anywhere(tmp_path):
    with pytest.raises(InputError, match="file type"):
        VideoWriter(tmp_path / "out.gif")
    with pytest.raises(WriteError, match="place to write to"), VideoWriter("/dev/null/out.mp4") as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(WriteError, match="got a folder"), VideoWriter(tmp_path / "folder.mp4") as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(InputError, match="frames of"), VideoWriter(tmp_path / "out.mp4") as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.write(np.zeros((64, 48, 3), np.uint8))


@pytest.mark.parametrize("path", [None, 3, b"out.mp4", f"{NOT_UTF_8}.mp4", "a\0.mp4"], ids=ascii)
def test_what_names_no_file_is_refused(path):
    with pytest.raises(InputError, match="video: expected"):
        VideoWriter(path)


@pytest.mark.parametrize("rate", NO_RATES, ids=str)
def test_a_bad_rate_is_a_bad_rate(tmp_path, rate):
    with pytest.raises(InputError, match=r"frame_rate: expected 0\.01 to 1000 frames per second, got"):
        VideoWriter(tmp_path / "out.mp4", rate)
    assert not list(tmp_path.iterdir())


@FORMATS
@pytest.mark.parametrize("rate", [0.01, 23.976, np.float32(25), 1000])
def test_every_format_keeps_every_rate(tmp_path, suffix, backend, rate):
    path = tmp_path / f"out{suffix}"
    with VideoWriter(path, rate, backend=backend) as writer:
        for _ in range(3):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    for reader in BACKENDS:
        video = Video(path, backend=reader)
        assert video.frame_rate == pytest.approx(rate, rel=1e-3)
        times = [seconds for seconds, _ in video.timed()]
        assert times == pytest.approx([0, 1 / rate, 2 / rate], rel=0.02)


@FORMATS
@pytest.mark.parametrize("size", [(47, 63), (47, 64), (48, 63), (1, 1)], ids=str)
def test_odd_sizes_are_padded_and_nothing_is_lost(tmp_path, caplog, suffix, backend, size):
    drawn = np.full((*size, 3), 30, np.uint8)
    drawn[-16:], drawn[:, -16:] = (200, 90, 30), (200, 90, 30)
    path = tmp_path / f"out{suffix}"
    with caplog.at_level(logging.INFO), VideoWriter(path, backend=backend) as writer:
        writer.write(drawn)
        writer.write(drawn)
    even = [length + length % 2 for length in size]
    (line,) = [r.message for r in caplog.records if r.name.startswith("face_landmarks")]
    assert line == f"{path}: frames of {size[1]} x {size[0]} pixels are padded to {even[1]} x {even[0]}"
    for frame in Video(path):
        assert frame.shape == (*even, 3)
        padded = np.pad(drawn, [(0, size[0] % 2), (0, size[1] % 2), (0, 0)], mode="edge")
        wrong = np.abs(frame.astype(int) - padded)
        assert wrong[-2:].mean() < 6 and wrong[:, -2:].mean() < 6
    caplog.clear()
    with caplog.at_level(logging.INFO), VideoWriter(tmp_path / f"even{suffix}", backend=backend) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert not [r for r in caplog.records if r.name.startswith("face_landmarks")]


@pytest.mark.parametrize("before", [None, b"a film"])
@BOTH
def test_a_size_that_the_codec_cannot_hold_is_a_bad_size(tmp_path, before, backend):
    path = tmp_path / "out.mp4"
    if before:
        path.write_bytes(before)
    width = {"opencv": 9000, "pyav": 20_000}[backend]
    with (
        VideoWriter(path, backend=backend) as writer,
        pytest.raises(InputError, match=rf"of a size that .* can hold, got {width} x 16"),
    ):
        writer.write(np.zeros((16, width, 3), np.uint8))
    assert (path.read_bytes() if path.exists() else None) == before
    assert len(list(tmp_path.iterdir())) == (before is not None)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((48, 64), np.uint8), r"a frame \(H, W, 3\), got \(48, 64\)"),
        (np.zeros((0, 64, 3), np.uint8), r"a frame \(H, W, 3\), got \(0, 64, 3\)"),
        (np.zeros((48, 64, 3), np.float32), "uint8, got float32"),
        ("frame", "a frame"),
    ],
)
def test_a_frame_that_is_none_is_refused(tmp_path, frame, message):
    with VideoWriter(tmp_path / "out.mp4") as writer:
        with pytest.raises(InputError, match=message):
            writer.write(frame)
        writer.write(np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(InputError, match=r"no more frames, as out\.mp4 is closed"):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.close()  # once more does nothing
    assert len(list(Video(tmp_path / "out.mp4"))) == 1


def test_a_writer_shows_its_file_and_rate():
    assert repr(VideoWriter("out.mp4", 25)) == "VideoWriter('out.mp4', 25 frames/s)"
