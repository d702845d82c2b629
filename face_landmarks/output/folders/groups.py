"""Photos aligned in groups: their faces share network batches, their lines one write."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Sequence
from typing import Final, NamedTuple

import torch

from face_landmarks.aligner import FaceAligner
from face_landmarks.errors import ImageError
from face_landmarks.output.folders.journal import Row
from face_landmarks.output.folders.lists import Boxes, Photo
from face_landmarks.output.folders.reading_ahead import MOST_BYTES, Pixels, Read, ReadAhead, read_photo
from face_landmarks.results import Faces

TOGETHER: Final = 8  # photos of a group

_READERS: Final = 4  # threads that read photos, at most


class Line(NamedTuple):
    """A photo's line of JSON, and what a report counts of it.

    Attributes:
        text: with its end of line.
        photo: as it is named in the line.
        faces: found in it.
        error: why there is no result.
        failed: whether the next run is to try it again.
    """

    text: str
    photo: str
    faces: int = 0
    error: str | None = None
    failed: bool = False


class Group(NamedTuple):
    """The lines of a group of photos.

    Attributes:
        lines: one a photo, in order.
        failure: what was raised, if the aligner raised at each of the photos; else None.
    """

    lines: list[Line]
    failure: Exception | None = None


def align_groups(
    aligner: FaceAligner, settings: Row, groups: Iterable[Sequence[Photo]]
) -> Generator[Group, None, None]:
    """Align groups of photos, one after the other, while the next photos are read.

    Args:
        aligner: with a detector, unless the photos have boxes.
        settings: of the aligner, for the lines.
        groups: of photos; the next groups are asked for while one is aligned.
    """
    marked = (
        (photo, number == len(group)) for group in groups for number, photo in enumerate(group, start=1)
    )
    readers = max(1, min(_READERS, torch.get_num_threads()))
    with ReadAhead(marked, lambda item: read_photo(item[0].file), readers) as photos:
        lines: list[Line] = []
        failures: list[Exception] = []
        part: list[tuple[Photo, Read]] = []
        for (photo, is_last), read in photos:
            part.append((photo, read))
            del read  # else the photo stays in memory until the next one comes
            if is_last or sum(read.memory for _, read in part) >= MOST_BYTES:
                found, raised = _align(aligner, part)
                failures += raised
                for (photo, read), result in zip(part, found, strict=True):
                    lines.append(line_of(photo.name, read.size, settings, result))
                part.clear()
            if is_last:
                yield Group(lines, failures[0] if failures and len(failures) == len(lines) else None)
                lines, failures = [], []


def line_of(photo: str, size: int | None, settings: Row, result: Faces | Exception) -> Line:
    """What a line says of a photo's result."""
    head = {"image": photo, "bytes": size, **settings}
    if isinstance(result, Faces):
        return Line(json.dumps(head | result.to_dict()) + "\n", photo, len(result))
    is_image_error = isinstance(result, ImageError)
    error = str(result) if is_image_error else f"{type(result).__name__}: {result}"
    failed = not is_image_error or size is None  # a missing photo may come back
    row = {"error": error, "retry": True} if failed else {"error": error}
    return Line(json.dumps(head | row) + "\n", photo, error=error, failed=failed)


def _align(
    aligner: FaceAligner, photos: Sequence[tuple[Photo, Read]]
) -> tuple[list[Faces | Exception], list[Exception]]:
    """A result or an error for each photo, and the errors that the aligner raised."""
    readable = [(photo, read.pixels) for photo, read in photos if not isinstance(read.pixels, Exception)]
    images, boxes = [pixels for _, pixels in readable], [photo.boxes for photo, _ in readable]
    found: list[Faces | Exception] = []
    try:
        found += aligner.align_batch(images, boxes)
    except Exception:  # one photo must not cost the others their results
        found += [_try_align(aligner, image, own) for image, own in zip(images, boxes, strict=True)]
    results = iter(found)
    rows = [read.pixels if isinstance(read.pixels, Exception) else next(results) for _, read in photos]
    return rows, [result for result in found if isinstance(result, Exception)]


def _try_align(aligner: FaceAligner, image: Pixels, boxes: Boxes | None) -> Faces | Exception:
    try:
        return aligner.align(image, boxes)
    except Exception as error:
        return error
