"""Openness: ratios that can be checked by hand, and faces that have none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn_faces import mean_shape

from face_landmarks import Faces, eye_openness, mouth_openness
from face_landmarks.layouts import AFLW_19, COFW_29, IBUG_68, LAYOUTS, WFLW_98, Layout
from face_landmarks.output.crops import head_pose

WITH_LIDS = pytest.mark.parametrize("layout", [IBUG_68, WFLW_98, COFW_29], ids=lambda layout: layout.name)


def face_of(layout: Layout, **places: tuple[float, float]) -> Faces:
    """A drawn face 120 pixels wide, with some landmarks elsewhere."""
    landmarks = 120 * mean_shape(layout)[np.newaxis].copy()
    for name, place in places.items():
        landmarks[0, layout.index(name)] = place
    return Faces(landmarks, np.ones((1, len(layout))), [[0, 0, 120, 120]], [1], layout)


def moved(faces: Faces, angle: float, scale: float) -> Faces:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return replace(faces, landmarks=faces.landmarks @ turn.T + (31, -7))


def test_the_ratio_of_the_68_is_the_eye_aspect_ratio_of_the_paper() -> None:
    right = {
        "right_eye_outer": (10, 50),
        "right_eye_upper_outer": (14, 46),
        "right_eye_upper_inner": (22, 45),
        "right_eye_inner": (30, 50),
        "right_eye_lower_inner": (22, 51),
        "right_eye_lower_outer": (14, 54),
    }
    ratios = eye_openness(face_of(IBUG_68, **right))
    assert ratios.shape == (1, 2) and ratios.dtype == np.float32
    assert ratios[0, 0] == pytest.approx((8 + 6) / (2 * 20))  # the two gaps, and twice the width
    assert ratios[0, 1] == pytest.approx(eye_openness(face_of(IBUG_68))[0, 1])


def test_a_mouth_is_measured_between_its_inner_lips() -> None:
    mouth = {
        "mouth_inner_right": (40, 80),
        "upper_lip_inner_right": (45, 78),
        "upper_lip_inner_middle": (50, 77),
        "upper_lip_inner_left": (55, 78),
        "mouth_inner_left": (60, 80),
        "lower_lip_inner_left": (55, 84),
        "lower_lip_inner_middle": (50, 86),
        "lower_lip_inner_right": (45, 84),
    }
    (ratio,) = mouth_openness(face_of(IBUG_68, **mouth))
    assert ratio == pytest.approx((6 + 9 + 6) / (3 * 20))
    wide = mouth_openness(face_of(IBUG_68, **mouth, upper_lip_middle=(50, 0), mouth_right=(0, 80)))
    assert wide[0] == ratio  # the outer lips do not count


@WITH_LIDS
def test_ratios_stay_when_a_face_is_turned_and_enlarged_and_swap_when_it_is_mirrored(layout: Layout) -> None:
    faces = face_of(layout, right_eye_outer=(20, 50))
    eyes, mouth = eye_openness(faces), mouth_openness(faces)
    assert eyes[0, 0] != pytest.approx(eyes[0, 1], rel=1e-3)
    for angle, scale in ((0.7, 3), (3.0, 0.1)):
        np.testing.assert_allclose(eye_openness(moved(faces, angle, scale)), eyes, rtol=1e-4)
        np.testing.assert_allclose(mouth_openness(moved(faces, angle, scale)), mouth, rtol=1e-4)
    mirrored = replace(faces, landmarks=faces.landmarks[:, layout.mirror] * (-1, 1))
    np.testing.assert_allclose(eye_openness(mirrored), eyes[:, ::-1], rtol=1e-5)


@WITH_LIDS
def test_a_closed_eye_and_a_closed_mouth_are_zero(layout: Layout) -> None:
    faces = face_of(layout)
    landmarks = faces.landmarks.copy()
    for index, name in enumerate(layout.names):
        if "upper" in name and ("eye_" in name or "lip_inner" in name):
            landmarks[0, layout.index(name.replace("upper", "lower"))] = landmarks[0, index]
    shut = replace(faces, landmarks=landmarks)
    np.testing.assert_array_equal(eye_openness(shut), [[0, 0]])
    np.testing.assert_array_equal(mouth_openness(shut), [0])
    assert (eye_openness(faces) > 0.1).all() and (mouth_openness(faces) > 0.02).all()


@WITH_LIDS
@pytest.mark.parametrize("size", [0, 1e-3, 1e20])
def test_corners_in_one_place_have_no_ratio_and_leave_the_others_theirs(layout: Layout, size: float) -> None:
    good, one_eye = face_of(layout), face_of(layout, right_eye_outer=(50, 50), right_eye_inner=(50, 50))
    place = replace(good, landmarks=np.full_like(good.landmarks, size))
    together = Faces.concatenate([good, one_eye, place])
    eyes, mouths = eye_openness(together), mouth_openness(together)
    np.testing.assert_array_equal(np.isnan(eyes), [[False, False], [True, False], [True, True]])
    np.testing.assert_array_equal(np.isnan(mouths), [False, False, True])
    np.testing.assert_array_equal(eyes[0], eye_openness(good)[0])
    assert np.isnan(head_pose(place)).all()  # the same answer to a face without a shape


def test_layouts_without_lids_are_those_we_know() -> None:
    lids = {name for name, layout in LAYOUTS.items() if any("eye_upper" in word for word in layout.names)}
    assert set(LAYOUTS) - lids == {AFLW_19.name}
