"""Every argument of the public callables, given values of wrong types: each is one of our errors."""

from __future__ import annotations

import inspect
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import face_landmarks as fl
from face_landmarks.errors import FaceLandmarksError

IMAGE = np.zeros((48, 64, 3), np.uint8)
BOXES = [[5, 5, 40, 40]]


class Detector:
    """A detector that finds nothing."""

    def __call__(self, image: object) -> Any:
        return np.empty((0, 4))


# Values of every kind; no argument takes many of them.
VALUES: dict[str, Any] = {
    "None": None,
    "True": True,
    "0": 0,
    "-1": -1,
    "2.5": 2.5,
    "nan": math.nan,
    "inf": math.inf,
    "10**30": 10**30,
    "1j": 1j,
    "empty text": "",
    "text": "nonsense",
    "null byte": "a\0b",
    "bytes": b"x",
    "path": Path("/no/such/place"),
    "empty list": [],
    "list": [1],
    "tuple": (1, 2, 3),
    "dict": {"a": 1},
    "set": {1},
    "object": object(),
    "class": Detector,
    "function": lambda *_: None,
    "array": np.zeros((2, 3)),
    "photo": IMAGE,
    "words": np.array(["a"]),
    "tensor": torch.zeros(3),
    "float32": np.float32(2),
}
# What is right for an argument, though it looks odd.
NO_ROLLS, SOME_ROLLS = {"None"}, {"list"}
FLAG, TEXT = {"True"}, set[str]()
PICTURES = {"array", "photo"}
RIGHT: dict[str, dict[str, set[str]]] = {
    "MTCNN": {"device": {"None"}},
    "YuNet": {},
    "FaceAligner": {
        "detector": {"None", "function"},
        "device": {"None"},
        "dtype": {"None"},
        "flip": FLAG,
        "refine": FLAG,
        "search": FLAG,
        "sha256": {"None"},
    },
    "align": {"image": PICTURES, "boxes": {"empty list"}, "rolls": {"None", "list"}},
    "get_landmarks": {"image": PICTURES, "boxes": {"empty list"}, "rolls": {"None", "list"}},
    "heatmaps": {"image": PICTURES, "boxes": {"empty list"}, "rolls": {"None", "list"}},
    "align_batch": {"rolls": {"None"}, "on_error": {"function", "class"}},
    "export": {"decode": FLAG},
    "load_model": {"sha256": {"None"}},
    "read_image": {"source": PICTURES, "max_pixels": {"2.5", "inf", "10**30"}},
    "get_layout": {},
    "Faces": {"box_scores": {"list"}, "landmark_errors": {"None"}},
    "Faces.empty": {},
    "Faces.from_dict": {},
    "Faces.group": {},
    "Faces.to_json": {"lines": FLAG},
}


@pytest.fixture(scope="module")
def callables(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Each callable, with arguments that it takes."""
    aligner = fl.FaceAligner("shr-fan-68-fast", detector=None, device="cpu")
    faces = aligner.align(IMAGE, BOXES)
    place = tmp_path_factory.mktemp("export") / "x.onnx"
    arrays = ("landmarks", "landmark_scores", "boxes", "box_scores")
    given = {"image": IMAGE, "boxes": BOXES}
    return {
        "MTCNN": (fl.MTCNN, {"device": "cpu"}),
        "YuNet": (fl.YuNet, {}),
        "FaceAligner": (fl.FaceAligner, {"model": "shr-fan-68-fast", "detector": None, "device": "cpu"}),
        "align": (aligner.align, given),
        "get_landmarks": (aligner.get_landmarks, given),
        "heatmaps": (aligner.heatmaps, given),
        "align_batch": (aligner.align_batch, {"images": [IMAGE], "boxes": [BOXES]}),
        "export": (aligner.export, {"path": place}),
        "load_model": (fl.load_model, {"model": "shr-fan-68-fast"}),
        "read_image": (fl.read_image, {"source": IMAGE}),
        "get_layout": (fl.get_layout, {}),
        "Faces": (fl.Faces, {name: getattr(faces, name) for name in arrays}),
        "Faces.empty": (fl.Faces.empty, {}),
        "Faces.from_dict": (fl.Faces.from_dict, {}),
        "Faces.group": (faces.group, {}),
        "Faces.to_json": (faces.to_json, {}),
    }


@pytest.mark.parametrize("name", RIGHT)
def test_a_value_of_a_wrong_type_is_our_error_with_expected_and_got(
    callables: dict[str, tuple[Callable[..., Any], dict[str, Any]]], name: str
) -> None:
    call, given = callables[name]
    for argument in inspect.signature(call).parameters:
        right = RIGHT[name].get(argument, set())
        for label, value in VALUES.items():
            if label in right or (argument == "batch_size" and label == "1"):
                continue
            with pytest.raises(FaceLandmarksError) as caught:
                call(**{**given, argument: value})
                pytest.fail(f"{name}({argument}={label}) was accepted")
            words = str(caught.value)
            assert "expected" in words or "cannot" in words or "no such" in words, (
                f"{argument}={label}: {words}"
            )


@pytest.mark.parametrize("name", RIGHT)
def test_what_the_table_calls_right_is_right(
    callables: dict[str, tuple[Callable[..., Any], dict[str, Any]]], name: str
) -> None:
    call, given = callables[name]
    assert RIGHT[name].keys() <= inspect.signature(call).parameters.keys()
    for argument, labels in RIGHT[name].items():
        for label in labels:
            if (argument, label) != ("device", "None"):
                call(**{**given, argument: VALUES[label]})


@pytest.mark.parametrize(
    "index", ["a", None, 2.5, (0, 0), {"a": 1}, object(), np.array(["a"]), np.zeros(1), {0}]
)
def test_what_is_no_index_of_faces_is_an_index_error_with_our_words(index: Any) -> None:
    with pytest.raises(IndexError, match="Faces: expected an index or a mask of faces, got"):
        fl.Faces.empty()[index]


@pytest.mark.parametrize("factor", [0.99, 0.96, 0.29, 0.0, 1.0, -0.5, math.nan])
def test_a_pyramid_that_would_find_nothing_is_refused(factor: float) -> None:
    with pytest.raises(fl.InputError, match=r"factor: expected a ratio from 0\.3 to 0\.95, got"):
        fl.MTCNN(device="cpu", factor=factor)


def test_a_search_in_which_no_face_fits_is_refused() -> None:
    with pytest.raises(fl.InputError, match="max_size: expected at least min_face_size, 30, or no face fits"):
        fl.MTCNN(device="cpu", max_size=20)
    with pytest.raises(fl.InputError, match="min_face_size: expected at least 6 pixels, got 5"):
        fl.MTCNN(device="cpu", min_face_size=5)
    with pytest.raises(fl.InputError, match="max_size: expected a whole number, at least 32, got 31"):
        fl.YuNet(max_size=31)


def test_a_detector_keeps_its_settings_through_pickle() -> None:
    detector = fl.MTCNN(device="cpu", min_face_size=40, factor=0.5)
    assert repr(pickle.loads(pickle.dumps(detector))) == repr(detector)
    assert "min_face_size=40, " in repr(detector)


def test_a_detector_class_is_not_taken_for_a_detector() -> None:
    with pytest.raises(
        fl.InputError, match="detector: expected an object that can be called, got the class MTCNN"
    ):
        fl.FaceAligner(detector=fl.MTCNN)  # type: ignore[arg-type]
