"""face-alignment's calls, answered: changing the import line is enough."""

import inspect
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from face_landmarks import FaceAligner, compat, read_image
from face_landmarks.compat.face_alignment import _pixels
from face_landmarks.errors import InputError

ASTRONAUT = Path(__file__).parents[1] / "examples" / "data" / "astronaut.jpg"

# Public signatures of face-alignment 1.5.0: parameter -> default.
REQUIRED = inspect.Parameter.empty
RETURNS = {"return_bboxes": False, "return_landmark_score": False}
SIGNATURES = {
    "__init__": {
        "landmarks_type": REQUIRED,
        "network_size": 4,
        "device": "cuda",
        "dtype": torch.float32,
        "flip_input": True,
        "face_detector": "sfd",
        "face_detector_kwargs": None,
        "verbose": False,
        "compile": True,
        "max_batch_size": 1,
    },
    "get_landmarks": {"image_or_path": REQUIRED, "detected_faces": None, **RETURNS},
    "get_landmarks_from_image": {"image_or_path": REQUIRED, "detected_faces": None, **RETURNS},
    "get_landmarks_from_batch": {"image_batch": REQUIRED, "detected_faces": None, **RETURNS},
    "get_landmarks_from_directory": {
        "path": REQUIRED,
        "extensions": [".jpg", ".png"],
        "recursive": True,
        "show_progress_bar": True,
        **RETURNS,
    },
}


@pytest.fixture(scope="module")
def fa():
    return compat.FaceAlignment(compat.LandmarksType.TWO_D, device="cpu", flip_input=False)


@pytest.fixture(scope="module")
def photo():
    return read_image(ASTRONAUT)


@pytest.fixture(scope="module")
def expected(photo):
    return FaceAligner(device="cpu").align(photo)


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signatures_are_those_of_face_alignment(name):
    parameters = list(inspect.signature(getattr(compat.FaceAlignment, name)).parameters.values())[1:]
    positional = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    ours = {p.name: list(p.default) if isinstance(p.default, tuple) else p.default for p in positional}
    assert ours == SIGNATURES[name] and list(ours) == list(SIGNATURES[name])


def test_the_enums_have_old_and_new_names():
    kinds = compat.LandmarksType
    assert (kinds.TWO_D, kinds.TWO_HALF_D, kinds.THREE_D) == (1, 2, 3)
    assert (kinds._2D, kinds._2halfD, kinds._3D) == (kinds.TWO_D, kinds.TWO_HALF_D, kinds.THREE_D)
    assert int(compat.NetworkSize.LARGE) == 4


@pytest.mark.parametrize("kind", [compat.LandmarksType.TWO_HALF_D, compat.LandmarksType._3D, 3])
def test_three_dimensions_are_refused_clearly(kind):
    with pytest.raises(InputError, match="2D landmarks only"):
        compat.FaceAlignment(kind, device="cpu")


@pytest.mark.parametrize(
    "options",
    [
        {"network_size": 1},
        {"face_detector": "folder"},
        {"face_detector": None},
        {"face_detector": 5},
        {"face_detector_kwargs": {"filter_threshold": 0.8}},
    ],
    ids=str,
)
def test_what_is_not_offered_is_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        compat.FaceAlignment(compat.LandmarksType.TWO_D, device="cpu", **options)


def test_a_photo_gives_a_list_of_arrays(fa, photo, expected):
    for image in (str(ASTRONAUT), ASTRONAUT, photo, torch.from_numpy(photo)):
        (landmarks,) = fa.get_landmarks(image)
        assert type(landmarks) is np.ndarray and landmarks.dtype == np.float32
        np.testing.assert_allclose(landmarks, expected.landmarks[0], atol=1e-3)


def test_boxes_and_scores_come_as_a_triple(fa, photo, expected):
    landmarks, scores, boxes = fa.get_landmarks_from_image(photo, None, True, True)
    assert len(landmarks) == len(scores) == len(boxes) == 1
    assert scores[0].shape == (68,) and boxes[0].shape == (5,)
    np.testing.assert_allclose(boxes[0][:4], expected.boxes[0], atol=1e-3)
    assert fa.get_landmarks_from_image(photo, return_bboxes=True)[1] is None
    assert fa.get_landmarks_from_image(photo, return_landmark_score=True)[2] is None


def test_boxes_may_be_given_with_or_without_a_score(fa, photo, expected):
    x0, y0, x1, y1 = expected.boxes[0].tolist()
    for boxes in ([[x0, y0, x1, y1]], [np.array([x0, y0, x1, y1, 0.9])], ((x0, y0, x1, y1),)):
        (landmarks,), _, given = fa.get_landmarks(photo, boxes, return_bboxes=True)
        np.testing.assert_allclose(landmarks, expected.landmarks[0], atol=1e-2)
        assert given is boxes


BOX = [178.0, 59.0, 267.0, 175.0]


@pytest.mark.parametrize(
    "boxes",
    [BOX, [*BOX, 0.9], np.array(BOX), torch.tensor(BOX), [BOX[:3]], [BOX[:3]] * 4, [None], ["boxx"], "box", 5,
     [[1, 2, [3], 4]], [[BOX]]],
    ids=str,
)  # fmt: skip
def test_boxes_of_another_shape_are_refused(fa, photo, boxes):
    with pytest.raises(InputError, match=r"detected_faces: expected a list of boxes \[x0, y0, x1, y1\]"):
        fa.get_landmarks(photo, boxes)
    with pytest.raises(InputError, match=r"detected_faces: expected a list of boxes \[x0, y0, x1, y1\]"):
        fa.get_landmarks_from_batch(photo.transpose(2, 0, 1)[None], [boxes])


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_boxes_may_be_tensors(fa, photo, kind):
    boxes = torch.tensor([BOX], dtype=kind, requires_grad=True)
    (found,), (expected,) = fa.get_landmarks(photo, boxes), fa.get_landmarks(photo, [BOX])
    np.testing.assert_allclose(found, expected, atol=0.5)


@pytest.mark.parametrize(
    "batch", [np.zeros((3, 60, 80)), np.zeros((60, 80, 3)), [np.zeros((60, 80, 3))], "photo.jpg", None, 7]
)
def test_a_batch_of_another_shape_is_refused(fa, batch):
    with pytest.raises(InputError, match=r"image_batch: expected (shape \(B, 3|images of shape \(3), H, W\)"):
        fa.get_landmarks_from_batch(batch)
    with pytest.raises(InputError, match="image_batch: expected"):
        fa.face_detector.detect_from_batch(batch)


def test_no_face_is_none(fa, photo):
    black = np.zeros_like(photo)
    assert fa.get_landmarks(black) is None and fa.get_landmarks(photo, []) is None
    assert fa.get_landmarks_from_image(black, return_landmark_score=True) == (None, None, None)


def test_a_batch_gives_one_array_per_image(fa, photo, expected):
    batch = torch.Tensor(np.stack([photo, photo, np.zeros_like(photo)]).transpose(0, 3, 1, 2))
    landmarks, scores, boxes = fa.get_landmarks_from_batch(batch, None, True, True)
    assert [np.shape(points) for points in landmarks] == [(68, 2), (68, 2), (0,)]
    np.testing.assert_allclose(landmarks[1], expected.landmarks[0], atol=1e-2)
    assert scores[0][0].shape == (68,) and scores[2] is None and [len(b) for b in boxes] == [1, 1, 0]
    two = fa.get_landmarks_from_batch(batch[:1], [[expected.boxes[0]] * 2])
    assert two[0].shape == (136, 2)
    assert fa.get_landmarks_from_batch(batch[:0]) is None


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_that_numpy_does_not_take_are_converted(fa, photo, expected, kind):
    picture = torch.from_numpy(photo.copy()).to(kind).requires_grad_()
    (landmarks,) = fa.get_landmarks(picture)
    np.testing.assert_allclose(landmarks, expected.landmarks[0], atol=0.5)
    (whole,) = fa.get_landmarks_from_batch(picture.permute(2, 0, 1)[None])
    np.testing.assert_allclose(whole, landmarks, atol=1e-3)
    assert len(fa.face_detector.detect_from_batch(picture.permute(2, 0, 1)[None])[0]) == 1


def test_a_directory_gives_a_dictionary_of_paths(fa, tmp_path):
    (tmp_path / "deep").mkdir()
    faces, none = tmp_path / "deep" / "face.jpg", tmp_path / "grass.png"
    faces.write_bytes(ASTRONAUT.read_bytes())
    cv2.imwrite(str(none), np.full((60, 80, 3), 90, np.uint8))
    found = fa.get_landmarks_from_directory(str(tmp_path), show_progress_bar=False)
    assert set(found) == {str(faces), str(none)}
    assert found[str(none)] is None and found[str(faces)][0].shape == (68, 2)
    flat = fa.get_landmarks_from_directory(tmp_path, [".png"], False, False, return_bboxes=True)
    assert flat == {str(none): (None, None, None)}


def test_floats_count_to_255_or_to_1(fa, photo, expected):
    for image in (photo.astype(np.float32), photo / 255):
        np.testing.assert_allclose(fa.get_landmarks(image)[0], expected.landmarks[0], atol=0.01)
    np.testing.assert_array_equal(_pixels(photo.astype(np.float32)), photo)
    with pytest.raises(InputError, match="floats"):
        fa.get_landmarks(np.full((60, 80, 3), np.nan))


def test_the_detector_is_asked_directly(fa, photo):
    (box,) = fa.face_detector.detect_from_image(str(ASTRONAUT))
    assert box.shape == (5,) and box[4] > 0.9
    assert [len(b) for b in fa.face_detector.detect_from_batch(photo.transpose(2, 0, 1)[None])] == [1]


def test_an_own_detector_is_used(photo, expected):
    fa = compat.FaceAlignment(compat.LandmarksType._2D, device="cpu", face_detector=lambda _: expected.boxes)
    assert fa.get_landmarks(photo)[0].shape == (68, 2)


# What face-alignment's own tests ask (test/facealignment_test.py and test/test_detectors.py there), in two
# dimensions: the same calls, and what kind of thing comes back.


@pytest.fixture(scope="module")
def by_default():
    return compat.FaceAlignment(compat.LandmarksType.TWO_D, device="cpu")


def test_their_call_with_a_path_gives_one_array_of_points_per_face(by_default, expected):
    preds = by_default.get_landmarks(str(ASTRONAUT))
    assert isinstance(preds, list) and len(preds) == len(expected)
    assert preds[0].shape == (68, 2) and np.abs(preds[0] - expected.landmarks[0]).max() < 5  # flipped, too


def test_their_batch_of_floats_with_an_image_of_nobody_ends_with_nothing(by_default, photo):
    batch = np.stack([photo, photo, np.zeros_like(photo)])
    preds = by_default.get_landmarks_from_batch(torch.Tensor(batch.transpose(0, 3, 1, 2)))
    assert isinstance(preds, list) and len(preds) == 3
    np.testing.assert_allclose(preds[0], preds[1], atol=1e-3)
    assert preds[0].shape == (68, 2) and np.allclose(preds[2], [])


def test_their_directory_of_a_face_and_of_grass_gives_a_list_and_none(by_default, tmp_path):
    face, grass = tmp_path / "face.jpg", tmp_path / "grass.jpg"
    face.write_bytes(ASTRONAUT.read_bytes())
    cv2.imwrite(str(grass), np.random.default_rng(0).integers(60, 110, (90, 120, 3), np.uint8))
    preds = by_default.get_landmarks_from_directory(f"{tmp_path}/")
    assert isinstance(preds[str(face)], list) and preds[str(face)][0].shape == (68, 2)
    assert preds[str(grass)] is None


def test_their_boxes_may_come_from_their_detector_and_back(by_default, photo):
    boxes = by_default.face_detector.detect_from_image(photo.copy())
    preds, scores, given = by_default.get_landmarks_from_image(photo, boxes, True, True)
    assert len(preds) == len(scores) == len(boxes) == 1 and given is boxes
    np.testing.assert_allclose(preds[0], by_default.get_landmarks(torch.from_numpy(photo))[0], atol=1e-3)


@pytest.mark.parametrize("name", ["sfd", "blazeface", "dlib", "yunet", "retinaface", "scrfd"])
def test_their_detectors_have_their_names_and_boxes_of_five_numbers(name, photo):
    fa = compat.FaceAlignment(compat.LandmarksType.TWO_D, device="cpu", face_detector=name)
    small = photo[:256, 64:320]
    ((x0, y0, x1, y1, score),) = fa.face_detector.detect_from_image(small)
    assert x0 < x1 and y0 < y1 and 0 < score <= 1
    assert len(fa.face_detector.detect_from_image(np.full((60, 80, 3), 90, np.uint8))) == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"landmarks_type": np.zeros(3)}, "landmarks_type"),
        ({"landmarks_type": "2D"}, "landmarks_type"),
        ({"network_size": np.zeros(3)}, "network_size"),
        ({"face_detector_kwargs": np.zeros((2, 2))}, "face_detector_kwargs"),
        ({"face_detector_kwargs": 5}, "face_detector_kwargs"),
    ],
    ids=str,
)
def test_arguments_of_another_kind_are_refused(options, word):
    with pytest.raises(InputError, match=f"{word}: expected"):
        compat.FaceAlignment(**({"landmarks_type": compat.LandmarksType.TWO_D, "device": "cpu"} | options))


@pytest.mark.parametrize("path", [None, 5, [], b"folder"], ids=repr)
def test_what_is_no_folder_is_refused(path, fa):
    with pytest.raises(InputError, match="path: expected a path"):
        fa.get_landmarks_from_directory(path)


@pytest.mark.parametrize("extensions", [None, 5, ".jpg", [None], [], np.array("a")], ids=repr)
def test_extensions_are_texts(extensions, tmp_path, fa):
    with pytest.raises(InputError, match="extensions: expected texts"):
        fa.get_landmarks_from_directory(tmp_path, extensions)


@pytest.mark.parametrize("flag", [None, np.zeros(2), 1], ids=repr)
def test_a_flag_is_true_or_false(flag, fa):
    for call in (fa.get_landmarks, fa.get_landmarks_from_batch):
        with pytest.raises(InputError, match="return_bboxes: expected True or False"):
            call(np.zeros((1, 3, 64, 64), np.uint8), return_bboxes=flag)


def test_a_batch_without_axes_and_boxes_without_images_are_refused(fa):
    with pytest.raises(InputError, match="image_batch: expected shape"):
        fa.get_landmarks_from_batch(np.array("s"))
    with pytest.raises(InputError, match="detected_faces: expected a list for each image"):
        fa.get_landmarks_from_batch(np.zeros((1, 3, 64, 64), np.uint8), detected_faces=5)
