"""Faces drawn for people: into pixels with OpenCV, into figures with matplotlib.

Strokes follow the size of each face, so a child in the back row stays readable and a portrait
does not turn into a mask. matplotlib is imported only when a figure is asked for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from face_landmarks._system.extras import import_extra
from face_landmarks.aligner import FaceHeatmaps
from face_landmarks.benchmarks.metrics import auc, cumulative_errors, failure_rate
from face_landmarks.errors import InputError
from face_landmarks.geometry import resize_matrix, transform_points
from face_landmarks.images import ImageSource, read_image
from face_landmarks.layouts import Layout
from face_landmarks.results import Faces

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RGB = tuple[int, int, int]
Points = NDArray[np.float32]

_WHITE: RGB = (255, 255, 255)
_COLORS: Mapping[str, RGB] = {  # a part has the colour of the first of these words in its name
    "jaw": (236, 240, 245),
    "eyebrow": (255, 190, 50),
    "nose": (94, 222, 146),
    "eye": (70, 190, 255),
    "lips": (255, 96, 128),
}
_SCORE_COLORS: tuple[RGB, ...] = ((215, 48, 39), (255, 255, 191), (26, 152, 80))  # at 0, 0.5 and 1
_SHADE = 0.4  # opacity of the black outline that parts a bright line from a bright photo
_SHADE_WIDTH = 2.4  # its width, in line widths
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
    _check_weight(weight)
    texts = [""] * len(faces) if labels is None else list(map(str, labels))
    if len(texts) != len(faces):
        raise InputError(f"labels: expected one for each of {len(faces)} faces, got {len(texts)}")
    canvas = read_image(image)  # ours to draw on: a copy, also of an array
    contours = _contours(faces.layout, color)
    for face in faces:
        (landmarks,), (landmark_scores,), (box,) = face.landmarks, face.landmark_scores, face.boxes
        if boxes:
            _paint(canvas, [(_outline(box), color or _WHITE)], [], weight)
        strokes = [(landmarks[indices], rgb) for indices, rgb in contours if lines]
        inks = map(_score_color, landmark_scores) if scores else repeat(_WHITE)
        _paint(canvas, strokes, list(zip(landmarks, inks, strict=False)) if points else [], weight)
    for text, box in zip(texts, faces.boxes, strict=True):
        if text:
            _write(canvas, text, box, color or _WHITE, weight)
    return canvas


def plot_faces(
    image: ImageSource,
    faces: Faces,
    ax: Axes | None = None,
    *,
    lines: bool = True,
    points: bool = True,
    boxes: bool = False,
    indices: bool = False,
    scores: bool = False,
    color: RGB | None = None,
    weight: float = 1.0,
) -> Axes:
    """Plot a photo and its faces with matplotlib.

    Args:
        image: whatever `read_image` reads.
        faces: as `FaceAligner` gives them for this photo.
        ax: where to plot; by default the only axes of a new figure, which is the caller's to
            show, save or close. Limits set on it before stay, for a closer look.
        lines: plot the contour of each facial part.
        points: plot each landmark as a dot.
        boxes: plot the face boxes.
        indices: write each landmark's index beside it.
        scores: colour each dot by its score, from red (0) to green (1).
        color: one RGB colour for all lines, in place of one for each part of the face.
        weight: makes every stroke heavier (above 1) or lighter (below 1).

    Returns:
        The axes; data coordinates are image pixels.

    Raises:
        InputError: an unusable image, or a weight that is not positive.
        MissingDependencyError: matplotlib is not installed.
    """
    _check_weight(weight)
    pixels = read_image(image)
    plt = _pyplot()
    from matplotlib.patheffects import withStroke

    if ax is None:
        height, width = pixels.shape[:2]
        size = np.array((width, height)) * 8 / max(width, height)  # inches
        _, ax = plt.subplots(figsize=np.maximum(size, 1), layout="constrained")
    ax.imshow(pixels)
    ax.set_axis_off()
    ax.autoscale(False)  # a landmark outside the photo must not shrink it
    ax.apply_aspect()
    points_per_pixel = ax.get_window_extent().width / np.ptp(ax.get_xlim()) * 72 / ax.figure.dpi

    def stroke(line: Points, rgb: RGB, width: float) -> None:
        shade = withStroke(linewidth=_SHADE_WIDTH * width, foreground="black", alpha=_SHADE)
        ax.plot(*line.T, color=_unit(rgb), linewidth=width, solid_joinstyle="round", path_effects=[shade])

    for landmarks, landmark_scores, box in zip(
        faces.landmarks, faces.landmark_scores, faces.boxes, strict=True
    ):
        if boxes:
            line_width, _ = _strokes(_outline(box) * points_per_pixel, weight)
            stroke(_outline(box), color or _WHITE, line_width)
        line_width, radius = _strokes(landmarks * points_per_pixel, weight)
        for part, rgb in _contours(faces.layout, color) if lines else ():
            stroke(landmarks[part], rgb, line_width)
        if points:
            ax.scatter(
                landmarks[:, 0],
                landmarks[:, 1],
                s=(2 * radius) ** 2,
                c=landmark_scores if scores else "white",
                cmap="RdYlGn" if scores else None,
                vmin=0 if scores else None,
                vmax=1 if scores else None,
                edgecolors=(0, 0, 0, _SHADE),
                linewidths=0.7 * line_width,
                zorder=3,
            )
        for index, place in enumerate(landmarks if indices else ()):
            ax.annotate(
                str(index),
                place,
                xytext=(radius + 1, radius + 1),
                textcoords="offset points",
                color="white",
                fontsize=float(np.clip(4 * line_width, 4, 9)),
                path_effects=[withStroke(linewidth=1.5, foreground="black", alpha=0.7)],
                annotation_clip=True,
                zorder=4,
            )
    return ax


def plot_heatmaps(
    heatmaps: FaceHeatmaps,
    face: int = 0,
    landmarks: Sequence[int] | None = None,
    ax: Axes | None = None,
    *,
    points: bool = True,
) -> Axes:
    """Plot the heatmaps of one face over its crop, the largest of all in each cell.

    Args:
        heatmaps: as `FaceAligner.heatmaps` gives them.
        face: which one.
        landmarks: indices of those to plot; all if not given.
        ax: where to plot; by default the only axes of a new figure, which is the caller's to
            show, save or close.
        points: plot a cross where each landmark was decoded.

    Returns:
        The axes; data coordinates are crop pixels.

    Raises:
        InputError: no such face, or no such landmark.
        MissingDependencyError: matplotlib is not installed.
    """
    count, known = heatmaps.heatmaps.shape[:2]
    if not -count <= face < count:
        raise InputError(f"face: expected one of {count} faces, got {face}")
    chosen = list(range(known) if landmarks is None else landmarks)
    if not chosen or not all(0 <= index < known for index in chosen):
        raise InputError(f"landmarks: expected indices from 0 to {known - 1}, got {chosen}")
    plt = _pyplot()
    if ax is None:
        _, ax = plt.subplots(figsize=(5, 5), layout="constrained")

    heat = np.clip(heatmaps.heatmaps[face, chosen].max(axis=0), 0, 1)  # (H, W)
    height, width = heat.shape
    heatmap_to_crop = torch.from_numpy(heatmaps.heatmap_to_crop)
    corners = torch.tensor([[-0.5, -0.5], [width - 0.5, height - 0.5]], dtype=torch.float64)
    (left, top), (right, bottom) = transform_points(heatmap_to_crop, corners).tolist()
    gray = cv2.cvtColor(heatmaps.crops[face], cv2.COLOR_RGB2GRAY)
    ax.imshow(gray, cmap="gray", vmin=0, vmax=255)
    ax.autoscale(False)  # the grid of cells may be shifted against the crop
    ax.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=heat, extent=(left, right, bottom, top))
    if points:
        places = transform_points(heatmap_to_crop, torch.from_numpy(heatmaps.points[face, chosen]))
        ax.plot(*places.numpy().T, "+", color="black", markersize=6, markeredgewidth=1)
    ax.set_axis_off()
    return ax


def plot_ced(errors: Mapping[str, ArrayLike], ax: Axes | None = None, max_error: float = 10.0) -> Axes:
    """Plot cumulative error distributions: the share of faces up to each error.

    Args:
        errors: name -> (N,) NME in percent, infinite for a missed face, as `Evaluation.errors`.
        ax: where to plot; by default the only axes of a new figure, which is the caller's to
            show, save or close.
        max_error: right end of the plot in percent; the legend's AUC and failure rate (FR) are
            taken there.

    Returns:
        The axes.

    Raises:
        InputError: no faces, or NaN among their errors; max_error not positive.
        MissingDependencyError: matplotlib is not installed.
    """
    legend = {
        name: f"{name}   AUC {auc(values, max_error):.1f} %   FR {failure_rate(values, max_error):.1f} %"
        for name, values in errors.items()
    }
    plt = _pyplot()
    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    for name, values in errors.items():
        sorted_errors = np.sort(np.asarray(values, dtype=np.float64))
        steps = np.concatenate(([0.0], sorted_errors[sorted_errors < max_error], [max_error]))
        ax.step(steps, cumulative_errors(values, steps), where="post", linewidth=1.8, label=legend[name])
    ax.set(xlim=(0, max_error), ylim=(0, 100), xlabel="NME (%)", ylabel="Faces (%)")
    ax.grid(color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower right", frameon=False)
    return ax


def save_ced(errors: Mapping[str, ArrayLike], path: str | os.PathLike[str], max_error: float = 10.0) -> None:
    """Write `plot_ced` to a picture file, and leave no figure open.

    Raises:
        InputError, MissingDependencyError: as `plot_ced`.
        OSError: the file cannot be written.
    """
    plt = _pyplot()
    figure, ax = plt.subplots(layout="constrained")
    try:
        plot_ced(errors, ax, max_error)
        figure.savefig(path, dpi=150)
    finally:
        plt.close(figure)


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
    line_width, radius = _strokes(touched, weight)
    margin = math.ceil(radius + _SHADE_WIDTH * line_width) + 1
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
        paint_line(dark, line, (0, 0, 0), _SHADE_WIDTH * line_width)
    for dot, _ in dots:
        paint_dot(dark, dot, (0, 0, 0), radius + 0.7 * line_width)
    cv2.addWeighted(dark, _SHADE, bright, 1 - _SHADE, 0, dst=bright)
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
    line_width, _ = _strokes(_outline(box), weight)
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
    for mask, opacity, paint in ((cv2.dilate(ink, brush), _SHADE, (0, 0, 0)), (ink, 1.0, rgb)):
        small = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        share = opacity * small[: patch.shape[0], : patch.shape[1], np.newaxis] / 255  # (h, w, 1)
        patch[:] = np.rint((1 - share) * patch + share * np.array(paint))


def _strokes(points: Points, weight: float) -> tuple[float, float]:
    """Width of lines and radius of dots for a drawing of this size, in the unit of the points.

    A line grows as the root of the size, a dot a little faster: chosen by eye, from faces of 50
    pixels (0.6 and 0.5) to faces of 1000 (2.7 and 5).
    """
    size = max(1.0, float(np.ptp(points, axis=0).max()))
    return 0.085 * size**0.5 * weight, 0.028 * size**0.75 * weight


def _contours(layout: Layout, color: RGB | None) -> list[tuple[list[int], RGB]]:
    """The landmarks along each facial part, the first once more where it is closed; its colour."""
    contours = []
    for name, indices in layout.groups.items():
        rgb = color or next((rgb for word, rgb in _COLORS.items() if word in name), _WHITE)
        contours.append(([*indices, *indices[: name in layout.closed]], rgb))
    return contours


def _outline(box: Points) -> Points:
    """(5, 2) corners of a box (4,), the first once more."""
    return box[[0, 1, 2, 1, 2, 3, 0, 3, 0, 1]].reshape(5, 2)


def _score_color(score: float) -> RGB:
    """From red (0) over yellow to green (1)."""
    levels = (np.interp(score, (0, 0.5, 1), channel) for channel in zip(*_SCORE_COLORS, strict=True))
    red, green, blue = (round(float(level)) for level in levels)
    return red, green, blue


def _unit(rgb: RGB) -> tuple[float, float, float]:
    red, green, blue = rgb
    return red / 255, green / 255, blue / 255


def _check_weight(weight: float) -> None:
    if not 0 < weight < math.inf:
        raise InputError(f"weight: expected a positive number, got {weight}")


def _pyplot() -> Any:
    return import_extra("matplotlib.pyplot", "plot", "plots")
