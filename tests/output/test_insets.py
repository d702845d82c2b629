"""Enlarged views of small faces: which, where, and what they show."""

from __future__ import annotations

import numpy as np
import pytest
from rings import faces_at, ink, ring

from face_landmarks import Faces, draw_faces
from face_landmarks.errors import InputError
from face_landmarks.output.insets import enlarge, place_insets

WALL = np.full((300, 400, 3), 90, np.uint8)
SIDE = 100


def overlap(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one[:2] < other[2:]).all() and (other[:2] < one[2:]).all())


def test_only_small_faces_have_a_view() -> None:
    faces = faces_at(ring((60, 60), 20), ring((220, 150), 30), ring((340, 260), 10))  # 40, 60 and 20 pixels
    assert sorted(place_insets(faces, (300, 400), SIDE)) == [0, 2]
    assert place_insets(faces, (300, 400), 0) == {}


def test_views_cover_no_face_and_no_other_view_and_stay_inside() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        centres = random.uniform((20, 20), (380, 280), (6, 2))
        faces = faces_at(*(ring(tuple(centre), 9) for centre in centres))
        places = place_insets(faces, (300, 400), SIDE)
        views = [np.array([x, y, x + SIDE, y + SIDE]) for x, y in places.values()]
        assert views
        for number, view in enumerate(views):
            assert (view[:2] >= 0).all() and (view[2:] <= (400, 300)).all()
            assert not any(overlap(view, box) for box in faces.boxes)
            assert not any(overlap(view, other) for other in views[:number])


def test_a_view_is_as_near_as_it_can_be() -> None:
    for centre in ((60, 150), (340, 150), (200, 40), (200, 260)):
        ((x, y),) = place_insets(faces_at(ring(centre, 10)), (300, 400), SIDE).values()
        assert np.hypot(x + SIDE / 2 - centre[0], y + SIDE / 2 - centre[1]) < 1.7 * SIDE


def test_a_photo_that_is_too_small_or_full_has_no_view_and_a_face_out_of_sight_none() -> None:
    assert place_insets(faces_at(ring((60, 60), 10)), (100, 400), SIDE) == {}
    crowd = faces_at(*(ring((x, y), 20) for x in range(20, 400, 45) for y in range(20, 300, 45)))
    assert place_insets(crowd, (300, 400), SIDE) == {}
    assert place_insets(faces_at(ring((-500, 60), 10)), (300, 400), SIDE) == {}


@pytest.mark.parametrize("centre", [(60.3, 70.8), (3, 5), (397, 200)])
def test_a_view_shows_the_face_where_its_landmarks_are(centre: tuple[float, float]) -> None:
    rows, columns = np.mgrid[:300, :400]
    spot = np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / 18)
    photo = np.repeat(np.rint(255 * spot).astype(np.uint8)[..., np.newaxis], 3, axis=2)
    face = faces_at(ring(centre, 15))
    view, enlarged = enlarge(photo, face, SIDE)
    assert view.shape == (SIDE, SIDE, 3) and view.dtype == np.uint8
    scale = np.ptp(enlarged.landmarks[0], axis=0) / np.ptp(face.landmarks[0], axis=0)
    assert scale[0] == pytest.approx(scale[1], rel=1e-3) and scale[0] > 1.5
    if centre[0] == 60.3:  # the whole spot is in the photo
        light = view[..., 0].astype(float)
        y, x = (np.mgrid[:SIDE, :SIDE] * light).sum(axis=(1, 2)) / light.sum()
        np.testing.assert_allclose((x, y), enlarged.landmarks[0].mean(axis=0), atol=0.3)
    assert enlarged.landmark_scores is not None and len(enlarged) == 1


def test_a_view_is_drawn_with_frame_lines_and_label() -> None:
    face = faces_at(ring((200, 150), 12))
    ((x, y),) = place_insets(face, (300, 400), SIDE).values()
    without, with_view = draw_faces(WALL, face), draw_faces(WALL, face, insets=SIDE)
    inside = (slice(y, y + SIDE), slice(x, x + SIDE))
    assert not ink(without, WALL)[inside].any() and (ink(with_view, WALL)[inside] > 60).sum() > 100
    frame = np.concatenate([with_view[y - 1, x : x + SIDE], with_view[y : y + SIDE, x - 1]])
    assert (frame == 255).mean() > 0.95
    labelled = draw_faces(WALL, face, insets=SIDE, labels=["7"])
    assert (labelled[inside] != with_view[inside]).any()
    far = np.ones((300, 400), bool)  # from the view, the face and the line between them
    low, high = np.minimum((x, y), (185, 135)) - 6, np.maximum((x + SIDE, y + SIDE), (215, 165)) + 6
    far[max(0, low[1]) : high[1], max(0, low[0]) : high[0]] = False
    assert far.any() and not ink(with_view, WALL)[far].any()


@pytest.mark.parametrize("insets", [-1, 2.5, "200", None, True, 1 + 0j])
def test_the_side_of_a_view_is_a_whole_number(insets: object) -> None:
    with pytest.raises(InputError, match="insets: expected a whole number"):
        draw_faces(WALL, Faces.empty(), insets=insets)  # type: ignore[arg-type]
