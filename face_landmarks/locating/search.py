"""Second passes over doubtful faces: at upright crops, and turned by quarters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from face_landmarks.geometry import quarter_turned, upright_boxes
from face_landmarks.locating.locate import Located, Locator

# A face is looked at again if its mean score is below this, as that of hardly any whole, upright face of the
# 300-W validation photos is (examples/lab/measure_confidence.py). A tilt by 60 degrees comes out just below.
_DOUBTFUL: Final = 0.77
_SMALLEST_FACE: Final = 0.25  # of the box it was sought in


def locate_with_search(
    locator: Locator, photos: Sequence[NDArray[np.uint8]], boxes: Tensor, *, refine: bool
) -> Located:
    """The landmarks of B faces in their boxes; doubtful faces are looked at again.

    Args:
        locator: finds landmarks in boxes.
        photos: of each face, (H, W, 3) RGB.
        boxes: (B, 4).
        refine: look a second time at every face, at an upright crop made from its landmarks.
    """
    first = locator.locate(photos, boxes, torch.zeros(len(boxes)))

    doubtful = first.certainty < _DOUBTFUL
    best = _locate_upright(locator, first, doubtful | refine, photos, boxes)
    doubtful = best.certainty < _DOUBTFUL
    if doubtful.any():
        lying = quarter_turned(boxes)
        for turned, roll in ((lying, math.pi / 2), (boxes, math.pi), (lying, -math.pi / 2)):
            rolls = torch.full((len(boxes),), roll)
            best = _locate_again(locator, best, doubtful, photos, turned, rolls)
        changed = best.certainty > first.certainty  # the others were looked at upright as they are
        best = _locate_upright(locator, best, doubtful & changed, photos, boxes)
    return best


def _locate_upright(
    locator: Locator, first: Located, chosen: Tensor, photos: Sequence[NDArray[np.uint8]], boxes: Tensor
) -> Located:
    """Look again at the chosen faces (B,), at upright crops made from the landmarks first found."""
    layout = locator.layout
    if not layout.tells_its_box or not chosen.any():
        return first
    upright, rolls = upright_boxes(first.landmarks, layout.eyes)
    shaped = _sides(upright) > _SMALLEST_FACE * _sides(boxes)  # landmarks in a heap have no box
    return _locate_again(locator, first, chosen & shaped, photos, upright, rolls)


def _locate_again(
    locator: Locator,
    first: Located,
    chosen: Tensor,
    photos: Sequence[NDArray[np.uint8]],
    boxes: Tensor,
    rolls: Tensor,
) -> Located:
    """The first result at B faces, but for those of the chosen (B,) where a second one scores higher."""
    rows = chosen.nonzero().squeeze(1)
    if not len(rows):
        return first
    second = locator.locate([photos[row] for row in rows.tolist()], boxes[rows], rolls[rows])
    surer = second.certainty > first.certainty[rows]
    return Located(
        *(old.index_copy(0, rows[surer], new[surer]) for old, new in zip(first, second, strict=True))
    )


def _sides(boxes: Tensor) -> Tensor:
    """Width + height, (N,)."""
    return (boxes[:, 2:] - boxes[:, :2]).sum(dim=1)
