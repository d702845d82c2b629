"""What a worker does: it reads the photos of a part, aligns them, and commits their results."""

from __future__ import annotations

import json
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks.aligner import FaceAligner
from face_landmarks.errors import ImageError, InputError
from face_landmarks.images import read_image
from face_landmarks.output.cluster.attempts import Attempt
from face_landmarks.output.cluster.parts import Counts, Part, Row, check_settings, read_part, write_part
from face_landmarks.output.cluster.places import Place
from face_landmarks.output.cluster.sources import Load, Photo, Source
from face_landmarks.output.folders.journal import settings_of
from face_landmarks.results import Faces

MakeAligner: TypeAlias = "FaceAligner | Callable[[], FaceAligner]"

_PIXELS_TOGETHER: Final = 2**25  # of photos aligned at once: 100 MB
_FIRST: Final = 8  # photos; where the aligner fails on all of them, it fails on every one


class Loaded(NamedTuple):
    """A photo in memory.

    Attributes:
        name: of the photo.
        size: bytes of its file, None if it could not be read.
        pixels: (H, W, 3), or why there are none.
    """

    name: str
    size: int | None
    pixels: NDArray[np.uint8] | Exception


class Worker:
    """An actor of Ray Data: parts in, their counts out.

    Args:
        aligner: an aligner, or what makes one.
        source: where the photos are.
        out: the folder of the results.
        settings: of the run; the worker's own must be the same.
        threads: of the network; as many decode photos ahead.
        gpu: whether it has a share of a GPU.
    """

    def __init__(
        self, aligner: MakeAligner, source: Source, out: Place, settings: Row, threads: int, gpu: bool
    ) -> None:
        self._aligner = make(aligner, threads, gpu)
        check_settings(out, settings, settings_of(self._aligner))
        self._source, self._out, self._settings, self._threads = source, out, settings, threads
        self._any_done = False

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Align and commit a part, unless it is committed: by a worker that died before it could say so."""
        (content,) = batch["part"]
        part = unpack(content)
        place = self._out / part.name
        if part.repair or place.kind() != "file":
            attempt = Attempt(self._out, part.name)
            kept = []
            if part.repair:
                names = {photo.name for photo in part.photos}
                kept = [row for row in read_part(place, self._settings) if row["image"] not in names]
            write_part(place, [*kept, *self._align(part.photos, attempt)], self._settings)
            attempt.end()
        counts = Counts.of(read_part(place, self._settings, SUMMARY))
        return {"counts": [json.dumps({"part": part.name, "done": len(part.photos), **asdict(counts)})]}

    def _align(self, photos: Sequence[Photo], attempt: Attempt) -> Iterator[Row]:
        deadly = set(attempt.deadly)
        for photo in photos:
            if photo.name in deadly:
                error = "the worker process died at this photo"
                yield failure(photo.name, None, error, retry=True)
        photos = [photo for photo in photos if photo.name not in deadly]
        if attempt.careful:
            for loaded in self._one_by_one(photos, attempt):
                yield from self._rows([loaded])
            return
        ahead = decode_ahead(self._source.load(photos), self._threads)
        for some in together(ahead, self._aligner.batch_size):
            yield from self._rows(some)

    def _one_by_one(self, photos: Sequence[Photo], attempt: Attempt) -> Iterator[Loaded]:
        for photo, load in self._source.load(photos):
            attempt.begin(photo.name)
            yield read(photo.name, load)

    def _rows(self, some: Sequence[Loaded]) -> Iterator[Row]:
        """The row of each photo; raise if all of the first ones fail at the detector or the aligner."""
        images = [photo.pixels for photo in some if not isinstance(photo.pixels, Exception)]
        found = align(self._aligner, images)
        results = iter(found)
        failures = [result for result in found if isinstance(result, Exception)]
        if len(failures) == len(images) >= _FIRST and not self._any_done:
            raise failures[0]
        self._any_done |= len(failures) < len(images)
        for photo in some:
            result = photo.pixels if isinstance(photo.pixels, Exception) else next(results)
            if isinstance(result, Faces):
                yield success(photo, result)
            elif isinstance(result, ImageError):
                yield failure(photo.name, photo.size, str(result), retry=photo.size is None)
            else:
                yield failure(photo.name, photo.size, f"{type(result).__name__}: {result}", retry=True)


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


def read(name: str, load: Load) -> Loaded:
    """Read and decode a photo."""
    size = None
    try:
        data = load()
        size = len(data)
        return Loaded(name, size, read_image(data))
    except OSError as error:
        return Loaded(name, size, ImageError(f"image: cannot read {name!r}: {error.strerror or error}"))
    except Exception as error:
        return Loaded(name, size, error)


def decode_ahead(photos: Iterable[tuple[Photo, Load]], threads: int) -> Iterator[Loaded]:
    """Each photo, in order; while one is aligned, the next ones are read and decoded."""
    with ThreadPoolExecutor(threads + 1) as pool:
        ahead: deque[Future[Loaded]] = deque()
        try:
            for photo, load in photos:
                ahead.append(pool.submit(read, photo.name, load))
                if len(ahead) > threads + 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def together(photos: Iterable[Loaded], count: int) -> Iterator[list[Loaded]]:
    """Photos to be aligned at once: `count` of them at most, and few large ones."""
    some: list[Loaded] = []
    pixels = 0
    for photo in photos:
        some.append(photo)
        if not isinstance(photo.pixels, Exception):
            pixels += photo.pixels.shape[0] * photo.pixels.shape[1]
        if len(some) == count or pixels > _PIXELS_TOGETHER:
            yield some
            some, pixels = [], 0
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


def success(photo: Loaded, faces: Faces) -> Row:
    """The row of a photo that was aligned."""
    arrays = ("landmarks", "landmark_scores", "landmark_errors", "boxes", "box_scores")
    return {
        "image": photo.name,
        "bytes": photo.size,
        "layout": faces.layout.name,
        **{name: getattr(faces, name).tolist() for name in arrays},
    }


def failure(name: str, size: int | None, error: str, *, retry: bool) -> Row:
    """The row of a photo without a result; with `retry`, the next run tries it again."""
    return {"image": name, "bytes": size, "error": error, "retry": retry}
