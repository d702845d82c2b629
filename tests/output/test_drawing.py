"""Drawings: where the ink falls, and what is left alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from drawn_faces import mean_shape
from rings import GRAY, HEIGHT, WIDTH, faces_at, ink, ring

from face_landmarks.errors import InputError
from face_landmarks.layouts import IBUG_68
from face_landmarks.output import drawing, strokes
from face_landmarks.output.drawing import draw_faces
from face_landmarks.results import Faces


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
        blank = np.full((2 * scale * HEIGHT, 2 * scale * WIDTH, 3), 90, np.uint8)
        drawn = draw_faces(blank, faces_at(scale * ring((160, 120), 80)))
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
    np.testing.assert_array_equal(middle["jaw"], strokes._COLORS["jaw"])
    np.testing.assert_array_equal(middle["nose_bridge"], strokes._COLORS["nose"])
    np.testing.assert_array_equal(middle["left_eye"], strokes._COLORS["eye"])
    np.testing.assert_array_equal(middle["right_eyebrow"], strokes._COLORS["eyebrow"])
    np.testing.assert_array_equal(middle["outer_lips"], strokes._COLORS["lips"])
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
    contours = strokes.contours_of(Faces.empty(IBUG_68), None)
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


def test_a_label_at_the_right_edge_moves_to_the_left():
    text, roomy = "1234567", np.full((400, 400, 3), 90, np.uint8)
    expected = (ink_of_labels(faces_at(ring((80, 80), 25)), [text], roomy) > 0).sum()
    drawn = ink_of_labels(faces_at(ring((WIDTH, 60), 25)), [text]) > 0
    assert drawn.sum() == pytest.approx(expected, rel=0.05)
    left = np.nonzero(drawn)[1].min()
    assert left < WIDTH - 25  # of the box


@pytest.mark.parametrize("centre", [(-500, 60), (80, 1e30)])
def test_a_face_out_of_sight_has_no_label(centre):
    assert not ink_of_labels(faces_at(ring(centre, 25)), ["12"]).any()


def test_a_label_longer_than_the_photo_is_cut_off():
    drawn = ink_of_labels(faces_at(ring((80, 60), 40)), ["a long name " * 9])
    assert drawn.shape == (HEIGHT, WIDTH) and drawn.any()


def test_labels_are_one_for_each_face():
    with pytest.raises(InputError, match="labels: expected one for each of 1 faces, got 2"):
        draw_faces(GRAY, faces_at(ring((80, 60), 40)), labels=[1, 2])


@pytest.mark.parametrize(("radius", "weight"), [(50, 1), (50, 4), (120, 0.2)])
def test_a_drawing_does_not_depend_on_how_it_is_tiled(radius, weight, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (260, 300, 3), np.uint8)
    face = faces_at(ring((140.3, 130.6), radius))
    whole = draw_faces(noise, face, boxes=True, weight=weight)
    monkeypatch.setattr(drawing, "_TILE", 256)
    tiled = draw_faces(noise, face, boxes=True, weight=weight)
    assert ink(tiled, noise).any()
    assert np.abs(tiled.astype(int) - whole).max() <= 4  # grey levels: OpenCV rounds where it clips


def test_memory_does_not_grow_with_the_face(monkeypatch):
    enlarged, resize = [], drawing.cv2.resize

    def spy(big, *args, **options):
        enlarged.append(big)
        return resize(big, *args, **options)

    monkeypatch.setattr(drawing.cv2, "resize", spy)
    large = faces_at(ring((600, 600), 550))
    draw_faces(np.zeros((1200, 1200, 3), np.uint8), large, points=False, weight=0.5)
    side = max(max(big.shape[:2]) for big in enlarged)
    assert len(enlarged) > 4 and side <= drawing._TILE + 2 * 8 * drawing._BORDER
    monkeypatch.undo()


def test_a_line_to_a_landmark_far_away_leaves_the_photo_towards_it():
    landmarks = np.full((68, 2), 60.0)
    landmarks[:8] = [40, 30]
    landmarks[8:17] = [1e12, 30]  # beyond OpenCV's coordinates
    drawn = ink(draw_faces(GRAY, faces_at(landmarks), points=False, weight=1e-5))
    assert drawn[30, 41:].all() and not drawn[30, :38].any()


@pytest.mark.parametrize("lines", [True, False])
def test_a_dark_outline_shows_white_strokes_on_a_white_photo(lines):
    white = np.full((260, 260, 3), 255, np.uint8)
    drawn = draw_faces(
        white, faces_at(ring((130, 130), 100)), lines=lines, points=not lines, color=(255, 255, 255)
    )
    assert 140 <= drawn.min() <= 200  # at most 0.4 of black: an outline, not a black line


def test_small_faces_have_thinner_and_fainter_strokes_in_proportion():
    sizes = {
        size: strokes.stroke_sizes(np.array([(0, 0), (size / 2, size)], np.float32), 1)
        for size in (1, 50, 75, 150)
    }
    line, dot = sizes[150]
    assert line == pytest.approx(1.04, abs=0.01) and dot == pytest.approx(1.2, abs=0.01)
    assert sizes[75] == pytest.approx((line / 2, dot / 2)) and sizes[50] == pytest.approx((line / 3, dot / 3))
    assert sizes[1] == (0.3, 0.3)
    opacities = [
        strokes.line_opacity(np.array([(0, 0), (size, 1)], np.float32)) for size in (10, 75, 100, 900)
    ]
    assert opacities == pytest.approx([0.5, 0.75, 1, 1])


def face_of(size):
    return faces_at(size * mean_shape(IBUG_68) + (40, 10))


def test_a_small_face_has_dots_that_do_not_run_together_and_its_corners_among_them():
    face = face_of(60)
    chosen = strokes.spread_dots(face.landmarks[0], face)
    places = face.landmarks[0, chosen]
    distances = np.linalg.norm(places[:, None] - places, axis=2) + 99 * np.eye(len(places))
    assert 15 < len(chosen) < 50 and distances.min() >= 5
    assert {36, 45, 48, 54, 30, 8} <= set(chosen)


@pytest.mark.parametrize(
    ("size", "options", "few"),
    [
        (60, {}, True),
        (60, {"scores": True}, False),
        (60, {"indices": True}, False),
        (60, {"lines": False}, False),
        (400, {}, False),
    ],
    ids=str,
)
def test_dots_are_left_out_only_where_lines_show_the_face_and_nothing_else_is_told(
    size, options, few, monkeypatch
):
    drawn = []
    paint = drawing._paint
    monkeypatch.setattr(drawing, "_paint", lambda canvas, lines, dots, weight: drawn.append(len(dots)))
    draw_faces(np.zeros((450, 500, 3), np.uint8), face_of(size), **options)
    assert paint is not drawing._paint and (max(drawn) < 68) == few


def test_a_small_face_is_seen_through_its_lines(monkeypatch):
    face = faces_at(ring((80, 60), 20))  # of 40 pixels: half opaque
    faint = ink(draw_faces(GRAY, face, points=False, weight=4)).max()
    monkeypatch.setattr(drawing, "line_opacity", lambda points: 1.0)
    assert faint < 0.6 * ink(draw_faces(GRAY, face, points=False, weight=4)).max()


def test_scores_of_a_half_and_nine_tenths_have_colours_far_apart():
    colors = {score: np.array(strokes.score_color(score)) for score in (0, 0.5, 0.7, 0.9, 1)}
    assert [tuple(color) for color in colors.values()] == list(strokes.SCORE_COLORS.values())
    assert np.linalg.norm(colors[0.5] - colors[0.9]) > 150
    for low, high in pairwise((0.5, 0.6, 0.7, 0.8, 0.9, 1)):
        difference = np.subtract(strokes.score_color(low), strokes.score_color(high))
        assert np.linalg.norm(difference) > 50, (low, high)
    assert strokes.score_color(-3) == strokes.score_color(0) and strokes.score_color(
        2
    ) == strokes.score_color(1)


def test_indices_stand_beside_their_landmarks_away_from_the_middle():
    roomy = np.full((700, 700, 3), 90, np.uint8)
    face = faces_at(ring((350, 350), 250))
    drawn = ink(draw_faces(roomy, face, lines=False, points=False, indices=True), roomy)
    rows, columns = np.nonzero(drawn)
    distance = np.hypot(columns - 350, rows - 350)
    assert distance.min() > 250 and distance.max() < 250 + 35
    for x, y in face.landmarks[0]:
        near = np.hypot(columns - x, rows - y) < 25
        assert near.sum() > 20


@pytest.mark.parametrize("centre", [(0, 0), (WIDTH, HEIGHT), (-400, 50), (1e30, 0)])
def test_indices_may_lie_partly_or_wholly_outside(centre):
    assert draw_faces(GRAY, faces_at(ring(centre, 60)), indices=True).shape == GRAY.shape


@pytest.mark.parametrize("labels", [5, "ab", b"ab", None.__class__, np.array("a"), np.array(3)], ids=repr)
def test_labels_are_a_list(labels):
    with pytest.raises(InputError, match="labels: expected one for each of 2 faces, got"):
        draw_faces(GRAY, faces_at(ring((40, 60), 20), ring((110, 60), 20)), labels=labels)


@pytest.mark.parametrize("flag", ["lines", "points", "boxes", "indices", "scores"])
@pytest.mark.parametrize("value", [None, 1, "no", np.zeros(3)], ids=repr)
def test_a_flag_is_true_or_false(flag, value):
    with pytest.raises(InputError, match=f"{flag}: expected True or False"):
        draw_faces(GRAY, Faces.empty(), **{flag: value})
    draw_faces(GRAY, Faces.empty(), **{flag: np.True_})
