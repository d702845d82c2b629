"""Faces followed through a video: boxes from the last frame, identities that last, steady points.

The aligner keeps nothing between calls; what has to be remembered lives in `FaceTracker`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks.aligner import FaceAligner
from face_landmarks.errors import InputError
from face_landmarks.geometry import boxes_from_landmarks, crop_matrices, warp
from face_landmarks.images import ImageSource, read_image
from face_landmarks.results import Faces
from face_landmarks.video.smoothing import OneEuroFilter, Points, face_size

_THUMBNAIL: Final = 24  # side, in pixels, of the views in which frames and faces are compared
_PLAIN: Final = 4.0  # grey levels of spread below which a view shows little more than noise
_SAME_SCENE: Final = 0.5  # less alike is a cut; examples/lab/measure_tracking.py tries these three
_SAME_PLACE: Final = 0.3  # mean distance of landmarks, in face sizes, below which two faces are one
_SAME_FACE: Final = 1.0  # most doubt, see `_Track.doubt`, with which a face found is one that is missing
_SEARCH: Final = 5  # frames between looks of the detector while a face is missing, or none is known
_UNCONFIRMED: Final = 3  # looks of the detector that a face may go without being found by it
_MEMORY: Final = 0.9  # of what a face looks like, per frame
_INERTIA: Final = 0.7  # of its motion, per frame in view
_FRICTION: Final = 0.95  # of its motion, per frame out of sight
_DRIFT: Final = 0.1  # growth of the distance from its place at which it may turn up, per frame out of sight
_MARGIN: Final = 0.2  # of a box, around it: what comes this near may hide a part of the face


@dataclass(frozen=True, eq=False)
class TrackedFaces:
    """The faces of one frame and who they are.

    Attributes:
        faces: the N faces in view, in order of their identity.
        identities: (N,) int64, from 0; the same number is the same face, none is given twice.
        detected: the detector looked at this frame.
        cut: this frame starts a new scene; identities of earlier ones do not come back.
    """

    faces: Faces
    identities: NDArray[np.int64]
    detected: bool
    cut: bool

    def __len__(self) -> int:
        return len(self.faces)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON."""
        state = {"identities": self.identities.tolist(), "detected": self.detected, "cut": self.cut}
        return {**state, **self.faces.to_dict()}


class FaceTracker:
    """Follows the faces of a video; call `update` with each frame in turn.

    A face is sought where its last landmarks and its motion put it. The detector looks at the first
    frame, at every `detect_every`-th, when the landmark scores of a face drop, and every few frames
    while a face is missing. Two faces that meet are told apart by where they were going and by what
    they look like; the one in front keeps its landmarks, the other one is missing until it is seen again.

    Args:
        aligner: finds landmarks; it needs a detector. By default the fast model,
            `FaceAligner("shr-fan-68-fast")`.
        frame_rate: of the video, in frames per second.
        detect_every: frames between regular looks of the detector, for faces that come in.
        min_score: mean landmark score below which a face is not believed. `shr-fan-68` gives
            0.75 and more to whole faces, 0.34 on average to places without one (docs/accuracy.md).
        max_missing: frames after which a missing face is forgotten.
        smooth: steady the landmarks with `OneEuroFilter`.
        min_cutoff: see `OneEuroFilter`; lower is steadier.
        speed_gain: see `OneEuroFilter`; higher lags less.

    Raises:
        InputError: an argument is out of its range.
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
        if detect_every < 1:
            raise InputError(f"detect_every: expected at least 1 frame, got {detect_every}")
        if max_missing < 0:
            raise InputError(f"max_missing: expected at least 0 frames, got {max_missing}")
        if not math.isfinite(min_score):
            raise InputError(f"min_score: expected a number, got {min_score}")
        self.aligner = aligner or FaceAligner("shr-fan-68-fast")
        if not self.aligner.layout.tells_its_box:
            raise InputError(
                f"aligner: expected a layout with the line of the jaw, got {self.aligner.layout.name}"
            )
        self.detect_every = detect_every
        self.min_score = min_score
        self.max_missing = max_missing
        self._smooth = smooth
        self._filter_options = (frame_rate, min_cutoff, speed_gain)
        OneEuroFilter(*self._filter_options)  # which checks them
        self._next_identity = 0
        self.reset()

    def reset(self) -> None:
        """Forget every face; numbers given are not given again."""
        self._tracks: list[_Track] = []
        self._scene: Points | None = None
        self._since_detection = 0

    def update(self, frame: ImageSource) -> TrackedFaces:
        """The faces of the next frame.

        Raises:
            InputError: an unusable frame, or an aligner without a detector.
            DetectorError: the detector broke its contract.
        """
        pixels = read_image(frame)
        cut = self._enter(pixels)
        self._follow(pixels)
        detected = cut or self._must_detect()
        if detected:
            self._detect(pixels)
        self._since_detection = 0 if detected else self._since_detection + 1

        self._tracks = [track for track in self._tracks if track.missing <= self.max_missing]
        seen = [track for track in self._tracks if not track.missing]
        self._remember(pixels, seen)
        empty = Faces.empty(self.aligner.layout)
        faces = Faces.concatenate([empty, *(track.face for track in seen)])
        return TrackedFaces(faces, np.array([t.identity for t in seen], np.int64), detected, cut)

    def _enter(self, pixels: NDArray[np.uint8]) -> bool:
        """Whether this frame starts a scene: the first one, or one that looks like another place."""
        thumbnail = cv2.resize(pixels, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
        scene = _view(thumbnail)
        cut = self._scene is None or _correlation(scene, self._scene) < _SAME_SCENE
        if cut:
            self.reset()
        self._scene = scene
        return cut

    def _follow(self, pixels: NDArray[np.uint8]) -> None:
        """Seek the faces of the last frame where they should be now; who is not believed is missing."""
        active = [track for track in self._tracks if not track.missing]
        for track in self._tracks:
            track.missing += 1
            track.anchor_age += 1
        if not active:
            return
        found = self.aligner.align(pixels, boxes_from_landmarks([track.expected() for track in active]))
        pairs = [
            (track, face)
            for track, face in zip(active, found, strict=True)
            if face.landmark_scores.mean() >= self.min_score
        ]
        impostors = set()
        for (a, face_a), (b, face_b) in combinations(pairs, 2):
            if _distance(face_a, face_b) < _SAME_PLACE:
                doubt_a, doubt_b = (t.doubt(f, _look(pixels, f)) for t, f in ((a, face_a), (b, face_b)))
                impostors.add(a if doubt_a > doubt_b else b)
        for track, face in pairs:
            if track not in impostors:
                track.see(face)

    def _must_detect(self) -> bool:
        missing = [track.missing for track in self._tracks if track.missing]
        searching = missing or not self._tracks
        wait = min(_SEARCH, self.detect_every) if searching else self.detect_every
        return 1 in missing or self._since_detection + 1 >= wait

    def _detect(self, pixels: NDArray[np.uint8]) -> None:
        """Confirm the faces in view, find those that are missing, take in those that are new."""
        found = [face for face in self.aligner.align(pixels) if face.landmark_scores.mean() >= self.min_score]
        seen = [track for track in self._tracks if not track.missing]
        for track in seen:
            near = [face for face in found if _distance(track.face, face) < _SAME_PLACE]
            track.unconfirmed = 0 if near else track.unconfirmed + 1
            track.missing = int(track.unconfirmed >= _UNCONFIRMED)
            found = [face for face in found if face not in near]

        missing = [track for track in self._tracks if track.missing]
        looks = [_look(pixels, face) for face in found]
        doubts = sorted(
            (track.doubt(face, look), i, j)
            for i, track in enumerate(missing)
            for j, (face, look) in enumerate(zip(found, looks, strict=True))
        )
        owners: dict[int, int] = {}  # face -> track; the least doubt first
        for doubt, i, j in doubts:
            if doubt < _SAME_FACE and j not in owners and i not in owners.values():
                owners[j] = i
        for j, face in enumerate(found):
            smoother = OneEuroFilter(*self._filter_options) if self._smooth else None
            if j in owners:
                missing[owners[j]].appear(face, smoother)
            else:
                self._tracks.append(_Track(self._next_identity, face, looks[j], smoother))
                self._next_identity += 1

    def _remember(self, pixels: NDArray[np.uint8], seen: list[_Track]) -> None:
        """Learn place, motion and looks of the faces that no other one touches."""
        boxes = [boxes_from_landmarks(track.face.landmarks)[0] for track in seen]
        for track, box in zip(seen, boxes, strict=True):
            if sum(_is_near(box, other) for other in boxes) == 1:  # itself
                track.learn(_look(pixels, track.face))


class _Track:
    """One face through time: where it was last seen, and where, how moving and what like when alone."""

    def __init__(self, identity: int, face: Faces, look: Points, smoother: OneEuroFilter | None) -> None:
        self.identity = identity
        self.motion: Points = np.zeros(2)  # pixels per frame
        self.appear(face, smoother)
        self.look = look
        self.learn(look)

    def appear(self, face: Faces, smoother: OneEuroFilter | None) -> None:
        """The detector found this face: for the first time, or again."""
        self.smoother = smoother
        self.box_scores = face.box_scores
        self.centre = face.landmarks[0].mean(axis=0)
        self.missing = 0  # frames
        self.unconfirmed = 0  # looks of the detector
        self._show(face)

    def see(self, face: Faces) -> None:
        """The face was found where it was sought."""
        centre = face.landmarks[0].mean(axis=0)
        self.motion = _INERTIA * self.motion + (1 - _INERTIA) * (centre - self.centre)
        self.centre = centre
        self.missing = 0
        self._show(face)

    def learn(self, look: Points) -> None:
        """Remember the face as it is now, seen for sure."""
        self.look = _MEMORY * self.look + (1 - _MEMORY) * look
        self.anchor, self.anchor_motion, self.anchor_age = self.face.landmarks[0], self.motion, 0

    def expected(self) -> Points:
        """(K, 2) where the landmarks should be a frame after the last."""
        place: Points = self.face.landmarks[0] + self.motion
        return place

    def doubt(self, face: Faces, look: Points) -> float:
        """How little a face seems to be this one.

        The distance from where it should be, in face sizes, which counts less the longer it was not
        seen alone, and the difference from what it looked like, 0 to 2.
        """
        frames = (1 - _FRICTION**self.anchor_age) / (1 - _FRICTION)
        offset = face.landmarks[0] - (self.anchor + frames * self.anchor_motion)
        distance = float(np.linalg.norm(offset.mean(axis=0))) / face_size(self.anchor)
        return distance / (1 + _DRIFT * self.anchor_age) + 1 - _correlation(look, self.look)

    def _show(self, face: Faces) -> None:
        points = face.landmarks[0]
        if self.smoother is not None:
            points = self.smoother(points, face.landmark_scores[0])
        self.face = replace(face, landmarks=points[np.newaxis], box_scores=self.box_scores)


def _distance(a: Faces, b: Faces) -> float:
    """Mean distance of the landmarks of two faces, in sizes of the larger one."""
    offsets = np.linalg.norm(a.landmarks[0] - b.landmarks[0], axis=1)  # (K,)
    return float(offsets.mean() / max(face_size(a.landmarks[0]), face_size(b.landmarks[0])))


def _look(pixels: NDArray[np.uint8], face: Faces) -> Points:
    """What a face looks like: a small view of its box."""
    boxes = torch.from_numpy(boxes_from_landmarks(face.landmarks))
    return _view(255 * warp(pixels, crop_matrices(boxes, _THUMBNAIL, crop_scale=0.5), _THUMBNAIL).numpy())


def _view(pixels: NDArray[Any]) -> Points:
    """Pixels as a vector around their mean."""
    vector: Points = pixels.ravel().astype(np.float64)
    vector -= vector.mean()
    return vector


def _correlation(a: Points, b: Points) -> float:
    """How alike two views are, -1 to 1, whatever their brightness and contrast; plain ones are alike."""
    plain = _PLAIN**2 * len(a)
    return float((a @ b + plain) / (np.linalg.norm(a) * np.linalg.norm(b) + plain))


def _is_near(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    """Whether two boxes (4,) touch when a margin is added to the first."""
    margin = _MARGIN * (a[2:] - a[:2])
    return bool((a[:2] - margin < b[2:]).all() and (b[:2] < a[2:] + margin).all())
