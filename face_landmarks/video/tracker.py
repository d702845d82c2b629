"""Faces tracked through a video: boxes from the last frame, lasting identities, smoothed landmarks.

The aligner keeps nothing between calls; what has to be remembered lives in `FaceTracker`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.arguments import as_number, check_flag, is_whole
from face_landmarks.aligner import FaceAligner
from face_landmarks.detection.upright import LEAST_ROLL
from face_landmarks.errors import InputError
from face_landmarks.geometry import boxes_from_landmarks, face_rolls, turned_boxes
from face_landmarks.images import ChannelOrder, ImageSource, view_image
from face_landmarks.models.registry import DEFAULT_VIDEO_MODEL
from face_landmarks.results import Faces
from face_landmarks.results.faces import with_arrays
from face_landmarks.video.smoothing import OneEuroFilter, Points, face_size
from face_landmarks.video.thumbnails import contrast, correlation, thumbnail

_SHOWS: Final = 2.0  # contrast of a frame above which its scene has shown something
_SAME_SCENE: Final = 0.5  # correlation of two frames below which there is a cut between them
_SAME_PLACE: Final = 0.3  # mean distance of landmarks, in face sizes, below which two faces are one
_SAME_FACE: Final = 1.0  # mismatch, see `_Track.mismatch`, below which a detected face is a missing one
_SEARCH: Final = 5  # frames between runs of the detector while a face is missing, or none is known
_UNCONFIRMED: Final = 3  # runs of the detector in a row that miss a face before it counts as missing
_MEMORY: Final = 0.9  # share of the old appearance of a face in the new one, per frame
_INERTIA: Final = 0.7  # share of the old velocity of a face in the new one, per frame in view
_FRICTION: Final = 0.95  # factor on the expected velocity of a face, per frame out of sight
_DRIFT: Final = 0.1  # growth of the tolerated distance from the expected place, per frame out of sight
_MARGIN: Final = 0.2  # of a box, around it: a face that comes this near may hide a part of the other
# examples/lab/accuracy/measure_tracking.py compares other values of the three _SAME_ thresholds.


@dataclass(frozen=True, eq=False)
class TrackedFaces:
    """The faces of one frame and their identities; equal if all values are.

    Attributes:
        faces: the N faces in view, in order of their identity.
        identities: (N,) int64, from 0; the same number is the same face, and none is given twice. Read-only.
        detected: the detector ran on this frame.
        cut: this frame starts a new scene, or is the first; identities of earlier scenes do not come back.
    """

    faces: Faces
    identities: NDArray[np.int64]
    detected: bool
    cut: bool

    def __len__(self) -> int:
        return len(self.faces)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TrackedFaces):
            return NotImplemented
        return (
            (self.detected, self.cut, self.faces) == (other.detected, other.cut, other.faces)
        ) and np.array_equal(self.identities, other.identities)

    def __hash__(self) -> int:
        return hash((self.faces, self.identities.tobytes()))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON."""
        state = {"identities": self.identities.tolist(), "detected": self.detected, "cut": self.cut}
        return {**state, **self.faces.to_dict()}


class FaceTracker:
    """Tracks the faces of a video; call `update` with each frame in turn.

    Each face is searched for where its last landmarks and its velocity predict it. The detector runs on the
    first frame, on every `detect_every`-th, when the landmark scores of a face drop, and every few frames
    while a face is missing. Two faces that meet are told apart by their predicted places and their
    appearance; the one in front keeps its landmarks, the other one is missing until it is found again.

    A cut, a frame of another size than the last one, or a plain frame without faces starts a new scene: all
    faces get new identities. A frame is plain that is of nearly one colour, after ones that were not: a dark
    one, one of a flash, or a plain background that its only face has left.

    Args:
        aligner: finds landmarks; it needs a detector. Of another class, it has `layout` and
            `align(image, boxes=None, rolls=None)` as `FaceAligner`. By default the model for videos,
            `FaceAligner("shr-fan-68-tiny")`.
        frame_rate: of the video, in frames per second.
        detect_every: frames between regular runs of the detector, which find faces that enter.
        min_score: mean landmark score below which a face is discarded. Whole faces score about 0.8 and
            more (the `doubtful_score` of a card); `shr-fan-68` gives 0.08 on average to places without a face
            (docs/accuracy.md).
        max_missing: frames after which a missing face is forgotten.
        smooth: smooth the landmarks with `OneEuroFilter`.
        min_cutoff: see `OneEuroFilter`; lower gives less jitter.
        speed_gain: see `OneEuroFilter`; higher gives less lag.

    Raises:
        InputError: an argument is out of its range or of another type.
        UnknownModelError, WeightsError: as `FaceAligner`, if none was given.

    Example:
        >>> tracker = FaceTracker(frame_rate=25)  # doctest: +SKIP
        >>> for frame in Video("clip.mp4"):
        ...     tracked = tracker.update(frame)
    """

    def __init__(
        self,
        aligner: FaceAligner | None = None,
        *,
        frame_rate: float = 30.0,
        detect_every: int = 30,
        min_score: float = 0.5,
        max_missing: int = 30,
        smooth: bool = True,
        min_cutoff: float = 1.0,
        speed_gain: float = 20.0,
    ) -> None:
        if not is_whole(detect_every, 1):
            raise InputError(f"detect_every: expected a whole number of frames, from 1, got {detect_every!r}")
        if not is_whole(max_missing, 0):
            raise InputError(f"max_missing: expected a whole number of frames, from 0, got {max_missing!r}")
        if not 0 <= as_number(min_score) <= 1:
            raise InputError(f"min_score: expected a score in [0, 1], got {min_score!r}")
        if aligner is not None and not (hasattr(aligner, "align") and hasattr(aligner, "layout")):
            raise InputError(f"aligner: expected a FaceAligner, got {type(aligner).__name__} {aligner!r}")
        self._filter_options = (frame_rate, min_cutoff, speed_gain)
        OneEuroFilter(*self._filter_options)  # which checks them
        self.aligner = FaceAligner(DEFAULT_VIDEO_MODEL) if aligner is None else aligner
        if not self.aligner.layout.has_jaw:
            raise InputError(
                f"aligner: expected a layout with the line of the jaw, got {self.aligner.layout.name}"
            )
        self.detect_every = detect_every
        self.min_score = min_score
        self.max_missing = max_missing
        self._smooth = check_flag("smooth", smooth)
        self._next_identity = 0
        self.reset()

    def __repr__(self) -> str:
        in_view = sum(not track.missing for track in self._tracks)
        missing = len(self._tracks) - in_view
        return f"FaceTracker({self.aligner!r}, {in_view} in view, {missing} missing)"

    def reset(self) -> None:
        """Forget every face, and the time; identities that were given are not given again."""
        self._forget()
        self._seconds: float | None = None  # of the last frame
        self._interval: float | None = None  # between the last frame and this one

    def _forget(self) -> None:
        self._tracks: list[_Track] = []
        self._scene: Points | None = None
        self._size = (0, 0)  # (H, W) of the last frame
        self._contrast = 0.0  # of the last frame
        self._has_shown = False  # whether a frame of the scene was more than plain
        self._since_detection = 0

    def update(
        self, frame: ImageSource, *, seconds: float | None = None, channels: ChannelOrder = "rgb"
    ) -> TrackedFaces:
        """Find the faces of the next frame.

        Args:
            frame: anything that `read_image` reads; it is not changed, and must not change during the call.
            seconds: time of the frame, as `Video.timed` gives it, by which landmarks are smoothed; by
                default frames are 1 / frame_rate apart.
            channels: "bgr" for an array or tensor in OpenCV's order of colours.

        Raises:
            InputError: an unusable frame, a time that is not after the last frame's, or an aligner without a
                detector.
            DetectorError: the detector broke its contract.

        After an unusable frame, call `update` with the next one; after an error of the aligner or its
        detector, the next frame starts a new scene.
        """
        pixels = view_image(frame, channels)
        self._interval = self._measure(seconds)
        try:
            return self._update(pixels)
        except BaseException:  # tracks may be half updated
            self.reset()
            raise

    def _measure(self, seconds: float | None) -> float | None:
        """Seconds since the last frame; None if one of the two has no time."""
        last, self._seconds = self._seconds, None
        if seconds is None:
            return None
        if not as_number(seconds) > (-math.inf if last is None else last):
            self._seconds = last
            after = "" if last is None else f" after the last frame's, {last:g}; reset() starts another video"
            raise InputError(f"seconds: expected a time{after}, got {seconds!r}")
        self._seconds = float(seconds)
        return None if last is None else self._seconds - last

    def _update(self, pixels: NDArray[np.uint8]) -> TrackedFaces:
        cut = self._enter(pixels)
        self._follow(pixels)
        nobody = all(track.missing for track in self._tracks)
        faded = self._has_shown and self._contrast < 1 and nobody  # out: what comes next is another scene
        appears = not self._has_shown and self._contrast > _SHOWS
        if faded:
            self._tracks = []
        self._has_shown = appears or (self._has_shown and not faded)
        cut = cut or faded
        detected = cut or (appears and nobody) or self._must_detect()
        if detected:
            self._detect(pixels)
        self._since_detection = 0 if detected else self._since_detection + 1

        self._tracks = [track for track in self._tracks if track.missing <= self.max_missing]
        seen = [track for track in self._tracks if not track.missing]
        self._remember(pixels, seen)
        faces = Faces.concatenate([track.face for track in seen] or [Faces.empty(self.aligner.layout)])
        identities = np.array([track.identity for track in seen], np.int64)
        identities.flags.writeable = False
        return TrackedFaces(faces, identities, detected, cut)

    def _enter(self, pixels: NDArray[np.uint8]) -> bool:
        """Whether this frame starts a scene: the first one, one of another size, or one unlike the last."""
        size = pixels.shape[0], pixels.shape[1]
        scene = thumbnail(pixels, np.array([0, 0, size[1], size[0]]))
        cut = self._scene is None or size != self._size or correlation(scene, self._scene) < _SAME_SCENE
        if cut:
            self._forget()
        self._scene, self._size, self._contrast = scene, size, contrast(scene)
        return cut

    def _follow(self, pixels: NDArray[np.uint8]) -> None:
        """Search for the faces of the last frame where they are expected; the others become missing."""
        active = [track for track in self._tracks if not track.missing]
        for track in self._tracks:
            track.missing += 1
            track.anchor_age += 1
        if not active:
            return
        places = np.stack([track.expected() for track in active])
        rolls = np.array([track.roll for track in active])
        if rolls.any():
            found = self.aligner.align(pixels, turned_boxes(places, rolls), np.degrees(rolls))
        else:
            found = self.aligner.align(pixels, boxes_from_landmarks(places))
        pairs = [
            (track, face)
            for track, face in zip(active, found, strict=True)
            if face.landmark_scores.mean() >= self.min_score
        ]
        hidden = set()  # tracks at which another face was found
        for (a, face_a), (b, face_b) in combinations(pairs, 2):
            if _distance(face_a, face_b) < _SAME_PLACE:
                first = a.mismatch(face_a, _appearance(pixels, _box(face_a)))
                second = b.mismatch(face_b, _appearance(pixels, _box(face_b)))
                hidden.add(a if first > second else b)
        for track, face in pairs:
            if track not in hidden:
                track.see(face, self._interval)

    def _must_detect(self) -> bool:
        missing = [track.missing for track in self._tracks if track.missing]
        searching = missing or not self._tracks
        wait = min(_SEARCH, self.detect_every) if searching else self.detect_every
        return 1 in missing or self._since_detection + 1 >= wait

    def _detect(self, pixels: NDArray[np.uint8]) -> None:
        """Run the detector: confirm the faces in view, find missing ones, add new ones."""
        found = [face for face in self.aligner.align(pixels) if face.landmark_scores.mean() >= self.min_score]
        seen = [track for track in self._tracks if not track.missing]
        for track in seen:
            near = [face for face in found if _distance(track.face, face) < _SAME_PLACE]
            track.unconfirmed = 0 if near else track.unconfirmed + 1
            track.missing = int(track.unconfirmed >= _UNCONFIRMED)
            found = [face for face in found if face not in near]

        missing = [track for track in self._tracks if track.missing]
        appearances = [_appearance(pixels, _box(face)) for face in found]
        mismatches = sorted(
            (track.mismatch(face, appearance), i, j)
            for i, track in enumerate(missing)
            for j, (face, appearance) in enumerate(zip(found, appearances, strict=True))
        )
        owners: dict[int, int] = {}  # face -> track; the best match first
        for mismatch, i, j in mismatches:
            if mismatch < _SAME_FACE and j not in owners and i not in owners.values():
                owners[j] = i
        for j, face in enumerate(found):
            smoother = OneEuroFilter(*self._filter_options) if self._smooth else None
            if j in owners:
                missing[owners[j]].appear(face, smoother)
            else:
                self._tracks.append(_Track(self._next_identity, face, appearances[j], smoother))
                self._next_identity += 1

    def _remember(self, pixels: NDArray[np.uint8], seen: list[_Track]) -> None:
        """Update place, velocity and appearance of the faces that no other one touches."""
        boxes = [_box(track.face) for track in seen]
        for track, box in zip(seen, boxes, strict=True):
            if not any(_is_near(box, other) for other in boxes if other is not box):
                track.learn(_appearance(pixels, box))


class _Track:
    """One face through time: where it was last seen; its place, velocity and appearance when last alone."""

    def __init__(
        self, identity: int, face: Faces, appearance: Points, smoother: OneEuroFilter | None
    ) -> None:
        self.identity = identity
        self.velocity: Points = np.zeros(2)  # pixels per frame
        self.roll = (
            0.0  # radians, of its crop; kept while the face is near it, as another crop moves landmarks
        )
        self.appear(face, smoother)
        self.appearance = appearance
        self.learn(appearance)

    def appear(self, face: Faces, smoother: OneEuroFilter | None) -> None:
        """Take what the detector found as this face: for the first time, or again."""
        self.smoother = smoother
        self.box_scores = face.box_scores
        self.centre = face.landmarks[0].mean(axis=0)
        self.missing = 0  # frames
        self.unconfirmed = 0  # runs of the detector in a row that missed it
        self._show(face)

    def see(self, face: Faces, interval: float | None) -> None:
        """Take what was found at the expected place as this face."""
        centre = face.landmarks[0].mean(axis=0)
        self.velocity = _INERTIA * self.velocity + (1 - _INERTIA) * (centre - self.centre)
        self.centre = centre
        self.missing = 0
        self._show(face, interval)

    def learn(self, appearance: Points) -> None:
        """Remember the face as it is now, with no other one near it."""
        self.appearance = _MEMORY * self.appearance + (1 - _MEMORY) * appearance
        self.anchor, self.anchor_velocity, self.anchor_age = self.face.landmarks[0], self.velocity, 0

    def expected(self) -> Points:
        """(K, 2) landmarks predicted for the frame after the last."""
        place: Points = self.face.landmarks[0] + self.velocity
        return place

    def mismatch(self, face: Faces, appearance: Points) -> float:
        """How badly a face fits this track; 0 is a perfect fit.

        The sum of two terms: the distance from the place that is predicted from when the face was last
        alone, in face sizes, divided by a tolerance that grows with the frames since; and 1 minus the
        correlation of the appearances, 0 to 2.
        """
        frames = (1 - _FRICTION**self.anchor_age) / (1 - _FRICTION)
        offset = face.landmarks[0] - (self.anchor + frames * self.anchor_velocity)
        distance = float(np.linalg.norm(offset.mean(axis=0))) / face_size(self.anchor)
        return distance / (1 + _DRIFT * self.anchor_age) + 1 - correlation(appearance, self.appearance)

    def _show(self, face: Faces, interval: float | None = None) -> None:
        points = face.landmarks[0]
        if self.smoother is not None:
            points = self.smoother(points, face.landmark_scores[0], interval)
        landmarks = points[np.newaxis].astype(np.float32)
        roll = float(face_rolls(landmarks, face.layout.eyes)[0])
        if abs(math.remainder(roll - self.roll, math.tau)) > math.radians(LEAST_ROLL):
            self.roll = roll
        self.face = with_arrays(face, landmarks=landmarks, box_scores=self.box_scores)


def _distance(a: Faces, b: Faces) -> float:
    """Mean distance of the landmarks of two faces, in sizes of the larger one."""
    offsets = np.linalg.norm(a.landmarks[0] - b.landmarks[0], axis=1)  # (K,)
    return float(offsets.mean() / max(face_size(a.landmarks[0]), face_size(b.landmarks[0])))


def _box(face: Faces) -> NDArray[np.float32]:
    """The box (4,) around the landmarks of a face."""
    box: NDArray[np.float32] = boxes_from_landmarks(face.landmarks)[0]
    return box


def _appearance(pixels: NDArray[np.uint8], box: NDArray[np.float32]) -> Points:
    """The thumbnail of a box, made square."""
    x0, y0, x1, y1 = box.tolist()
    x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0 + y1 - y0) / 4
    corners = [round(edge + 0.5) for edge in (x - half, y - half, x + half, y + half)]
    return thumbnail(pixels, np.array(corners, np.int64))


def _is_near(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    """Whether two boxes (4,) touch when a margin is added to the first."""
    margin = _MARGIN * (a[2:] - a[:2])
    return bool((a[:2] - margin < b[2:]).all() and (b[:2] < a[2:] + margin).all())
