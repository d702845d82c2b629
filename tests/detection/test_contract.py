"""A box has one convention, and whoever breaks it is told which box and how."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from face_landmarks.detection.contract import check_boxes, check_rolls, run_detector
from face_landmarks.errors import DetectorError, InputError

IMAGE = np.zeros((5, 7, 3), np.uint8)
BOXES = [[1.0, 2.0, 4.0, 6.0], [-3.5, 0.0, 2.5, 9.0], [0.0, 0.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    "boxes",
    [
        BOXES,
        tuple(map(tuple, BOXES)),
        np.array(BOXES),
        np.array(BOXES, ">f8"),
        np.array(BOXES, np.float16),
        np.asfortranarray(BOXES),
        torch.tensor(BOXES),
        torch.tensor(BOXES, requires_grad=True),
        torch.tensor(BOXES, dtype=torch.bfloat16),
        torch.tensor(BOXES, dtype=torch.float16, requires_grad=True),
    ],
    ids=["lists", "tuples", "f8", ">f8", "f2", "fortran", "tensor", "gradient", "bfloat16", "half gradient"],
)
def test_boxes_of_any_numbers_become_float32(boxes: object) -> None:
    checked = check_boxes(boxes)  # type: ignore[arg-type]
    assert checked.dtype == np.float32 and checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, np.array(BOXES, np.float32))


def test_a_detector_may_draw_on_what_it_gets() -> None:
    image = IMAGE.copy()

    def detector(pixels: np.ndarray) -> list[list[float]]:
        pixels[:] = 255
        return BOXES

    assert len(run_detector(detector, image).boxes) == len(BOXES)
    assert not image.any()


def test_checked_boxes_are_a_copy() -> None:
    boxes = np.array(BOXES, np.float32)
    check_boxes(boxes)[:] = 0
    assert boxes.tolist() == BOXES


@pytest.mark.parametrize("boxes", [[], np.empty((0, 4)), np.empty((0, 4), int)])
def test_no_box_is_an_empty_array(boxes: object) -> None:
    assert check_boxes(boxes).shape == (0, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 4, 6], r"expected shape \(N, 4\), got \(4,\); write one box as \[\[x0, y0, x1, y1\]\]"),
        (np.empty((0, 5)), r"got \(0, 5\)"),
        (np.zeros((2, 3, 4)), r"got \(2, 3, 4\)"),
        (5, r"got \(\)"),
        ([[1, 2, 4], [1, 2, 4, 6]], "expected an array of numbers, got list"),
        ([["1", "2", "4", "6"]], "expected numbers, got list of dtype <U1"),
        (None, "expected numbers, got NoneType"),
        (np.array([BOXES[0]], object), "dtype object"),
        ([[True, True, False, False]], "dtype bool"),
        ([[1j, 2, 4, 6]], "dtype complex"),
    ],
)
def test_what_is_not_boxes_is_refused(boxes: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_boxes(boxes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "box",
    [
        [4, 2, 1, 6],
        [1, 6, 4, 2],
        [1, 2, 1, 6],
        [1, 2, 4, 2],
        [np.nan, 2, 4, 6],
        [1, 2, np.inf, 6],
        [1, 2, 1e39, 6],
        [1, 2, 2.0**24, 6],
        [1e6, 2, 1e6 + 1e-3, 6],
    ],
    ids=["x", "y", "no width", "no height", "nan", "inf", "beyond float32", "beyond 2 ** 24", "thin"],
)
def test_a_box_without_finite_area_is_named(box: list[float]) -> None:
    with pytest.raises(InputError, match="x0 y0 x1 y1 with x0 < x1 and y0 < y1, .* as box 1$"):
        check_boxes([BOXES[0], box, box])


@given(st.lists(st.tuples(*[st.floats(width=32)] * 4), max_size=4))
def test_boxes_that_pass_have_a_finite_area(boxes: list[tuple[float, ...]]) -> None:
    try:
        checked = check_boxes(boxes)
    except InputError:
        return
    sizes = checked[:, 2:] - checked[:, :2]
    assert checked.shape == (len(boxes), 4)
    assert np.isfinite(sizes).all() and (sizes > 0).all()


def test_boxes_and_scores_of_a_detector() -> None:
    boxes, scores, points = run_detector(lambda image: (BOXES, [0.9, 2, -1]), IMAGE)
    assert boxes.dtype == scores.dtype == np.float32 and points is None
    np.testing.assert_array_equal(boxes, np.array(BOXES, np.float32))
    np.testing.assert_array_equal(scores, np.array([0.9, 2, -1], np.float32))


def test_a_detector_without_scores_is_sure() -> None:
    boxes, scores, _ = run_detector(lambda image: BOXES, IMAGE)
    assert boxes.shape == (3, 4)
    assert scores.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "nothing", [[], np.empty((0, 4)), ([], []), (np.empty((0, 4)), np.empty(0)), ([], [], [])]
)
def test_no_face_is_empty(nothing: object) -> None:
    boxes, scores, points = run_detector(lambda image: nothing, IMAGE)  # type: ignore[arg-type]
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    assert points is None or points.shape == (0, 5, 2)


def test_five_points_of_each_face_come_with_boxes_and_scores() -> None:
    five = np.arange(30).reshape(3, 5, 2)
    found = run_detector(lambda image: (BOXES, [1, 1, 1], five), IMAGE)
    assert found.points is not None and found.points.dtype == np.float32
    np.testing.assert_array_equal(found.points, five)


def test_rolls_are_checked_with_their_boxes() -> None:
    rolls = check_rolls([0, 90, -180.0], 3)
    assert rolls.dtype == np.float32 and rolls.tolist() == [0, 90, -180]
    for wrong, message in (([0, 1], r"expected shape \(3,\)"), (90, r"got \(\)"), ([0, 1, np.nan], "finite")):
        with pytest.raises(InputError, match=f"rolls: .*{message}"):
            check_rolls(wrong, 3)


def test_the_detector_is_given_the_image_whole() -> None:
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    seen = []
    run_detector(lambda pixels: seen.append(pixels) or [], image)  # type: ignore[func-returns-value]
    np.testing.assert_array_equal(seen[0], image)
    assert seen[0].dtype == np.uint8 and seen[0].flags.writeable


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, r"expected boxes \(N, 4\), \(0, 4\) where there is no face, got None"),
        ((None, [None]), "got None"),
        (BOXES[0], r"\(4,\)"),
        ((BOXES,), r"expected boxes, \(boxes, scores\) or \(boxes, scores, points\), got 1 values"),
        ((BOXES, [1, 1, 1], None, None), "got 4 values"),
        ((BOXES, [1, 1, 1], []), r"expected points of shape \(3, 5, 2\), got \(0,\)"),
        ((BOXES, [1, 1, 1], np.zeros((3, 10))), r"got \(3, 10\)"),
        ((BOXES, [1, 1, 1], np.full((3, 5, 2), np.nan)), "expected finite points"),
        ((BOXES, [1, 1, 1], "points"), "points: expected numbers"),
        ((BOXES, [1, 1]), r"expected scores of shape \(3,\), got \(2,\)"),
        ((BOXES, [[1, 1, 1]]), r"got \(1, 3\)"),
        ((BOXES, [1, np.nan, 1]), "expected finite scores"),
        ((BOXES, [1, 1e39, 1]), "expected finite scores"),
        ((BOXES, ["high", "low", "low"]), "scores: expected numbers"),
        ((BOXES[0], BOXES[1]), r"boxes: expected shape \(N, 4\)"),
        (np.array([None], object), "dtype object"),
        (np.array([BOXES[0]], object), "dtype object"),
        ([[4, 2, 1, 6]], r"\[4\.0, 2\.0, 1\.0, 6\.0\] as box 0"),
        ({"boxes": BOXES}, "got dict"),
        ("two faces", "got str"),
    ],
)
def test_a_detector_that_breaks_its_contract_is_named(found: object, message: str) -> None:
    class Careless:
        def __call__(self, image: object) -> object:
            return found

    with pytest.raises(DetectorError, match=f"detector .*Careless: .*{message}"):
        run_detector(Careless(), IMAGE)  # type: ignore[arg-type]


def test_what_a_detector_raises_passes_through() -> None:
    def detector(image: object) -> list[object]:
        raise ZeroDivisionError("its own")

    with pytest.raises(ZeroDivisionError, match="its own"):
        run_detector(detector, IMAGE)  # type: ignore[arg-type]


def test_what_a_detector_of_torch_returns_is_taken_as_it_is() -> None:
    boxes = torch.tensor(BOXES, dtype=torch.bfloat16, requires_grad=True)
    scores, points = torch.rand(3, requires_grad=True), torch.zeros(3, 5, 2, dtype=torch.bfloat16)
    found = run_detector(lambda pixels: (boxes, scores, points), IMAGE)  # type: ignore[arg-type, return-value]
    np.testing.assert_array_equal(found.boxes, np.array(BOXES, np.float32))
    np.testing.assert_array_equal(found.scores, scores.detach().numpy())


def test_tensors_without_data_are_refused() -> None:
    with pytest.raises(InputError, match="boxes: expected an array of numbers, got Tensor"):
        check_boxes(torch.zeros(1, 4, device="meta"))  # type: ignore[arg-type]
