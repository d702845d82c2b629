"""Landmark files: the .pts format of 300-W.

Convention:
    A .pts file counts pixels from one, everything else here from zero. One is subtracted in
    `read_pts` and added in `write_pts`, and nowhere else:

        in the file                        in memory
        version: 1
        n_points: 2
        {
        1.000000 1.000000                  (0.0, 0.0)   the centre of the top left pixel
        11.500000 3.250000                 (10.5, 2.25)
        }

Reference:
    Sagonas et al. 300 Faces In-The-Wild Challenge: Database and Results. IVC 2016.
    https://ibug.doc.ic.ac.uk/resources/facial-point-annotations/
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_landmarks._system.arguments import check_path
from face_landmarks._system.files import write_whole
from face_landmarks.errors import AnnotationError, InputError

_LARGEST = 2**24  # up to here float32 knows every whole pixel
_HEADER = re.compile(r"\s*(version:\s*\S+\s+)?(n_points:\s*(?P<count>\d{1,18})\s*)?")


def read_pts(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Read the landmarks of one face; the file's header and braces may be missing together.

    Returns:
        (K, 2) x y in pixels, zero-based.

    Raises:
        AnnotationError: the file is missing, empty or damaged, or holds another number of points
            than its header says.
        InputError: the path is none.
    """
    path = check_path("path", path)
    body, count = _open_pts(path)
    lines = [line for line in body.splitlines() if line.strip()]
    if not lines:
        raise AnnotationError(f"{path}: expected points, got none")
    if count is not None and len(lines) != count:
        raise AnnotationError(f"{path}: expected n_points = {count}, got {len(lines)}")
    points = np.array([_parse_point(path, line) for line in lines])  # (K, 2)
    return (points - 1).astype(np.float32)


def write_pts(path: str | os.PathLike[str], landmarks: ArrayLike) -> None:
    """Write the landmarks of one face with the standard header; `read_pts` gives them back.

    Args:
        path: the file to write; an existing one is replaced.
        landmarks: (K, 2) x y in pixels, zero-based.

    Raises:
        InputError: landmarks of another shape, or not finite; the path is none.
        WriteError: the file cannot be written.
    """
    path = check_path("path", path)
    points = check_points(landmarks, "(K, 2)").astype(np.float64) + 1
    lines = [f"{x:.6f} {y:.6f}" for x, y in points]
    text = "\n".join(["version: 1", f"n_points: {len(lines)}", "{", *lines, "}", ""])
    write_whole(path, text)


def _open_pts(path: Path) -> tuple[str, int | None]:
    """The lines of points, and how many the header promises (None without such a header)."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: expected a .pts file, got bytes that are not text") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise AnnotationError(
            f"{path}: expected a .pts file, got {getattr(error, 'strerror', error)}"
        ) from error
    head, opened, rest = text.partition("{")
    if not opened:
        return text, None
    body, closed, tail = rest.partition("}")
    header = _HEADER.fullmatch(head)
    if header is None or not closed or tail.strip():
        raise AnnotationError(f"{path}: expected 'version: 1 n_points: K {{ ... }}', got another structure")
    return body, None if header["count"] is None else int(header["count"])


def _parse_point(path: Path, line: str) -> tuple[float, float]:
    try:
        x, y = map(float, line.split())
    except ValueError:
        raise AnnotationError(f"{path}: expected two numbers, got {line.strip()[:40]!r}") from None
    if not (abs(x) < _LARGEST and abs(y) < _LARGEST):  # NaN and infinity fail this too
        raise AnnotationError(f"{path}: expected pixel coordinates, got {line.strip()[:40]!r}")
    return x, y


def check_points(landmarks: ArrayLike, shape: str) -> NDArray[np.float32]:
    """Landmarks as float32, of the shape named: "(K, 2)" or "(N, K, 2)".

    Raises:
        InputError: another shape, or a coordinate that is not finite.
    """
    try:
        points = np.asarray(landmarks, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # words, ragged lists, a tensor on another device
        got = type(landmarks).__name__
        raise InputError(f"landmarks: expected numbers of shape {shape}, got {got}: {error}") from error
    if points.ndim != len(shape.split(",")) or points.shape[-1] != 2 or points.shape[-2] == 0:
        raise InputError(f"landmarks: expected shape {shape}, got {points.shape}")
    if not np.isfinite(points).all():
        raise InputError("landmarks: expected finite coordinates, got NaN or infinity")
    return points
