"""Doubtful faces are located again, upright and turned, and then checked.

A low mean score means that the face is tilted in its crop, lies on its side or upside down, is hidden, or
is no face. These passes follow; each is one run of the network on one crop:

    first       the given box
    upright     a crop made from the landmarks of the first pass; the answer with the higher score is kept
    quarters    if the score is still low: the box turned by 90, 180 and 270 degrees. If the best of the three
                scores higher, it is located upright again, and replaces the answer so far only if its score
                is higher by a margin, as a wrong turn does more harm than a right one does good
    check       the mirror image of a crop made from the landmarks of the answer. A right answer comes out at
                the same place; if landmarks move by more than a tolerance, the scores are lowered in
                proportion

`examples/lab/accuracy/measure_search.py` measures what the margin and the tolerance are chosen by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks.geometry import quarter_turned, upright_boxes
from face_landmarks.locating.locate import Located, Locator

Boxes: TypeAlias = NDArray[Any]  # (B, 4), of any floating type
Rolls: TypeAlias = NDArray[Any]  # (B,) radians

_MARGIN: Final = 0.1  # of mean score, by which a turned answer must surpass the one that is not
_TOLERANCE: Final = 0.012  # of the box's size (root of its area), by which landmarks may move in the check
_SMALLEST_FACE: Final = 0.25  # of the box that was given; smaller ones have collapsed and are no face


def locate_with_search(
    locator: Locator,
    photos: Sequence[NDArray[np.uint8]],
    boxes: Boxes,
    rolls: Rolls,
    *,
    refine: bool,
    search: bool,
) -> Located:
    """The landmarks of B faces in their boxes.

    Args:
        locator: finds landmarks in boxes.
        photos: of each face, (H, W, 3) RGB.
        boxes: (B, 4), upright face boxes.
        rolls: (B,) radians, by which each box is turned about its centre, clockwise on the screen.
        refine: locate every face a second time, at an upright crop made from its landmarks.
        search: locate faces again whose mean score is below the `doubtful_score` of the card.
    """
    best = locator.locate(photos, boxes, rolls)
    doubtful = (best.certainty < locator.card.doubtful_score) & search
    chosen = doubtful | refine
    if not chosen.any():
        return best
    best = _keep_better(best, chosen, _upright(locator, best, chosen, photos, boxes))
    doubtful = (best.certainty < locator.card.doubtful_score) & search
    if doubtful.any():
        rows = doubtful.nonzero()[0]
        some = [photos[row] for row in rows.tolist()]
        found = _search_turned(locator, best.of(rows), some, boxes[rows], rolls[rows])
        best = best.replaced(rows, _checked(locator, found, some, boxes[rows]))
    return best


def _search_turned(
    locator: Locator, best: Located, photos: Sequence[NDArray[np.uint8]], boxes: Boxes, rolls: Rolls
) -> Located:
    """The best answer for B doubtful faces, after their boxes were also tried turned by quarters."""
    lying, quarter = quarter_turned(torch.from_numpy(boxes)).numpy(), math.pi / 2
    turned = locator.locate(photos, lying, rolls + quarter)
    every = np.ones(len(boxes), bool)
    for box, roll in ((boxes, rolls + 2 * quarter), (lying, rolls - quarter)):
        turned = _keep_better(turned, every, locator.locate(photos, box, roll))
    promising = turned.certainty > best.certainty
    if not promising.any():
        return best
    turned = _keep_better(turned, promising, _upright(locator, turned, promising, photos, boxes))
    return _keep_better(best, promising, turned.of(promising.nonzero()[0]), _MARGIN)


def _checked(locator: Locator, found: Located, photos: Sequence[NDArray[np.uint8]], boxes: Boxes) -> Located:
    """The answers for B faces, with lower scores where the mirror image has the landmarks elsewhere.

    The expected error of a landmark is at least the distance that it moved.
    """
    if not locator.layout.has_jaw:
        return found
    again = _upright(locator, found, np.ones(len(boxes), bool), photos, boxes, mirrored=True)
    moved = np.linalg.norm(again.landmarks - found.landmarks, axis=2)  # (B, K) pixels
    size = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    allowed, mean = _TOLERANCE * size, moved.mean(axis=1)
    # 0 where they collapsed, and NaN, which no result accepts, where the second pass gave NaN.
    trust = np.divide(allowed, mean, out=np.ones(len(boxes)), where=~(mean <= allowed))
    return Located(
        found.landmarks,
        found.scores * trust.astype(np.float32)[:, np.newaxis],
        np.maximum(found.errors, np.where(np.isfinite(moved), moved, found.errors)),
    )


def _upright(
    locator: Locator,
    found: Located,
    chosen: NDArray[np.bool_],
    photos: Sequence[NDArray[np.uint8]],
    boxes: Boxes,
    *,
    mirrored: bool = False,
) -> Located:
    """The chosen (B,) faces, located again at upright crops made from their landmarks: C of them.

    Landmarks that have collapsed to a small area give no box: the new ones are then at infinity with scores
    of 0. For layouts without the jaw, from which no box can be made, this is the answer so far.
    """
    rows = chosen.nonzero()[0]
    before = found.of(rows)
    if not locator.layout.has_jaw:
        return before
    made = upright_boxes(torch.from_numpy(before.landmarks), locator.layout.eyes)
    upright, rolls = (part.numpy() for part in made)
    shaped = _sides(upright) > _SMALLEST_FACE * _sides(boxes[rows])
    again = Located(
        np.full_like(before.landmarks, np.inf),
        np.zeros_like(before.scores),
        before.errors,
    )
    places = shaped.nonzero()[0]
    if not len(places):
        return again
    some = [photos[row] for row in rows[places].tolist()]
    return again.replaced(places, locator.locate(some, upright[places], rolls[places], mirrored=mirrored))


def _keep_better(first: Located, chosen: NDArray[np.bool_], second: Located, margin: float = 0.0) -> Located:
    """The first answers for B faces, replaced among the chosen (B,) where the second one scores higher.

    Args:
        first: B answers.
        chosen: (B,), C of them true.
        second: C answers.
        margin: of mean score, by which the second must be higher.
    """
    rows = chosen.nonzero()[0]
    better = second.certainty > first.certainty[rows] + margin
    return first.replaced(rows[better], second.of(better.nonzero()[0]))


def _sides(boxes: Boxes) -> NDArray[Any]:
    """Width + height, (N,)."""
    sides: NDArray[Any] = (boxes[:, 2:] - boxes[:, :2]).sum(axis=1)
    return sides
