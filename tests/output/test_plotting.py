"""Drawings: where the ink falls, and what is left alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from face_landmarks import FaceAligner, FaceHeatmaps, read_image
from face_landmarks.errors import InputError, MissingDependencyError
from face_landmarks.geometry import boxes_from_landmarks, resize_matrix, transform_points
from face_landmarks.heatmap import encode_heatmaps
from face_landmarks.layouts import IBUG_68
from face_landmarks.output import plotting
from face_landmarks.output.plotting import draw_faces, plot_ced, plot_faces, plot_heatmaps
from face_landmarks.results import Faces

ASTRONAUT = Path(__file__).parents[2] / "examples" / "data" / "astronaut.jpg"
HEIGHT, WIDTH = 120, 160
GRAY = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    yield
    plt.close("all")


def ring(centre: tuple[float, float], radius: float) -> np.ndarray:
    """(68, 2) landmarks evenly on a circle."""
    angles = np.arange(68) * 2 * np.pi / 68
    return np.float32(centre) + radius * np.stack((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32)


def faces_at(*landmarks: np.ndarray) -> Faces:
    points = np.stack(landmarks).astype(np.float32)
    scores = np.tile(np.linspace(0, 1, 68, dtype=np.float32), (len(points), 1))
    return Faces(points, scores, boxes_from_landmarks(points), np.ones(len(points), np.float32))


def ink(image: np.ndarray, background: np.ndarray = GRAY) -> np.ndarray:
    """(H, W) how much each pixel was changed."""
    return np.abs(image.astype(float) - background).sum(axis=2)


def test_a_drawing_is_a_copy_of_the_photo_with_ink_on_it():
    photo = GRAY.copy()
    drawn = draw_faces(photo, faces_at(ring((80, 60), 40)))
    assert drawn.shape == photo.shape and drawn.dtype == np.uint8
    assert not np.shares_memory(drawn, photo)
    np.testing.assert_array_equal(photo, GRAY)
    assert ink(drawn).any()


@pytest.mark.parametrize("centre", [(80, 60), (80.25, 60), (79.5, 60.5), (80.75, 59.3)])
@pytest.mark.parametrize("size", [3, 10, 30])
def test_ink_is_centred_where_the_landmarks_are_to_a_twentieth_of_a_pixel(centre, size):
    night = np.zeros_like(GRAY)  # on black only the bright part of a dot is seen
    drawn = ink(draw_faces(night, faces_at(ring(centre, size)), lines=False), night)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    found = (columns * drawn).sum() / drawn.sum(), (rows * drawn).sum() / drawn.sum()
    np.testing.assert_allclose(found, centre, atol=0.05)


@pytest.mark.parametrize(("radius", "reach"), [(10, 3), (50, 4)])
def test_pixels_away_from_the_strokes_are_untouched(radius, reach):
    noise = np.random.default_rng(0).integers(0, 256, GRAY.shape, np.uint8)
    drawn = draw_faces(noise, faces_at(ring((80, 60), radius)), lines=False)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    away = np.abs(np.hypot(columns - 80, rows - 60) - radius) > reach
    np.testing.assert_array_equal(drawn[away], noise[away])
    assert ink(drawn, noise).any()


def test_strokes_grow_with_the_face_but_slower():
    shares = []
    for scale in (1, 2, 4):
        blank = np.full((scale * HEIGHT, scale * WIDTH, 3), 90, np.uint8)
        drawn = draw_faces(blank, faces_at(scale * ring((80, 60), 40)))
        shares.append((ink(drawn, blank) > 30).sum())
    assert shares[0] < shares[1] < shares[2]
    assert 2 < shares[1] / shares[0] < 4 and 2 < shares[2] / shares[1] < 4  # 4 would be in proportion


def test_weight_makes_strokes_heavier():
    face = faces_at(ring((80, 60), 40))
    light, normal, heavy = (ink(draw_faces(GRAY, face, weight=weight)).sum() for weight in (0.5, 1, 2))
    assert light < normal < heavy


def test_each_part_has_its_colour_unless_one_is_given():
    landmarks = np.stack((np.linspace(10, 150, 68), np.full(68, 60)), axis=1)
    drawn = draw_faces(GRAY, faces_at(landmarks), points=False, weight=3)
    row = drawn[60].astype(int)
    middle = {
        name: row[round(landmarks[list(indices), 0].mean())] for name, indices in IBUG_68.groups.items()
    }
    np.testing.assert_array_equal(middle["jaw"], plotting._COLORS["jaw"])
    np.testing.assert_array_equal(middle["nose_bridge"], plotting._COLORS["nose"])
    np.testing.assert_array_equal(middle["left_eye"], plotting._COLORS["eye"])
    np.testing.assert_array_equal(middle["right_eyebrow"], plotting._COLORS["eyebrow"])
    np.testing.assert_array_equal(middle["outer_lips"], plotting._COLORS["lips"])
    red = draw_faces(GRAY, faces_at(landmarks), points=False, weight=3, color=(255, 0, 0))
    np.testing.assert_array_equal(red[60, 20], (255, 0, 0))


def test_dots_are_coloured_by_their_score_from_red_over_yellow_to_green():
    faces = faces_at(ring((80, 60), 45))  # scores from 0 to 1 around the circle
    drawn = draw_faces(GRAY, faces, lines=False, scores=True, weight=3).astype(int)
    x, y = np.rint(faces.landmarks[0]).astype(int).T
    red, green, blue = drawn[y, x].T
    assert red[0] > green[0] + 100 and green[67] > red[67] + 100
    assert min(red[34], green[34]) > blue[34] + 30
    white = draw_faces(GRAY, faces, lines=False, weight=3)
    assert (white[y, x] > 240).all()


def test_every_edge_of_the_layout_is_drawn_and_no_other():
    contours = plotting._contours(IBUG_68, None)
    drawn = [pair for indices, _ in contours for pair in pairwise(indices)]
    assert sorted(drawn) == sorted(IBUG_68.edges)


def test_a_box_is_drawn_on_its_four_sides():
    face = faces_at(ring((80, 60), 30))
    drawn = ink(draw_faces(GRAY, face, lines=False, points=False, boxes=True))
    x0, y0, x1, y1 = face.boxes[0].round().astype(int)
    assert (drawn[[y0, y1], 80] > 100).all() and (drawn[60, [x0, x1]] > 100).all()
    assert drawn[60, 80] == 0


def test_nothing_asked_for_or_nobody_there_leaves_the_photo_as_it_is():
    bare = draw_faces(GRAY, faces_at(ring((80, 60), 30)), lines=False, points=False)
    np.testing.assert_array_equal(bare, GRAY)
    np.testing.assert_array_equal(draw_faces(GRAY, Faces.empty(IBUG_68), boxes=True), GRAY)


@pytest.mark.parametrize("centre", [(0, 0), (WIDTH, 60), (80, -25), (-500, 60), (1e6, 1e6)])
def test_a_face_may_lie_partly_or_wholly_outside(centre):
    drawn = draw_faces(GRAY, faces_at(ring(centre, 30)), boxes=True)
    assert drawn.shape == GRAY.shape
    assert ink(drawn).any() == (max(np.abs(centre)) < 200)


def ink_of_labels(faces: Faces, labels: list[object], canvas: np.ndarray = GRAY) -> np.ndarray:
    drawn = draw_faces(canvas, faces, lines=False, points=False, labels=labels)
    return ink(drawn, canvas)


def test_a_label_stands_above_the_box_of_its_face():
    pair = faces_at(ring((40, 80), 25), ring((110, 80), 25))
    one, both = ink_of_labels(pair, [7, ""]), ink_of_labels(pair, [7, "Eva"])
    (x0, top, x1, _), (right_x0, *_) = pair.boxes
    rows, columns = np.nonzero(one)
    assert rows.size and (rows < top).all() and (rows > top - 20).all()
    assert (columns >= x0 - 1).all() and (columns < x1).all()
    assert (both[:, 60:] > 0).sum() > 1.5 * (one > 0).sum()
    assert (np.nonzero(both[:, 80:])[1] + 80 >= right_x0 - 1).all()


@pytest.mark.parametrize("centre", [(5, 5), (WIDTH, 30), (80, HEIGHT), (0, 60)])
def test_a_label_stays_whole_inside_the_photo(centre):
    inside, roomy = ring((80, 80), 25), np.full((400, 400, 3), 90, np.uint8)
    expected = (ink_of_labels(faces_at(inside), ["12"], roomy) > 0).sum()
    assert (ink_of_labels(faces_at(ring(centre, 25)), ["12"]) > 0).sum() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("centre", [(-500, 60), (80, 1e30)])
def test_a_face_out_of_sight_has_no_label(centre):
    assert not ink_of_labels(faces_at(ring(centre, 25)), ["12"]).any()


def test_a_label_longer_than_the_photo_is_cut_off():
    drawn = ink_of_labels(faces_at(ring((80, 60), 40)), ["a long name " * 9])
    assert drawn.shape == (HEIGHT, WIDTH) and drawn.any()


def test_labels_are_one_for_each_face():
    with pytest.raises(InputError, match="labels: expected one for each of 1 faces, got 2"):
        draw_faces(GRAY, faces_at(ring((80, 60), 40)), labels=[1, 2])


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_is_a_positive_number(weight):
    for draw in (draw_faces, plot_faces):
        with pytest.raises(InputError, match="weight: expected a positive number"):
            draw(GRAY, Faces.empty(IBUG_68), weight=weight)
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
    [({"face": 1}, "face: expected one of 1"), ({"landmarks": [2]}, "0 to 1"), ({"landmarks": []}, "0 to 1")],
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


def test_a_ced_is_a_staircase_that_ends_at_the_right_edge():
    axes = plot_ced({"some": [2.0, 6.0, 12.0, float("inf")], "other": [1.0]}, max_error=8)
    some, other = axes.lines
    np.testing.assert_allclose(some.get_xydata(), [(0, 0), (2, 25), (6, 50), (8, 50)])
    np.testing.assert_allclose(other.get_xydata(), [(0, 0), (1, 100), (8, 100)])
    assert some.get_drawstyle() == "steps-post"
    assert axes.get_xlim() == (0, 8) and axes.get_ylim() == (0, 100)
    # AUC: (6 + 2) / 8 / 4 of the faces; FR: two of four
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "some   AUC 25.0 %   FR 50.0 %",
        "other   AUC 87.5 %   FR 0.0 %",
    ]
    axes.figure.canvas.draw()


def test_a_ced_goes_into_the_axes_given_and_refuses_no_faces():
    axes = Figure().subplots()
    assert plot_ced({"a": [1.0]}, axes) is axes
    with pytest.raises(InputError, match="N > 0"):
        plot_ced({"a": []})
    assert not plt.get_fignums()


def test_without_matplotlib_plots_name_the_extra_and_drawings_still_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    face = faces_at(ring((80, 60), 40))
    for plot in (lambda: plot_faces(GRAY, face), lambda: plot_ced({"a": [1.0]})):
        with pytest.raises(MissingDependencyError, match=r'pip install "face-landmarks\[plot\]"'):
            plot()
    assert ink(draw_faces(GRAY, face)).any()
