"""Folders of photos, aligned into one file: decoded in parallel, resumed after an interruption."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, repeat
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from face_landmarks._system.files import make_folder, remove
from face_landmarks._system.locks import only_run
from face_landmarks.aligner import FaceAligner, check_boxes
from face_landmarks.errors import ImageError, InputError
from face_landmarks.images import find_photos, read_image
from face_landmarks.output.folders.journal import (
    GIVEN_BOXES,
    Row,
    append,
    has_failed,
    read_rows,
    resume,
    settings_of,
    size_of,
)
from face_landmarks.output.folders.tables import TABLES, check_free, check_stems, convert, import_pyarrow
from face_landmarks.results import Faces

Pixels: TypeAlias = "NDArray[np.uint8]"

_TOGETHER: Final = 8  # photos aligned at once: their faces share network batches, their lines one write


@dataclass(frozen=True)
class FolderReport:
    """Counts of a folder's photos and faces.

    Attributes:
        images: photos that were aligned, those of earlier runs included.
        faces: faces found in them.
        resumed: photos that were done before this run.
        unreadable: photo -> why it could not be read.
        failed: photo -> what the detector or the aligner raised.
    """

    images: int
    faces: int
    resumed: int
    unreadable: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)


def align_folder(
    aligner: FaceAligner,
    folder: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    boxes: Mapping[str, ArrayLike] | None = None,
    recursive: bool = True,
    point_names: bool = False,
    workers: int = 4,
    progress: bool = False,
    use: Callable[[Path], None] | None = None,
) -> FolderReport:
    """Find the landmarks of every photo of a folder.

    Each photo's result is kept at once as a line of JSON. An interrupted run, even a killed one, resumes when
    called again. A photo that cannot be read is a line with its "error" and counts as done. A photo at which
    the detector or the aligner raises is such a line, too; it has "retry": true, and the next run tries it
    again.

    =============  ===============================================================================
    `out`          holds
    =============  ===============================================================================
    NAME.jsonl     per photo "image", its size in "bytes", the settings (below), and `Faces.to_dict()` or
                   "error"; called again on a finished file, only new photos are aligned
    NAME.json      the same as one list
    NAME.csv       per face its photo, number, box, box score, and x_0, y_0, score_0, error_0, x_1, ...
    NAME.parquet   the same; needs pyarrow
    NAME           a folder with NAME.pts per face, NAME.1.pts, NAME.2.pts where there are several
    =============  ===============================================================================

    Suffixes may be in upper case. Until they are finished, all but the first keep their lines in
    NAME.json.jsonl, NAME.csv.jsonl, NAME.parquet.jsonl or NAME.pts.jsonl. The settings are "model",
    "weights" (SHA-256 of the file), "network" (SHA-256 of the weights in use), "detector" and the aligner's
    options; lines of different settings are not mixed.

    Args:
        aligner: with a detector.
        folder: of photos, aligned in the order of their paths; hidden files are left out. Or a mapping from
            the name of each photo in the results to its file.
        out: see above.
        boxes: name of each photo -> (N, 4) x0 y0 x1 y1, to skip detection; a name is the path relative to
            the folder, with slashes, or that of the mapping.
        recursive: include subfolders.
        point_names: in .csv and .parquet, columns such as nose_tip_x instead of x_30.
        workers: threads that decode photos.
        progress: show a bar on stderr.
        use: called with the file of lines when it is complete, before it is written in another format.

    Raises:
        InputError: no such folder, neither detector nor boxes, a photo without its boxes, an unusable
            `out`, or one that holds results of other settings or photos, or anything else.
        WriteError: `out` cannot be written, or another run is writing it.
        MissingDependencyError: .parquet without pyarrow.
        Exception: what the detector or the aligner raised, if it raised at each of the first eight photos.
        KeyboardInterrupt: Ctrl-C; the message says how many photos are done.
    """
    out = Path(out)
    if workers < 1:
        raise InputError(f"workers: expected at least 1, got {workers}")
    files = _files(folder, recursive)
    lines, out = _places(out, files)
    given = None if boxes is None else _given_boxes(files, boxes)
    if given is None and aligner.detector is None:
        raise InputError("aligner: expected one with a detector, got detector=None")

    make_folder(lines.parent)
    with only_run(lines):
        if lines != out and not lines.exists():
            check_free(out, files)
        settings = settings_of(aligner) if given is None else settings_of(aligner) | {"detector": GIVEN_BOXES}
        done = resume(lines, files, settings, given)
        append(lines, [])  # the file exists, even if there is no photo
        waiting = {photo: file for photo, file in files.items() if photo not in done}
        count = len(files) - len(waiting)  # of photos that are done
        try:
            with tqdm(total=len(files), initial=count, unit=" photos", disable=not progress) as bar:
                decoded, any_done = _decode(waiting, workers), bool(done)
                while some := list(islice(decoded, _TOGETHER)):
                    rows = _align(aligner, some, given, any_done)
                    heads = ({"image": photo, "bytes": size_of(files[photo])} for photo, _ in some)
                    append(lines, (head | settings | row for head, row in zip(heads, rows, strict=True)))
                    any_done = True
                    count += len(some)
                    bar.update(len(some))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{count} of {len(files)} photos done; run it again to go on") from None
        report = _report(read_rows(lines), len(done))
        if use is not None:
            use(lines)
        if lines != out:
            layout = aligner.layout
            convert(lines, out, len(layout), layout.names if point_names else None)
            remove(lines)
    return report


def _files(
    folder: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]], recursive: bool
) -> dict[str, Path]:
    """The name of each photo in the results -> its file, in order."""
    if isinstance(folder, Mapping):
        return {name: Path(file) for name, file in folder.items()}
    photos = find_photos(folder, recursive=recursive)
    return {photo.relative_to(folder).as_posix(): photo for photo in photos}


def _given_boxes(photos: Iterable[str], boxes: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float32]]:
    """The boxes of each photo; raise unless each has its own, if only an empty list."""
    photos = list(photos)
    if missing := [photo for photo in photos if photo not in boxes]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"boxes: expected those of every photo, got none of {missing[0]}{more}")
    return {photo: check_boxes(boxes[photo]) for photo in photos}


def _places(out: Path, photos: Iterable[str]) -> tuple[Path, Path]:
    """The file of lines and the output; raise if the output's format cannot be written."""
    suffix = out.suffix.lower()
    if suffix == ".jsonl":
        return out, out
    if suffix not in (*TABLES, ""):
        raise InputError(
            f"out: expected .jsonl, {', '.join(TABLES)} or the name of a folder, got {out.name!r}"
        )
    if suffix == ".parquet":
        import_pyarrow()
    if not suffix:
        out = out.resolve()  # "." and ".." have no name
        check_stems(photos)
    return out.with_name(f"{out.name}{'' if suffix else '.pts'}.jsonl"), out


def _decode(files: Mapping[str, Path], workers: int) -> Iterator[tuple[str, Pixels | Exception]]:
    """Each photo, or what was raised when it was read, in order; a few are decoded ahead."""

    def read(photo: str) -> Pixels | Exception:
        try:
            return read_image(files[photo])
        except Exception as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[str, Future[Pixels | Exception]]] = deque()
        for photo in files:
            ahead.append((photo, pool.submit(read, photo)))
            if len(ahead) > 2 * workers:
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()


def _align(
    aligner: FaceAligner,
    photos: list[tuple[str, Pixels | Exception]],
    given: Mapping[str, NDArray[np.float32]] | None,
    any_done: bool,
) -> Iterator[Row]:
    """A result or an error for each photo; raise if all of a first, whole group fail."""
    decoded = [(photo, pixels) for photo, pixels in photos if not isinstance(pixels, Exception)]
    images = [pixels for _, pixels in decoded]
    boxes = None if given is None else [given[photo] for photo, _ in decoded]
    found: list[Faces | Exception] = []
    try:
        found += aligner.align_batch(images, boxes)
    except Exception:  # one photo must not cost the others their results
        own = repeat(None) if boxes is None else boxes
        found += [_try_align(aligner, image, box) for image, box in zip(images, own, strict=False)]
    failures = [result for result in found if isinstance(result, Exception)]
    if len(failures) == _TOGETHER and not any_done:
        raise failures[0]
    results = iter(found)
    return (_row(pixels if isinstance(pixels, Exception) else next(results)) for _, pixels in photos)


def _try_align(aligner: FaceAligner, image: Pixels, boxes: NDArray[np.float32] | None) -> Faces | Exception:
    try:
        return aligner.align(image, boxes)
    except Exception as error:
        return error


def _row(result: Faces | Exception) -> Row:
    """What a line says of a photo's result."""
    if isinstance(result, Faces):
        return result.to_dict()
    if isinstance(result, ImageError):
        return {"error": str(result)}
    return {"error": f"{type(result).__name__}: {result}", "retry": True}


def _report(rows: Iterable[Row], resumed: int) -> FolderReport:
    images, faces = 0, 0
    unreadable: dict[str, str] = {}
    failed: dict[str, str] = {}
    for row in rows:
        if "error" in row:
            (failed if has_failed(row) else unreadable)[row["image"]] = row["error"]
        else:
            images, faces = images + 1, faces + len(row["boxes"])
    return FolderReport(images, faces, resumed, unreadable, failed)
