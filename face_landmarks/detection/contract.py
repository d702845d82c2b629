"""Face boxes: what a detector is, and the one check every box passes."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_landmarks.errors import DetectorError, InputError

_CONVENTION: Final = "boxes are x0 y0 x1 y1 with x0 < x1 and y0 < y1, in pixels"
_LIMIT: Final = 2.0**24  # beyond it float32 cannot tell neighbouring pixels apart


class Detector(Protocol):
    """Any callable that finds the faces of an image.

    Convention:
        A box is x0 y0 x1 y1, from forehead to chin, in pixels whose centres are integers: the
        image spans -0.5 to W - 0.5, and a box is x1 - x0 wide. Boxes may reach out of the image.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        Boxes (N, 4), or a tuple of boxes (N, 4) and scores (N,). No face is an empty array.
        The order of the boxes is the order of the results.
    """

    def __call__(self, image: NDArray[np.uint8], /) -> ArrayLike | tuple[ArrayLike, ArrayLike]: ...


def check_boxes(boxes: ArrayLike) -> NDArray[np.float32]:
    """Boxes as a new (N, 4) float32 array.

    Args:
        boxes: (N, 4) numbers x0 y0 x1 y1; one box is (1, 4), none is (0, 4) or an empty list.

    Raises:
        InputError: another shape or type, a coordinate that is not finite or beyond 2 ** 24, or
            a box without area.

    Example:
        >>> check_boxes([[10, 20, 110, 140]])
        array([[ 10.,  20., 110., 140.]], dtype=float32)
    """
    checked = _numbers("boxes", boxes)
    if checked.shape == (0,):
        checked = checked.reshape(0, 4)
    if checked.ndim != 2 or checked.shape[1] != 4:
        hint = "; write one box as [[x0, y0, x1, y1]]" if checked.shape == (4,) else ""
        raise InputError(f"boxes: expected shape (N, 4), got {checked.shape}{hint}")
    x0, y0, x1, y1 = checked.T
    wrong = ~((np.abs(checked) < _LIMIT).all(axis=1) & (x0 < x1) & (y0 < y1))  # so put, NaN is wrong
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(f"boxes: {_CONVENTION}, got {checked[first].tolist()} as box {first}")
    return checked


def run_detector(
    detector: Detector, image: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Call a detector and check what it returns.

    A box without area is an error here as it is in `check_boxes`: a detector that may emit one
    has to drop it. What the detector itself raises passes through.

    Args:
        detector: see `Detector`. A tuple is always boxes and scores, never two boxes.
        image: (H, W, 3) uint8 RGB.

    Returns:
        Boxes (N, 4) float32 and scores (N,) float32, 1 where the detector gives none.

    Raises:
        DetectorError: the detector returned something else.
    """
    found = detector(image)
    name = getattr(detector, "__qualname__", type(detector).__qualname__)
    if isinstance(found, tuple):
        if len(found) != 2:
            raise DetectorError(
                f"detector {name}: expected boxes, or (boxes, scores), got {len(found)} values"
            )
        boxes, scores = found
    else:
        boxes, scores = found, None
    if boxes is None:
        raise DetectorError(
            f"detector {name}: expected boxes (N, 4), (0, 4) where there is no face, got None"
        )
    try:
        checked = check_boxes(boxes)
        box_scores = np.ones(len(checked), np.float32) if scores is None else _numbers("scores", scores)
    except InputError as error:
        raise DetectorError(f"detector {name}: {error}") from error
    if box_scores.shape != checked.shape[:1]:
        raise DetectorError(
            f"detector {name}: expected scores of shape ({len(checked)},), got {box_scores.shape}"
        )
    if not np.isfinite(box_scores).all():
        raise DetectorError(f"detector {name}: expected finite scores, got {box_scores.tolist()}")
    return checked, box_scores


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float32]:
    """Real numbers as a new float32 array."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors not on the CPU
        raise InputError(
            f"{name}: expected an array of numbers, got {type(values).__name__}: {error}"
        ) from error
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name}: expected numbers, got {type(values).__name__} of dtype {array.dtype}")
    with np.errstate(over="ignore"):
        return np.array(array, np.float32, order="C")
