"""The error tree: what is drawn is what is there, and a builtin catches each."""

import builtins
import inspect
import pickle
import re

import pytest

from face_landmarks import FaceLandmarksError, errors
from face_landmarks.errors import UnknownModelError

CLASSES = {name: c for name, c in vars(errors).items() if inspect.isclass(c)}
DRAWN = re.findall(r"^(?:[│├└─ ]*)(\w+Error)(?: \((\w+)\))?", errors.__doc__, flags=re.MULTILINE)


def test_every_error_is_drawn_once_and_public():
    import face_landmarks

    assert sorted(name for name, _ in DRAWN) == sorted(CLASSES)
    assert set(CLASSES) <= set(face_landmarks.__all__)


@pytest.mark.parametrize(("name", "builtin"), DRAWN)
def test_an_error_is_ours_and_the_builtin_beside_its_name(name, builtin):
    assert issubclass(CLASSES[name], FaceLandmarksError)
    if builtin:
        assert issubclass(CLASSES[name], getattr(builtins, builtin))


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_travels_between_processes_with_its_message(name):
    error = pickle.loads(pickle.dumps(CLASSES[name]("x: expected 1, got 2")))
    assert type(error) is CLASSES[name] and str(error) == "x: expected 1, got 2"


def test_an_unknown_model_reads_as_a_sentence_not_as_a_key():
    assert str(UnknownModelError("model: expected a, got b")) == "model: expected a, got b"
