"""Functions that take a result work for 0, 1 and 3 faces of every layout, and refuse anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_faces import mean_shape
from matplotlib import pyplot as plt

from face_landmarks import Faces, TrackedFaces, draw_faces, plot_faces
from face_landmarks.errors import InputError
from face_landmarks.geometry import boxes_from_landmarks
from face_landmarks.layouts import LAYOUTS, Layout
from face_landmarks.output.crops import align_faces, align_matrices, five_points, head_pose
from face_landmarks.output.openness import eye_openness, mouth_openness

PHOTO = np.full((120, 160, 3), 90, np.uint8)

# What each gives: one entry per face along its first axis, or a photo with ink on it.
PER_FACE: dict[str, Callable[[Faces], Any]] = {
    "five_points": five_points,
    "head_pose": head_pose,
    "align_matrices": align_matrices,
    "align_faces": lambda faces: align_faces(PHOTO, faces, 32),
    "align_faces ffhq": lambda faces: align_faces(PHOTO, faces, 32, "ffhq"),
    "eye_openness": eye_openness,
    "mouth_openness": mouth_openness,
    "iteration": list,
    "to_list": lambda faces: [face.landmarks for face in faces.to_list()],
    "point": lambda faces: faces.point("nose_tip"),
    "region": lambda faces: faces.group("mouth"),
    "group": lambda faces: faces.group(next(iter(faces.layout.groups))),
    "to_dict": lambda faces: faces.to_dict()["landmarks"],
}
DRAWN: dict[str, Callable[[Faces], Any]] = {
    "draw_faces": lambda faces: draw_faces(PHOTO, faces),
    "draw_faces all": lambda faces: draw_faces(
        PHOTO, faces, boxes=True, scores=True, labels=range(len(faces)), color=(255, 0, 9)
    ),
}
PLOTTED: dict[str, Callable[[Faces], Any]] = {
    "plot_faces": lambda faces: plot_faces(PHOTO, faces),
    "plot_faces all": lambda faces: plot_faces(PHOTO, faces, boxes=True, indices=True, scores=True),
}


def some_faces(layout: Layout, count: int) -> Faces:
    shapes = [(30 + 10 * face) * mean_shape(layout) + (10 + 45 * face, 20) for face in range(count)]
    landmarks = np.array(shapes).reshape(count, len(layout), 2)
    scores = np.linspace(0, 1, landmarks[..., 0].size).reshape(count, len(layout))
    return Faces(landmarks, scores, boxes_from_landmarks(landmarks), np.ones(count), layout)


def rows(result: Any) -> list[np.ndarray]:
    return [np.asarray(row.landmarks if isinstance(row, Faces) else row) for row in result]


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("name", PER_FACE)
def test_each_face_gets_what_it_gets_alone(name: str, layout: Layout, count: int) -> None:
    faces = some_faces(layout, count)
    if "openness" in name and layout.name == "aflw-19":  # which has no points on lids and inner lips
        with pytest.raises(InputError, match=r"expected a layout with points on the .*, got aflw-19"):
            PER_FACE[name](faces)
        return
    together, alone = rows(PER_FACE[name](faces)), [rows(PER_FACE[name](face))[0] for face in faces]
    assert len(together) == count
    for one, other in zip(together, alone, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_faces_are_drawn_plotted_described_and_read_back(layout: Layout, count: int) -> None:
    faces = some_faces(layout, count)
    for draw in DRAWN.values():
        drawn = draw(faces)
        assert (drawn != PHOTO).any() == (count > 0)
        for face in faces:  # on its left eye, or in it
            x, y = face.landmarks[0, list(layout.eyes[1])].mean(axis=0).round().astype(int)
            assert (drawn[y - 4 : y + 5, x - 4 : x + 5] != 90).any()
    for plot in PLOTTED.values():
        axes = plot(faces)
        assert len(axes.lines) >= count * len(layout.groups)
    plt.close("all")
    assert f"{count} face" in repr(faces) and f"{count} face" in faces._repr_html_()
    assert Faces.from_dict(json.loads(faces.to_json())) == faces
    assert faces.landmarks.shape == (count, len(layout), 2)


@pytest.mark.parametrize("shape", ["one place", "one line"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_degenerate_face_leaves_the_others_their_pose(shape: str, place: int) -> None:
    faces = some_faces(LAYOUTS["ibug-68"], 3)
    landmarks = faces.landmarks.copy()
    landmarks[place] = np.linspace((30, 40), (70, 60) if shape == "one line" else (30, 40), 68)
    degenerate = replace(faces, landmarks=landmarks)
    pose, expected = head_pose(degenerate), head_pose(faces)
    assert np.isnan(pose[place]).all()
    others = np.arange(3) != place
    np.testing.assert_array_equal(pose[others], expected[others])
    for name in ("five_points", "align_matrices", "align_faces", "align_faces ffhq"):
        assert len(PER_FACE[name](degenerate)) == 3
    for function in (*DRAWN.values(), *PLOTTED.values()):
        function(degenerate)
    plt.close("all")


TAKERS = {
    **{name: PER_FACE[name] for name in ("five_points", "head_pose", "align_matrices", "align_faces")},
    "eye_openness": eye_openness,
    "mouth_openness": mouth_openness,
    "draw_faces": DRAWN["draw_faces"],
    "plot_faces": PLOTTED["plot_faces"],
    "concatenate": lambda faces: Faces.concatenate([faces]),
}


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize("value", [np.zeros((1, 68, 2)), None, 5, "faces"], ids=["array", "None", "5", "str"])
def test_what_is_not_a_result_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"faces: expected Faces, .*got {type(value).__name__}"):
        TAKERS[name](value)
    assert not plt.get_fignums()


@pytest.mark.parametrize("name", TAKERS)
def test_a_tracked_frame_is_refused_with_a_hint(name: str) -> None:
    tracked = TrackedFaces(Faces.empty(), np.empty(0, np.int64), True, False)
    with pytest.raises(InputError, match="got TrackedFaces; pass its attribute faces"):
        TAKERS[name](tracked)  # type: ignore[arg-type]
