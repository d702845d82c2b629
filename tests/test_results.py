"""One result type: every axis is always there, and no array can be changed behind its back."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from face_landmarks import FaceAligner, read_image
from face_landmarks.errors import InputError, MissingDependencyError
from face_landmarks.layouts import IBUG_68, Layout
from face_landmarks.models.confidence import expected_errors
from face_landmarks.results import FaceHeatmaps, Faces

ASTRONAUT = Path(__file__).parents[1] / "examples" / "data" / "astronaut.jpg"

N, K = 3, 68
ARRAYS = ("landmarks", "landmark_scores", "boxes", "box_scores", "landmark_errors")

TRIANGLE = Layout(
    name="triangle",
    names=("left", "right", "chin"),
    groups=MappingProxyType({"eyes": (1, 0), "chin": (2,)}),
    closed=frozenset(),
    mirror=(1, 0, 2),
    eye_corners=(0, 1),
    eyes=((0,), (1,)),
    nose_tip=2,
    mouth_corners=(0, 1),
    chin=2,
)


def some_arrays(faces: int = N) -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "landmarks": random.normal(size=(faces, K, 2)),
        "landmark_scores": random.random((faces, K)),
        "boxes": np.cumsum(random.random((faces, 4)), axis=1),
        "box_scores": random.random(faces),
        "landmark_errors": random.random((faces, K)),
    }


def some_faces(faces: int = N) -> Faces:
    return Faces(**some_arrays(faces))


def assert_same(one: Faces, other: Faces) -> None:
    assert one.layout is other.layout
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_arrays_are_float32_copies_that_cannot_be_written() -> None:
    arrays = some_arrays()
    arrays = {name: np.asfortranarray(array, np.float32) for name, array in arrays.items()}
    faces = Faces(**arrays)
    assert len(faces) == N and faces.layout is IBUG_68
    for name, given in arrays.items():
        array = getattr(faces, name)
        assert array.dtype == np.float32 and array.flags.c_contiguous
        np.testing.assert_array_equal(array, given)
        assert not np.shares_memory(array, given)
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        faces.boxes = arrays["boxes"]  # type: ignore[misc]


def test_no_face_keeps_every_other_axis() -> None:
    for nobody in (Faces.empty(), some_faces()[:0], some_faces()[[]], some_faces()[np.zeros(N, bool)]):
        assert len(nobody) == 0 and not nobody
        assert nobody.landmarks.shape == (0, K, 2)
        assert nobody.landmark_scores.shape == (0, K)
        assert nobody.boxes.shape == (0, 4)
        assert nobody.box_scores.shape == (0,)
        assert list(nobody) == []
        assert nobody.group("jaw").shape == (0, 17, 2)


def test_other_layouts_have_other_landmarks() -> None:
    assert Faces.empty(TRIANGLE).landmarks.shape == (0, 3, 2)
    faces = Faces(np.arange(6).reshape(1, 3, 2), np.ones((1, 3)), [[0, 0, 1, 1]], [1], TRIANGLE)  # type: ignore[arg-type]
    np.testing.assert_array_equal(faces.group("eyes"), [[[2, 3], [0, 1]]])
    np.testing.assert_array_equal(faces.group("chin"), [[[4, 5]]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"landmarks": np.zeros((N, 67, 2))},
            r"landmarks: expected shape \(3, 68, 2\) for 3 faces .*ibug-68",
        ),
        ({"landmarks": np.zeros((N + 1, K, 2))}, r"landmark_scores: expected shape \(4, 68\)"),
        ({"landmarks": np.float32(1)}, r"landmarks: expected shape \(0, 68, 2\).*got \(\)"),
        ({"landmark_scores": np.zeros((N, K, 1))}, r"landmark_scores: .*got \(3, 68, 1\)"),
        ({"boxes": np.zeros(4)}, r"boxes: expected shape \(3, 4\) for 3 faces.*got \(4,\)"),
        ({"box_scores": np.zeros(N - 1)}, r"box_scores: expected shape \(3,\).*got \(2,\)"),
        ({"boxes": [[1, 2], [3]]}, "boxes: expected an array, got list"),
        ({"boxes": None}, "boxes: expected numbers, got dtype object"),
        ({"box_scores": ["a", "b", "c"]}, "box_scores: expected numbers, got dtype <U1"),
        ({"box_scores": [1, np.nan, np.inf]}, r"box_scores: expected finite values, got nan at \(1,\)"),
        ({"landmarks": np.full((N, K, 2), 1e39)}, r"landmarks: .*got inf at \(0, 0, 0\)"),
        ({"layout": TRIANGLE}, r"expected shape \(3, 3, 2\) .*triangle, got \(3, 68, 2\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"Faces.{message}" if "layout" not in change else message):
        Faces(**{**some_arrays(), **change})


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (-1, [2]),
        (np.int64(1), [1]),
        (slice(None), [0, 1, 2]),
        (slice(None, None, -2), [2, 0]),
        ([2, 0, 0], [2, 0, 0]),
        (np.array([1, -1]), [1, 2]),
        (np.array([True, False, True]), [0, 2]),
        ([False, True, False], [1]),
        (np.argsort([3, 1, 2]), [1, 2, 0]),
        (..., [0, 1, 2]),
    ],
)
def test_every_index_gives_faces(index: object, rows: list[int]) -> None:
    arrays = some_arrays()
    chosen = Faces(**arrays)[index]  # type: ignore[index]
    assert isinstance(chosen, Faces)
    assert_same(chosen, Faces(**{name: array[rows] for name, array in arrays.items()}))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("kept", [True, False])
def test_a_mask_may_be_a_tensor(count: int, kept: bool) -> None:
    faces = some_faces()[:count]
    mask = torch.full((count,), kept)
    assert_same(faces[mask], faces if kept else faces[:0])  # type: ignore[index]


@pytest.mark.parametrize("index", [3, -4, (0, 1), None, True, [[0, 1]], [True, False], 1.0, "boxes"])
def test_other_indices_are_refused(index: object) -> None:
    with pytest.raises(IndexError):
        some_faces()[index]  # type: ignore[index]


def test_iterating_gives_each_face_in_turn() -> None:
    faces = some_faces()
    assert [len(face) for face in faces] == [1] * N
    assert_same(Faces.concatenate(faces), faces)


def test_concatenating_keeps_the_order() -> None:
    faces = some_faces()
    assert_same(Faces.concatenate([faces[1:], Faces.empty(), faces[0]]), faces[[1, 2, 0]])
    assert_same(Faces.concatenate(part for part in [Faces.empty()]), Faces.empty())


def test_only_results_of_one_layout_are_concatenated() -> None:
    with pytest.raises(InputError, match="one layout, got nothing"):
        Faces.concatenate([])
    with pytest.raises(InputError, match="one layout, got ibug-68, triangle"):
        Faces.concatenate([some_faces(), Faces.empty(TRIANGLE)])


def test_what_is_no_sequence_of_results_is_not_concatenated() -> None:
    for parts in (None, 5, some_faces):
        with pytest.raises(InputError, match="Faces.concatenate: expected results, got"):
            Faces.concatenate(parts)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="faces: expected Faces, as FaceAligner.align returns them, got"):
        Faces.concatenate([None])  # type: ignore[list-item]


def test_a_group_is_a_facial_part_of_every_face() -> None:
    faces = some_faces()
    np.testing.assert_array_equal(faces.group("left_eye"), faces.landmarks[:, 42:48])
    with pytest.raises(InputError, match=r"expected one of jaw, .*, got 'ear'"):
        faces.group("ear")
    with pytest.raises(InputError, match="expected one of jaw"):
        faces.group(["jaw"])  # type: ignore[arg-type]


def test_a_dictionary_goes_through_json_and_back() -> None:
    faces = some_faces()
    data = json.loads(json.dumps(faces.to_dict()))
    assert list(data) == ["layout", *ARRAYS] and data.pop("layout") == "ibug-68"
    assert_same(Faces(**data), faces)
    assert json.loads(json.dumps(Faces.empty().to_dict())) == {
        "layout": "ibug-68",
        **{name: [] for name in ARRAYS},
    }


def test_copies_are_equal_and_read_only() -> None:
    faces = some_faces()
    for twin in (pickle.loads(pickle.dumps(faces)), copy.deepcopy(faces)):
        assert_same(twin, faces)
        assert not twin.landmarks.flags.writeable


def test_chosen_faces_are_copies_that_cannot_be_written() -> None:
    faces = some_faces()
    for chosen in (faces[1], faces[1:], faces[[0, 1]], faces[np.arange(N) > 0], next(iter(faces))):
        for name in ARRAYS:
            array = getattr(chosen, name)
            assert array.dtype == np.float32 and not array.flags.writeable
            assert not np.shares_memory(array, getattr(faces, name))


def test_results_with_equal_values_are_equal() -> None:
    faces, twin = some_faces(), some_faces()
    assert faces == twin and hash(faces) == hash(twin) and len({faces, twin}) == 1
    for name in ARRAYS:
        changed = getattr(faces, name).copy()
        changed.flat[-1] += 1
        assert dataclasses.replace(faces, **{name: changed}) != faces, name
    assert faces != faces[:2] and faces != "faces"
    assert Faces.empty() == Faces.empty() != Faces.empty(TRIANGLE)
    assert Faces.empty(TRIANGLE) != Faces.empty(dataclasses.replace(TRIANGLE, name="corners"))


def test_unknown_errors_and_negative_zeros_are_equal() -> None:
    arrays = some_arrays()
    del arrays["landmark_errors"]
    arrays["landmarks"][0, 0] = 0
    faces = Faces(**arrays)
    arrays["landmarks"][0, 0] = -0.0
    twin = Faces(**arrays)
    assert faces == twin and hash(faces) == hash(twin)
    assert faces != dataclasses.replace(faces, landmark_errors=np.ones((N, K)))


def test_the_repr_tells_how_many_where_and_how_certain() -> None:
    arrays = some_arrays(1) | {"boxes": [[10, 20, 110, 140.4]], "box_scores": [0.987]}
    arrays["landmark_scores"] = np.linspace(0.5, 0.9, K)[np.newaxis]
    arrays["landmark_errors"] = np.linspace(1, 2, K)[np.newaxis]
    face = Faces(**arrays)
    shown = "100 x 120 at (10, 20), score 0.70, expected error 1.5 px"
    assert repr(face) == f"<Faces: 1 face, ibug-68; {shown}>"
    assert repr(Faces.empty()) == "<Faces: 0 faces, ibug-68>"
    assert repr(Faces.concatenate([face] * 3)) == f"<Faces: 3 faces, ibug-68; {shown}; {shown}; {shown}>"
    assert repr(Faces.concatenate([face] * 9)) == f"<Faces: 9 faces, ibug-68; {shown}; {shown}; {shown}; ...>"
    unknown = dataclasses.replace(face, landmark_errors=np.full((1, K), np.nan))
    assert repr(unknown) == "<Faces: 1 face, ibug-68; 100 x 120 at (10, 20), score 0.70>"


def test_heatmaps_have_a_short_repr_and_are_equal_by_value() -> None:
    def some_heatmaps(value: float = 0) -> FaceHeatmaps:
        return FaceHeatmaps(
            np.zeros((2, 12, 12, 3), np.uint8),
            np.full((2, 5, 3, 4), value, np.float32),
            np.zeros((2, 5, 2), np.float32),
            np.eye(3),
            np.stack([np.eye(3)] * 2),
        )

    assert repr(some_heatmaps()) == "<FaceHeatmaps: 2 faces, 5 heatmaps of 3 x 4, crops of 12 x 12>"
    assert some_heatmaps() == some_heatmaps() != some_heatmaps(1)
    assert hash(some_heatmaps()) == hash(some_heatmaps()) and some_heatmaps() != Faces.empty()


def test_numbers_in_json_are_short_and_read_back_exactly() -> None:
    values = np.float32([0.1, 1e-12, 123.456, 1e30, -3.5, 0, 4095.9998, 1 / 3])
    arrays = some_arrays()
    arrays["landmark_scores"][0, : len(values)] = values
    faces = Faces(**arrays)
    written = faces.to_dict()
    assert written["landmark_scores"][0][0] == 0.1 and written["landmark_scores"][0][2] == 123.456
    for name in ARRAYS:
        np.testing.assert_array_equal(np.float32(written[name]), getattr(faces, name))
        shortest = sum(len(str(value)) for value in getattr(faces, name).ravel())
        assert len(json.dumps(np.ravel(written[name]).tolist())) < 1.1 * shortest + 2 * faces.landmarks.size


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_can_have_a_line_for_each_face(count: int) -> None:
    faces = some_faces()[:count]
    text = faces.to_json(lines=True)
    assert Faces.from_dict(json.loads(text)) == faces
    assert len(text.splitlines()) == 3 + len(ARRAYS) * (count + 2 if count else 1)
    assert "\n" not in faces.to_json()


@pytest.mark.parametrize("count", [0, 2])
def test_json_gives_the_same_faces_back(count: int) -> None:
    faces = some_faces()[:count]
    assert_same(Faces.from_dict(json.loads(faces.to_json())), faces)
    with pytest.raises(InputError, match="box_scores"):
        Faces.from_dict({name: value for name, value in faces.to_dict().items() if name != "box_scores"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "ibug-86"}, "expected one of ibug-68"),
        ({"layout": ["ibug-68"]}, "expected one of ibug-68"),
        ({"boxes": 3}, "boxes: expected shape"),
        ({"boxes": []}, "boxes: expected shape"),
        ({"landmarks": [[1, 2], [3]]}, "landmarks: expected an array"),
        ({"landmark_scores": "high"}, "landmark_scores: expected numbers"),
        ({"landmark_errors": [["low"]]}, "landmark_errors: expected numbers"),
        ({"landmark_errors": [[None, [1]]]}, "landmark_errors: expected an array"),
        ({"box_scores": [None, None]}, "box_scores: expected numbers"),
    ],
)
def test_a_dict_of_other_things_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Faces.from_dict({**some_faces().to_dict(), **change})
    with pytest.raises(InputError, match="expected a dict, got list"):
        Faces.from_dict([])  # type: ignore[arg-type]


def test_errors_that_are_not_known_are_nan_and_null_in_json() -> None:
    arrays = some_arrays()
    del arrays["landmark_errors"]
    faces = Faces(**arrays)
    assert faces.landmark_errors.shape == (N, K) and np.isnan(faces.landmark_errors).all()
    written = json.loads(faces.to_json())
    assert written["landmark_errors"] == [[None] * K] * N
    assert_same(Faces.from_dict(written), faces)
    del written["landmark_errors"]  # as files from elsewhere may have it
    assert_same(Faces.from_dict(written), faces)


def test_errors_may_be_unknown_but_not_infinite() -> None:
    arrays = some_arrays()
    arrays["landmark_errors"][1, 2] = np.inf
    with pytest.raises(InputError, match="landmark_errors: expected finite values, got inf"):
        Faces(**arrays)


@pytest.mark.parametrize("scale", [1, 3])
def test_expected_errors_are_in_pixels_of_the_photo(scale: int) -> None:
    aligner = FaceAligner("shr-fan-68-fast", detector=None, device="cpu")
    photo = cv2.resize(read_image(ASTRONAUT), None, fx=scale, fy=scale)
    box = scale * (np.array([178.0, 59, 267, 175]) + 0.5) - 0.5
    faces = aligner.align(photo, [box])
    side = aligner.card.crop_scale * scale * (89 + 116)  # of the crop's footprint
    assert faces.landmark_scores.mean() > 0.8  # so the face was cropped once, by its box
    in_crop = expected_errors(torch.tensor(faces.landmark_scores), aligner.card.calibration)
    np.testing.assert_allclose(faces.landmark_errors, in_crop * side / aligner.crop_size, rtol=1e-4)


def test_a_data_frame_has_a_row_per_landmark() -> None:
    pytest.importorskip("pandas")
    faces = some_faces()
    table = faces.to_pandas()
    assert list(table) == ["face", "landmark", "name", "x", "y", "score", "error"]
    assert len(table) == 68 * len(faces) and table["name"][30] == "nose_tip"
    row = table[(table.face == 1) & (table.landmark == 5)].iloc[0]
    assert (row.x, row.y) == tuple(faces.landmarks[1, 5])
    assert len(Faces.empty().to_pandas()) == 0


def test_supervision_gets_key_points_and_detections() -> None:
    pytest.importorskip("supervision")
    faces = some_faces()
    points, detections = faces.to_supervision()
    np.testing.assert_array_equal(points.xy, faces.landmarks)
    np.testing.assert_array_equal(detections.xyxy, faces.boxes)


@pytest.mark.parametrize("method", ["to_pandas", "to_supervision"])
def test_without_the_package_the_extra_is_named(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "supervision"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match="shr-fan"):
        getattr(some_faces(), method)()


def test_a_single_face_has_no_axis_of_faces() -> None:
    faces = some_faces()
    face = faces.face(1)
    assert face.landmarks.shape == (K, 2) and face.landmark_scores.shape == face.landmark_errors.shape == (K,)
    np.testing.assert_array_equal(face.landmarks, faces.landmarks[1])
    np.testing.assert_array_equal(face.landmark_scores, faces.landmark_scores[1])
    np.testing.assert_array_equal(face.landmark_errors, faces.landmark_errors[1])
    np.testing.assert_array_equal(face.box, faces.boxes[1])
    assert face.box_score == faces.box_scores[1] and isinstance(face.box_score, float)
    assert face.layout is faces.layout
    assert not face.landmarks.flags.writeable
    np.testing.assert_array_equal(face.point("nose_tip"), faces.landmarks[1, 30])
    np.testing.assert_array_equal(face.group("left_eye"), faces.landmarks[1, 42:48])
    np.testing.assert_array_equal(face.group("mouth"), faces.landmarks[1, 48:])
    assert face == faces.face(-2) and face != faces.face(0) and face != "a face"
    assert hash(face) == hash(faces.face(-2))
    assert faces.to_list() == [faces.face(number) for number in range(N)] and faces.face() == faces.face(0)
    assert some_faces(0).to_list() == []


def test_a_single_face_is_shown_in_a_line() -> None:
    boxes = [[10, 20, 110, 140]]
    faces = Faces(
        np.ones((1, K, 2)), np.full((1, K), 0.75), boxes, [1], landmark_errors=np.full((1, K), 1.26)
    )
    assert repr(faces.face()) == ("<Face: ibug-68, 100 x 120 at (10, 20), score 0.75, expected error 1.3 px>")
    unknown = Faces(np.ones((1, K, 2)), np.full((1, K), 0.75), boxes, [1])
    assert repr(unknown.face()) == "<Face: ibug-68, 100 x 120 at (10, 20), score 0.75>"


@pytest.mark.parametrize("number", [3, -4, 2**70])
def test_a_face_that_is_not_there_is_out_of_range(number: int) -> None:
    with pytest.raises(IndexError, match=f"expected one of 3 faces, from 0, got {number}"):
        some_faces().face(number)


@pytest.mark.parametrize("number", [None, "0", 0.0, [0]])
def test_the_number_of_a_face_is_whole(number: Any) -> None:
    with pytest.raises(InputError, match="index: expected the number of a face"):
        some_faces().face(number)


def test_landmarks_have_names() -> None:
    faces = some_faces()
    np.testing.assert_array_equal(faces.point("right_eye_outer"), faces.landmarks[:, 36])
    np.testing.assert_array_equal(faces.group("eyes"), faces.landmarks[:, 36:48])
    with pytest.raises(InputError, match="such as right_eye_outer"):
        faces.point("right_eye_outter")


def test_a_table_without_faces_has_the_types_of_one_with_faces() -> None:
    pytest.importorskip("pandas")
    none, some = Faces.empty().to_pandas(), some_faces().to_pandas()
    assert len(none) == 0 and list(none.dtypes.items()) == list(some.dtypes.items())
