"""`align_dataset`: the landmarks of a large set of photos, on a cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from tqdm import tqdm

from face_landmarks._system.files import make_folder
from face_landmarks._system.locks import only_run
from face_landmarks.errors import InputError
from face_landmarks.output.cluster.attempts import FOLDER
from face_landmarks.output.cluster.claims import Claim, claimed
from face_landmarks.output.cluster.manifest import Manifest, begin, committed, remove_late_parts
from face_landmarks.output.cluster.parts import Counts, Part, Row, part_name
from face_landmarks.output.cluster.places import Place, Stamp, place_of
from face_landmarks.output.cluster.ray_cluster import Share, connect, run_actors, run_once
from face_landmarks.output.cluster.sources import Photo, Source, find_photos
from face_landmarks.output.cluster.worker import MakeAligner, Worker, make, pack
from face_landmarks.output.folders import FolderReport
from face_landmarks.output.folders.journal import settings_of

Bar: TypeAlias = "tqdm[NoReturn]"

_MANIFEST_EVERY: Final = 30.0  # seconds; what is committed in between is found in the folder


def align_dataset(
    aligner: MakeAligner,
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    column: str | None = None,
    names: str | None = None,
    root: str | os.PathLike[str] | None = None,
    recursive: bool = True,
    filesystem: object = None,
    out_filesystem: object = None,
    address: str | None = None,
    workers: int | None = None,
    num_cpus: int = 1,
    num_gpus: float = 0,
    part_size: int = 512,
    progress: bool = False,
) -> FolderReport:
    """Find the landmarks of every photo of a large set, on this machine or on a cluster, with Ray Data.

    The photos are divided into parts. Each worker is a process that holds one aligner; it aligns a part,
    whose photos are read and decoded ahead, and commits the results as one Parquet file, whole or not at all.
    The part of a worker or a machine that dies is given to another one, and one that is committed is not
    aligned again. A run that is stopped, even killed, resumes when called again, and aligns only photos that
    are in no part; at most one part for each worker is aligned anew. A photo at which a worker process dies
    again and again gets a row with that error.

    `out` is a folder with files part-*.parquet, and _manifest.json, which tells the settings and the counts
    of each part. Parts have a row for each photo, in no order:

    =================  =========  ==============================================================
    column             shape
    =================  =========  ==============================================================
    `image`                       name of the photo, unique, see `source`
    `bytes`                       size of its file; null if it could not be read
    `error`                       why there is no result, else null
    `retry`                       true if the next run tries the photo again: it was missing, or
                                  the detector or the aligner raised
    `layout`                      name of the layout; from here on null where there is an error
    `landmarks`        (N, K, 2)  lists of float32, as in `Faces`, which `Faces.from_dict` makes
    `landmark_scores`  (N, K)     of a row that pyarrow gives as a dict
    `landmark_errors`  (N, K)
    `boxes`            (N, 4)
    `box_scores`       (N,)
    =================  =========  ==============================================================

    Args:
        aligner: with a detector; it is copied to each worker. Or a function without arguments that makes one
            in each worker, such as the class `FaceAligner` or a `functools.partial` of it.
        source: a folder, a pattern such as "photos/**/*.jpg", a list of files, or with `column`, a Parquet
            file, a folder or a pattern of them; each may be a URI, such as s3://bucket/photos. Names in the
            results are relative to the folder, or to the folder above the first wildcard; those of a list are
            its entries. Every machine must reach the photos under the same paths.
        out: a folder that every machine can write to, or a URI.
        column: of Parquet files, with the bytes of a photo in each row, or structs with a field "bytes".
        names: column of Parquet files with the photos' names, text or whole numbers, which must differ; by
            default FILE#ROW.
        root: of a list, the folder or URI that its relative paths start from; by default this folder.
        recursive: include subfolders.
        filesystem: of the source, of pyarrow.fs or of fsspec; by default the one that the URI names.
        out_filesystem: of `out`, likewise.
        address: of the cluster, "auto" for the one that runs on this machine; by default the one that the
            variable RAY_ADDRESS names, else this machine alone. If `ray.init` was called before, its cluster.
        workers: how many at most; by default as many as the cluster has processors or GPUs for.
        num_cpus: processors of each worker, and threads of its network and of its decoding.
        num_gpus: GPUs of each worker, 0.5 to share one by two. `FaceAligner(batch_size=...)` fills them.
        part_size: photos of a part. A part should take a worker some 10 seconds or more.
        progress: show a bar on stderr.

    Returns:
        Counts of all photos in the folder, those of earlier runs included.

    Raises:
        InputError: an unusable argument, no such source, a folder that holds results of other settings or
            photos, or anything else, or a cluster that is not there or is too small for a worker.
        WriteError: the folder cannot be written, or another run of this machine is writing it, or has begun
            to write it elsewhere since.
        MissingDependencyError: Ray or pyarrow is not installed.
        Exception: what the detector or the aligner raised, if it raised at each of the first photos.
        KeyboardInterrupt: Ctrl-C; the message says how many photos are done.
    """
    share = Share(workers, num_cpus, num_gpus)
    if part_size < 1:
        raise InputError(f"part_size: expected at least 1, got {part_size}")
    target = place_of(out, out_filesystem, argument="out")
    photos = find_photos(
        source, column=column, names=names, root=root, recursive=recursive, filesystem=filesystem
    )
    with connect(address, share) as cluster, _only_run(target):
        settings: Row = run_once(share, _settings, aligner, share.num_cpus, share.num_gpus > 0)
        manifest = begin(target, settings)
        with claimed(target) as claim:
            counts, waiting = _resume(manifest, photos, part_size)
            resumed = sum(map(_photos_in, counts.values())) - sum(len(c.failed) for c in counts.values())
            made = (aligner, replace(photos, photos=()), claim, settings, share.num_cpus, share.num_gpus > 0)
            found = run_actors(cluster, share, Worker, made, list(map(pack, waiting)))
            total = resumed + sum(len(part.photos) for part in waiting)
            with tqdm(total=total, initial=resumed, unit=" photos", disable=not progress) as bar:
                _collect(found, claim, manifest, counts, bar)
            remove_late_parts(manifest)
            (target / FOLDER).remove_folder()
    return _report(list(counts.values()), resumed)


def _collect(
    found: Iterator[Row], claim: Claim, manifest: Manifest, counts: dict[str, Counts], bar: Bar
) -> None:
    """Enter each part that a worker has committed."""
    done, written = int(bar.n), time.monotonic()
    try:
        for numbers in found:
            part, photos = numbers.pop("part"), numbers.pop("done")
            counts[part] = Counts(**numbers)
            manifest.add(part, counts[part])
            done += photos
            bar.update(photos)
            if time.monotonic() > written + _MANIFEST_EVERY:
                claim.check()
                manifest.write()
                written = time.monotonic()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{done} of {bar.total} photos done; run it again to go on") from None
    finally:
        if claim.is_current():
            manifest.write()
    claim.check()


def _settings(aligner: MakeAligner, threads: int, gpu: bool) -> Row:
    """The settings that workers will have, as one of them finds them."""
    return settings_of(make(aligner, threads, gpu))


def _only_run(out: Place) -> AbstractContextManager[None]:
    """Keep other runs from writing to a folder of this machine; a store has no locks, only claims."""
    if out.local is None:
        return nullcontext()
    make_folder(Path(out.local))
    return only_run(Path(out.local))


def _resume(manifest: Manifest, source: Source, part_size: int) -> tuple[dict[str, Counts], list[Part]]:
    """The counts of each part that is committed, and the parts that are to be aligned.

    Raises:
        InputError: a photo is in two parts, or another photo of its name is in one.
    """
    photos = {photo.name: photo for photo in source.photos}
    counts: dict[str, Counts] = {}
    repairs: list[Part] = []
    seen: set[str] = set()
    for name, stored in committed(manifest):
        counts[name] = Counts.of(stored.rows)
        manifest.add(name, counts[name])
        found: list[tuple[Row, Photo]] = []
        for row in stored.rows:
            image = row["image"]
            if image in seen:
                raise InputError(f"{manifest.out}: expected each photo once, got {image} again in {name}")
            seen.add(image)
            if image in photos:
                found.append((row, photos.pop(image)))
        _check_same(manifest.out, stored.tables, found, source)
        if again := [photo for row, photo in found if row["retry"]]:
            repairs.append(Part(name, again, repair=True))
    return counts, [*repairs, *_parts(iter(photos.values()), part_size)]


def _check_same(
    out: Place, tables: Mapping[str, Stamp], found: Sequence[tuple[Row, Photo]], source: Source
) -> None:
    """Raise unless the photos of a part, which came from these tables, are those of the source.

    Raises:
        InputError: one has another size, or is in a table that was written since or is another one.
    """
    for table, stamp in source.tables_of(photo for _, photo in found).items():
        if (before := tables.get(table)) is None or not before.is_of(stamp):
            raise InputError(
                f"{out}: expected results of the table {table} with {stamp}, got those of "
                f"{f'one with {before}' if before else 'other photos'}; choose another folder"
            )
    done = [(row, photo) for row, photo in found if not row["retry"]]
    for (row, photo), size in zip(done, source.sizes([photo for _, photo in done]), strict=True):
        if -1 != size != row["bytes"]:
            raise InputError(
                f"{out}: expected results of these photos, got those of another {photo.name}; "
                "choose another folder"
            )


def _parts(photos: Iterator[Photo], size: int) -> Iterator[Part]:
    while some := list(islice(photos, size)):
        yield Part(part_name(some), some)


def _photos_in(counts: Counts) -> int:
    return counts.images + len(counts.unreadable) + len(counts.failed)


def _report(counts: Sequence[Counts], resumed: int) -> FolderReport:
    unreadable: dict[str, str] = {}
    failed: dict[str, str] = {}
    for part in counts:
        unreadable |= part.unreadable
        failed |= part.failed
    return FolderReport(
        sum(part.images for part in counts), sum(part.faces for part in counts), resumed, unreadable, failed
    )
