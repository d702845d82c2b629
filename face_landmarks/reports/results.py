"""A report of results: the faces of many photos, the least sure first."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from face_landmarks._system.arguments import check_kind
from face_landmarks.errors import InputError
from face_landmarks.images import ImageSource
from face_landmarks.reports.page import (
    Page,
    ShownFace,
    ShownPhoto,
    check_bounds,
    check_page_path,
    write_page,
)
from face_landmarks.results import Faces

Result: TypeAlias = "tuple[ImageSource, Faces | Exception | str]"

MOST: Final = 10_000  # faces of a page
MAX_SIZE: Final = 48_000_000  # bytes of pictures in a page


def write_report(
    results: str | os.PathLike[str] | Iterable[Result],
    path: str | os.PathLike[str],
    *,
    folder: str | os.PathLike[str] = ".",
    title: str = "Facial landmarks",
    most: int = MOST,
    max_size: int = MAX_SIZE,
    progress: bool = False,
) -> Path:
    """Write a page that shows each face with its landmarks, the least sure first.

    The page is one file that loads nothing from a network. Its faces are filtered by score, size and file
    name; a click shows the whole photo. docs/reports.md tells more.

    Args:
        results: a .jsonl or .json file of `align_folder`; or pairs of a photo, whatever `read_image` reads,
            and its `Faces`, or the error with which it could not be aligned.
        path: the page, whose name ends in .html.
        folder: which the photos named in a file are relative to.
        title: heading of the page.
        most: faces that are shown at most; the least sure are.
        max_size: bytes of pictures in the page. Where crops and whole photos need more, whole photos are
            shown from their own files; where crops alone do, they are written into the folder NAME_files
            beside NAME.html.
        progress: show a bar on stderr.

    Returns:
        The path.

    Raises:
        InputError: another file name, unusable bounds, or something else than results.
        WriteError: the page cannot be written.

    Example:
        >>> from face_landmarks import FaceAligner, write_report
        >>> photos = ["examples/data/astronaut.jpg"]
        >>> results = FaceAligner().align_batch(photos)
        >>> write_report(zip(photos, results), "report.html")  # doctest: +SKIP
    """
    file = check_page_path(path)
    check_bounds(most, max_size)
    check_kind("title", title, str)
    rows: Iterable[tuple[str, ImageSource, Faces | str]]
    if isinstance(results, (str, os.PathLike)):
        rows = _File(Path(results), Path(folder))
    else:
        rows = list(_pairs(results))
    errors, scores, photos = [], [np.empty(0, np.float32)], 0
    for name, _, result in rows:
        if isinstance(result, Faces):
            photos += 1
            scores.append(result.landmark_scores.mean(axis=1))
        else:
            errors.append((name, result))
    every = np.concatenate(scores)
    chosen = np.zeros(len(every), bool)
    chosen[np.argsort(every, kind="stable")[:most]] = True
    shown = f"; the {most} least sure are shown" if len(every) > most else ""
    page = Page(
        kind="results",
        title=title,
        summary=f"{_count(len(every), 'face')} in {_count(photos, 'photo')}{shown}",
        photos=_shown(rows, chosen),
        errors=errors,
    )
    write_page(page, file, max_size=max_size, progress=progress)
    return file


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _shown(rows: Iterable[tuple[str, ImageSource, Faces | str]], chosen: np.ndarray) -> Iterator[ShownPhoto]:
    """The photos of which a face is chosen, with these faces."""
    start = 0
    for name, source, result in rows:
        if isinstance(result, Faces):
            mine = chosen[start : start + len(result)]
            start += len(result)
            faces = tuple(_shown_face(number, result[number]) for number in np.flatnonzero(mine).tolist())
            if faces:
                yield ShownPhoto(name, source, faces)


def _shown_face(number: int, face: Faces) -> ShownFace:
    errors = face.landmark_errors[0]
    known = bool(np.isfinite(errors).any())
    return ShownFace(
        number,
        face.layout,
        face.boxes[0],
        points=face.landmarks[0],
        scores=face.landmark_scores[0],
        errors=errors if known else None,
        score=float(face.landmark_scores.mean()),
        error=float(np.nanmean(errors)) if known else None,
    )


def _pairs(results: Iterable[Any]) -> Iterator[tuple[str, ImageSource, Faces | str]]:
    """Name, photo, and faces or error."""
    try:
        pairs = enumerate(results)
    except TypeError:
        raise InputError(f"results: expected pairs, got {type(results).__name__}") from None
    for index, pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise InputError(f"results: expected pairs of a photo and its faces, got {type(pair).__name__}")
        source, result = pair
        if not isinstance(result, (Faces, Exception, str)):
            raise InputError(
                f"results: expected Faces or an error for each photo, got {type(result).__name__} at {index}"
            )
        name = _printable(source) if isinstance(source, (str, os.PathLike)) else f"photo {index}"
        yield name, source, result if isinstance(result, Faces) else str(result)


class _File:
    """The results of a file, which are read anew each time: name, photo, and faces or error."""

    def __init__(self, file: Path, folder: Path) -> None:
        self._file, self._folder = file, folder

    def __iter__(self) -> Iterator[tuple[str, ImageSource, Faces | str]]:
        for row in self._rows():
            try:
                name = row["image"]
                result = str(row["error"]) if "error" in row else Faces.from_dict(row)
                source = self._folder / name
            except (TypeError, KeyError, AttributeError, InputError) as error:
                raise InputError(
                    f"{self._file}: expected results of align_folder, got something else: {error}"
                ) from error
            yield _printable(name), source, result

    def _rows(self) -> Iterator[Any]:
        try:
            with self._file.open("rb") as lines:
                if self._file.suffix.lower() == ".json":
                    yield from json.load(lines)
                else:
                    yield from map(json.loads, lines)
        except OSError as error:
            raise InputError(f"{self._file}: expected a file of results, got {error.strerror}") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{self._file}: expected a .jsonl or .json file of results: {error}") from error


def _printable(name: str | os.PathLike[str]) -> str:
    """A file name as text, which it need not be."""
    return os.fspath(name).encode("utf-8", "backslashreplace").decode()
