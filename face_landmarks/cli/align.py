"""`face-landmarks align`: the landmarks of photos, or of a whole folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2

from face_landmarks._system.files import make_folder, write_whole
from face_landmarks.cli.options import Commands, check_targets, make_aligner, model_options
from face_landmarks.errors import ImageError, InputError
from face_landmarks.output.drawing import draw_faces
from face_landmarks.output.folders import align_folder


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    align = commands.add_parser(
        "align", parents=[model_options("shr-fan-68")], help="find the landmarks of photos"
    )
    align.add_argument("photos", nargs="+", metavar="PHOTO")
    align.add_argument("--json", metavar="FILE", help="write the landmarks here; by default to stdout")
    align.add_argument("--draw", metavar="PATH", help="draw them: a picture, or a folder for many photos")
    align.add_argument(
        "--out",
        metavar="PATH",
        help="align a whole folder into a .jsonl, .csv or .parquet file or a folder of .pts files, "
        "going on where an earlier run stopped",
    )
    align.set_defaults(run=_align)


def _align(options: argparse.Namespace) -> int:
    if options.out:
        return _align_folder(options)
    if folders := [photo for photo in options.photos if Path(photo).is_dir()]:
        raise InputError(f"expected photos, got the folder {folders[0]!r}; --out PATH aligns a whole folder")
    draw = _drawing_path(options.draw, options.photos)
    drawings = [str(draw(photo)) for photo in options.photos] if options.draw else []
    check_targets(options.photos, options.json, *drawings)
    aligner = make_aligner(options)
    results, unreadable = [], 0
    for photo in options.photos:
        try:
            faces = aligner.align(photo)
            if options.draw:
                _write_picture(draw(photo), draw_faces(photo, faces))
        except ImageError as error:
            print(f"face-landmarks: {error}", file=sys.stderr)
            unreadable += 1
            continue
        results.append({"image": photo, **faces.to_dict()})
        print(f"{photo}: {len(faces)} face{'s' * (len(faces) != 1)}", file=sys.stderr)
    if options.json:
        _write(Path(options.json), json.dumps(results, indent=1).encode())
    elif not options.draw:
        json.dump(results, sys.stdout, indent=1)
        print()
    return 1 if unreadable else 0


def _align_folder(options: argparse.Namespace) -> int:
    if len(options.photos) != 1 or options.draw or options.json:
        raise InputError("--out: expected one folder of photos, without --draw and --json")
    (folder,) = options.photos
    report = align_folder(make_aligner(options), folder, options.out, progress=sys.stderr.isatty())
    problems = report.unreadable | report.failed
    for photo, reason in problems.items():
        print(f"face-landmarks: {photo}: {reason}", file=sys.stderr)
    resumed = f", {report.resumed} of them earlier" if report.resumed else ""
    print(
        f"{folder}: {report.faces} faces in {report.images} photos{resumed}, "
        f"{len(report.unreadable)} unreadable" + (f", {len(report.failed)} failed" * bool(report.failed)),
        file=sys.stderr,
    )
    return 1 if problems else 0


def _drawing_path(target: str | None, photos: Sequence[str]) -> Callable[[str], Path]:
    """Where each photo's drawing goes: the file named, or a file of its own in the folder named."""
    if target is None or (len(photos) == 1 and Path(target).suffix):
        return lambda photo: Path(target or photo)
    folder = Path(target)
    if folder.suffix and not folder.is_dir():
        raise InputError(f"--draw: expected a folder for {len(photos)} photos, got the file name {target!r}")
    names = [Path(photo).stem for photo in photos]
    if len(set(names)) < len(names):
        raise InputError("--draw: expected photos of different names, as drawings are named after them")
    return lambda photo: folder / f"{Path(photo).stem}.png"


def _write_picture(path: Path, picture: Any) -> None:
    try:
        _, data = cv2.imencode(path.suffix or ".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise InputError(f"--draw: expected a picture type such as .png, got {path.name!r}") from error
    _write(path, data.tobytes())


def _write(path: Path, content: bytes) -> None:
    """Write a file, in a folder that is made if it is missing."""
    make_folder(path.parent)
    write_whole(path, content)
