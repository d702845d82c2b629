"""Faces as notebooks show them: a sketch and a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

import numpy as np

from face_landmarks.layouts import Layout
from face_landmarks.results.single import Face

_SHOWN: Final = 10  # faces
_SKETCH: Final = 240.0  # longer side of the sketch, in pixels


def preview(faces: Sequence[Face], layout: Layout) -> str:
    """A sketch of the first faces, and a table of them, in HTML."""
    shown = faces[:_SHOWN]
    return (
        '<div style="display: flex; gap: 2em; align-items: center; flex-wrap: wrap">'
        f"{_sketch(shown, layout) if shown else ''}{_table(shown, len(faces), layout)}</div>"
    )


def _table(faces: Sequence[Face], count: int, layout: Layout) -> str:
    """A row per face, in HTML, and a last one for the others of this count."""
    rows = []
    for number, face in enumerate(faces):
        (x0, y0, x1, y1), error = face.box, face.landmark_errors.mean()
        rows.append(
            f"<tr><td>{number}</td><td>({x0:.0f}, {y0:.0f}) to ({x1:.0f}, {y1:.0f})</td>"
            f"<td>{face.box_score:.2f}</td><td>{face.landmark_scores.mean():.2f}</td>"
            f"<td>{'unknown' if np.isnan(error) else f'{error:.1f}'}</td></tr>"
        )
    if more := count - len(faces):
        rows.append(f'<tr><td colspan="5">and {more} more</td></tr>')
    return (
        f"<table><caption>{count} face{'s' * (count != 1)}, {escape(layout.name)}</caption>"
        "<tr><th>face</th><th>box</th><th>box score</th>"
        "<th>landmark score</th><th>expected error, px</th></tr>"
        f"{''.join(rows)}</table>"
    )


def _sketch(faces: Sequence[Face], layout: Layout) -> str:
    """The contours and boxes of the faces as SVG; the photo is not part of a result."""
    everything = np.array(  # (N, K + 2, 2), with the corners of the boxes
        [np.concatenate([face.landmarks, face.box.reshape(2, 2).astype(np.float64)]) for face in faces]
    )
    low, high = everything.min(axis=(0, 1)), everything.max(axis=(0, 1))
    scale = _SKETCH / max(*(high - low), 1e-6)
    width, height = (high - low) * scale
    shapes = []
    for face, points in enumerate((everything - low) * scale):
        (x0, y0), (x1, y1) = points[-2:]
        shapes.append(
            f'<g><rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" '
            f'opacity="0.3"/><text x="{x0 + 4:.1f}" y="{y0 + 14:.1f}" fill="currentColor" stroke="none">'
            f"{face}</text>"
        )
        for name, indices in layout.groups.items():
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points[list(indices)])
            shapes.append(f'<poly{"gon" if name in layout.closed else "line"} points="{path}"/>')
        shapes.append("</g>")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 4:.0f}" height="{height + 4:.0f}" '
        f'viewBox="-2 -2 {width + 4:.1f} {height + 4:.1f}" fill="none" stroke="currentColor" '
        'font-family="sans-serif" font-size="12">'
        f"{''.join(shapes)}</svg>"
    )
