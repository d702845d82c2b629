"""Layouts: every index named once, mirrors that undo themselves, and faces that look like faces."""

import pickle
from itertools import chain

import numpy as np
import pytest
from drawn_faces import mean_shape

from face_landmarks import Faces, draw_faces, five_points, head_pose
from face_landmarks.errors import InputError
from face_landmarks.layouts import (
    AFLW_19,
    COFW_29,
    IBUG_68,
    LAYOUTS,
    WFLW_98,
    WFLW_98_FOR_IBUG_68,
    get_layout,
    wflw_to_ibug,
)

EVERY = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def faces_of(layout):
    """A face 120 pixels wide that looks into the camera."""
    points = 120 * mean_shape(layout)[np.newaxis]
    return Faces(points, np.ones((1, len(layout))), [[0, 0, 120, 120]], [1], layout=layout)


@EVERY
def test_the_groups_hold_every_landmark_once(layout):
    indices = list(chain(*layout.groups.values()))
    assert sorted(indices) == list(range(len(layout)))
    assert len(set(layout.names)) == len(layout)
    assert layout.closed <= set(layout.groups)


@EVERY
def test_a_mirror_undoes_itself_and_exchanges_left_and_right(layout):
    assert [layout.mirror[image] for image in layout.mirror] == list(range(len(layout)))
    for name, indices in layout.groups.items():
        other = name.replace("left", "\0").replace("right", "left").replace("\0", "right")
        assert {layout.mirror[index] for index in indices} == set(layout.groups[other])
    for right, left in (layout.eye_corners, layout.mouth_corners):
        assert layout.mirror[right] == left
    assert {layout.mirror[index] for index in layout.eyes[0]} == set(layout.eyes[1])
    assert layout.mirror[layout.nose_tip] == layout.nose_tip and layout.mirror[layout.chin] == layout.chin


@EVERY
def test_a_line_of_the_mirrored_drawing_is_a_line_of_the_drawing(layout):
    lines = {frozenset(edge) for edge in layout.edges}
    assert {frozenset(layout.mirror[index] for index in edge) for edge in lines} == lines


@EVERY
def test_a_symmetric_face_is_its_own_mirror_image(layout):
    shape = mean_shape(layout)
    np.testing.assert_allclose(shape[list(layout.mirror)] * (-1, 1) + (1, 0), shape, atol=1e-6)


@EVERY
def test_every_part_is_where_faces_have_it(layout):
    (right_eye, left_eye, nose, right_mouth, left_mouth), chin = (
        five_points(faces_of(layout))[0],
        120 * mean_shape(layout)[layout.chin],
    )
    assert right_eye[0] < right_mouth[0] < nose[0] < left_mouth[0] < left_eye[0]
    assert right_eye[1] < nose[1] < right_mouth[1] < chin[1] == 120 * mean_shape(layout)[:, 1].max()
    for name, indices in layout.groups.items():
        x = mean_shape(layout)[list(indices), 0].mean()
        assert ("right" in name) == (x < 0.49) and ("left" in name) == (x > 0.51), name


@EVERY
def test_a_face_that_looks_into_the_camera_is_not_turned(layout):
    yaw, _, roll = head_pose(faces_of(layout))[0]
    assert abs(yaw) < 1 and abs(roll) < 1


@EVERY
def test_every_layout_can_be_drawn_and_pickled(layout):
    drawn = draw_faces(np.zeros((120, 120, 3), np.uint8), faces_of(layout))
    assert (drawn > 0).any(axis=2).sum() > 10 * len(layout)
    assert pickle.loads(pickle.dumps(layout)) is layout is get_layout(layout.name)


@EVERY
def test_a_layout_is_shown_in_one_short_line(layout):
    assert repr(layout) == f"<Layout {layout.name!r}: {len(layout)} landmarks>"


def test_the_numbers_of_landmarks_are_in_the_names():
    assert [len(layout) for layout in (IBUG_68, WFLW_98, COFW_29, AFLW_19)] == [68, 98, 29, 19]
    assert all(name.endswith(f"-{len(layout)}") for name, layout in LAYOUTS.items())


@EVERY
def test_a_name_says_on_which_side_a_landmark_is_and_where_in_its_part(layout):
    shape = mean_shape(layout)
    for index, name in enumerate(layout.names):
        mirrored = layout.names[layout.mirror[index]]
        assert mirrored == name.replace("left", "?").replace("right", "left").replace("?", "right")
        x = shape[index, 0]
        assert ("right" in name) == (x < 0.5 - 1e-6) and ("left" in name) == (x > 0.5 + 1e-6), name
        if "upper" in name and (below := name.replace("upper", "lower")) in layout.names:
            assert shape[index, 1] < shape[layout.index(below), 1], name
        if "eye" in name and "inner" in name and (outer := name.replace("inner", "outer")) in layout.names:
            assert abs(x - 0.5) < abs(shape[layout.index(outer), 0] - 0.5), name


@EVERY
def test_names_agree_with_the_marks_of_the_layout(layout):
    assert [layout.names[i] for i in layout.eye_corners] == ["right_eye_outer", "left_eye_outer"]
    assert [layout.names[i] for i in layout.mouth_corners] == ["mouth_right", "mouth_left"]
    assert layout.names[layout.nose_tip] == "nose_tip" and layout.names[layout.chin] == "chin"
    for name, indices in layout.groups.items():
        part = name.removesuffix("_bridge").removesuffix("_base").split("_")[-1]
        words = {"lips": ("mouth", "lip"), "nose": ("nose", "nostril"), "jaw": ("jaw", "chin")}.get(
            part, (part,)
        )
        for index in indices:
            assert any(word in layout.names[index] for word in words), (name, layout.names[index])


def test_the_same_place_has_the_same_name_among_the_68_and_the_98():
    named = {"nose", "nostril", "mouth", "upper", "lower", "chin"}
    for index, of_98 in enumerate(WFLW_98_FOR_IBUG_68):
        name = IBUG_68.names[index]
        if name.split("_")[0] in named or name.endswith(("eye_outer", "eye_inner", "brow_outer")):
            assert WFLW_98.names[of_98] == name


def test_well_known_numbers_have_the_names_one_expects():
    known = {30: "nose_tip", 36: "right_eye_outer", 39: "right_eye_inner", 42: "left_eye_inner", 8: "chin"}
    known |= {45: "left_eye_outer", 48: "mouth_right", 54: "mouth_left", 62: "upper_lip_inner_middle"}
    known |= {0: "jaw_right_1", 16: "jaw_left_1", 21: "right_eyebrow_inner", 33: "nose_base"}
    assert {index: IBUG_68.names[index] for index in known} == known
    assert all(IBUG_68.index(name) == index for index, name in known.items())


@EVERY
def test_regions_join_the_parts_of_a_face(layout):
    assert sorted(layout.regions) == ["eyebrows", "eyes", "mouth", "nose"]
    assert set(layout.group("eyes")) >= {*layout.group("left_eye"), *layout.group("right_eye")}
    mouth = {i for name, part in layout.groups.items() if "lips" in name for i in part}
    assert set(layout.group("mouth")) == mouth and len(layout.group("mouth")) == len(mouth)
    assert layout.nose_tip in layout.group("nose")
    chosen = [index for name in layout.regions for index in layout.group(name)]
    assert len(chosen) == len(set(chosen)) and layout.chin not in chosen


def test_a_name_that_is_none_is_refused_with_those_that_are_near():
    with pytest.raises(
        InputError, match=r"point: expected a name of layout ibug-68, such as right_eye_outer"
    ):
        IBUG_68.index("right_eye_outr")
    for wrong in ("zzz", 30, None, ["chin"]):
        with pytest.raises(InputError, match="point: expected a name"):
            IBUG_68.index(wrong)
    for wrong in ("ear", 3, None, ["nose"]):
        with pytest.raises(
            InputError, match="group: expected one of jaw, .*, eyes, eyebrows, nose, mouth, got"
        ):
            IBUG_68.group(wrong)


def test_the_68_landmarks_are_68_of_the_98_part_by_part():
    assert len(set(WFLW_98_FOR_IBUG_68)) == 68
    for name, indices in IBUG_68.groups.items():
        assert {WFLW_98_FOR_IBUG_68[index] for index in indices} <= set(WFLW_98.groups[name])
    mirrored = [WFLW_98_FOR_IBUG_68[index] for index in IBUG_68.mirror]
    assert mirrored == [WFLW_98.mirror[index] for index in WFLW_98_FOR_IBUG_68]
    for mark in ("eye_corners", "mouth_corners"):
        assert tuple(WFLW_98_FOR_IBUG_68[i] for i in getattr(IBUG_68, mark)) == getattr(WFLW_98, mark)


def test_landmarks_are_converted_face_by_face():
    landmarks = np.arange(2 * 98 * 2).reshape(2, 98, 2)
    converted = wflw_to_ibug(landmarks)
    assert converted.shape == (2, 68, 2) and converted.dtype == np.float32
    np.testing.assert_array_equal(converted[1, 36], landmarks[1, 60])
    with pytest.raises(InputError, match=r"expected shape \(..., 98, 2\), got \(68, 2\)"):
        wflw_to_ibug(converted[0])
    for wrong in ("points", object(), [[1], [1, 2]], 1j):
        with pytest.raises(InputError, match=r"expected shape \(..., 98, 2\), got"):
            wflw_to_ibug(wrong)


def test_an_unknown_layout_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="one of ibug-68, wflw-98, cofw-29, aflw-19, got 'ibug-69'"):
        get_layout("ibug-69")
