"""Landmark files: single .pts files, and folders of photos with their .pts files.

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

import logging
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_landmarks.errors import AnnotationError, InputError

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})  # in folders

_LOGGER = logging.getLogger(__name__)
_LARGEST = 2**24  # up to here float32 knows every whole pixel
_HEADER = re.compile(r"\s*(version:\s*\S+\s+)?(n_points:\s*(?P<count>\d{1,18})\s*)?")
_NUMBERED = re.compile(r"(?P<name>.+)\.(?P<number>\d+)")


class StoredPhoto(Protocol):
    """A photo that is no file of its own but part of one; `str` names it."""

    def read(self) -> NDArray[np.uint8]:
        """Decode it now: (H, W, 3) RGB or (H, W) gray."""


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """A photo and the true landmarks of its annotated faces; others in it may have none.

    Attributes:
        image: path of the photo, or the photo inside a larger file.
        landmarks: (N, K, 2) float32 x y in pixels, zero-based.
        boxes: (N, 4) float32 x0 y0 x1 y1, the face boxes that came with the data; None without any.

    Raises:
        InputError: landmarks or boxes of another shape, or not finite, or a box without area.
    """

    image: Path | StoredPhoto
    landmarks: NDArray[np.float32]
    boxes: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "landmarks", _points(self.landmarks, "(N, K, 2)"))
        if self.boxes is None:
            return
        boxes = np.asarray(self.boxes, dtype=np.float32)
        if boxes.shape != (len(self.landmarks), 4):
            raise InputError(f"boxes: expected shape {(len(self.landmarks), 4)}, got {boxes.shape}")
        if not (boxes[:, :2] < boxes[:, 2:]).all() or not np.isfinite(boxes).all():
            raise InputError(f"boxes: expected x0 < x1 and y0 < y1, got {boxes.tolist()} in {self.image}")
        object.__setattr__(self, "boxes", boxes)

    @property
    def source(self) -> Path | NDArray[np.uint8]:
        """What `read_image` reads: the path, or the pixels of a stored photo, decoded now."""
        return self.image if isinstance(self.image, Path) else self.image.read()


def read_pts(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Read the landmarks of one face; the file's header and braces may be missing together.

    Returns:
        (K, 2) x y in pixels, zero-based.

    Raises:
        AnnotationError: the file is missing, empty or damaged, or holds another number of points
            than its header says.
    """
    path = Path(path)
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
        InputError: landmarks of another shape, or not finite.
        OSError: the file cannot be written.
    """
    points = _points(landmarks, "(K, 2)").astype(np.float64) + 1
    lines = [f"{x:.6f} {y:.6f}" for x, y in points]
    text = "\n".join(["version: 1", f"n_points: {len(lines)}", "{", *lines, "}", ""])
    Path(path).write_bytes(text.encode("ascii"))


def read_folder(root: str | os.PathLike[str]) -> list[AnnotatedImage]:
    """Read every annotated photo of a folder, in order of file name.

    NAME.jpg (.jpeg, .png, .bmp, in either case) goes with NAME.pts, or with NAME.1.pts, NAME.2.pts
    and so on if several of its faces are annotated. Photos without a .pts file are left out, and
    their number is logged; a .pts file without its photo is an error, for leaving it out would
    change a score unseen. Subfolders and hidden files are not read.

    Raises:
        AnnotationError: not a folder, no annotated photo in it, a .pts file that is damaged, that
            belongs to no photo or to several, or of another number of points than the first.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: expected a folder of photos and .pts files, got none")
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    photos: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        if path.suffix.lower() in PHOTO_SUFFIXES:
            photos[path.stem].append(path)

    faces: dict[Path, list[tuple[int, Path]]] = defaultdict(list)
    for path in files:
        if path.suffix.lower() == ".pts":
            name, number = path.stem, 0
            if name not in photos and (numbered := _NUMBERED.fullmatch(name)):
                name, number = numbered["name"], int(numbered["number"])
            owners = photos.get(name, [])
            if len(owners) != 1:
                raise AnnotationError(f"{path}: expected one photo named {name}.*, got {len(owners)}")
            faces[owners[0]].append((number, path))
    if not faces:
        raise AnnotationError(f"{folder}: expected photos with .pts files, got no such pair")
    if unannotated := sum(map(len, photos.values())) - len(faces):
        _LOGGER.info("%s: left out %d photos without .pts files", folder, unannotated)

    samples, first = [], None
    for photo, numbered_paths in sorted(faces.items()):
        landmarks = []
        for _, path in sorted(numbered_paths):
            landmarks.append(read_pts(path))
            first = first or (path, len(landmarks[0]))
            if len(landmarks[-1]) != first[1]:
                raise AnnotationError(
                    f"{path}: expected {first[1]} points as in {first[0].name}, got {len(landmarks[-1])}"
                )
        samples.append(AnnotatedImage(photo, np.stack(landmarks)))
    return samples


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


def _points(landmarks: ArrayLike, shape: str) -> NDArray[np.float32]:
    points = np.asarray(landmarks, dtype=np.float32)
    if points.ndim != len(shape.split(",")) or points.shape[-1] != 2 or points.shape[-2] == 0:
        raise InputError(f"landmarks: expected shape {shape}, got {points.shape}")
    if not np.isfinite(points).all():
        raise InputError("landmarks: expected finite coordinates, got NaN or infinity")
    return points
