"""Faces drawn into a photo with OpenCV, at subpixel positions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import repeat

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks.errors import InputError
from face_landmarks.geometry import resize_matrix, transform_points
from face_landmarks.images import ImageSource, read_image
from face_landmarks.output.strokes import (
    RGB,
    SHADE,
    SHADE_WIDTH,
    WHITE,
    Points,
    check_style,
    contours_of,
    outline,
    stroke_sizes,
)
from face_landmarks.results import Faces, check_faces

_SCORE_COLORS: tuple[RGB, ...] = ((215, 48, 39), (255, 255, 191), (26, 152, 80))  # at 0, 0.5 and 1
_TILE = 2048  # longest side of an enlarged part of the canvas, in pixels; bounds memory
_BORDER = 2  # pixels around such a part that are drawn and dropped: OpenCV's lines are inexact at its edge
_LETTER_HEIGHT = 14.0  # of a label's capitals, in line widths
_ENLARGED_LETTER = 64  # of a label's capitals when drawn enlarged, in pixels
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FRACTION_BITS = 4  # OpenCV takes coordinates in units of 1 / 2**4 pixel
_FARTHEST = 2**30  # in these units; OpenCV's coordinates have 32 bits


def draw_faces(
    image: ImageSource,
    faces: Faces,
    *,
    lines: bool = True,
    points: bool = True,
    boxes: bool = False,
    scores: bool = False,
    labels: Iterable[object] | None = None,
    color: RGB | None = None,
    weight: float = 1.0,
) -> NDArray[np.uint8]:
    """Draw faces into a copy of the photo, at subpixel positions.

    Args:
        image: whatever `read_image` reads; it is not changed.
        faces: as `FaceAligner` gives them for this photo.
        lines: draw the contour of each facial part.
        points: draw each landmark as a dot.
        boxes: draw the face boxes.
        scores: colour each dot by its score, from red (0) over yellow to green (1).
        labels: one text per face, such as its name or number, written above its box.
        color: one RGB colour, each from 0 to 255, for all lines instead of one per facial part.
        weight: factor on the width of lines and the radius of dots.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: an unusable image or colour, `faces` that is not `Faces`, another number of labels than
            of faces, or a weight that is not positive.
    """
    check_style(color, weight)
    check_faces(faces)
    texts = [""] * len(faces) if labels is None else list(map(str, labels))
    if len(texts) != len(faces):
        raise InputError(f"labels: expected one for each of {len(faces)} faces, got {len(texts)}")
    canvas = read_image(image)  # a copy, even of an array
    contours = contours_of(faces, color)
    for face in faces:
        (landmarks,), (landmark_scores,), (box,) = face.landmarks, face.landmark_scores, face.boxes
        if boxes:
            _paint(canvas, [(outline(box), color or WHITE)], [], weight)
        strokes = [(landmarks[indices], rgb) for indices, rgb in contours if lines]
        inks = map(_score_color, landmark_scores) if scores else repeat(WHITE)
        _paint(canvas, strokes, list(zip(landmarks, inks, strict=False)) if points else [], weight)
    for text, box in zip(texts, faces.boxes, strict=True):
        if text:
            _write(canvas, text, box, color or WHITE, weight)
    return canvas


def _paint(
    canvas: NDArray[np.uint8],
    strokes: list[tuple[Points, RGB]],
    dots: list[tuple[Points, RGB]],
    weight: float,
) -> None:
    """Draw lines (P, 2) and dots (2,) into the canvas, in place, tile by tile to bound memory."""
    shapes = [*(line for line, _ in strokes), *(np.stack([dot, dot]) for dot, _ in dots)]  # S lines
    if not shapes:
        return
    line_width, radius = stroke_sizes(np.concatenate(shapes), weight)
    margin = math.ceil(radius + SHADE_WIDTH * line_width) + 1
    owners = np.repeat(np.arange(len(shapes)), [len(shape) - 1 for shape in shapes])
    starts, ends = (np.concatenate([shape[part] for shape in shapes]) for part in (slice(-1), slice(1, None)))
    lows = np.floor(np.minimum(starts, ends)) - margin  # of what each segment may touch, x y
    highs = np.ceil(np.maximum(starts, ends)) + margin + 1
    size = canvas.shape[1::-1]
    low, high = (np.clip(edge, 0, size).astype(int) for edge in (lows.min(axis=0), highs.max(axis=0)))

    scale = min(8, math.ceil(5 / line_width))  # lines at least about five enlarged pixels wide
    side = _TILE // scale
    for top in range(low[1], high[1], side):
        for left in range(low[0], high[0], side):
            corner, end = np.array([left, top]), np.minimum((left + side, top + side), high)
            near = set(owners[((lows < end) & (highs > corner)).all(axis=1)].tolist())
            if near:
                near_strokes = [stroke for index, stroke in enumerate(strokes) if index in near]
                near_dots = [dot for index, dot in enumerate(dots, len(strokes)) if index in near]
                x, y = begin = np.maximum(corner - _BORDER, 0)
                patch = canvas[y : end[1] + _BORDER, x : end[0] + _BORDER]
                drawn = _paint_tile(patch, begin, scale, near_strokes, near_dots, line_width, radius)
                canvas[top : end[1], left : end[0]] = drawn[top - y : end[1] - y, left - x : end[0] - x]


def _paint_tile(
    patch: NDArray[np.uint8],
    corner: NDArray[np.int64],
    scale: int,
    strokes: list[tuple[Points, RGB]],
    dots: list[tuple[Points, RGB]],
    line_width: float,
    radius: float,
) -> NDArray[np.uint8]:
    """Lines and dots drawn into a copy of a part of the canvas that begins at the corner (x, y).

    OpenCV's lines are whole pixels wide. So the patch is enlarged by repeating pixels, drawn on, and averaged
    back: pixels without ink keep their values.
    """
    image_to_enlarged = resize_matrix(scale)

    def fixed(points: Points) -> NDArray[np.int32]:
        enlarged = transform_points(image_to_enlarged, torch.from_numpy(points - corner)).numpy()
        units = np.rint(enlarged * 2**_FRACTION_BITS)
        whole: NDArray[np.int32] = np.clip(units, -_FARTHEST, _FARTHEST).astype(np.int32)
        return whole

    def paint_line(target: NDArray[np.uint8], line: Points, rgb: RGB, width: float) -> None:
        thickness = max(1, round(width * scale))
        cv2.polylines(target, [fixed(line)], False, rgb, thickness, cv2.LINE_AA, _FRACTION_BITS)

    def paint_dot(target: NDArray[np.uint8], dot: Points, rgb: RGB, radius: float) -> None:
        length = round(radius * scale * 2**_FRACTION_BITS)
        ((x, y),) = fixed(dot[np.newaxis]).tolist()
        cv2.circle(target, (x, y), length, rgb, cv2.FILLED, cv2.LINE_AA, _FRACTION_BITS)

    bright = patch.repeat(scale, axis=0).repeat(scale, axis=1)
    dark = bright.copy()
    for line, _ in strokes:
        paint_line(dark, line, (0, 0, 0), SHADE_WIDTH * line_width)
    for dot, _ in dots:
        paint_dot(dark, dot, (0, 0, 0), radius + 0.7 * line_width)
    cv2.addWeighted(dark, SHADE, bright, 1 - SHADE, 0, dst=bright)
    for line, rgb in strokes:
        paint_line(bright, line, rgb, line_width)
    for dot, rgb in dots:
        paint_dot(bright, dot, rgb, radius)
    return np.asarray(cv2.resize(bright, patch.shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _write(canvas: NDArray[np.uint8], text: str, box: Points, rgb: RGB, weight: float) -> None:
    """Write a text above a box that is in view, moved inside the canvas if necessary; in place.

    Letters and their shade are drawn enlarged and averaged, as lines are in `_paint_tile`.
    """
    size = np.array(canvas.shape[1::-1])  # (W, H)
    if (box[:2] >= size).any() or (box[2:] <= 0).any():
        return
    line_width, _ = stroke_sizes(outline(box), weight)
    letters = min(_LETTER_HEIGHT * line_width, size.min() / 4)  # pixels
    scale = max(1, round(_ENLARGED_LETTER / letters))
    thickness, margin = max(1, round(letters * scale / 9)), math.ceil(letters / 9)
    font = cv2.getFontScaleFromHeight(_FONT, round(letters * scale), thickness)
    (across, up), down = cv2.getTextSize(text, _FONT, font, thickness)
    width, height = (math.ceil(length / scale) + 2 * margin for length in (across, up + down))
    left, top = np.clip(box[:2] - (0, height), 0, np.maximum(size - (width, height), 0)).round().astype(int)

    ink = np.zeros((height * scale, width * scale), np.uint8)
    cv2.putText(ink, text, (margin * scale, margin * scale + up), _FONT, font, 255, thickness, cv2.LINE_AA)
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin * scale + 1,) * 2)
    patch = canvas[top : top + height, left : left + width]
    for mask, opacity, paint in ((cv2.dilate(ink, brush), SHADE, (0, 0, 0)), (ink, 1.0, rgb)):
        small = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        share = opacity * small[: patch.shape[0], : patch.shape[1], np.newaxis] / 255  # (h, w, 1)
        patch[:] = np.rint((1 - share) * patch + share * np.array(paint))


def _score_color(score: float) -> RGB:
    """From red (0) over yellow to green (1)."""
    levels = (np.interp(score, (0, 0.5, 1), channel) for channel in zip(*_SCORE_COLORS, strict=True))
    red, green, blue = (round(float(level)) for level in levels)
    return red, green, blue
