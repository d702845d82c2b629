"""Faces drawn into pixels with OpenCV, at their subpixel places."""

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
    check_weight,
    contours_of,
    outline,
    stroke_sizes,
)
from face_landmarks.results import Faces

_SCORE_COLORS: tuple[RGB, ...] = ((215, 48, 39), (255, 255, 191), (26, 152, 80))  # at 0, 0.5 and 1
_LETTER_HEIGHT = 14.0  # of a label's capitals, in line widths
_ENLARGED_LETTER = 64  # their height, in pixels, where they are drawn
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FRACTION_BITS = 4  # OpenCV draws at 1 / 2**4 of a pixel


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
    """Draw faces into a copy of the photo, at their subpixel places.

    Args:
        image: whatever `read_image` reads; it is not changed.
        faces: as `FaceAligner` gives them for this photo.
        lines: draw the contour of each facial part.
        points: draw each landmark as a dot.
        boxes: draw the face boxes.
        scores: colour each dot by its score, from red (0) over yellow to green (1).
        labels: one for each face, such as its name or number, written above its box.
        color: one RGB colour for all lines, in place of one for each part of the face.
        weight: makes every stroke heavier (above 1) or lighter (below 1).

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: an unusable image, another number of labels than of faces, or a weight that is
            not positive.
    """
    check_weight(weight)
    texts = [""] * len(faces) if labels is None else list(map(str, labels))
    if len(texts) != len(faces):
        raise InputError(f"labels: expected one for each of {len(faces)} faces, got {len(texts)}")
    canvas = read_image(image)  # ours to draw on: a copy, also of an array
    contours = contours_of(faces.layout, color)
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
    """Draw lines and dots into the canvas, in place.

    OpenCV's lines are whole pixels wide. So the part of the canvas they touch is enlarged by
    repeating pixels, drawn on, and averaged back: what is not drawn on comes back unchanged.
    """
    if not strokes and not dots:
        return
    touched = np.concatenate([*(line for line, _ in strokes), *(dot[np.newaxis] for dot, _ in dots)])
    line_width, radius = stroke_sizes(touched, weight)
    margin = math.ceil(radius + SHADE_WIDTH * line_width) + 1
    size = canvas.shape[1::-1]
    low = np.clip(np.floor(touched.min(axis=0)) - margin, 0, size).astype(int)
    high = np.clip(np.ceil(touched.max(axis=0)) + margin + 1, 0, size).astype(int)
    patch = canvas[low[1] : high[1], low[0] : high[0]]
    if not patch.size:
        return

    scale = min(8, math.ceil(5 / line_width))  # lines about five enlarged pixels wide, or more
    image_to_enlarged = resize_matrix(scale)

    def fixed(points: Points) -> NDArray[np.int32]:
        enlarged = transform_points(image_to_enlarged, torch.from_numpy(points - low)).numpy()
        rounded: NDArray[np.int32] = np.rint(enlarged * 2**_FRACTION_BITS).astype(np.int32)
        return rounded

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
    patch[:] = cv2.resize(bright, patch.shape[1::-1], interpolation=cv2.INTER_AREA)


def _write(canvas: NDArray[np.uint8], text: str, box: Points, rgb: RGB, weight: float) -> None:
    """Write a text above a box in view, or as near to there as it is inside the canvas; in place.

    The letters are drawn enlarged and averaged, as lines are in `_paint`; so is their shade.
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
