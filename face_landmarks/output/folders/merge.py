"""Files of results joined into one: those of shards, or of any runs with the same settings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from face_landmarks._system.arguments import check_flag, check_path
from face_landmarks._system.files import make_folder, remove, replacing
from face_landmarks._system.locks import only_run
from face_landmarks.errors import InputError, WriteError
from face_landmarks.images import find_photos
from face_landmarks.layouts import IBUG_68, get_layout
from face_landmarks.output.folders.journal import Row, Tally, has_failed, read_row
from face_landmarks.output.folders.lists import ListSource, PathSet, read_list
from face_landmarks.output.folders.run import places
from face_landmarks.output.folders.tables import check_free, convert
from face_landmarks.results import Faces

_NO_SETTINGS: Final = {"image", "bytes", "error", "retry", *Faces.empty(IBUG_68).to_dict()}


@dataclass(frozen=True)
class MergeReport:
    """Counts of photos and faces in a joined file.

    Attributes:
        images: photos with a result.
        faces: found in them.
        unreadable: photo -> why it could not be read.
        failed: photo -> why the next run of its part would try it again.
        duplicates: lines that were left out, as the photo has another.
    """

    images: int
    faces: int
    unreadable: dict[str, str]
    failed: dict[str, str]
    duplicates: int


def merge_results(
    parts: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    photos: ListSource | None = None,
    column: str | None = None,
    point_names: bool = False,
) -> MergeReport:
    """Join .jsonl files of `align_folder` or `align_list`, those of shards for instance, into one file.

    Lines keep their order, file after file. Of a photo with several lines one is kept: the first with a
    result, else the first. Nothing is written if the files do not belong together.

    Args:
        parts: .jsonl files; also those that an unfinished table keeps, such as NAME.csv.jsonl.
        out: a new file or folder, in any of the formats of `align_folder`.
        photos: a folder or a list, as in `align_list`, of all photos that must have a line.
        column: of a list that is a table.
        point_names: see `align_folder`.

    Raises:
        InputError: a part that is missing, holds anything else or ends in the middle of a line; parts of
            different settings; two photos of one name and different sizes; photos without a line; an `out`
            that exists.
        WriteError: `out` cannot be written, or a run is writing a part, or has written one meanwhile.
        MissingDependencyError: .parquet without pyarrow.
    """
    check_flag("point_names", point_names)
    files = [_PartFile(path) for path in _files(parts)]
    names = _Names(files)
    lines, target = places(check_path("out", out), names)
    if lines.exists():
        raise InputError(f"out: expected a new file, got {lines}")
    check_free(target, names)
    make_folder(lines.parent)
    with only_run(lines):
        done = _check(files)
        if photos is not None:
            _check_complete(photos, column, done)
        with replacing(lines) as temporary:
            report, layout = _write(files, done, temporary)
        if lines != target:
            try:
                known = get_layout(layout) if layout else IBUG_68
                convert(lines, target, len(known), known.names if point_names else None)
            finally:
                remove(lines)
    return report


class _PartFile:
    """A file of results, which is read several times and must stay the same.

    It is locked and open only while it is read, so that there may be more parts than a process can open. A
    folder that cannot be written has no place for a lock: there a run is noticed only by what it has changed
    between two readings.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: tuple[int, ...] | None = None

    @contextmanager
    def rows(self) -> Iterator[Iterator[tuple[bytes, Row]]]:
        """The lines, raw and read, within a block.

        Raises:
            InputError: it cannot be read, or holds anything else.
            WriteError: a run is writing it, or has written it since it was first read.
        """
        folder = os.path.dirname(os.path.realpath(self.path))
        with ExitStack() as stack:
            if os.access(folder, os.W_OK):
                stack.enter_context(only_run(self.path))
            try:
                file = stack.enter_context(self.path.open("rb"))
                self._check_state(os.fstat(file.fileno()))
            except OSError as error:
                if isinstance(error, WriteError):
                    raise
                raise self._unreadable(error) from error
            yield self._read(file)

    def _read(self, file: Iterable[bytes]) -> Iterator[tuple[bytes, Row]]:
        try:
            for line in file:
                if not line.endswith(b"\n"):
                    raise InputError(
                        f"{self.path}: expected whole lines, got {line[:40]!r} at its end: run its part again"
                    )
                yield line, read_row(self.path, line)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> InputError:
        return InputError(f"{self.path}: expected lines of results, got {error.strerror or error}")

    def _check_state(self, found: os.stat_result) -> None:
        state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if self._state not in (None, state):
            raise WriteError(f"{self.path}: expected no run to write it meanwhile, got one that did")
        self._state = state


class _Names:
    """The photos of files of results, as often as wanted."""

    def __init__(self, files: Sequence[_PartFile]) -> None:
        self._files = files

    def __iter__(self) -> Iterator[str]:
        for file in self._files:
            with file.rows() as rows:
                yield from (row["image"] for _, row in rows)


def _files(parts: Sequence[str | os.PathLike[str]]) -> list[Path]:
    if isinstance(parts, (str, bytes, os.PathLike)) or not isinstance(parts, Iterable):
        raise InputError(f"parts: expected a list of .jsonl files, got {parts!r}")
    files = [check_path("parts", part) for part in parts]
    if not files:
        raise InputError("parts: expected at least one .jsonl file, got none")
    known: set[str] = set()
    for file in files:
        if file.suffix.lower() != ".jsonl" or not file.is_file():
            raise InputError(f"parts: expected .jsonl files, got {file}")
        place = os.path.realpath(file)
        if place in known:
            raise InputError(f"parts: expected each file once, got {file} twice")
        known.add(place)
    return files


def _check(files: Sequence[_PartFile]) -> PathSet:
    """The photos that have a line that is not to be tried again; raise unless the files belong together."""
    settings: Row = {}
    done, seen, sizes = PathSet(), PathSet(), PathSet()
    for file in files:
        with file.rows() as rows:
            for _, row in rows:
                mine = {name: value for name, value in row.items() if name not in _NO_SETTINGS}
                settings = settings or mine
                _check_settings(file, mine, files[0], settings)
                photo, size = row["image"], row["bytes"]
                if size is not None:
                    is_known_size = not sizes.add(f"{photo}\0{size}")
                    if not seen.add(photo) and not is_known_size:
                        raise InputError(f"{file.path}: expected one photo of each name, got another {photo}")
                if not has_failed(row):
                    done.add(photo)
    return done


def _check_settings(file: _PartFile, mine: Row, first: _PartFile, settings: Row) -> None:
    """Raise unless a line has the settings of the first one."""
    for name in sorted(settings.keys() | mine.keys(), key="network".__eq__):
        wanted, got = (row.get(name, "nothing") for row in (settings, mine))
        if wanted != got:
            raise InputError(
                f"{file.path}: expected results of {name} {wanted}, as in {first.path}, got {got}"
            )


def _check_complete(photos: ListSource, column: str | None, done: PathSet) -> None:
    """Raise unless each photo of a folder or list has a line."""
    if isinstance(photos, (str, os.PathLike)) and Path(photos).is_dir():
        found = find_photos(photos, recursive=True, left_out=_refuse)
        names: Iterable[str] = (photo.relative_to(photos).as_posix() for photo in found)
    else:
        names = read_list(photos, column)()
    missing, first = 0, ""
    for name in names:
        if name not in done:
            missing, first = missing + 1, first or name
    if missing:
        more = f" and {missing - 1} more" if missing > 1 else ""
        raise InputError(f"photos: expected a finished line of each, got none of {first}{more}")


def _refuse(folder: Path, reason: str) -> None:
    raise InputError(f"photos: expected folders that can be read, got {folder}: {reason}")


def _write(files: Sequence[_PartFile], done: PathSet, out: Path) -> tuple[MergeReport, str | None]:
    """Write one line of each photo; the report and the name of the layout, if a line tells it."""
    written, tally = PathSet(), Tally()
    duplicates, layout = 0, None
    with out.open("wb") as target:
        for file in files:
            with file.rows() as rows:
                for line, row in rows:
                    failed = has_failed(row)
                    if (failed and row["image"] in done) or not written.add(row["image"]):
                        duplicates += 1
                        continue
                    target.write(line)
                    layout = layout or row.get("layout")
                    tally.add(row["image"], len(row.get("boxes", ())), row.get("error"), failed)
    return MergeReport(tally.images, tally.faces, tally.unreadable, tally.failed, duplicates), layout
