"""What a worker does: it reads the photos of a part, aligns them, and commits their results."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks.aligner import FaceAligner
from face_landmarks.errors import ImageError, InputError
from face_landmarks.images import read_image
from face_landmarks.output.cluster.attempts import Attempt
from face_landmarks.output.cluster.claims import Claim
from face_landmarks.output.cluster.parts import Counts, Part, Row, check_settings, read_part, write_part
from face_landmarks.output.cluster.sources import Load, Photo, Source
from face_landmarks.output.folders.journal import settings_of
from face_landmarks.output.folders.reading_ahead import MOST_BYTES, Read, ReadAhead
from face_landmarks.results import Faces

MakeAligner: TypeAlias = "FaceAligner | Callable[[], FaceAligner]"

_FIRST: Final = 8  # photos; where the aligner fails on all of them, it fails on every one


class Worker:
    """An actor of Ray Data: parts in, their counts out.

    Args:
        aligner: an aligner, or what makes one.
        source: where the photos are.
        claim: of the run, to the folder of the results.
        settings: of the run; the worker's own must be the same.
        threads: of the network; as many decode photos ahead.
        gpu: whether it has a share of a GPU.
    """

    def __init__(
        self, aligner: MakeAligner, source: Source, claim: Claim, settings: Row, threads: int, gpu: bool
    ) -> None:
        self._aligner = make(aligner, threads, gpu)
        check_settings(claim.out, settings, settings_of(self._aligner))
        self._source, self._claim, self._settings, self._threads = source, claim, settings, threads
        self._any_done = False

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Align and commit a part, unless it is committed: by a worker that died before it could say so.

        Raises:
            WriteError: it cannot be written, or the folder is that of another run by now.
        """
        (content,) = batch["part"]
        part = unpack(content)
        self._claim.check()
        place = self._claim.out / part.name
        if part.repair or place.kind() != "file":
            attempt = Attempt(self._claim.out, part.name)
            kept, tables = [], self._source.tables_of(part.photos)
            if part.repair:
                names, stored = {photo.name for photo in part.photos}, read_part(place, self._settings)
                kept = [row for row in stored.rows if row["image"] not in names]
                tables = {**stored.tables, **tables}
            rows = [*kept, *self._align(part.photos, attempt)]
            self._claim.check()
            write_part(place, rows, self._settings, tables)
            attempt.end()
        counts = Counts.of(read_part(place, self._settings, SUMMARY).rows)
        return {"counts": [json.dumps({"part": part.name, "done": len(part.photos), **asdict(counts)})]}

    def _align(self, photos: Sequence[Photo], attempt: Attempt) -> Iterator[Row]:
        deadly = set(attempt.deadly)
        for photo in photos:
            if photo.name in deadly:
                error = "the worker process died at this photo"
                yield failure(photo.name, None, error, retry=True)
        photos = [photo for photo in photos if photo.name not in deadly]
        if attempt.careful:
            for photo, load in self._source.load(photos):
                attempt.begin(photo.name)
                yield from self._rows([(photo.name, read(load))])
            return
        with ReadAhead(self._source.load(photos), lambda item: read(item[1]), self._threads + 1) as ahead:
            named = ((photo.name, found) for (photo, _), found in ahead)
            for some in together(named, self._aligner.batch_size):
                yield from self._rows(some)

    def _rows(self, some: Sequence[tuple[str, Read]]) -> Iterator[Row]:
        """The row of each photo; raise if all of the first ones fail at the detector or the aligner."""
        images = [photo.pixels for _, photo in some if not isinstance(photo.pixels, Exception)]
        found = align(self._aligner, images)
        results = iter(found)
        failures = [result for result in found if isinstance(result, Exception)]
        if len(failures) == len(images) >= _FIRST and not self._any_done:
            raise failures[0]
        self._any_done |= len(failures) < len(images)
        for name, photo in some:
            result = photo.pixels if isinstance(photo.pixels, Exception) else next(results)
            if isinstance(result, Faces):
                yield success(name, photo.size, result)
            elif isinstance(result, ImageError):
                yield failure(name, photo.size, str(result), retry=photo.size is None)
            else:
                yield failure(name, photo.size, f"{type(result).__name__}: {result}", retry=True)


SUMMARY: Final = [
    "image",
    "bytes",
    "error",
    "retry",
    "box_scores",
]  # columns that `Counts.of` and resuming need


def make(aligner: MakeAligner, threads: int, gpu: bool) -> FaceAligner:
    """The worker's own aligner, on as many threads as it has processors.

    Raises:
        InputError: something else was made, or it has no detector.
    """
    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU that Ray did not give is another worker's
    torch.set_num_threads(threads)
    made: object = aligner if isinstance(aligner, FaceAligner) else aligner()
    if not isinstance(made, FaceAligner):
        raise InputError(f"aligner: expected a FaceAligner or what makes one, got {type(made).__name__}")
    if made.detector is None:
        raise InputError("aligner: expected one with a detector, got detector=None")
    return made


def pack(part: Part) -> bytes:
    """A part as bytes, for Ray to carry."""
    return pickle.dumps((part.name, [tuple(photo) for photo in part.photos], part.repair))


def unpack(content: bytes) -> Part:
    """The part that `pack` made bytes of."""
    name, photos, repair = pickle.loads(content)
    return Part(name, [Photo(*photo) for photo in photos], repair)


def read(load: Load) -> Read:
    """Read and decode a photo."""
    try:
        data = load()
    except ImageError as error:  # no file, but a pipe or the like
        return Read(0, error)
    except Exception as error:  # a store raises what it likes
        return Read(None, ImageError(f"image: cannot read it: {getattr(error, 'strerror', None) or error}"))
    try:
        return Read(len(data), read_image(data))
    except Exception as error:
        return Read(len(data), error)


def together(photos: Iterable[tuple[str, Read]], count: int) -> Iterator[list[tuple[str, Read]]]:
    """Photos to be aligned at once: `count` of them at most, and few large ones."""
    some: list[tuple[str, Read]] = []
    for name, photo in photos:
        some.append((name, photo))
        del photo  # else it stays in memory until the next one comes
        if len(some) == count or sum(read.memory for _, read in some) >= MOST_BYTES:
            yield some
            some = []
    if some:
        yield some


def align(aligner: FaceAligner, images: list[NDArray[np.uint8]]) -> list[Faces | Exception]:
    """A result or an error for each photo; their faces share network batches."""
    failed: dict[int, Exception] = {}
    try:
        found: list[Faces | Exception] = list(aligner.align_batch(images, on_error=failed.__setitem__))
    except Exception:  # of the network: one photo must not cost the others their results
        return [result for image in images for result in _align_alone(aligner, image)]
    for index, error in failed.items():
        found[index] = error
    return found


def _align_alone(aligner: FaceAligner, image: NDArray[np.uint8]) -> Iterator[Faces | Exception]:
    try:
        yield aligner.align(image)
    except Exception as error:
        yield error


def success(name: str, size: int | None, faces: Faces) -> Row:
    """The row of a photo that was aligned."""
    arrays = ("landmarks", "landmark_scores", "landmark_errors", "boxes", "box_scores")
    return {
        "image": name,
        "bytes": size,
        "layout": faces.layout.name,
        **{array: getattr(faces, array).tolist() for array in arrays},
    }


def failure(name: str, size: int | None, error: str, *, retry: bool) -> Row:
    """The row of a photo without a result; with `retry`, the next run tries it again."""
    return {"image": name, "bytes": size, "error": error, "retry": retry}
