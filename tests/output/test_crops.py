"""Upright crops: the five points land where the template has them. Head poses: angles and their signs."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from face_landmarks import FaceAligner, Faces, read_image
from face_landmarks.errors import InputError
from face_landmarks.geometry import transform_points
from face_landmarks.output.crops import align_faces, align_matrices, five_points, head_pose

ASTRONAUT = Path(__file__).parents[2] / "examples" / "data" / "astronaut.jpg"
ARCFACE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)


def faces_at(points):
    """Faces of these landmarks (N, 68, 2)."""
    count = len(points)
    return Faces(points, np.ones((count, 68)), np.tile([0.0, 0, 9, 9], (count, 1)), np.ones(count))


def face_of(five, jitter=0.0):
    """Landmarks (1, 68, 2) with these five points (5, 2)."""
    landmarks = np.full((68, 2), np.mean(five, axis=0)) + jitter
    landmarks[36:42], landmarks[42:48] = five[0], five[1]
    landmarks[30], landmarks[48], landmarks[54] = five[2:]
    return landmarks[np.newaxis]


@pytest.fixture(scope="module")
def photo():
    return read_image(ASTRONAUT)


@pytest.fixture(scope="module")
def astronaut(photo):
    return FaceAligner("shr-fan-68-fast", device="cpu").align(photo)


def test_the_five_points_are_eyes_nose_and_mouth(astronaut):
    (points,) = five_points(astronaut)
    right_eye, left_eye, nose, right_mouth, left_mouth = points
    np.testing.assert_allclose(nose, astronaut.landmarks[0, 30])
    assert right_eye[0] < nose[0] < left_eye[0] and right_mouth[0] < left_mouth[0]
    assert right_eye[1] < nose[1] < right_mouth[1]
    assert five_points(Faces.empty()).shape == (0, 5, 2)


@pytest.mark.parametrize(("size", "shift"), [(112, 0.0), (224, 0.5), (64, -3 / 14)])
def test_a_turned_face_meets_the_template_exactly(size, shift):
    turn = 1.7 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    faces = faces_at(face_of(ARCFACE @ turn.T + (300, 90)))
    matrices = align_matrices(faces, size)
    found = transform_points(matrices, torch.from_numpy(five_points(faces)))[0].numpy()
    np.testing.assert_allclose(found, ARCFACE * size / 112 + shift, atol=1e-3)  # (x + 0.5) s - 0.5


def test_no_similarity_comes_closer():
    random = np.random.default_rng(0)
    faces = faces_at(face_of(ARCFACE + random.normal(0, 4, (5, 2))))
    source, best = five_points(faces)[0], align_matrices(faces)[0].numpy()

    def error(matrix):
        return ((source @ matrix[:2, :2].T + matrix[:2, 2] - ARCFACE) ** 2).sum()

    for _ in range(50):
        scale, angle = random.normal(0, 0.02, 2)
        turn = (1 + scale) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        other = best.copy()
        other[:2] = turn @ best[:2]
        other[:2, 2] += random.normal(0, 0.5, 2)
        assert error(other) >= error(best)


def test_ffhq_is_the_square_of_its_paper():
    right_eye, left_eye, mouth = np.array([40.0, 50]), np.array([80.0, 50]), np.array([60.0, 92])
    faces = faces_at(
        face_of([right_eye, left_eye, (60, 70), mouth - np.array([10, 0]), mouth + np.array([10, 0])])
    )
    half = max(2.0 * 40, 1.8 * 42)
    centre = (right_eye + left_eye) / 2 + 0.1 * (mouth - (right_eye + left_eye) / 2)
    corners = torch.tensor(np.array([centre - half, centre + half]))
    found = transform_points(align_matrices(faces, 256, "ffhq")[0], corners).numpy()
    np.testing.assert_allclose(found, [[-0.5, -0.5], [255.5, 255.5]], atol=1e-4)


def test_ffhq_turns_by_the_eyes_and_the_line_from_eyes_to_mouth():
    right_eye, left_eye, mouth = np.array([40.0, 50]), np.array([80.0, 60]), np.array([66.0, 97])
    faces = faces_at(
        face_of([right_eye, left_eye, (60, 75), mouth - np.array([10, 0]), mouth + np.array([10, 0])])
    )
    across, down = left_eye - right_eye, mouth - (right_eye + left_eye) / 2
    axis = across + np.array([down[1], -down[0]])
    linear = align_matrices(faces, 256, "ffhq")[0, :2, :2].numpy()
    np.testing.assert_allclose(linear @ axis, [256 / (4 * np.hypot(*across)) * np.hypot(*axis), 0], atol=1e-4)


@pytest.mark.parametrize("template", ["arcface", "ffhq", ARCFACE])
def test_a_turned_photo_gives_the_same_crop(photo, astronaut, template):
    turn = cv2.getRotationMatrix2D((220, 120), 25, 1.3)
    turned = cv2.warpAffine(photo, turn, (512, 512), flags=cv2.INTER_CUBIC)
    moved = faces_at(astronaut.landmarks @ turn[:, :2].T + turn[:, 2])
    straight, again = (
        align_faces(image, faces, 112, template)[0].astype(int)
        for image, faces in ((photo, astronaut), (turned, moved))
    )
    assert straight.shape == (112, 112, 3) and straight[20:90, 20:90].std() > 30
    assert np.abs(straight - again)[30:-30, 30:-30].mean() < 3


def test_every_face_has_its_crop_and_no_face_none(photo, astronaut):
    crops = align_faces(photo, astronaut[[0, 0]], 96)
    assert crops.shape == (2, 96, 96, 3) and crops.dtype == np.uint8 and crops.flags.c_contiguous
    np.testing.assert_array_equal(crops[0], crops[1])
    assert align_faces(photo, Faces.empty(), 96).shape == (0, 96, 96, 3)
    assert align_faces(photo, Faces.empty(), 96, "ffhq").shape == (0, 96, 96, 3)


@pytest.mark.parametrize("template", ["arcface", "ffhq"])
def test_a_face_that_is_one_point_has_a_crop(photo, astronaut, template):
    point = replace(astronaut, landmarks=np.full_like(astronaut.landmarks, 99))
    assert align_faces(photo, point, 32, template).shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": 112.5},
        {"template": "vgg"},
        {"template": np.zeros((4, 2))},
        {"template": np.ones((5, 2))},
        {"template": [["a", "b"]] * 5},
        {"template": [[1, 2], [3]]},
        {"template": np.full((5, 2), np.nan)},
    ],
    ids=str,
)
def test_a_wrong_template_or_size_is_refused(photo, astronaut, options):
    with pytest.raises(InputError, match=f"{next(iter(options))}: expected"):
        align_faces(photo, astronaut, **options)


HEAD = {
    30: (0.0, 0.0, 0.0),
    8: (0.0, 330.0, 65.0),
    36: (-225.0, -170.0, 135.0),
    45: (225.0, -170.0, 135.0),
    48: (-150.0, 150.0, 125.0),
    54: (150.0, 150.0, 125.0),
}


def pictured(yaw=0.0, pitch=0.0, roll=0.0):
    """The standard head, turned, as a camera far away sees it: landmarks (1, 68, 2)."""
    x, y, z = np.radians([-pitch, -yaw, roll])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    landmarks = np.zeros((1, 68, 2))
    for index, point in HEAD.items():
        landmarks[0, index] = (about_z @ about_y @ about_x @ point)[:2] * 0.3 + (200, 150)
    return landmarks


@pytest.mark.parametrize("pose", [(0, 0, 0), (30, 0, 0), (-30, 0, 0), (0, 20, 0), (0, 0, 40), (25, -15, 20)])
def test_the_pose_of_a_drawn_head_is_found(pose):
    found = head_pose(faces_at(pictured(*pose)))
    assert found.shape == (1, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], pose, atol=1)


def test_signs_are_those_of_the_picture():
    right, up = faces_at(pictured(yaw=20)), faces_at(pictured(pitch=20))
    straight = faces_at(pictured())

    def nose(faces):  # relative to the eyes
        return faces.landmarks[0, 30] - faces.landmarks[0, [36, 45]].mean(axis=0)

    assert nose(right)[0] > nose(straight)[0] and nose(up)[1] < nose(straight)[1]


def test_a_mirrored_photo_mirrors_yaw_and_roll(astronaut):
    mirrored = astronaut.landmarks[:, astronaut.layout.mirror] * (-1, 1) + (511, 0)
    np.testing.assert_allclose(head_pose(faces_at(mirrored)), head_pose(astronaut) * (-1, 1, -1), atol=0.5)


def test_the_size_of_a_face_does_not_change_its_pose():
    small, large = (faces_at(scale * pictured(25, -15, 20)) for scale in (0.01, 100))
    np.testing.assert_allclose(head_pose(small), head_pose(large), atol=0.01)


def test_no_face_has_no_pose():
    assert head_pose(Faces.empty()).shape == (0, 3)


@pytest.mark.parametrize("size", [0, -1, 2.5, "112", None, True, 100_000, 8193, 10**30])
def test_a_size_that_no_crop_has_is_refused(size):
    for crop in (
        lambda: align_matrices(Faces.empty(), size),
        lambda: align_faces(ASTRONAUT, Faces.empty(), size),
    ):
        with pytest.raises(
            InputError, match="size: expected (a whole number, at least 1|at most 8192 pixels), got"
        ):
            crop()
