"""Faces followed through a video: who is who, how steady, how late; and the files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_landmarks import FaceAligner, Faces, read_image
from face_landmarks.cli import main
from face_landmarks.errors import ImageError, InputError, WriteError
from face_landmarks.geometry import boxes_from_landmarks
from face_landmarks.layouts import IBUG_68, get_layout
from face_landmarks.video.reading import Video
from face_landmarks.video.smoothing import OneEuroFilter
from face_landmarks.video.tracker import FaceTracker
from face_landmarks.video.writing import VideoWriter

ASTRONAUT = Path(__file__).parents[2] / "examples" / "data" / "astronaut.jpg"
SIDE = 40  # of a person in Stage, in pixels


class Stage:
    """A world without a network: people are square pictures, and whoever is seen has a face of 68 points.

    Stands in for an aligner. A person is seen if most of the square is; given a box, the face in it
    that is seen best answers, as a network would.
    """

    layout = IBUG_68

    def __init__(self, size=(120, 400)):
        random = np.random.default_rng(0)
        self.size = size
        blurred = cv2.GaussianBlur(random.integers(0, 256, (*size, 3), np.uint8), (0, 0), 9)
        self.wall = cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX)
        self.clothes = random.integers(0, 256, (5, 4, 4, 3), np.uint8)
        self.shape = random.uniform(-SIDE / 2, SIDE / 2, (68, 2))
        self.shape[:4] = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * SIDE / 2
        self.places = {}  # person -> (x, y), the last in front
        self.hidden = set()
        self.looks = 0  # of the detector

    def frame(self, places, hidden=()):
        self.places, self.hidden = places, set(hidden)
        frame = self.wall.copy()
        self.owner = np.full(self.size, -1)
        for person, (x, y) in places.items():
            if person not in self.hidden:
                rows = slice(round(y) - SIDE // 2, round(y) + SIDE // 2)
                columns = slice(round(x) - SIDE // 2, round(x) + SIDE // 2)
                square = cv2.resize(self.clothes[person], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
                frame[rows, columns], self.owner[rows, columns] = square, person
        return frame

    def align(self, pixels, boxes=None):
        share = {p: (self.owner == p).mean() * self.owner.size / SIDE**2 for p in self.places}
        if boxes is None:
            self.looks += 1
            return self.faces([p for p in self.places if share[p] > 0.7])
        answers = []
        for box in boxes:
            x0, y0, x1, y1 = np.clip(np.rint(box), 0, None).astype(int)
            inside = self.owner[y0:y1, x0:x1]
            count = {p: (inside == p).sum() for p in self.places}
            best = max(count, key=count.get, default=None)
            answers.append(best if count.get(best, 0) > 0.4 * SIDE**2 else None)
        return self.faces(answers)

    def faces(self, people):
        centres = [self.places[p] if p is not None else (30, 30) for p in people]
        landmarks = np.array([self.shape + c for c in centres]).reshape(-1, 68, 2)
        scores = np.array([0.1 if p is None else 0.9 for p in people])
        boxes = boxes_from_landmarks(landmarks)
        errors = np.full((len(people), 68), 1.5)
        return Faces(
            landmarks, np.repeat(scores[:, None], 68, axis=1), boxes, np.ones(len(people)), IBUG_68, errors
        )


def track(stage, frames, **options):
    """Frame by frame: person -> identity, by where the tracker says they are."""
    tracker = FaceTracker(stage, **options)
    rows = []
    for places, hidden in frames:
        tracked = tracker.update(stage.frame(places, hidden))
        row = {}
        for face, identity in zip(tracked.faces, tracked.identities, strict=True):
            centre = face.landmarks[0, :4].mean(axis=0)
            who = min(places, key=lambda p: np.linalg.norm(np.subtract(places[p], centre)))
            row[who] = int(identity)
        rows.append(row)
    return rows, tracker


def test_identities_outlast_a_crossing():
    frames = [({0: (340 - 6 * t, 66), 1: (60 + 6 * t, 60)}, ()) for t in range(46)]
    rows, _ = track(Stage(), frames)
    assert rows[0] == rows[-1] and len(rows[0]) == 2
    assert any(len(row) == 1 for row in rows), "nobody was hidden: the test shows nothing"
    assert all(rows[0][who] == identity for row in rows for who, identity in row.items())


@pytest.mark.parametrize("gone", [3, 15])
def test_a_face_that_was_hidden_for_a_while_is_known_again(gone):
    frames = [({0: (100 + 2 * t, 60)}, (0,) if 10 <= t < 10 + gone else ()) for t in range(40)]
    rows, _ = track(Stage(), frames)
    assert rows[9] == rows[-1] == {0: 0} and rows[11] == {}


def test_a_face_that_was_gone_too_long_is_a_new_one():
    frames = [({0: (100, 60)}, (0,) if 5 <= t < 30 else ()) for t in range(40)]
    rows, _ = track(Stage(), frames, max_missing=10)
    assert rows[0] == {0: 0} and rows[-1] == {0: 1}


def test_another_face_in_the_same_place_is_another_face():
    frames = [({0: (100, 60)}, ())] * 5 + [({0: (100, 60)}, (0,))] * 3 + [({1: (110, 60)}, ())] * 8
    rows, _ = track(Stage(), frames)
    assert rows[0] == {0: 0} and rows[-1] == {1: 1}


def test_a_face_that_comes_in_is_found_at_the_next_look():
    frames = [({0: (100, 60), 1: (300, 60)}, (1,) if t < 4 else ()) for t in range(12)]
    rows, _ = track(Stage(), frames, detect_every=10)
    assert rows[9] == {0: 0} and rows[10] == {0: 0, 1: 1}


def test_the_detector_rests_while_all_is_well():
    stage = Stage()
    track(stage, [({0: (100 + t, 60)}, ()) for t in range(60)], detect_every=20)
    assert stage.looks == 3


def test_the_detector_is_asked_now_and_then_while_nobody_is_there():
    stage = Stage()
    rows, _ = track(stage, [({0: (100, 60)}, (0,))] * 20)
    assert stage.looks == 4 and rows == [{}] * 20


def test_a_cut_starts_anew():
    stage, other = Stage(), Stage()
    other.wall = 255 - other.wall
    tracker = FaceTracker(stage)
    first = [tracker.update(stage.frame({0: (100, 60)})) for _ in range(3)]
    tracker.aligner = other
    second = [tracker.update(other.frame({0: (100, 60)})) for _ in range(3)]
    assert [t.cut for t in first + second] == [True, False, False] * 2
    assert [t.identities.tolist() for t in first + second] == [[0]] * 3 + [[1]] * 3


@pytest.mark.parametrize("change", [lambda f: f // 2, lambda f: f // 2 + 100], ids=["darker", "faded"])
def test_light_is_no_cut(change):
    stage = Stage()
    tracker = FaceTracker(stage)
    tracker.update(stage.frame({0: (100, 60)}))
    assert not tracker.update(change(stage.frame({0: (100, 60)}))).cut


def test_black_frames_are_no_cuts_of_their_own():
    tracker = FaceTracker(Stage())
    tracker.aligner.frame({})
    random = np.random.default_rng(0)
    frames = [random.integers(0, 4, (120, 400, 3), np.uint8) for _ in range(4)]
    assert [tracker.update(frame).cut for frame in frames] == [True, False, False, False]


def test_scores_and_expected_errors_come_along():
    stage = Stage()
    tracker = FaceTracker(stage)
    for place in (100, 101):
        tracked = tracker.update(stage.frame({0: (place, 60)}))
    assert (tracked.faces.landmark_errors == 1.5).all() and (tracked.faces.landmark_scores > 0.8).all()


def test_no_face_has_every_axis():
    tracked = FaceTracker(Stage()).update(Stage().wall)
    assert len(tracked) == 0 and tracked.faces.landmarks.shape == (0, 68, 2)
    assert tracked.identities.shape == (0,) and tracked.identities.dtype == np.int64


@pytest.mark.parametrize(
    "options",
    [
        {"detect_every": 0},
        {"max_missing": -1},
        {"min_score": float("nan")},
        {"frame_rate": 0},
        {"min_cutoff": 0},
        {"speed_gain": -1},
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=f"{next(iter(options))}: expected"):
        FaceTracker(Stage(), **options)


def test_a_layout_that_does_not_tell_its_box_is_refused():
    stage = Stage()
    stage.layout = get_layout("aflw-19")
    with pytest.raises(InputError, match="line of the jaw, got aflw-19"):
        FaceTracker(stage)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((48, 64), np.uint8), r"a frame \(H, W, 3\), got \(48, 64\)"),
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


def test_an_aligner_without_a_detector_is_refused():
    tracker = FaceTracker(FaceAligner("shr-fan-68-fast", detector=None, device="cpu"))
    with pytest.raises(InputError, match="no detector"):
        tracker.update(np.zeros((60, 80, 3), np.uint8))


def delay(measured, true):
    """Frames by which one path lags behind the other: the shift that makes them most alike."""
    times = np.arange(len(true))
    shifts = np.arange(0, 4, 0.05)
    errors = [np.abs(measured - np.interp(times - s, times, true))[10:].mean() for s in shifts]
    return shifts[np.argmin(errors)]


@pytest.mark.parametrize("hertz", [0.25, 0.5, 1, 2])
def test_the_filter_lags_less_than_half_a_frame(hertz):
    times = np.arange(120) / 30
    path = 30 * np.sin(2 * np.pi * hertz * times)
    face = np.random.default_rng(0).uniform(0, 100, (68, 2))
    smoother = OneEuroFilter(30)
    found = [smoother(face + np.array([x, 0]), np.full(68, 0.8)) for x in path]
    assert delay(np.array([f[:, 0].mean() - face[:, 0].mean() for f in found]), path) < 0.5


def test_the_filter_halves_noise_and_trusts_high_scores_more():
    random = np.random.default_rng(0)
    face = random.uniform(0, 100, (68, 2))
    scores = np.repeat([0.9, 0.3], 34)
    smoother = OneEuroFilter(30)
    noise = np.array([smoother(face + random.normal(0, 0.5, (68, 2)), scores) - face for _ in range(90)])[20:]
    sure, unsure = noise[:, :34].std(axis=0).mean(), noise[:, 34:].std(axis=0).mean()
    assert unsure < 0.7 * sure < 0.7 * 0.25


@pytest.fixture(scope="module")
def aligner():
    return FaceAligner("shr-fan-68-fast", device="cpu")


def test_a_still_face_under_noise_jitters_less_than_half(aligner):
    photo, random = read_image(ASTRONAUT)[:240, 90:350], np.random.default_rng(0)
    frames = []
    for _ in range(25):
        noisy = np.clip(photo + random.normal(0, 6, photo.shape), 0, 255).astype(np.uint8)
        frames.append(cv2.imdecode(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 1))

    def jitter(tracker):
        points = np.array([tracker.update(frame).faces.landmarks[0] for frame in frames])[10:]
        return np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=-1).mean())

    assert jitter(FaceTracker(aligner)) < 0.5 * jitter(FaceTracker(aligner, smooth=False))


def crossing(frames=30):
    """The astronaut, and the astronaut in a mirror with other colours, walk past each other."""
    face = read_image(ASTRONAUT)[20:200, 140:310]
    rows, columns = np.mgrid[:180, :170]
    mask = ((((columns - 85) / 62) ** 2 + ((rows - 92) / 84) ** 2) < 1)[..., None]
    other = face[:, ::-1, ::-1] // 2 + 70
    for t in range(frames):
        frame = np.full((240, 640, 3), (90, 110, 130), np.uint8)
        frame[:, ::32] = 200
        for person, x, y in ((other, 440 - 14 * t, 40), (face, 20 + 14 * t, 30)):
            part = frame[y : y + 180, x : x + 170]
            part[:] = np.where(mask, person, part)
        yield frame


def test_real_faces_keep_their_identities_through_a_crossing(aligner):
    tracker = FaceTracker(aligner)
    order = []
    for frame in crossing():
        tracked = tracker.update(frame)
        places = tracked.faces.landmarks.mean(axis=(1, 2)) if len(tracked) else []
        order.append(tracked.identities[np.argsort(places)].tolist())
    assert sorted(order[0]) == [0, 1] and order[-1] == order[0][::-1]
    assert {identity for row in order for identity in row} == {0, 1}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with VideoWriter(path, frame_rate=25) as writer:
        for frame in crossing(4):
            writer.write(frame)
    return path


def test_a_video_is_read_as_it_was_written(clip):
    video = Video(clip)
    assert video.frame_rate == 25 and video.frame_count == 4
    for _ in range(2):  # iterating again starts again
        frames = list(video)
        assert len(frames) == 4 and len({id(frame) for frame in frames}) == 4
        for frame, drawn in zip(frames, crossing(4), strict=True):
            assert frame.dtype == np.uint8 and frame.shape == drawn.shape
            assert np.abs(frame.astype(int) - drawn).mean() < 4  # colours in the right order


def test_what_is_no_video_says_so(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ImageError, match="no such file"):
        Video(tmp_path / "missing.mp4")
    with pytest.raises(ImageError, match="OpenCV"):
        Video(tmp_path / "text.mp4")


def test_a_video_cannot_be_written_anywhere(tmp_path):
    with pytest.raises(InputError, match="file type"):
        VideoWriter(tmp_path / "out.gif")
    with pytest.raises(WriteError, match="place to write to"), VideoWriter("/dev/null/out.mp4") as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(InputError, match="frames of"), VideoWriter(tmp_path / "out.mp4") as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.write(np.zeros((64, 48, 3), np.uint8))


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
