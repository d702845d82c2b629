"""Folders of photos, aligned into one file: decoded in parallel, resumed where they stopped."""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from face_landmarks._system.extras import import_extra
from face_landmarks._system.files import make_folder, replacing, writing
from face_landmarks.aligner import FaceAligner
from face_landmarks.errors import ImageError, InputError
from face_landmarks.images import PHOTO_SUFFIXES, read_image
from face_landmarks.pts import write_pts
from face_landmarks.results import Faces

Pixels: TypeAlias = "NDArray[np.uint8]"
Row: TypeAlias = "dict[str, Any]"

_TOGETHER: Final = 8  # photos aligned at once: their faces share network batches, their rows one write
_FORMATS: Final = (".jsonl", ".csv", ".parquet")
_HEAD: Final = b'{"image": "'  # of every line of results
_KEYS: Final = {"image", "bytes", "model", "weights", "flip", "refine"}  # and a result or an error


@dataclass(frozen=True)
class FolderReport:
    """What became of a folder.

    Attributes:
        images: photos in the results, those of earlier runs included.
        faces: faces found in them.
        resumed: photos that earlier runs had done.
        unreadable: photo -> why it could not be read.
    """

    images: int
    faces: int
    resumed: int
    unreadable: dict[str, str]


def align_folder(
    aligner: FaceAligner,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recursive: bool = True,
    workers: int = 4,
    progress: bool = False,
) -> FolderReport:
    """Find the landmarks of every photo of a folder.

    Results are kept as they come, a line of JSON per photo, and a run that was stopped, however it
    was, goes on where it stopped when it is called again. An unreadable photo is a line with its error.

    =============  ===============================================================================
    `out`          holds
    =============  ===============================================================================
    NAME.jsonl     per photo "image", its size in "bytes", the "model", its "weights" (SHA-256), "flip" and
                   "refine", and `Faces.to_dict()` or "error"; called again when it is finished, only
                   photos that are new are looked at
    NAME.csv       per face its photo, number, box, box score, and x_0, y_0, score_0, error_0, x_1, ...
    NAME.parquet   the same; needs pandas and pyarrow
    NAME           a folder with NAME.pts per face, NAME.1.pts, NAME.2.pts where there are several
    =============  ===============================================================================

    Until they are finished, the last three keep their lines in NAME.csv.jsonl, NAME.parquet.jsonl or
    NAME.pts.jsonl.

    Args:
        aligner: with a detector.
        folder: of photos; hidden files are left out, and photos are done in order of their path.
        out: see above.
        recursive: also look into subfolders.
        workers: threads that decode photos.
        progress: show a bar on stderr.

    Raises:
        InputError: no such folder, an unusable `out`, or one that holds results of another model, of other
            settings or photos, or anything else.
        WriteError: `out` cannot be written.
        MissingDependencyError: .parquet without pandas and pyarrow.
    """
    folder, out = Path(folder), Path(out)
    if workers < 1:
        raise InputError(f"workers: expected at least 1, got {workers}")
    photos = _photos(folder, recursive)
    if out.suffix not in (*_FORMATS, ""):
        raise InputError(f"out: expected {', '.join(_FORMATS)} or the name of a folder, got {out.name!r}")
    if out.suffix == ".parquet":
        _pandas()
    if not out.suffix:
        out = out.resolve()  # "." and ".." have no name
        _check_stems(photos)
    lines = (
        out if out.suffix == ".jsonl" else out.with_name(f"{out.name}{'' if out.suffix else '.pts'}.jsonl")
    )
    if lines != out and not lines.exists():
        _check_free(out, photos)

    with writing(out):
        make_folder(lines.parent)
        done = _resume(lines, folder, settings_of(aligner))
        file = lines.open("a", encoding="utf-8")
    with file:
        waiting = [photo for photo in photos if photo not in done]
        bar = tqdm(
            total=len(photos), initial=len(photos) - len(waiting), unit=" photos", disable=not progress
        )
        with bar:
            decoded = _decode(folder, waiting, workers)
            while some := list(islice(decoded, _TOGETHER)):
                rows = list(_align(aligner, folder, some))
                with writing(out):
                    file.write("".join(json.dumps(row) + "\n" for row in rows))
                    file.flush()
                bar.update(len(some))
    with writing(out):
        if lines != out:
            _convert(lines, out)
        report = _report(_rows(lines), len(done))
        if lines != out:
            lines.unlink()
    return report


def settings_of(aligner: FaceAligner) -> Row:
    """What a line of results says of the aligner that made it; lines of different ones are not mixed."""
    card = aligner.card
    weights = card.file.sha256 if card.file else None
    return {"model": card.name, "weights": weights, "flip": aligner.flip, "refine": aligner.refine}


def _photos(folder: Path, recursive: bool) -> list[str]:
    """Paths from the folder down, with slashes, in order."""
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of photos, got none")
    found = (path.relative_to(folder) for path in folder.glob("**/*" if recursive else "*"))
    return sorted(
        path.as_posix()
        for path in found
        if path.suffix.lower() in PHOTO_SUFFIXES and not any(part.startswith(".") for part in path.parts)
    )


def _check_stems(photos: Iterable[str]) -> None:
    """Whether every face's .pts file has a name of its own, however many faces a photo has."""
    stems = Counter(str(Path(photo).with_suffix("")) for photo in photos)
    for stem, count in stems.items():
        if count > 1:
            raise InputError(
                f"out: expected one photo named {stem}.*, as .pts files are named after them, got {count}"
            )
        whole, _, number = stem.rpartition(".")
        if number.isdecimal() and whole in stems:
            raise InputError(
                f"out: expected no photo named {stem}.* beside {whole}.*, whose faces may get its .pts file"
            )


def _check_free(out: Path, photos: Iterable[str]) -> None:
    """Whether nothing would be written over: a table, or .pts files by an annotator's hand, say."""
    if out.suffix:
        if out.exists():
            raise InputError(f"out: expected a new file, as only .jsonl files are added to, got {out}")
        return
    for photo in photos:
        stem = out / Path(photo).with_suffix("")
        for path in (stem.with_name(f"{stem.name}.pts"), stem.with_name(f"{stem.name}.1.pts")):
            if path.exists():
                raise InputError(f"out: expected a folder without landmarks of {photo}, got {path}")


def _resume(lines: Path, folder: Path, settings: Row) -> set[str]:
    """The photos that are done; what a stopped run left of its last line is cut off."""
    done: set[str] = set()
    if not lines.exists():
        return done
    with lines.open("rb+") as file:
        whole = 0
        for line in file:
            if not line.startswith(_HEAD[: len(line)]):
                raise InputError(f"{lines}: expected lines of earlier results, got {line[:40]!r}")
            if not line.endswith(b"\n"):
                break
            row = _read_row(lines, line)
            for name, value in settings.items():
                if row[name] != value:
                    raise InputError(
                        f"{lines}: expected results of {name} {value}, got {row[name]}; choose another file"
                    )
            if _size(folder / row["image"]) not in (row["bytes"], None):
                raise InputError(
                    f"{lines}: expected results of the photos in {folder}, got those of another "
                    f"{row['image']}; choose another file"
                )
            done.add(row["image"])
            whole += len(line)
        file.truncate(whole)
    return done


def _read_row(lines: Path, line: bytes) -> Row:
    """A whole line, in which all is as `_align` writes it."""
    try:
        row: Row = json.loads(line)
        if not row.keys() >= _KEYS or not isinstance(row["image"], str):
            raise TypeError(f"expected {', '.join(sorted(_KEYS))}")
        if "error" not in row:
            Faces.from_dict(row)
        elif not isinstance(row["error"], str):
            raise TypeError("expected an error as text")
    except (ValueError, TypeError, RecursionError, InputError) as error:
        raise InputError(f"{lines}: expected lines of earlier results, got {line[:40]!r}: {error}") from error
    return row


def _size(photo: Path) -> int | None:
    """Of a photo's file, in bytes; None if it cannot be told."""
    try:
        return photo.stat().st_size
    except (OSError, ValueError):
        return None


def _decode(folder: Path, photos: Iterable[str], workers: int) -> Iterator[tuple[str, Pixels | ImageError]]:
    """Each photo or why it is none, in order; a few are decoded ahead."""

    def read(photo: str) -> Pixels | ImageError:
        try:
            return read_image(folder / photo)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[str, Future[Pixels | ImageError]]] = deque()
        for photo in photos:
            ahead.append((photo, pool.submit(read, photo)))
            if len(ahead) > 2 * workers:
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()


def _align(
    aligner: FaceAligner, folder: Path, photos: list[tuple[str, Pixels | ImageError]]
) -> Iterator[Row]:
    results = iter(aligner.align_batch(p for _, p in photos if not isinstance(p, ImageError)))
    for photo, pixels in photos:
        head = {"image": photo, "bytes": _size(folder / photo), **settings_of(aligner)}
        yield head | ({"error": str(pixels)} if isinstance(pixels, ImageError) else next(results).to_dict())


def _rows(lines: Path) -> Iterator[Row]:
    with lines.open("rb") as file:  # as text, a carriage return would end a line, too
        yield from map(json.loads, file)


def _report(rows: Iterable[Row], resumed: int) -> FolderReport:
    images, faces, unreadable = 0, 0, {}
    for row in rows:
        if "error" in row:
            unreadable[row["image"]] = row["error"]
        else:
            images, faces = images + 1, faces + len(row["boxes"])
    return FolderReport(images, faces, resumed, unreadable)


def _convert(lines: Path, out: Path) -> None:
    """The finished lines in their final format, whole or not at all."""
    if not out.suffix:
        for row in _rows(lines):
            faces = row.get("landmarks", ())
            for number, landmarks in enumerate(faces, start=1):
                name = Path(row["image"]).with_suffix(f".{number}.pts" if len(faces) > 1 else ".pts")
                make_folder((out / name).parent)
                write_pts(out / name, landmarks)
        return
    with replacing(out) as temporary:
        if out.suffix == ".parquet":
            _pandas().DataFrame(list(_faces(_rows(lines)))).to_parquet(temporary)
            return
        with temporary.open("w", encoding="utf-8", newline="") as file:
            faces = _faces(_rows(lines))
            first = next(faces, {"image": "", "face": 0})
            writer = csv.DictWriter(file, list(first), lineterminator="\n")
            writer.writeheader()
            writer.writerows(row for row in (first, *faces) if row["image"])


def _faces(rows: Iterable[Row]) -> Iterator[Row]:
    """A flat row per face."""
    for row in rows:
        photo = row["image"].encode("utf-8", "backslashreplace").decode()  # names need not be text
        for number, box in enumerate(row.get("boxes", ())):
            arrays = (row[name][number] for name in ("landmarks", "landmark_scores", "landmark_errors"))
            yield {
                "image": photo,
                "face": number,
                **dict(zip(("x0", "y0", "x1", "y1"), box, strict=True)),
                "score": row["box_scores"][number],
                **{
                    name: value
                    for k, ((x, y), score, error) in enumerate(zip(*arrays, strict=True))
                    for name, value in (
                        (f"x_{k}", x),
                        (f"y_{k}", y),
                        (f"score_{k}", score),
                        (f"error_{k}", math.nan if error is None else error),
                    )
                },
            }


def _pandas() -> Any:
    import_extra("pyarrow", "tables", "tables")
    return import_extra("pandas", "tables", "tables")
