"""`face-landmarks align`: the landmarks of photos, or of a whole folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.files import make_folder, write_whole
from face_landmarks.aligner import FaceAligner
from face_landmarks.cli.options import (
    Commands,
    check_targets,
    complain,
    count_faces,
    make_aligner,
    model_options,
    path,
    say,
)
from face_landmarks.errors import ImageError, InputError, WriteError
from face_landmarks.output.drawing import draw_faces
from face_landmarks.output.folders.run import align_folder

_DESCRIPTION = """Find the landmarks of photos. The output is a JSON list with a line for each photo: its
landmarks, scores and boxes, or the error of a photo that could not be read."""


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    align = commands.add_parser(
        "align", parents=[model_options()], help="find the landmarks of photos", description=_DESCRIPTION
    )
    align.add_argument("photos", nargs="+", metavar="PHOTO", help="a photo; with --out, a folder of photos")
    align.add_argument(
        "--json", metavar="FILE", type=path, help="write the landmarks here; by default to stdout"
    )
    align.add_argument(
        "--draw", metavar="PATH", type=path, help="draw them: a picture, or a folder for many photos"
    )
    align.add_argument(
        "--out",
        metavar="PATH",
        type=path,
        help="align a whole folder into a .jsonl, .csv or .parquet file or a folder of .pts files; "
        "an interrupted run resumes when called again",
    )
    align.set_defaults(run=_align)


def _align(options: argparse.Namespace) -> int:
    if options.out:
        return _align_folder(options)
    if folders := [photo for photo in options.photos if Path(photo).is_dir()]:
        raise InputError(f"expected photos, got the folder {folders[0]!r}; --out PATH aligns a whole folder")
    draw = _drawing_path(options.draw, options.photos) if options.draw else None
    drawings = [str(draw(photo)) for photo in options.photos] if draw else []
    check_targets(options.photos, options.json, *drawings)
    if options.json:
        _check_file(Path(options.json))
    aligner = make_aligner(options)
    rows: list[dict[str, Any]] = []
    try:
        for row in _rows(aligner, options.photos, draw):
            rows.append(row)
            if not (options.json or options.draw):
                print("[" if len(rows) == 1 else ",", json.dumps(row), sep="\n", end="", flush=True)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{len(rows)} of {len(options.photos)} photos done") from None
    finally:  # also of a command that is stopped, what is done is kept
        if options.json and rows:
            lines = ",\n".join(map(json.dumps, rows))
            _write(Path(options.json), f"[\n{lines}\n]\n".encode())
        elif rows and not options.draw:
            print("\n]", flush=True)
    return 1 if any("error" in row for row in rows) else 0


def _rows(
    aligner: FaceAligner, photos: Sequence[str], draw: Callable[[str], Path] | None
) -> Iterator[dict[str, Any]]:
    """A photo's path with its faces, or with the error if it cannot be read."""
    for photo in photos:
        try:
            faces = aligner.align(photo)
            if draw:
                _write_picture(draw(photo), draw_faces(photo, faces))
        except ImageError as error:
            complain(str(error))
            yield {"image": photo, "error": str(error)}
            continue
        say(f"{photo}: {count_faces(len(faces))}")
        yield {"image": photo, **faces.to_dict()}


def _align_folder(options: argparse.Namespace) -> int:
    if len(options.photos) != 1 or options.draw or options.json:
        raise InputError("--out: expected one folder of photos, without --draw and --json")
    (folder,) = options.photos
    report = align_folder(make_aligner(options), folder, options.out, progress=sys.stderr.isatty())
    problems = report.unreadable | report.failed
    for photo, reason in problems.items():
        complain(f"{photo}: {reason}")
    resumed = f", {report.resumed} of them earlier" if report.resumed else ""
    failed = f", {len(report.failed)} failed" if report.failed else ""
    say(
        f"{folder}: {count_faces(report.faces)} in {report.images} photos{resumed}, "
        f"{len(report.unreadable)} unreadable{failed}"
    )
    return 1 if problems else 0


def _drawing_path(target: str, photos: Sequence[str]) -> Callable[[str], Path]:
    """Where each photo's drawing goes: the named file, or a file of its own in the named folder."""
    if len(photos) == 1 and Path(target).suffix:
        return lambda _: Path(target)
    folder = Path(target)
    if folder.suffix and not folder.is_dir():
        raise InputError(f"--draw: expected a folder for {len(photos)} photos, got the file name {target!r}")
    names = [Path(photo).stem for photo in photos]
    if len(set(names)) < len(names):
        raise InputError("--draw: expected photos of different names, as drawings are named after them")
    return lambda photo: folder / f"{Path(photo).stem}.png"


def _write_picture(file: Path, picture: NDArray[np.uint8]) -> None:
    try:
        _, data = cv2.imencode(file.suffix or ".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise InputError(f"--draw: expected a picture type such as .png, got {file.name!r}") from error
    _write(file, data.tobytes())


def _write(file: Path, content: bytes) -> None:
    """Write a file, in a folder that is made if it is missing."""
    make_folder(file.parent)
    write_whole(file, content)


def _check_file(file: Path) -> None:
    """Raise WriteError before the work if a file cannot be written after it."""
    make_folder(file.parent)
    if file.is_dir():
        raise WriteError(f"{file}: expected a place to write to, got a folder")
