"""What the tracker remembers of each face."""

from __future__ import annotations

import numpy as np
from rings import HEIGHT, WIDTH, faces_at, ring

from face_landmarks import Faces
from face_landmarks.layouts import IBUG_68
from face_landmarks.video.tracker import FaceTracker, _Track

NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


class Given:
    """Stands for an aligner: finds the faces it was told, wherever it is asked to look."""

    layout = IBUG_68

    def __init__(self, faces: Faces) -> None:
        self.faces = faces

    def align(self, pixels: np.ndarray, boxes: np.ndarray | None = None) -> Faces:
        scores = np.full_like(self.faces.landmark_scores, 0.9)
        return Faces(self.faces.landmarks, scores, self.faces.boxes, self.faces.box_scores)


def test_the_appearance_of_a_face_is_a_running_mean() -> None:
    first, second, third = np.array([1.0, 0]), np.array([0, 10.0]), np.array([100.0, 0])
    track = _Track(0, faces_at(ring((40, 60), 20)), first, None)
    track.learn(second)
    np.testing.assert_allclose(track.appearance, [0.9, 1])
    track.learn(third)
    np.testing.assert_allclose(track.appearance, [0.81 + 10, 0.9])


def test_a_face_is_remembered_as_it_was_when_no_other_one_was_near() -> None:
    """The boxes, 39 wide, are first 41 apart, then 1; they count as near below a fifth of their width."""
    stage = Given(faces_at(ring((30, 60), 20), ring((110, 60), 20)))
    tracker = FaceTracker(stage, smooth=False)  # type: ignore[arg-type]
    tracker.update(NOISE)
    for step in range(1, 3):
        stage.faces = faces_at(ring((50, 60), 20), ring((90, 60 + step), 20))
        tracker.update(NOISE)
    assert [track.anchor_age for track in tracker._tracks] == [2, 2]
    np.testing.assert_allclose([track.anchor[:, 0].mean() for track in tracker._tracks], [30, 110], rtol=1e-6)
    stage.faces = faces_at(ring((30, 60), 20), ring((110, 60), 20))
    tracker.update(NOISE)
    assert [track.anchor_age for track in tracker._tracks] == [0, 0]


def test_no_number_is_given_twice_in_any_number_of_scenes() -> None:
    stage = Given(faces_at(ring((30, 60), 20), ring((110, 60), 20)))
    tracker = FaceTracker(stage)  # type: ignore[arg-type]
    identities = []
    for _ in range(3):
        identities += tracker.update(NOISE).identities.tolist()
        tracker.reset()
    assert identities == [0, 1, 2, 3, 4, 5]
