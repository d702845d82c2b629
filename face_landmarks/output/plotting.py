"""Faces and heatmaps in matplotlib figures; matplotlib is imported by the first call."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from face_landmarks._system.arguments import check_flag, check_kind, check_whole, shown
from face_landmarks._system.extras import import_extra
from face_landmarks.errors import InputError
from face_landmarks.geometry import transform_points
from face_landmarks.images import ImageSource, read_image
from face_landmarks.output.strokes import (
    RGB,
    SCORE_COLORS,
    SHADE,
    SHADE_WIDTH,
    WHITE,
    Points,
    check_style,
    contours_of,
    outline,
    stroke_sizes,
)
from face_landmarks.results import FaceHeatmaps, Faces, check_faces

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
        ax: where to plot; by default the axes of a new figure, which the caller shows, saves or closes.
            Limits that were set before are kept, to zoom in.
        lines: plot the contour of each facial part.
        points: plot each landmark as a dot.
        boxes: plot the face boxes.
        indices: write each landmark's index beside it.
        scores: colour each dot by its score, as `draw_faces` does.
        color: one RGB colour, each from 0 to 255, for all lines instead of one per facial part.
        weight: factor on the width of lines and the radius of dots, up to 100.

    Returns:
        The axes; data coordinates are image pixels.

    Raises:
        InputError: an unusable image or colour, `faces` that is not `Faces`, `ax` that is no axes, a weight
            out of range, or another argument that is neither True nor False.
        MissingDependencyError: matplotlib is not installed.
    """
    flags = {"lines": lines, "points": points, "boxes": boxes, "indices": indices, "scores": scores}
    check_style(color, weight, **flags)
    check_faces(faces)
    _check_axes(ax)
    pixels = read_image(image)
    plt = _pyplot()
    from matplotlib.patheffects import withStroke

    if ax is None:
        height, width = pixels.shape[:2]
        size = np.array((width, height)) * 8 / max(width, height)  # inches
        _, ax = plt.subplots(figsize=np.maximum(size, 1), layout="constrained")
    ax.imshow(pixels)
    ax.set_axis_off()
    ax.autoscale(False)  # landmarks outside the photo must not change the limits
    ax.apply_aspect()
    points_per_pixel = ax.get_window_extent().width / np.ptp(ax.get_xlim()) * 72 / ax.figure.dpi

    def stroke(line: Points, rgb: RGB, width: float) -> None:
        shade = withStroke(linewidth=SHADE_WIDTH * width, foreground="black", alpha=SHADE)
        ax.plot(*line.T, color=_unit(rgb), linewidth=width, solid_joinstyle="round", path_effects=[shade])

    for landmarks, landmark_scores, box in zip(
        faces.landmarks, faces.landmark_scores, faces.boxes, strict=True
    ):
        if boxes:
            line_width, _ = stroke_sizes(outline(box) * points_per_pixel, weight)
            stroke(outline(box), color or WHITE, line_width)
        line_width, radius = stroke_sizes(landmarks * points_per_pixel, weight)
        for part, rgb in contours_of(faces, color) if lines else ():
            stroke(landmarks[part], rgb, line_width)
        if points:
            ax.scatter(
                landmarks[:, 0],
                landmarks[:, 1],
                s=(2 * radius) ** 2,
                c=landmark_scores if scores else "white",
                cmap=_score_colors() if scores else None,
                vmin=0 if scores else None,
                vmax=1 if scores else None,
                edgecolors=(0, 0, 0, SHADE),
                linewidths=0.7 * line_width,
                zorder=3,
            )
        if indices:
            _write_indices(ax, landmarks, line_width, radius)
    return ax


def plot_heatmaps(
    heatmaps: FaceHeatmaps,
    face: int = 0,
    landmarks: Sequence[int] | None = None,
    ax: Axes | None = None,
    *,
    points: bool = True,
) -> Axes:
    """Plot the heatmaps of one face over its crop, as their maximum in each cell.

    Args:
        heatmaps: as `FaceAligner.heatmaps` gives them.
        face: index of the face.
        landmarks: indices of the landmarks; all by default.
        ax: where to plot; by default the axes of a new figure, which the caller shows, saves or closes.
        points: plot a cross at each decoded landmark.

    Returns:
        The axes; data coordinates are crop pixels.

    Raises:
        InputError: `heatmaps` that is not `FaceHeatmaps`, `ax` that is no axes, no such face, or no such
            landmark.
        MissingDependencyError: matplotlib is not installed.
    """
    check_kind("heatmaps", heatmaps, FaceHeatmaps)
    check_flag("points", points)
    _check_axes(ax)
    count, known = heatmaps.heatmaps.shape[:2]
    if not -count <= check_whole("face", face, least=-count) < count:
        raise InputError(f"face: expected one of {count} faces, got {face}")
    chosen = list(range(known)) if landmarks is None else _indices(landmarks, known)
    plt = _pyplot()
    if ax is None:
        _, ax = plt.subplots(figsize=(5, 5), layout="constrained")

    heat = np.clip(heatmaps.heatmaps[face, chosen].max(axis=0), 0, 1)  # (H, W)
    height, width = heat.shape
    heatmap_to_crop = torch.from_numpy(heatmaps.heatmap_to_crop)
    edges = [[-0.5, -0.5], [width - 0.5, height - 0.5]]
    corners = torch.tensor(edges, dtype=torch.float64, device="cpu")
    (left, top), (right, bottom) = transform_points(heatmap_to_crop, corners).tolist()
    gray = cv2.cvtColor(heatmaps.crops[face], cv2.COLOR_RGB2GRAY)
    ax.imshow(gray, cmap="gray", vmin=0, vmax=255)
    ax.autoscale(False)  # the heatmaps may be shifted relative to the crop
    ax.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=heat, extent=(left, right, bottom, top))
    if points:
        places = transform_points(heatmap_to_crop, torch.from_numpy(heatmaps.points[face, chosen]))
        ax.plot(*places.numpy().T, "+", color="black", markersize=6, markeredgewidth=1)
    ax.set_axis_off()
    return ax


def _write_indices(ax: Axes, landmarks: Points, line_width: float, radius: float) -> None:
    """Write each landmark's index beside its dot."""
    from matplotlib.patheffects import withStroke

    for index, place in enumerate(landmarks):
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


def _indices(landmarks: Sequence[int], known: int) -> list[int]:
    """Indices of landmarks as a list; raise InputError unless each is one of the known."""
    try:
        chosen = [operator.index(index) for index in landmarks]
    except TypeError:
        chosen = []
    if not chosen or not all(0 <= index < known for index in chosen):
        raise InputError(f"landmarks: expected indices from 0 to {known - 1}, got {shown(landmarks)}")
    return chosen


def _check_axes(ax: object) -> None:
    if ax is not None and not (hasattr(ax, "imshow") and hasattr(ax, "get_window_extent")):
        raise InputError(f"ax: expected axes of matplotlib, got {shown(ax)}")


def _score_colors() -> Any:
    """The colours of `score_color` as a colormap of matplotlib."""
    colors = import_extra("matplotlib.colors", "plot", "plots")
    steps = [(score, _unit(rgb)) for score, rgb in SCORE_COLORS.items()]
    return colors.LinearSegmentedColormap.from_list("scores", steps)


def _unit(rgb: RGB) -> tuple[float, float, float]:
    red, green, blue = rgb
    return red / 255, green / 255, blue / 255


def _pyplot() -> Any:
    return import_extra("matplotlib.pyplot", "plot", "plots")
