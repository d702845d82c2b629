"""A photo in any position: what is found in it turned comes back in its own frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_landmarks.detection._boxes import Found, no_faces
from face_landmarks.detection.mtcnn import MTCNN
from face_landmarks.detection.rotations import search_turned
from face_landmarks.detection.upright import rolls_of
from face_landmarks.errors import InputError
from face_landmarks.images import read_image

PHOTO = Path(__file__).parents[2] / "examples" / "data" / "astronaut.jpg"


def bright_box(image: np.ndarray) -> Found:
    """The box of what is bright, if it is upright, higher than wide with its brightest pixel at the top."""
    rows, columns = (image[..., 0] > 0).any(axis=1).nonzero()[0], (image[..., 0] > 0).any(axis=0).nonzero()[0]
    y, x = np.unravel_index(image[..., 0].argmax(), image.shape[:2])
    if not len(rows) or y != rows[0] or len(rows) <= len(columns):
        return no_faces()
    edges = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], float)
    return edges, np.array([0.9], np.float32), np.full((1, 5, 2), (x + 0.5, y + 0.5))


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize("rotations", ["fallback", "always"])
def test_what_is_found_in_any_position_is_given_in_the_images_own_frame(turn: int, rotations: Any) -> None:
    upright = np.zeros((7, 11, 3), np.uint8)
    upright[1:6, 2:4] = 100  # 2 wide, 5 high
    upright[1, 3] = 200  # its brightest pixel, at the top
    image = np.ascontiguousarray(np.rot90(upright, turn))
    rows, columns = (image[..., 0] > 0).nonzero()
    y, x = np.unravel_index(image[..., 0].argmax(), image.shape[:2])
    edges, scores, points = search_turned(image, [bright_box], rotations)
    np.testing.assert_allclose(edges, [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
    np.testing.assert_allclose(points, np.full((1, 5, 2), (x + 0.5, y + 0.5)))
    assert scores.tolist() == [np.float32(0.9)]


def test_the_image_is_searched_as_often_as_it_is_asked_for() -> None:
    calls: list[tuple[int, ...]] = []

    def search(image: np.ndarray) -> Found:
        calls.append(image.shape)
        return no_faces()

    for rotations, count in (("never", 1), ("fallback", 8), ("always", 8)):
        calls.clear()
        found = search_turned(np.zeros((5, 7, 3), np.uint8), [search], rotations)  # type: ignore[arg-type]
        assert len(calls) == count and len(found[0]) == 0
    assert calls == [(5, 7, 3), (7, 5, 3), (5, 7, 3), (7, 5, 3), *[(8, 8, 3)] * 4]


def test_a_face_on_the_diagonal_is_found_beside_an_upright_one() -> None:
    searched: list[int] = []

    def search(image: np.ndarray) -> Found:
        searched.append(len(searched))
        place = {0: (10.0, 20), 4: (38.0, 12)}.get(searched[-1])  # as it is, and turned by an eighth
        if place is None:
            return no_faces()
        edges = np.array([[place[0] - 4, place[1] - 4, place[0] + 4, place[1] + 4]])
        return edges, np.ones(1, np.float32), np.full((1, 5, 2), place)

    edges, _, _ = search_turned(np.zeros((40, 60, 3), np.uint8), [search], "always")
    assert len(searched) == 8 and len(edges) == 2


def test_a_face_that_is_found_in_several_positions_is_given_once_where_its_score_is_best() -> None:
    scores = iter([0.7, 0.6, 0.9, 0.8, 0.5, 0.5, 0.5, 0.5])

    def search(image: np.ndarray) -> Found:
        height, width = image.shape[:2]
        score = next(scores)
        return (
            np.array([[1.0, 2, width - 1, height - 2]]),
            np.array([score], np.float32),
            np.full((1, 5, 2), score),
        )

    edges, best, points = search_turned(np.zeros((20, 30, 3), np.uint8), [search], "always")
    assert best.tolist() == [np.float32(0.9)] and edges.shape == (1, 4)
    np.testing.assert_allclose(points[0, 0], [30 - 0.9, 20 - 0.9])  # turned by 180 degrees


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_mtcnn_finds_the_astronaut_in_any_position(turn: int) -> None:
    photo = read_image(PHOTO)
    upright = MTCNN(device="cpu")(photo)
    found = MTCNN(device="cpu", rotations="always")(np.ascontiguousarray(np.rot90(photo, turn)))
    assert len(found.boxes) == len(upright.boxes) == 1
    assert found.points is not None and upright.points is not None
    difference = rolls_of(found.points) - rolls_of(upright.points) + 90 * turn  # counter-clockwise
    assert abs((difference + 180) % 360 - 180) < 1e-3


def test_turned_photos_of_which_some_are_missed_are_all_found_with_rotations() -> None:
    photo = read_image(PHOTO)
    turned = [np.ascontiguousarray(np.rot90(photo, turn)) for turn in range(4)]
    alone, fallback = MTCNN(device="cpu"), MTCNN(device="cpu", rotations="fallback")
    assert sum(len(alone(image).boxes) for image in turned) < 4
    assert [len(fallback(image).boxes) for image in turned] == [1, 1, 1, 1]


def test_unknown_rotations_are_refused() -> None:
    with pytest.raises(InputError, match="rotations: expected 'never', 'fallback' or 'always', got 'often'"):
        MTCNN(rotations="often")  # type: ignore[arg-type]


@pytest.mark.parametrize("turn", [1, 3, 5, 7])
def test_what_is_found_turned_by_an_eighth_has_its_points_where_they_are_and_a_square_box(turn: int) -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    image[19:22, 49:52] = 255
    sizes = []

    def search(turned: np.ndarray) -> Found:
        sizes.append(turned.shape)
        if len(sizes) != 4 + (turn + 1) // 2:
            return no_faces()
        y, x = np.argwhere(turned[..., 0] > 100).mean(axis=0) + 0.5
        edges = np.array([[x - 3, y - 5, x + 3, y + 5]])
        return edges, np.ones(1, np.float32), np.full((1, 5, 2), (x, y))

    edges, _, points = search_turned(image, [search], "always")
    np.testing.assert_allclose(points, np.full((1, 5, 2), (50.5, 20.5)), atol=0.3)
    np.testing.assert_allclose(edges, [[46.5, 16.5, 54.5, 24.5]], atol=0.3)
