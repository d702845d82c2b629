"""Letters in drawings: labels of faces, and indices of landmarks."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks.output.strokes import RGB, SHADE, WHITE, Points, outline, size_of, stroke_sizes

_LETTER_HEIGHT = 14.0  # of a label's capitals, in line widths
_ENLARGED_LETTER = 64  # of capitals when they are drawn enlarged, in pixels
_INDEX_HEIGHT = 0.016  # of an index's digits, in sizes of the face
_INDEX_HEIGHTS = (4.0, 14.0)  # least and most, in pixels
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_label(canvas: NDArray[np.uint8], text: str, box: Points, rgb: RGB, weight: float) -> None:
    """Write a text above a box that is in view, moved inside the canvas if necessary; in place."""
    size = np.array(canvas.shape[1::-1])  # (W, H)
    if not text or (box[:2] >= size).any() or (box[2:] <= 0).any():
        return
    line_width, _ = stroke_sizes(outline(box), weight)
    letters = min(max(_LETTER_HEIGHT * line_width, 7.0), size.min() / 4)  # pixels
    ink, shade = _letters(text, letters)
    height, width = ink.shape
    left, top = np.clip(box[:2] - (0, height), 0, np.maximum(size - (width, height), 0)).round().astype(int)
    _blend(canvas, ink, shade, left, top, rgb)


def write_indices(canvas: NDArray[np.uint8], landmarks: Points, weight: float) -> None:
    """Write each landmark's index beside its dot, on the side away from the middle of the face; in place."""
    size = size_of(landmarks)
    letters = float(np.clip(_INDEX_HEIGHT * size, *_INDEX_HEIGHTS))
    _, radius = stroke_sizes(landmarks, weight)
    places = landmarks.astype(np.float64)
    centre = places.mean(axis=0)
    for index, place in enumerate(places):
        ink, shade = _letters(str(index), letters)
        height, width = ink.shape
        away = place - centre
        away = away / max(float(np.linalg.norm(away)), 1e-6)
        middle = place + away * (radius + np.array([width, height]) / 2)
        left, top = np.rint(np.clip(middle - np.array([width, height]) / 2, -1e6, 1e6)).astype(int)
        _blend(canvas, ink, shade, left, top, WHITE)


def _letters(text: str, letters: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Opacity (h, w) of a text and of the shade around it, for capitals of a height in pixels.

    Letters are drawn enlarged and averaged, as OpenCV's lines are whole pixels wide.
    """
    scale = max(1, round(_ENLARGED_LETTER / letters))
    thickness, margin = max(1, round(letters * scale / 9)), math.ceil(letters / 9)
    font = cv2.getFontScaleFromHeight(_FONT, round(letters * scale), thickness)
    (across, up), down = cv2.getTextSize(text, _FONT, font, thickness)
    width, height = (math.ceil(length / scale) + 2 * margin for length in (across, up + down))
    ink = np.zeros((height * scale, width * scale), np.uint8)
    cv2.putText(ink, text, (margin * scale, margin * scale + up), _FONT, font, 255, thickness, cv2.LINE_AA)
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin * scale + 1,) * 2)
    small = [
        cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        for mask in (ink, cv2.dilate(ink, brush))
    ]
    return np.asarray(small[0], np.uint8), np.asarray(small[1], np.uint8)


def _blend(
    canvas: NDArray[np.uint8],
    ink: NDArray[np.uint8],
    shade: NDArray[np.uint8],
    left: int,
    top: int,
    rgb: RGB,
) -> None:
    """Write letters with their shade at a place of the canvas; what lies outside is cut off."""
    x, y = max(0, -left), max(0, -top)
    patch = canvas[max(top, 0) : max(top + ink.shape[0], 0), max(left, 0) : max(left + ink.shape[1], 0)]
    for mask, opacity, paint in ((shade, SHADE, (0, 0, 0)), (ink, 1.0, rgb)):
        seen = mask[y : y + patch.shape[0], x : x + patch.shape[1], np.newaxis]
        share = opacity * seen / 255  # (h, w, 1)
        patch[:] = np.rint((1 - share) * patch + share * np.array(paint))
