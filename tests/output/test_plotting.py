"""Figures of faces and heatmaps: what is plotted, and where."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from rings import GRAY, HEIGHT, WIDTH, faces_at, ink, ring

from face_landmarks import FaceAligner, FaceHeatmaps, read_image
from face_landmarks.benchmarks.curves import plot_ced
from face_landmarks.errors import InputError, MissingDependencyError
from face_landmarks.geometry import resize_matrix, transform_points
from face_landmarks.heatmap import encode_heatmaps
from face_landmarks.layouts import IBUG_68
from face_landmarks.output.drawing import draw_faces
from face_landmarks.output.plotting import plot_faces, plot_heatmaps
from face_landmarks.output.strokes import SHADE, score_color
from face_landmarks.results import Faces

ASTRONAUT = Path(__file__).parents[2] / "examples" / "data" / "astronaut.jpg"


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "2", None, 101, 1e9, True, 10**30])
def test_a_weight_is_a_positive_number(weight):
    for draw in (draw_faces, plot_faces):
        with pytest.raises(InputError, match="weight: expected a positive number"):
            draw(GRAY, Faces.empty(IBUG_68), weight=weight)
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    "color", ["red", (255, 0), (0, 0, 256), (0.5, 0, 0), (-1, 0, 0), 7, (), (True, 0, 0)], ids=str
)
def test_a_colour_is_three_levels(color):
    for draw in (draw_faces, plot_faces):
        with pytest.raises(InputError, match="color: expected a tuple of red, green and blue"):
            draw(GRAY, Faces.empty(IBUG_68), color=color)
    assert not plt.get_fignums()


def test_plot_faces_makes_one_figure_in_image_coordinates():
    axes = plot_faces(GRAY, faces_at(ring((80, 60), 40)))
    assert len(plt.get_fignums()) == 1
    assert axes.get_xlim() == (-0.5, WIDTH - 0.5) and axes.get_ylim() == (HEIGHT - 0.5, -0.5)
    width, height = axes.figure.get_size_inches()
    assert width / height == pytest.approx(WIDTH / HEIGHT)
    axes.figure.canvas.draw()


def test_plot_faces_uses_the_axes_given_and_opens_no_figure():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot_faces(GRAY, faces_at(ring((80, 60), 40)), right) is right
    assert not left.images and len(right.images) == 1
    assert not plt.get_fignums()


def test_plot_faces_plots_what_is_asked_for():
    pair = faces_at(ring((40, 60), 20), ring((100, 60), 30))
    lines = plot_faces(GRAY, pair, points=False)
    assert len(lines.lines) == 2 * len(IBUG_68.groups) and not lines.collections and not lines.texts
    np.testing.assert_array_equal(lines.lines[0].get_xydata(), pair.landmarks[0, :17])

    dots = plot_faces(GRAY, pair, lines=False)
    assert not dots.lines
    np.testing.assert_allclose(dots.collections[1].get_offsets(), pair.landmarks[1])

    boxes = plot_faces(GRAY, pair, lines=False, points=False, boxes=True)
    x0, y0, x1, y1 = pair.boxes[1]
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    np.testing.assert_allclose(boxes.lines[1].get_xydata(), corners)

    indices = plot_faces(GRAY, pair, indices=True)
    assert [text.get_text() for text in indices.texts] == [*map(str, range(68))] * 2
    assert indices.texts[70].xy == pytest.approx(tuple(pair.landmarks[1, 2]))


def test_plot_faces_colours_points_by_their_score():
    axes = plot_faces(GRAY, faces_at(ring((80, 60), 40)), scores=True)
    dots = axes.collections[0]
    axes.figure.canvas.draw()
    np.testing.assert_allclose(dots.get_array(), np.linspace(0, 1, 68), rtol=1e-6)
    assert dots.get_clim() == (0, 1)
    (red, _, _, _), (_, green, _, _) = dots.get_facecolors()[[0, -1]]
    assert red > 0.6 and green > 0.4
    for score, color in zip(np.linspace(0, 1, 68), dots.get_facecolors(), strict=True):
        np.testing.assert_allclose(255 * color[:3], score_color(score), atol=3)
    np.testing.assert_allclose(dots.get_edgecolors()[0], (0, 0, 0, SHADE))


def test_a_landmark_outside_the_photo_does_not_move_the_axes():
    axes = plot_faces(GRAY, faces_at(ring((80, 60), 300)), boxes=True, indices=True)
    axes.figure.canvas.draw()
    assert axes.get_xlim() == (-0.5, WIDTH - 0.5)


def test_limits_set_before_stay_and_strokes_follow_them():
    whole, part = Figure().subplots(), Figure().subplots()
    part.set(xlim=(60, 100), ylim=(80, 40))
    for axes in (whole, part):
        plot_faces(GRAY, faces_at(ring((80, 60), 15)), axes)
    assert part.get_xlim() == (60, 100) and part.get_ylim() == (80, 40)
    assert part.lines[0].get_linewidth() > 1.4 * whole.lines[0].get_linewidth()


def test_plotting_nobody_shows_the_photo():
    axes = plot_faces(GRAY, Faces.empty(IBUG_68), boxes=True, indices=True, scores=True)
    assert len(axes.images) == 1 and not axes.lines


def heatmaps_with_spots(spots: list[tuple[float, float]], offset: float = 0.0) -> FaceHeatmaps:
    """One face of K landmarks, seen in a crop of 32 pixels through heatmaps of 8 rows and 8 columns."""
    points = torch.tensor(spots)[None]  # (1, K, 2)
    heatmap_to_crop = resize_matrix(4)
    heatmap_to_crop[:2, 2] += offset
    return FaceHeatmaps(
        np.full((1, 32, 32, 3), 90, np.uint8),
        encode_heatmaps(points, (8, 8), sigma=1).numpy(),
        points.numpy(),
        heatmap_to_crop.numpy(),
        heatmap_to_crop[None].numpy(),
    )


def test_heatmaps_lie_over_the_crop_where_their_cells_are():
    axes = plot_heatmaps(heatmaps_with_spots([(2.25, 5.0), (6.0, 1.5)]))
    crop, heat = axes.images
    assert crop.get_extent() == [-0.5, 31.5, 31.5, -0.5] == list(heat.get_extent())
    values = heat.get_array()
    np.testing.assert_array_equal(heat.get_alpha(), values)  # the crop is seen where no landmark is
    assert values.shape == (8, 8) and values[5, 2] == values.max() and values[1, 6] == values[2, 6] > 0.8
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(10.5, 21.5), (25.5, 7.5)])
    axes.figure.canvas.draw()


def test_an_offset_moves_heatmaps_and_points_and_not_the_crop():
    axes = plot_heatmaps(heatmaps_with_spots([(2.25, 5.0)], offset=1.0))
    crop, heat = axes.images
    assert list(heat.get_extent()) == [0.5, 32.5, 32.5, 0.5] and crop.get_extent()[0] == -0.5
    assert axes.get_xlim() == (-0.5, 31.5)
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(11.5, 22.5)])


def test_chosen_landmarks_alone_are_plotted():
    axes = plot_heatmaps(heatmaps_with_spots([(2, 5), (6, 1)]), landmarks=[1], ax=Figure().subplots())
    heat = axes.images[1].get_array()
    assert heat[1, 6] == 1 and heat[5, 2] < 0.01 and len(axes.lines[0].get_xydata()) == 1
    assert not plot_heatmaps(heatmaps_with_spots([(2, 5)]), points=False).lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"face": 1}, "face: expected one of 1"),
        ({"face": -2}, "face: expected"),
        ({"face": 0.5}, "face: expected"),
        ({"landmarks": 3}, "0 to 1"),
        ({"landmarks": "ab"}, "0 to 1"),
        ({"points": 1}, "points: expected True"),
        ({"ax": 5}, "ax: expected axes"),
        ({"landmarks": [2]}, "0 to 1"),
        ({"landmarks": []}, "0 to 1"),
    ],
    ids=str,
)
def test_heatmaps_that_are_not_there_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        plot_heatmaps(heatmaps_with_spots([(2, 5), (6, 1)]), **options)
    assert not plt.get_fignums()


def test_the_heatmaps_of_an_aligner_are_those_its_landmarks_are_read_from():
    aligner = FaceAligner("shr-fan-68-fast", detector=None, device="cpu", batch_size=2)
    boxes = [(178, 59, 267, 175), (150, 40, 300, 190), (178, 59, 267, 175)]
    seen = aligner.heatmaps(ASTRONAUT, boxes)
    assert len(seen) == 3 and seen.crops.shape == (3, 128, 128, 3) and seen.heatmaps.shape == (3, 68, 32, 32)
    in_image = transform_points(torch.from_numpy(seen.heatmap_to_image), torch.from_numpy(seen.points))
    np.testing.assert_allclose(in_image[0], aligner.align(ASTRONAUT, boxes[:1]).landmarks[0], atol=1e-3)
    # The centre of a crop shows what the photo has there.
    crop_to_image = seen.heatmap_to_image[0] @ np.linalg.inv(seen.heatmap_to_crop)
    x, y = np.rint((crop_to_image @ (63.5, 63.5, 1))[:2]).astype(int)
    nearby = seen.crops[0, 62:66, 62:66].mean(axis=(0, 1))
    np.testing.assert_allclose(
        nearby, read_image(ASTRONAUT)[y - 1 : y + 2, x - 1 : x + 2].mean((0, 1)), atol=12
    )


def test_nobodys_heatmaps_have_every_axis():
    seen = FaceAligner("shr-fan-68-fast", detector=None, device="cpu").heatmaps(GRAY, np.empty((0, 4)))
    assert len(seen) == 0 and seen.crops.shape == (0, 128, 128, 3) and seen.points.shape == (0, 68, 2)


def test_without_matplotlib_plots_name_the_extra_and_drawings_still_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    face = faces_at(ring((80, 60), 40))
    for plot in (lambda: plot_faces(GRAY, face), lambda: plot_ced({"a": [1.0]})):
        with pytest.raises(MissingDependencyError, match=r'pip install "shr-fan\[plot\]"'):
            plot()
    assert ink(draw_faces(GRAY, face)).any()


@pytest.mark.parametrize("value", [None, 5, "heatmaps", np.zeros((1, 68, 40, 40))], ids=type)
def test_what_is_no_result_of_heatmaps_is_refused(value):
    with pytest.raises(InputError, match="heatmaps: expected FaceHeatmaps, got"):
        plot_heatmaps(value)


@pytest.mark.parametrize("options", [{"ax": 5}, {"ax": "axes"}, {"lines": 1}, {"indices": None}], ids=str)
def test_arguments_of_another_kind_are_refused(options):
    with pytest.raises(InputError, match=f"{next(iter(options))}: expected"):
        plot_faces(GRAY, Faces.empty(IBUG_68), **options)
    assert not plt.get_fignums()
