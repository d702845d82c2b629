"""Face boxes: what a detector is, and the one check every box passes."""

from __future__ import annotations

import sys
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_landmarks.errors import DetectorError, InputError

_CONVENTION: Final = "boxes are x0 y0 x1 y1 with x0 < x1 and y0 < y1, in pixels"
_LIMIT: Final = 2.0**24  # beyond it float32 cannot tell neighbouring pixels apart


class Detections(NamedTuple):
    """The faces that a detector found in an image.

    Attributes:
        boxes: (N, 4) float32 x0 y0 x1 y1 in pixels; see `Detector` for the convention.
        scores: (N,) float32.
        points: (N, 5, 2) float32 x y in pixels: centre of the right eye, centre of the left eye, tip of
            the nose, right and left corner of the mouth. Right is the subject's. None where the detector
            has no points.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    points: NDArray[np.float32] | None = None


class Detector(Protocol):
    """Any callable that finds the faces of an image.

    Convention:
        A box is x0 y0 x1 y1, from forehead to chin, in pixels whose centres are integers: the
        image spans -0.5 to W - 0.5, and a box is x1 - x0 wide. Boxes may reach out of the image. The
        sides of a box are parallel to those of the image, whatever the roll of the face.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        Boxes (N, 4); a tuple of boxes and scores (N,); or a tuple of boxes, scores and five points
        (N, 5, 2), as in `Detections`, which tell the aligner the roll of each face. No face is an empty
        array. The order of the boxes is the order of the results.
    """

    def __call__(
        self, image: NDArray[np.uint8], /
    ) -> ArrayLike | tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike | None]: ...


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
    wrong = ~((np.abs(checked) < _LIMIT).all(axis=1) & (x0 < x1) & (y0 < y1))  # written so that NaN is wrong
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(f"boxes: {_CONVENTION}, got {checked[first].tolist()} as box {first}")
    return checked


def check_rolls(rolls: ArrayLike, boxes: int) -> NDArray[np.float32]:
    """Rolls as a new (N,) float32 array, in degrees.

    Args:
        rolls: (N,) finite numbers.
        boxes: N, the number of boxes that they belong to.

    Raises:
        InputError: another shape or type, or a roll that is not finite.
    """
    checked = _numbers("rolls", rolls)
    if checked.shape != (boxes,):
        raise InputError(f"rolls: expected shape ({boxes},), one for each box, got {checked.shape}")
    if not np.isfinite(checked).all():
        raise InputError(f"rolls: expected finite degrees, got {checked.tolist()}")
    return checked


def run_detector(detector: Detector, image: NDArray[np.uint8]) -> Detections:
    """Call a detector and check what it returns.

    A box without area is an error here as it is in `check_boxes`: a detector that may return one
    has to drop it. What the detector itself raises passes through.

    Args:
        detector: see `Detector`. A tuple is always boxes and scores, with or without points, never
            several boxes.
        image: (H, W, 3) uint8 RGB.

    Returns:
        Boxes, scores, which are 1 where the detector gives none, and its points or None.

    Raises:
        DetectorError: the detector returned something else.
    """
    found = detector(image.copy())  # it may draw on what it gets: landmarks are read from the photo itself
    name = getattr(detector, "__qualname__", type(detector).__qualname__)
    parts = found if isinstance(found, tuple) else (found, None)
    if len(parts) not in (2, 3):
        raise DetectorError(
            f"detector {name}: expected boxes, (boxes, scores) or (boxes, scores, points), "
            f"got {len(parts)} values"
        )
    boxes, scores, points = parts if len(parts) == 3 else (*parts, None)
    if boxes is None:
        raise DetectorError(
            f"detector {name}: expected boxes (N, 4), (0, 4) where there is no face, got None"
        )
    try:
        checked = check_boxes(boxes)
        count = len(checked)
        box_scores = np.ones(count, np.float32) if scores is None else _numbers("scores", scores)
        box_points = None if points is None else _numbers("points", points)
    except InputError as error:
        raise DetectorError(f"detector {name}: {error}") from error
    if box_scores.shape != (count,):
        raise DetectorError(f"detector {name}: expected scores of shape ({count},), got {box_scores.shape}")
    if not np.isfinite(box_scores).all():
        raise DetectorError(f"detector {name}: expected finite scores, got {box_scores.tolist()}")
    if box_points is not None:
        if box_points.shape == (0,) and not count:
            box_points = box_points.reshape(0, 5, 2)
        if box_points.shape != (count, 5, 2):
            raise DetectorError(
                f"detector {name}: expected points of shape ({count}, 5, 2), got {box_points.shape}"
            )
        if not (np.abs(box_points) < _LIMIT).all():  # written so that NaN is wrong
            raise DetectorError(f"detector {name}: expected finite points, got {box_points.tolist()}")
    return Detections(checked, box_scores, box_points)


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float32]:
    """Real numbers as a new float32 array; tensors may be on any device and need a gradient."""
    try:
        array = np.asarray(_dense(values))
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors without data
        raise InputError(
            f"{name}: expected an array of numbers, got {type(values).__name__}: {error}"
        ) from error
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name}: expected numbers, got {type(values).__name__} of dtype {array.dtype}")
    with np.errstate(over="ignore"):
        return np.array(array, np.float32, order="C")


def _dense(values: ArrayLike) -> ArrayLike:
    """A tensor as an array; anything else as it is."""
    torch = sys.modules.get("torch")  # where torch was not imported, there are no tensors
    if torch is None or not isinstance(values, torch.Tensor):
        return values
    tensor = values.float() if values.is_floating_point() and values.dtype.itemsize < 4 else values
    array: NDArray[np.generic] = tensor.numpy(force=True)  # NumPy has no bfloat16
    return array
