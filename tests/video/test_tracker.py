"""Faces tracked through a video: who is who, where they are expected, and when the detector runs."""

import dataclasses
from itertools import pairwise

import cv2
import numpy as np
import pytest
from crossing import ASTRONAUT, crossing

from face_landmarks import FaceAligner, Faces, read_image
from face_landmarks.errors import DetectorError, ImageError, InputError
from face_landmarks.geometry import boxes_from_landmarks
from face_landmarks.layouts import IBUG_68, get_layout
from face_landmarks.video.smoothing import face_size
from face_landmarks.video.tracker import FaceTracker, _Track

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
        self.shape[36:42], self.shape[42:48] = (-10, -8), (10, -8)  # the eyes: upright
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


@pytest.mark.parametrize("plain", [0, 255])
@pytest.mark.parametrize("faded", [False, True])
def test_nobody_outlasts_a_plain_frame(plain, faded):
    """A scene that ends in black, at once or slowly: whoever is at the same place after it may be another."""
    stage = Stage()
    tracker = FaceTracker(stage)
    shares = [*np.linspace(0, 1, 12)] if faded else [1.0]  # of the plain picture
    first = [tracker.update(stage.frame({0: (100, 60)})) for _ in range(3)]
    for share in shares + [1.0] * 3 + shares[::-1]:
        frame = (1 - share) * stage.frame({0: (100, 60)}, () if share < 0.7 else (0,)) + share * plain
        tracker.update(np.rint(frame).astype(np.uint8))
    last = tracker.update(stage.frame({0: (100, 60)}))
    assert [t.identities.tolist() for t in first] == [[0]] * 3
    assert last.identities.tolist() == [1]


def test_a_scene_between_plain_and_not_quite_is_one_scene():
    """A small face before a wall: its thumbnails are nearly plain, sometimes more, sometimes less."""
    stage = Stage()
    stage.wall = np.full_like(stage.wall, 128)
    frames = [stage.frame({}) for _ in range(8)]
    for frame in frames:
        frame[:60] += 6  # with a deviation of 3 grey levels: plain
    for frame in frames[1::2]:
        frame[:60] += 6  # of 6: not plain
    tracker = FaceTracker(stage)
    assert [tracker.update(frame).cut for frame in frames] == [True] + [False] * 7


def test_the_face_behind_a_plain_beginning_is_found_at_once():
    stage = Stage()
    tracker = FaceTracker(stage)
    stage.frame({})
    assert len(tracker.update(np.zeros((120, 400, 3), np.uint8))) == 0
    tracked = tracker.update(stage.frame({0: (100, 60)}))
    assert tracked.cut and tracked.identities.tolist() == [0]


@pytest.mark.parametrize("dark", [0, 1 / 32, 1 / 16])
def test_a_face_is_found_at_once_after_a_dark_frame(dark):
    """As in a strobe's light: dark frames without faces, which need not be unlike the bright ones."""
    tracker = FaceTracker(Stage())
    bright = [len(tracker.update(tracker.aligner.frame({0: (100, 60)})))]
    for _ in range(4):
        frame = tracker.aligner.frame({0: (100, 60)}, (0,))
        tracker.update((frame * dark).astype(np.uint8))
        bright.append(len(tracker.update(tracker.aligner.frame({0: (100, 60)}))))
    assert bright == [1] * 5


def test_a_face_that_goes_far_away_before_a_plain_wall_keeps_its_identity():
    stage = Stage()
    tracker = FaceTracker(stage)
    identities, contrasts = [], []
    for share in np.linspace(1, 0, 12):  # of the picture; the rest is the wall's colour
        frame = 128 + share * (stage.frame({0: (100, 60)}) - 128.0)
        identities.append(tracker.update(np.rint(frame).astype(np.uint8)).identities.tolist())
        contrasts.append(tracker._contrast)
    assert contrasts[0] > 2 and contrasts[-1] < 1
    assert identities == [[0]] * 12


@pytest.mark.parametrize("degrees", [60, 90, -135])
def test_a_turned_face_is_followed_in_upright_crops(degrees):
    """Searched anew in every frame, its landmarks would jump by pixels between equal frames."""
    picture = read_image(ASTRONAUT)
    turn = cv2.getRotationMatrix2D((222, 117), -degrees, 1)
    turn[:, 2] += 34, 139  # the face to the middle
    frame = np.asarray(cv2.warpAffine(picture, turn, (512, 512)))
    aligner = FaceAligner("shr-fan-68-tiny", detector=lambda _: [[201, 201, 311, 311]], device="cpu")
    tracker = FaceTracker(aligner, smooth=False)
    landmarks = [tracker.update(frame).faces.landmarks[0] for _ in range(7)]
    for before, after in pairwise(landmarks[4:]):
        assert np.abs(after - before).max() < 0.1


def test_the_crop_of_a_face_turns_only_when_the_face_has_turned_by_much():
    class Turning(Stage):
        turn = 0.0  # degrees

        def align(self, pixels, boxes=None, rolls=None):
            if boxes is not None:
                self.asked.append(0.0 if rolls is None else float(rolls[0]))
            return super().align(pixels, boxes)

        def faces(self, people):
            found, angle = super().faces(people), np.radians(self.turn)
            matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            centre = found.landmarks.mean(axis=1, keepdims=True)
            return dataclasses.replace(found, landmarks=(found.landmarks - centre) @ matrix + centre)

    stage = Turning()
    stage.asked = []
    stage.shape[[*range(4, 36), *range(48, 68)]] = 0, 10  # straight below the eyes
    tracker = FaceTracker(stage, smooth=False)
    for stage.turn in (0, 10, 24, 26, 40, 49, 60, 30, 90, 170, -170, -170):
        tracker.update(stage.frame({0: (100, 60)}))
    np.testing.assert_allclose(stage.asked, [0, 0, 0, 26, 26, 26, 60, 30, 90, 170, 170], atol=0.1)


def test_a_frame_of_another_size_starts_a_scene():
    stage, larger = Stage(), Stage((180, 600))
    larger.wall = cv2.resize(stage.wall, (600, 180))  # the same view: alike as thumbnails
    tracker = FaceTracker(stage)
    tracked = [tracker.update(stage.frame({0: (100, 60)})) for _ in range(3)]
    tracker.aligner = larger
    tracked += [tracker.update(larger.frame({0: (150, 90)})) for _ in range(2)]
    assert [t.cut for t in tracked] == [True, False, False, True, False]
    assert [t.identities.tolist() for t in tracked] == [[0]] * 3 + [[1]] * 2
    assert [t.detected for t in tracked[3:]] == [True, False]
    np.testing.assert_allclose(tracked[3].faces.landmarks[0], larger.shape + np.array([150, 90]), atol=1e-3)


def test_a_frame_turned_on_its_side_starts_a_scene():
    tracker = FaceTracker(Stage())
    plain = np.full((120, 400, 3), 90, np.uint8)
    tracker.aligner.frame({})
    sizes = [plain, plain, plain.transpose(1, 0, 2).copy(), plain.reshape(240, 200, 3)]
    assert [tracker.update(frame).cut for frame in sizes] == [True, False, True, True]


class Asked(Stage):
    """Remembers the frame and the boxes that it was asked for last."""

    def align(self, pixels, boxes=None):
        self.pixels = pixels
        if boxes is not None:
            self.boxes = np.array(boxes)
        return super().align(pixels, boxes)


def test_a_face_is_searched_for_where_its_motion_takes_it():
    stage = Asked()
    tracker = FaceTracker(stage, smooth=False)
    places = [(60 + 8 * t, 50 + t) for t in range(25)]
    for place in places:
        tracker.update(stage.frame({0: place}))
    there = boxes_from_landmarks(stage.faces([0]).landmarks)
    assert np.abs(stage.boxes - there).max() < 0.1


def test_the_velocity_is_a_running_mean():
    stage = Asked()
    tracker = FaceTracker(stage, smooth=False)
    for x in (100, 110, 110, 110):
        tracker.update(stage.frame({0: (x, 60)}))
    rest = boxes_from_landmarks(stage.faces([0]).landmarks)
    np.testing.assert_allclose(stage.boxes - rest, [[0.3 * 0.7 * 10, 0] * 2], atol=1e-3)


@pytest.mark.parametrize("frame", [np.ascontiguousarray, lambda f: f[:, ::-1], np.asfortranarray])
def test_a_frame_is_not_copied_nor_changed(frame):
    stage = Asked()
    given = frame(stage.frame({0: (100, 60)}))
    before = given.copy()
    given.flags.writeable = False
    assert len(FaceTracker(stage).update(given)) == 1
    assert np.array_equal(stage.pixels, before) and np.array_equal(given, before)
    assert np.shares_memory(stage.pixels, given) == given.flags.c_contiguous


@pytest.mark.parametrize("as_float", [False, True])
def test_opencvs_order_of_colours_is_turned_round(as_float):
    stage = Asked()
    frame = stage.frame({0: (100, 60)})
    bgr = frame[:, :, ::-1].copy()
    tracked = FaceTracker(stage).update(bgr / 255 if as_float else bgr, channels="bgr")
    assert len(tracked) == 1 and np.array_equal(stage.pixels, frame)
    with pytest.raises(InputError, match="channels"):
        FaceTracker(stage).update(frame, channels="gbr")


def test_an_unusable_frame_changes_nothing():
    stage = Stage()
    tracker = FaceTracker(stage)
    tracker.update(stage.frame({0: (100, 60)}))
    for bad in (None, np.zeros((0, 4, 3), np.uint8), np.zeros((120, 400, 5), np.uint8), "no/such/photo.png"):
        with pytest.raises(ImageError):
            tracker.update(bad)
    tracked = tracker.update(stage.frame({0: (100, 60)}))
    assert tracked.identities.tolist() == [0] and not tracked.cut and not tracked.detected


class Ghost(Stage):
    """A network that finds a face in every box, where the detector sees none."""

    haunted = ()  # people that the detector misses

    def align(self, pixels, boxes=None):
        found = super().align(pixels, boxes)
        if boxes is None:
            return self.faces([p for p in self.places if p not in {*self.haunted, *self.hidden}])
        return found


def test_a_face_that_the_detector_misses_three_times_in_a_row_is_dropped():
    stage = Ghost()
    tracker = FaceTracker(stage, detect_every=4)
    rows, people = [], {0: (100, 60), 1: (300, 60)}
    for _ in range(14):
        rows.append(tracker.update(stage.frame(people)).identities.tolist())
        stage.haunted = (1,)
    assert rows == [[0, 1]] * 12 + [[0]] * 2  # the detector runs at 0, 4, 8 and 12


def test_a_face_that_the_detector_finds_again_starts_counting_anew():
    stage = Ghost()
    tracker = FaceTracker(stage, detect_every=1)
    for haunted in ((), (0,), (0,), (), (0,), (0,)):
        stage.haunted = haunted
        assert tracker.update(stage.frame({0: (100, 60)})).identities.tolist() == [0]
    assert len(tracker.update(stage.frame({0: (100, 60)}))) == 0


@pytest.mark.parametrize("boxes_too", [False, True])
def test_faces_of_a_low_score_are_discarded(boxes_too):
    class Unsure(Stage):
        score = 0.49

        def align(self, pixels, boxes=None):
            found = super().align(pixels, boxes)
            if boxes is None and boxes_too:
                return found
            return Faces(
                found.landmarks, 0 * found.landmark_scores + self.score, found.boxes, found.box_scores
            )

    stage = Unsure()
    tracker = FaceTracker(stage, min_score=0.5)
    counts = [len(tracker.update(stage.frame({0: (100, 60)}))) for _ in range(3)]
    # A detected face is shown. Where the search then gives a low score, the detector runs at once.
    assert counts == ([1, 1, 1] if boxes_too else [0, 0, 0])
    assert stage.looks == (3 if boxes_too else 1)
    stage.score = 0.5
    assert len(FaceTracker(stage, min_score=0.5).update(stage.frame({0: (100, 60)}))) == 1


@pytest.mark.parametrize("gone", [2, 3])
def test_a_missing_face_is_remembered_for_max_missing_frames(gone):
    stage = Stage()
    tracker = FaceTracker(stage, max_missing=2, detect_every=1)
    for t in range(8):
        tracked = tracker.update(stage.frame({0: (100, 60)}, (0,) if 3 <= t < 3 + gone else ()))
    assert tracked.identities.tolist() == [0 if gone == 2 else 1]


@pytest.mark.parametrize(("gap", "age"), [(0.15, 5), (0.25, 0)])
def test_a_face_is_remembered_as_it_was_when_no_other_was_near(gap, age):
    stage = Stage()
    tracker = FaceTracker(stage, detect_every=1, smooth=False)
    tracker.update(stage.frame({0: (100, 60)}))
    ((x0, _, x1, _),) = boxes_from_landmarks(stage.faces([0]).landmarks)
    for _ in range(5):
        tracked = tracker.update(stage.frame({0: (100, 60), 1: (100 + (1 + gap) * (x1 - x0), 60)}))
    assert len(tracked) == 2
    assert tracker._tracks[0].anchor_age == age  # frames since no other face was near


@pytest.mark.parametrize("frames", [1, 10])
def test_how_badly_a_face_fits_one_that_was_alone_some_frames_ago(frames):
    stage = Stage()
    stage.frame({0: (100, 60)})
    face, appearance = stage.faces([0]), np.random.default_rng(0).normal(0, 50, 1000)
    track = _Track(0, face, appearance, None)
    track.anchor_velocity, track.anchor_age = np.array([4.0, -2.0]), frames
    travelled = sum(0.95**t for t in range(frames))  # of the velocity, as it slows down

    def moved(offset):
        return dataclasses.replace(face, landmarks=face.landmarks + np.float32(offset))

    expected = travelled * track.anchor_velocity
    assert track.mismatch(moved(expected), appearance) == pytest.approx(0, abs=1e-5)
    size = face_size(face.landmarks[0])
    away = track.mismatch(moved(expected + size * np.array([0.3, 0.4])), appearance)
    assert away == pytest.approx(0.5 / (1 + 0.1 * frames), abs=1e-4)
    assert track.mismatch(moved(expected), -appearance) == pytest.approx(2, abs=0.02)


def test_an_appearance_is_a_running_mean():
    stage = Stage()
    stage.frame({0: (100, 60)})
    first, second = np.random.default_rng(0).normal(0, 50, (2, 1000))
    track = _Track(0, stage.faces([0]), first, None)
    track.learn(second)
    np.testing.assert_allclose(track.appearance, 0.9 * first + 0.1 * second)


def test_of_two_faces_that_look_alike_one_is_the_missing_one():
    stage = Stage()
    stage.clothes[1] = stage.clothes[0]
    tracker = FaceTracker(stage)
    people = {0: (100, 60), 1: (150, 60)}
    hidden = [{1}] * 3 + [{0, 1}] * 3 + [set()] * 6
    rows = [tracker.update(stage.frame(people, gone)).identities.tolist() for gone in hidden]
    assert rows[2] == [0] and rows[4] == [] and rows[-1] == [0, 1]


def test_numbers_are_not_given_again_after_a_reset():
    stage = Stage()
    tracker = FaceTracker(stage)
    assert tracker.update(stage.frame({0: (100, 60)})).identities.tolist() == [0]
    for identity in (1, 2, 3):
        tracker.reset()
        tracked = tracker.update(stage.frame({0: (100, 60)}))
        assert tracked.identities.tolist() == [identity] and tracked.cut


def test_the_box_score_is_that_of_the_last_detection():
    class Scored(Stage):
        def align(self, pixels, boxes=None):
            found = super().align(pixels, boxes)
            scores = np.full(len(found), 1.0 if boxes is not None else 0.7 + 0.01 * self.looks)
            return Faces(found.landmarks, found.landmark_scores, found.boxes, scores)

    stage = Scored()
    tracker = FaceTracker(stage)
    for x in (100, 102):
        tracked = tracker.update(stage.frame({0: (x, 60)}))
    assert tracked.faces.box_scores.tolist() == [np.float32(0.71)]


def test_what_a_tracker_gives_is_read_only_and_what_it_shows_is_short():
    stage = Stage()
    tracker = FaceTracker(FaceAligner("shr-fan-68-fast", device="cpu"))
    assert repr(tracker) == (
        "FaceTracker(FaceAligner('shr-fan-68-fast', device='cpu', dtype=torch.float32), 0 in view, 0 missing)"
    )
    tracker = FaceTracker(stage)
    tracked = tracker.update(stage.frame({0: (100, 60), 1: (300, 60)}))
    with pytest.raises(ValueError, match="read-only"):
        tracked.identities[0] = 3
    tracker.update(stage.frame({0: (100, 60), 1: (300, 60)}, {1}))
    assert repr(tracker).endswith(", 1 in view, 1 missing)")


def test_equal_results_are_equal():
    stage = Stage()
    first, second = (FaceTracker(stage).update(stage.frame({0: (100, 60)})) for _ in range(2))
    assert first == second and hash(first) == hash(second) and first != first.faces
    for change in ({"cut": False}, {"detected": False}, {"identities": np.array([1])}):
        assert dataclasses.replace(first, **change) != first
    assert dataclasses.replace(first, faces=stage.faces([])) != first


def test_a_frame_as_plain_values():
    stage = Stage()
    tracked = FaceTracker(stage).update(stage.frame({0: (100, 60)}))
    values = tracked.to_dict()
    assert values.pop("identities") == [0] and values.pop("detected") is True and values.pop("cut") is True
    assert values == tracked.faces.to_dict()


@pytest.mark.parametrize("at", ["search", "detection"])
def test_after_an_error_of_the_detector_the_next_frame_starts_a_scene(at):
    class Breaking(Stage):
        breaks = False

        def align(self, pixels, boxes=None):
            if self.breaks and (boxes is None) == (at == "detection"):
                raise DetectorError("detector: expected boxes, got None")
            return super().align(pixels, boxes)

    stage = Breaking()
    tracker = FaceTracker(stage, detect_every=2)
    for _ in range(2):
        tracker.update(stage.frame({0: (100, 60)}))
    stage.breaks = True
    with pytest.raises(DetectorError):
        tracker.update(stage.frame({0: (100, 60)}))
    stage.breaks = False
    tracked = tracker.update(stage.frame({0: (100, 60)}))
    assert tracked.cut and tracked.detected and tracked.identities.tolist() == [1]


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
        {"detect_every": 2.5},
        {"detect_every": "3"},
        {"detect_every": True},
        {"max_missing": -1},
        {"max_missing": None},
        {"min_score": float("nan")},
        {"min_score": 50},  # percent
        {"min_score": -0.1},
        {"min_score": "high"},
        {"frame_rate": 0},
        {"frame_rate": None},
        {"min_cutoff": 0},
        {"speed_gain": -1},
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=f"{next(iter(options))}: expected"):
        FaceTracker(Stage(), **options)


@pytest.mark.parametrize("aligner", ["shr-fan-68", 0, object()], ids=lambda value: type(value).__name__)
def test_what_is_no_aligner_is_refused(aligner):
    with pytest.raises(InputError, match=f"aligner: expected a FaceAligner, got {type(aligner).__name__}"):
        FaceTracker(aligner)


def test_a_layout_that_does_not_tell_its_box_is_refused():
    stage = Stage()
    stage.layout = get_layout("aflw-19")
    with pytest.raises(InputError, match="line of the jaw, got aflw-19"):
        FaceTracker(stage)


def test_an_aligner_without_a_detector_is_refused():
    tracker = FaceTracker(FaceAligner("shr-fan-68-fast", detector=None, device="cpu"))
    with pytest.raises(InputError, match="no detector"):
        tracker.update(np.zeros((60, 80, 3), np.uint8))


def shaken(frames):
    """A face that moves by steps of many sizes."""
    steps = np.random.default_rng(3).normal(0, 1.5, (frames, 2)).cumsum(axis=0)
    return [{0: (100 + x, 60 + y)} for x, y in steps]


def test_landmarks_are_smoothed_by_the_times_of_the_frames():
    places = shaken(12)
    found = {}
    for name, rate, interval in (("25", 25, None), ("timed", 30, 0.04), ("30", 30, None)):
        stage = Stage()
        tracker = FaceTracker(stage, frame_rate=rate, speed_gain=0)
        times = [None if interval is None else 7 + interval * t for t in range(12)]
        frames = zip(places, times, strict=True)
        found[name] = [tracker.update(stage.frame(p), seconds=t).faces.landmarks for p, t in frames]
    np.testing.assert_allclose(found["timed"], found["25"], atol=1e-4)
    assert np.abs(np.subtract(found["timed"], found["30"])).max() > 0.01


def test_a_frame_without_a_time_counts_by_the_frame_rate_and_a_cut_keeps_the_time():
    stage = Stage()
    tracker = FaceTracker(stage, frame_rate=20)
    for seconds, expected in ((1.0, None), (1.5, 0.5), (None, None), (3.0, None), (3.25, 0.25)):
        tracker.update(stage.frame({0: (100, 60)}), seconds=seconds)
        assert tracker._interval == (None if expected is None else pytest.approx(expected))
    other = Stage((200, 300))
    tracker.aligner = other
    assert tracker.update(other.frame({0: (100, 60)}), seconds=3.5).cut
    tracker.update(other.frame({0: (100, 60)}), seconds=3.6)
    assert tracker._interval == pytest.approx(0.1)


@pytest.mark.parametrize("seconds", [2.0, 1.5, float("nan"), float("inf"), "3", True])
def test_a_time_that_is_not_later_is_refused_and_the_next_one_taken(seconds):
    stage = Stage()
    tracker = FaceTracker(stage)
    tracker.update(stage.frame({0: (100, 60)}), seconds=2)
    with pytest.raises(
        InputError, match=r"seconds: expected a time after the last frame's, 2; reset\(\) starts"
    ):
        tracker.update(stage.frame({0: (101, 60)}), seconds=seconds)
    assert tracker.update(stage.frame({0: (101, 60)}), seconds=2.5).identities.tolist() == [0]
    tracker.reset()
    tracker.update(stage.frame({0: (101, 60)}), seconds=0)


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


def test_real_faces_keep_their_identities_through_a_crossing(aligner):
    tracker = FaceTracker(aligner)
    order = []
    for frame in crossing():
        tracked = tracker.update(frame)
        places = tracked.faces.landmarks.mean(axis=(1, 2)) if len(tracked) else []
        order.append(tracked.identities[np.argsort(places)].tolist())
    assert sorted(order[0]) == [0, 1] and order[-1] == order[0][::-1]
    assert {identity for row in order for identity in row} == {0, 1}
