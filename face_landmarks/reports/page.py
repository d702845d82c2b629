"""A page of faces: what it shows, and how it is put together of its template, its data and its pictures."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, TextIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from face_landmarks._system.files import make_folder, replacing
from face_landmarks.errors import ImageError, InputError
from face_landmarks.images import ImageSource, read_image
from face_landmarks.layouts import Layout
from face_landmarks.output.strokes import contours_of
from face_landmarks.reports.pictures import Pictures, view_of
from face_landmarks.results import Faces

_SUFFIXES: Final = (".html", ".htm")
_POLICY: Final = (  # nothing is loaded from elsewhere, and no script runs but the page's own
    "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; "
    "script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, eq=False)
class ShownFace:
    """A face on a page.

    Attributes:
        number: its place among the faces of its photo.
        layout: of its K landmarks.
        box: (4,) x0 y0 x1 y1 in pixels of the photo.
        points: (K, 2) the landmarks found; None if it was not found.
        scores: (K,) of the landmarks; None if unknown.
        errors: (K,) in pixels, expected or measured, NaN if unknown; None if all are.
        truth: (K, 2) the true landmarks, if they are known.
        score: mean score; None if unknown.
        error: mean error in pixels; None if unknown.
        nme: measured error in percent of the normaliser; None if unknown.
    """

    number: int
    layout: Layout
    box: NDArray[np.float32]
    points: NDArray[np.float32] | None = None
    scores: NDArray[np.float32] | None = None
    errors: NDArray[np.floating] | None = None
    truth: NDArray[np.float32] | None = None
    score: float | None = None
    error: float | None = None
    nme: float | None = None


@dataclass(frozen=True, eq=False)
class ShownPhoto:
    """A photo on a page, with its faces.

    Attributes:
        name: shown on the page.
        source: what `read_image` reads, or a function that reads it.
        faces: the faces that are shown.
    """

    name: str
    source: ImageSource | Callable[[], ImageSource]
    faces: tuple[ShownFace, ...]

    @property
    def file(self) -> Path | None:
        """The photo's own file, if it has one."""
        return Path(self.source) if isinstance(self.source, (str, os.PathLike)) else None

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB.

        Raises:
            ImageError: it cannot be read.
        """
        return read_image(self.source() if callable(self.source) else self.source)


@dataclass(frozen=True, eq=False)
class Page:
    """What a page shows.

    Attributes:
        kind: "results", ordered by score; or "evaluation", ordered by NME.
        title: its heading.
        summary: a line below it.
        photos: read one after the other.
        errors: name and error of each photo without a result.
    """

    kind: Literal["results", "evaluation"]
    title: str
    summary: str
    photos: Iterable[ShownPhoto]
    errors: list[tuple[str, str]] = field(default_factory=list)


def check_page_path(path: str | os.PathLike[str]) -> Path:
    """The file of a page.

    Raises:
        InputError: its name ends in something else than .html.
    """
    file = Path(path)
    if file.suffix.lower() not in _SUFFIXES:
        raise InputError(f"path: expected the name of an .html file, got {file.name!r}")
    return file


def check_bounds(most: int, max_size: int) -> None:
    """Raise unless a page can show so many faces and hold pictures of so many bytes.

    Raises:
        InputError: it cannot.
    """
    for name, value, least in (("most", most, 1), ("max_size", max_size, 0)):
        if not hasattr(value, "__index__") or value < least:
            raise InputError(f"{name}: expected a whole number, at least {least}, got {value!r}")


def write_page(page: Page, file: Path, *, max_size: int, progress: bool = False) -> None:
    """Write a page, and the folder of its pictures if they do not fit into it.

    Args:
        page: what it shows.
        file: where it is written.
        max_size: bytes of pictures in the page.
        progress: show a bar on stderr.

    Raises:
        WriteError: it cannot be written.
    """
    make_folder(file.parent)
    pictures = Pictures(file, max_size)
    with pictures.collecting():
        collected = _Collected(pictures)
        for photo in tqdm(page.photos, unit=" photos", disable=not progress):
            collected.add(photo)
        pictures.check_folder()
        with replacing(file) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as text:
            _fill(text, page, collected)
        pictures.finish()


class _Collected:
    """The data of the page's photos and faces, as JSON."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.layouts: dict[str, Layout] = {}
        self.errors: list[tuple[str, str]] = []
        self._photos: list[tuple[dict[str, Any], int | None, Path | None]] = []
        self._faces: list[tuple[str, int | None]] = []  # JSON without its last brace, number of the crop

    def add(self, photo: ShownPhoto) -> None:
        """Read a photo and keep what the page shows of it."""
        try:
            pixels = photo.read()
        except ImageError as error:
            self.errors.append((photo.name, f"without a picture: {error}"))
            pixels = None
        index = len(self._photos)
        for face in photo.faces:
            self.layouts[face.layout.name] = face.layout
            row, crop = _describe(face), None
            if pixels is not None and (cropped := self.pictures.add_crop(pixels, row["view"])):
                crop, row["crop"] = cropped
            text = _text({"photo": index, **row})
            self._faces.append((text[:-1], crop))
        if pixels is None:
            corners = [face.box[2:] for face in photo.faces]
            width, height = np.ceil(np.max(corners, axis=0)).astype(int).tolist() if corners else (1, 1)
            self._photos.append(
                ({"name": photo.name, "width": max(1, width), "height": max(1, height)}, None, None)
            )
            return
        height, width = pixels.shape[:2]
        head = {"name": photo.name, "width": width, "height": height}
        self._photos.append((head, self.pictures.add_photo(pixels), photo.file))

    def photos(self) -> Iterator[str]:
        """The JSON of each photo."""
        for head, number, file in self._photos:
            yield _text({**head, "src": self.pictures.photo_source(number, file)})

    def faces(self) -> Iterator[str]:
        """The JSON of each face."""
        for text, crop in self._faces:
            source = "null" if crop is None else json.dumps(self.pictures.crop_source(crop))
            yield f'{text},"src":{source}}}'


def _describe(face: ShownFace) -> dict[str, Any]:
    """What the page's script reads of a face, but for its photo and its crop."""
    shapes = [points for points in (face.points, face.truth) if points is not None]
    corners = face.box.reshape(2, 2)
    size = float(np.ptp(corners, axis=0).max())
    return {
        "face": face.number,
        "layout": face.layout.name,
        "box": _rounded(face.box, 1),
        "size": round(size, 1),
        "score": None if face.score is None else round(face.score, 4),
        "error": None if face.error is None else round(face.error, 2),
        "nme": None if face.nme is None else round(face.nme, 3),
        "points": None if face.points is None else _rounded(face.points.ravel(), 2),
        "scores": None if face.scores is None else _rounded(face.scores, 2),
        "errors": None if face.errors is None else _rounded(face.errors, 2),
        "truth": None if face.truth is None else _rounded(face.truth.ravel(), 2),
        "view": view_of(np.concatenate([*shapes, corners])),
    }


def _rounded(values: NDArray[np.floating], digits: int) -> list[float | None]:
    """Short numbers for JSON; None for what is not finite."""
    rounded = np.round(values.astype(np.float64), digits) + 0.0  # no -0.0
    return [value if np.isfinite(value) else None for value in rounded.tolist()]


def _text(values: object) -> str:
    """JSON without the signs that could end its element of the page."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _fill(text: TextIO, page: Page, collected: _Collected) -> None:
    """Write the template with its places filled in, the data piece by piece."""
    folder = files("face_landmarks.reports") / "assets"
    html, style, script = ((folder / f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    head, tail = html.split("@data@")
    for name, value in (
        ("policy", _POLICY.format(script=digest)),
        ("style", style),
        ("title", escape(page.title)),
    ):
        head = head.replace(f"@{name}@", value)
    text.write(head)
    layouts = {
        layout.name: {
            "names": [name.replace("_", " ") for name in layout.names],
            "lines": [
                (indices, f"rgb{rgb}".replace(",", ""))
                for indices, rgb in contours_of(Faces.empty(layout), None)
            ],
        }
        for layout in collected.layouts.values()
    }
    start = {
        "kind": page.kind,
        "summary": page.summary,
        "layouts": layouts,
        "errors": page.errors + collected.errors,
    }
    text.write(_text(start)[:-1])
    for name, rows in (("photos", collected.photos()), ("faces", collected.faces())):
        text.write(f',\n"{name}":[')
        for number, row in enumerate(rows):
            text.write(f"{',' if number else ''}\n{row}")
        text.write("]")
    text.write("}" + tail.replace("@script@", script))
