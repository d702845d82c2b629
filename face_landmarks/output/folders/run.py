"""A run over many photos, into one file: in one process or several, resumed after an interruption."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike
from tqdm import tqdm

from face_landmarks._system.arguments import check_flag, check_kind, shown
from face_landmarks._system.files import make_folder, remove
from face_landmarks._system.locks import only_run
from face_landmarks.aligner import FaceAligner
from face_landmarks.errors import InputError
from face_landmarks.images import find_photos
from face_landmarks.output.folders.groups import TOGETHER, Group, align_groups
from face_landmarks.output.folders.journal import (
    GIVEN_BOXES,
    FolderReport,
    Row,
    Tally,
    append,
    resume,
    settings_of,
)
from face_landmarks.output.folders.lists import ListSource, Photo, PhotoList, Shard, read_list
from face_landmarks.output.folders.tables import TABLES, check_free, check_stems, convert, import_pyarrow
from face_landmarks.output.folders.workers import Workers


def align_folder(
    aligner: FaceAligner,
    folder: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    boxes: Mapping[str, ArrayLike] | None = None,
    recursive: bool = True,
    point_names: bool = False,
    workers: int = 1,
    shard: str | tuple[int, int] | None = None,
    progress: bool = False,
    use: Callable[[Path], None] | None = None,
) -> FolderReport:
    """Find the landmarks of every photo of a folder.

    Each photo's result is kept at once as a line of JSON. An interrupted run, even a killed one, resumes when
    called again. A photo that cannot be read is a line with its "error" and counts as done. A photo that is
    missing, at which the detector or the aligner raises, or at which worker processes die, is such a line,
    too; it has "retry": true, and the next run tries it again. Subfolders that cannot be read are in the
    report only.

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
    NAME.json.jsonl, NAME.csv.jsonl, NAME.parquet.jsonl or NAME.pts.jsonl; these stay as long as there are
    photos to be tried again. The settings are "model", "weights" (SHA-256 of the file), "network" (SHA-256
    of the weights in use), "detector" and the aligner's options; lines of different settings are not mixed.

    Args:
        aligner: with a detector.
        folder: of photos, aligned in the order of their paths; hidden files are left out. Or a mapping from
            the name of each photo in the results to its file.
        out: see above.
        boxes: name of each photo -> (N, 4) x0 y0 x1 y1, to skip detection; a name is the path relative to
            the folder, with slashes, or that of the mapping.
        recursive: include subfolders.
        point_names: in .csv and .parquet, columns such as nose_tip_x instead of x_30.
        workers: processes that align photos. One is this process itself. Several are spawned: the aligner is
            pickled, each has its share of torch's threads, and the file is the same, byte for byte if each
            has as many threads as one had. A worker that dies is replaced. A script that uses them needs
            `if __name__ == "__main__":`, as always with `multiprocessing`.
        shard: "3/16" for the third of 16 parts of the photos, see `Shard`; each part needs an `out` of its
            own, and `merge_results` joins them.
        progress: show a bar on stderr.
        use: called with the file of lines when it is complete, before it is written in another format.

    Raises:
        InputError: no such folder, neither detector nor boxes, a photo without its boxes, an unusable
            `out`, or one that holds results of other settings or photos, or anything else; several workers,
            and an aligner that cannot be pickled.
        WriteError: `out` cannot be written, or another run is writing it.
        WorkerError: workers die before they begin.
        MissingDependencyError: .parquet without pyarrow.
        Exception: what the detector or the aligner raised, if it raised at each of the first eight photos.
        KeyboardInterrupt: Ctrl-C; the message says how many photos are done.
    """
    part = None if shard is None else Shard.of(shard)
    check_flag("recursive", recursive)
    if use is not None and not callable(use):
        raise InputError(f"use: expected a function, got {shown(use)}")
    if boxes is not None and not isinstance(boxes, Mapping):
        raise InputError(f"boxes: expected a mapping from the names of photos, got {type(boxes).__name__}")
    locked: dict[str, str] = {}
    if isinstance(folder, Mapping):
        files = {
            check_kind("name of a photo", name, str): _path(f"file of {name!r}", file)
            for name, file in folder.items()
        }
    else:
        place = _path("folder", folder)
        files = {
            photo.relative_to(place).as_posix(): photo
            for photo in find_photos(
                place,
                recursive=recursive,
                left_out=lambda path, reason: locked.update({path.relative_to(place).as_posix(): reason}),
            )
        }
    photos = PhotoList(files.__iter__, files.get, part, boxes)
    return replace(_run(aligner, photos, out, workers, progress, point_names, use), folders=locked)


def align_list(
    aligner: FaceAligner,
    photos: ListSource,
    out: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] = ".",
    column: str | None = None,
    point_names: bool = False,
    workers: int = 1,
    shard: str | tuple[int, int] | None = None,
    progress: bool = False,
) -> FolderReport:
    """Find the landmarks of listed photos; all else is as in `align_folder`.

    The list may be of any length: it is read as a stream, and 16 bytes are kept of each path, as well as the
    paths that have an error. Output as .pts files is for shorter lists. A path that is listed twice is
    aligned once.

    Args:
        aligner: with a detector.
        photos: a file of paths, or a list of them. A .csv or .parquet file is a table with a column of
            paths; any other file has a path on each line, in UTF-8. There, lines that are empty or of spaces
            only are skipped, and one that begins with "#" is a path as well.
        out: see `align_folder`; "image" is the path as it is listed.
        root: folder that relative paths are relative to.
        column: of a table, "image" by default.
        point_names: see `align_folder`.
        workers: see `align_folder`.
        shard: see `align_folder`.
        progress: show a bar on stderr.

    Raises:
        InputError: no such file or column, something that is no path, or as in `align_folder`.
        Exception: as in `align_folder`.
    """
    place = _path("root", root)
    names = read_list(photos, column)
    listed = PhotoList(names, lambda name: place / name, None if shard is None else Shard.of(shard))
    return _run(aligner, listed, out, workers, progress, point_names)


def places(out: Path, photos: Iterable[str]) -> tuple[Path, Path]:
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


def _check(aligner: FaceAligner, photos: PhotoList, workers: int) -> None:
    """Raise unless this is an aligner that can find faces, and a number of workers."""
    if not isinstance(aligner, FaceAligner):
        raise InputError(f"aligner: expected a FaceAligner, got {type(aligner).__name__}")
    if isinstance(workers, bool) or not hasattr(workers, "__index__") or operator.index(workers) < 1:
        raise InputError(f"workers: expected a whole number, at least 1, got {workers!r}")
    if not photos.has_boxes and aligner.detector is None:
        raise InputError("aligner: expected one with a detector, got detector=None")


def _run(
    aligner: FaceAligner,
    photos: PhotoList,
    out: str | os.PathLike[str],
    workers: int,
    progress: bool,
    point_names: bool,
    use: Callable[[Path], None] | None = None,
) -> FolderReport:
    _check(aligner, photos, workers)
    check_flag("progress", progress)
    check_flag("point_names", point_names)
    lines, target = places(_path("out", out), photos)
    make_folder(lines.parent)
    with only_run(lines):
        if lines != target and not lines.exists():
            check_free(target, photos)
        settings = settings_of(aligner) | ({"detector": GIVEN_BOXES} if photos.has_boxes else {})
        done, tally = resume(lines, photos, settings)
        resumed = tally.photos
        before, total = 0, 0
        for total, name in enumerate(photos, start=1):  # noqa: B007
            before += name in done
        groups = _groups(photos.photo(name) for name in photos if done.add(name))
        bar = tqdm(total=total, initial=before, unit=" photos", disable=not progress)
        try:
            with bar, _aligned(aligner, settings, groups, workers) as aligned:
                append(lines, [])  # the file exists, even if there is no photo
                for group in aligned:
                    if group.failure and len(group.lines) == TOGETHER and not tally.photos:
                        raise group.failure
                    _write(lines, group, tally)
                    bar.update(len(group.lines))
        except KeyboardInterrupt:
            count = before + tally.photos - resumed
            raise KeyboardInterrupt(f"{count} of {total} photos done; run it again to go on") from None
        if use is not None:
            use(lines)
        if lines != target:
            layout = aligner.layout
            convert(lines, target, len(layout), layout.names if point_names else None)
            if not tally.failed:
                remove(lines)
    return tally.report(resumed)


def _groups(photos: Iterator[Photo]) -> Iterator[list[Photo]]:
    while group := list(islice(photos, TOGETHER)):
        yield group


@contextmanager
def _aligned(
    aligner: FaceAligner, settings: Row, groups: Iterator[list[Photo]], workers: int
) -> Iterator[Iterator[Group]]:
    """The lines of each group, in order, from this process or from several."""
    if workers == 1:
        with closing(align_groups(aligner, settings, groups)) as aligned:
            yield aligned
    else:
        with Workers(aligner, settings, workers) as pool:
            yield pool.align(groups)


def _write(lines: Path, group: Group, tally: Tally) -> None:
    append(lines, (line.text for line in group.lines))
    for line in group.lines:
        tally.add(line.photo, line.faces, line.error, line.failed)


def _path(name: str, value: Any) -> Path:
    """A path; raise unless it is one."""
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if isinstance(path, str) and path:
            return Path(path)
    raise InputError(f"{name}: expected a path, got {value!r}")
