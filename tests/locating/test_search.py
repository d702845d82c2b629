"""Which crops the search looks at, and what the check makes of its answers, without any network."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn_faces import mean_shape

from face_landmarks.layouts import AFLW_19, IBUG_68
from face_landmarks.locating.locate import Located
from face_landmarks.locating.search import locate_with_search

BOXES = torch.tensor([[10.0, 20, 50, 100], [200, 0, 320, 60]])
ROLLS = torch.tensor([0.1, -0.2])
PHOTOS = [np.full((4, 6, 3), shade, np.uint8) for shade in (1, 2)]


class Passes:
    """Stands for a Locator: remembers what it is given, and answers with faces that fill their boxes.

    Each pass has its mean score; in the first, that of faces that are not doubtful is 0.9.
    """

    def __init__(self, layout, scores, doubtful=(True, True)):
        self.layout, self.card = layout, SimpleNamespace(doubtful_score=0.5)
        self.scores, self.doubtful = scores, torch.tensor(doubtful)
        self.seen = []

    def locate(self, photos, boxes, rolls):
        count, index = len(boxes), len(self.seen)
        self.seen.append(([int(photo[0, 0, 0]) for photo in photos], boxes.clone(), rolls.clone()))
        corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
        shape = torch.from_numpy(mean_shape(self.layout)).float()
        scores = torch.full((count, len(self.layout)), self.scores[index])
        if index == 0:
            scores[~self.doubtful] = 0.9
        return Located((corner + size * shape).float(), scores, torch.full_like(scores, 2.0))


def search(passes):
    return locate_with_search(passes, PHOTOS, BOXES, ROLLS, refine=False, search=True)


def test_a_doubtful_face_is_searched_lying_to_both_sides_and_upside_down():
    passes = Passes(AFLW_19, [0.4, 0.1, 0.1, 0.1])  # a layout that tells no box: nothing is located upright
    search(passes)
    lying = torch.tensor([[-10.0, 40, 70, 80], [230, -30, 290, 90]])  # about the centres (30, 60), (260, 30)
    quarter = math.pi / 2
    expected = [
        (BOXES, ROLLS), (lying, ROLLS + quarter), (BOXES, ROLLS + 2 * quarter), (lying, ROLLS - quarter)
    ]  # fmt: skip
    assert len(passes.seen) == 4
    for (photos, boxes, rolls), (right_boxes, right_rolls) in zip(passes.seen, expected, strict=True):
        assert photos == [1, 2]
        torch.testing.assert_close(boxes.float(), right_boxes)
        torch.testing.assert_close(rolls, right_rolls)


@pytest.mark.parametrize("layout", [AFLW_19, IBUG_68], ids=lambda layout: layout.name)
def test_a_doubtful_face_is_searched_in_its_own_photo_alone(layout):
    passes = Passes(layout, [0.4, *[0.1] * 6], doubtful=(False, True))
    found = search(passes)
    assert [photos for photos, _, _ in passes.seen] == [[1, 2], *[[2]] * (len(passes.seen) - 1)]
    assert len(passes.seen) == {"aflw-19": 4, "ibug-68": 6}[layout.name]
    torch.testing.assert_close(found.certainty[0], torch.tensor(0.9))


def test_a_landmark_that_moves_in_the_check_is_as_uncertain_as_it_moved_far():
    """3 and 4 pixels are 5; a hundredth of the first box, whose area is 40 x 80, is 0.57 pixels."""
    first = Passes(IBUG_68, [0.4]).locate(PHOTOS, BOXES, ROLLS)

    class Moved(Passes):
        def locate(self, photos, boxes, rolls):
            found = super().locate(photos, boxes, rolls)
            if len(self.seen) < 6:
                return found
            return found._replace(landmarks=first.landmarks + torch.tensor([3.0, 4.0]))

    found = search(Moved(IBUG_68, [0.4, 0.3, 0.1, 0.1, 0.1, 0.4]))
    torch.testing.assert_close(found.landmarks, first.landmarks)
    torch.testing.assert_close(found.errors, torch.full_like(found.errors, 5.0))
    trust = 0.01 * torch.tensor([40.0 * 80, 120 * 60]).sqrt() / 5
    torch.testing.assert_close(found.certainty, 0.4 * trust)
