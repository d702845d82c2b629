"""Which crops the search looks at, and what the check makes of its answers, without any network."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from drawn_faces import mean_shape

from face_landmarks.layouts import AFLW_19, IBUG_68
from face_landmarks.locating.locate import Located
from face_landmarks.locating.search import locate_with_search

BOXES = np.array([[10, 20, 50, 100], [200, 0, 320, 60]], np.float32)
ROLLS = np.array([0.1, -0.2], np.float32)
PHOTOS = [np.full((4, 6, 3), shade, np.uint8) for shade in (1, 2)]


class Passes:
    """Stands for a Locator: remembers what it is given, and answers with faces that fill their boxes.

    Each pass has its mean score; in the first, that of faces that are not doubtful is 0.9.
    """

    def __init__(self, layout, scores, doubtful=(True, True)):
        self.layout, self.card = layout, SimpleNamespace(doubtful_score=0.5)
        self.scores, self.doubtful = scores, np.array(doubtful)
        self.seen, self.mirrored = [], []

    def locate(self, photos, boxes, rolls, *, mirrored=False):
        count, index = len(boxes), len(self.seen)
        self.seen.append(([int(photo[0, 0, 0]) for photo in photos], boxes.copy(), rolls.copy()))
        self.mirrored.append(mirrored)
        corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
        scores = np.full((count, len(self.layout)), self.scores[index], np.float32)
        if index == 0:
            scores[~self.doubtful] = 0.9
        landmarks = (corner + size * mean_shape(self.layout)).astype(np.float32)
        return Located(landmarks, scores, np.full_like(scores, 2))


def search(passes):
    return locate_with_search(passes, PHOTOS, BOXES, ROLLS, refine=False, search=True)


def test_a_doubtful_face_is_searched_lying_to_both_sides_and_upside_down():
    passes = Passes(AFLW_19, [0.4, 0.1, 0.1, 0.1])  # a layout that tells no box: nothing is located upright
    search(passes)
    lying = np.array([[-10, 40, 70, 80], [230, -30, 290, 90]])  # about the centres (30, 60), (260, 30)
    quarter = math.pi / 2
    expected = [
        (BOXES, ROLLS), (lying, ROLLS + quarter), (BOXES, ROLLS + 2 * quarter), (lying, ROLLS - quarter)
    ]  # fmt: skip
    assert len(passes.seen) == 4
    for (photos, boxes, rolls), (right_boxes, right_rolls) in zip(passes.seen, expected, strict=True):
        assert photos == [1, 2]
        np.testing.assert_allclose(boxes, right_boxes, rtol=1e-6)
        np.testing.assert_allclose(rolls, right_rolls, rtol=1e-6)


@pytest.mark.parametrize("layout", [AFLW_19, IBUG_68], ids=lambda layout: layout.name)
def test_a_doubtful_face_is_searched_in_its_own_photo_alone(layout):
    passes = Passes(layout, [0.4, *[0.1] * 6], doubtful=(False, True))
    found = search(passes)
    assert [photos for photos, _, _ in passes.seen] == [[1, 2], *[[2]] * (len(passes.seen) - 1)]
    assert len(passes.seen) == {"aflw-19": 4, "ibug-68": 6}[layout.name]
    np.testing.assert_allclose(found.certainty[0], 0.9, rtol=1e-6)


def test_a_landmark_that_moves_in_the_check_is_as_uncertain_as_it_moved_far():
    """3 and 4 pixels are 5; 1.2 % of the first box, whose area is 40 x 80, is 0.68 pixels."""
    first = Passes(IBUG_68, [0.4]).locate(PHOTOS, BOXES, ROLLS)

    class Moved(Passes):
        def locate(self, *inputs, **options):
            found = super().locate(*inputs, **options)
            if len(self.seen) < 6:
                return found
            return found._replace(landmarks=first.landmarks + np.array([3, 4], np.float32))

    passes = Moved(IBUG_68, [0.4, 0.3, 0.1, 0.1, 0.1, 0.4])
    found = search(passes)
    assert passes.mirrored == [False] * 5 + [True]
    np.testing.assert_array_equal(found.landmarks, first.landmarks)
    np.testing.assert_allclose(found.errors, 5, rtol=1e-5)
    trust = 0.012 * np.sqrt([40 * 80, 120 * 60]) / 5
    np.testing.assert_allclose(found.certainty, 0.4 * trust, rtol=1e-5)


def test_a_check_that_gives_nan_gives_no_trust():
    class Broken(Passes):
        def locate(self, *inputs, **options):
            found = super().locate(*inputs, **options)
            return found if len(self.seen) < 6 else found._replace(landmarks=np.nan * found.landmarks)

    found = search(Broken(IBUG_68, [0.4, 0.3, 0.1, 0.1, 0.1, 0.4]))
    assert np.isnan(found.scores).all()  # which no result accepts
