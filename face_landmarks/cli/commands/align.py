"""`face-landmarks align`: the landmarks of photos and of whole folders."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.arguments import counted
from face_landmarks.aligner import FaceAligner
from face_landmarks.cli.boxes import Boxes, read_boxes
from face_landmarks.cli.datasets import align_with_ray, check_no_ray, dataset_options
from face_landmarks.cli.drawings import Drawings, check_drawing, drawing_options
from face_landmarks.cli.lists import align_listed, check_many_photos, many_photos_options, tell
from face_landmarks.cli.options import (
    EXIT_CODES,
    Commands,
    complain,
    make_aligner,
    model_options,
    page,
    path,
    say,
)
from face_landmarks.cli.photos import STDIN, Photo, find_all, is_there
from face_landmarks.cli.targets import check_targets, prepare_file, prepare_folder, write_file
from face_landmarks.errors import ImageError, InputError
from face_landmarks.images import read_image
from face_landmarks.output.folders import align_folder
from face_landmarks.output.folders.journal import read_rows
from face_landmarks.reports.results import Result, write_report
from face_landmarks.results import Faces

Row: TypeAlias = "dict[str, Any]"

_NOTHING: Final[NDArray[np.uint8]] = np.empty((0, 0, 3), np.uint8)

_DESCRIPTION: Final = """Find the landmarks of photos. The output is a JSON list with a line for each
photo: its landmarks, scores and boxes, or the error of a photo that could not be
read. With --out it is written to a file, and an interrupted run resumes when
called again."""
_EXAMPLES: Final = f"""examples:
  face-landmarks align photo.jpg
  face-landmarks align photo.jpg --draw drawn.png
  face-landmarks align photos more/*.png --out landmarks.csv --draw drawn
  face-landmarks align photos --out landmarks.jsonl --workers 4
  face-landmarks align --list photos.txt --out part-3.jsonl --shard 3/16
  face-landmarks align photos --out landmarks.jsonl --report report.html
  face-landmarks align photos --out landmarks.jsonl --boxes boxes.csv
  face-landmarks align s3://bucket/photos --out s3://bucket/landmarks --ray
  curl -L https://example.org/photo.jpg | face-landmarks align -

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    align = commands.add_parser(
        "align",
        parents=[model_options(), drawing_options(), many_photos_options(), dataset_options()],
        help="find the landmarks of photos",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    align.add_argument(
        "photos",
        nargs="*",
        metavar="PHOTO",
        help="photos, folders and patterns such as 'photos/**/*.jpg', in any mix; - reads one from "
        "standard input",
    )
    align.add_argument(
        "--json", metavar="FILE", type=path, help="write the landmarks here; by default to stdout"
    )
    align.add_argument(
        "--out",
        metavar="PATH",
        type=path,
        help="write the landmarks to a .jsonl, .json, .csv or .parquet file or a folder of .pts files; "
        "an interrupted run resumes when called again",
    )
    align.add_argument(
        "--boxes",
        dest="boxes_file",
        metavar="FILE",
        type=path,
        help="take the faces in these boxes instead of the detector's: a .csv file with the columns image, "
        'x0, y0, x1, y1, or a .json file, {"photo.jpg": [[x0, y0, x1, y1], ...], ...}',
    )
    align.add_argument(
        "--point-names",
        action="store_true",
        help="with --out .csv or .parquet: columns such as nose_tip_x instead of x_30",
    )
    align.add_argument(
        "--report",
        metavar="FILE.html",
        type=page,
        help="write a page that shows the faces with their landmarks, the least sure first",
    )
    align.set_defaults(run=_align)


def _align(options: argparse.Namespace) -> int:
    check_many_photos(options)
    if options.ray is not None:
        return align_with_ray(options)
    check_no_ray(options)
    if options.out and options.json:
        raise InputError("--json: expected no --out beside it; --out NAME.json writes a list of JSON")
    if options.point_names and Path(options.out or "").suffix.lower() not in (".csv", ".parquet"):
        raise InputError("--point-names: expected --out with a .csv or .parquet file beside it")
    if options.list:
        return align_listed(options)
    check_drawing(options)
    photos, empty, locked = find_all(options.photos)
    for word in empty:
        complain(f"{word}: expected photos, got none")
    for folder in locked:
        complain(f"{folder}; the photos in this folder are left out")
    if not photos:
        return 1 if locked else 3
    drawings = Drawings(options, photos)
    check_targets(
        [photo.path for photo in photos], options.json, options.out, options.report, *drawings.places
    )
    for file in filter(None, (options.json, options.report)):
        prepare_file(file)
    drawings.prepare()
    boxes = read_boxes(options.boxes_file, photos) if options.boxes_file else None
    work = _align_to_file if options.out else _align_to_list
    return max(work(options, photos, boxes, drawings), 1 if empty or locked else 0)


def _align_to_list(
    options: argparse.Namespace,
    photos: Sequence[Photo],
    boxes: Mapping[str, Boxes] | None,
    drawings: Drawings,
) -> int:
    """Write a JSON list to a file or, as it grows, to stdout."""
    aligner = make_aligner(options)
    to_stdout = not (options.json or options.draw or options.report)
    rows: list[Row] = []
    results: list[Result] = []
    try:
        for photo, pixels, result in _align_each(aligner, photos, boxes):
            if isinstance(result, Faces):
                drawings.draw(photo, pixels, result)
            if options.report:
                results.append((pixels if photo.path == STDIN else photo.path, result))
            row = result.to_dict() if isinstance(result, Faces) else {"error": result}
            rows.append({"image": photo.path, **row})
            if to_stdout:
                print("[" if len(rows) == 1 else ",", json.dumps(rows[-1]), sep="\n", end="", flush=True)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{len(rows)} of {len(photos)} photos done") from None
    finally:  # also of a command that is stopped, what is done is kept
        if options.json and rows:
            lines = ",\n".join(map(json.dumps, rows))
            write_file(Path(options.json), f"[\n{lines}\n]\n".encode())
        elif rows and to_stdout:
            print("\n]", flush=True)
    if options.report:
        write_report(results, options.report)
    return 1 if any("error" in row for row in rows) else 0


def _align_each(
    aligner: FaceAligner, photos: Sequence[Photo], boxes: Mapping[str, Boxes] | None
) -> Iterator[tuple[Photo, NDArray[np.uint8], Faces | str]]:
    """Each photo with its pixels and faces, or with the error if it cannot be read."""
    for photo in photos:
        try:
            pixels = read_image(photo.source)
        except ImageError as error:
            complain(str(error))
            yield photo, _NOTHING, str(error)
            continue
        faces = aligner.align(pixels, None if boxes is None else boxes[photo.path])
        yield photo, pixels, faces
        say(f"{photo.path}: {counted(len(faces), 'face')}")


def _align_to_file(
    options: argparse.Namespace,
    photos: Sequence[Photo],
    boxes: Mapping[str, Boxes] | None,
    drawings: Drawings,
) -> int:
    """Write to a file or a folder of .pts files, resumable."""
    if any(photo.path == STDIN for photo in photos):
        raise InputError("--out: expected photos in files, got '-'; --json FILE writes a list")
    given_names = set(options.photos)  # links of a folder that lead nowhere are lines with an error
    if missing := [photo.path for photo in photos if photo.path in given_names and not is_there(photo.path)]:
        raise InputError(f"{missing[0]}: expected a photo or a folder of photos, got none")
    out = Path(options.out)
    (prepare_file if out.suffix else prepare_folder)(out)
    named = {_name_of(photo, options): photo for photo in reversed(photos)}
    named = dict(reversed(named.items()))
    given = None if boxes is None else {name: boxes[photo.path] for name, photo in named.items()}
    report = align_folder(
        make_aligner(options),
        {name: photo.path for name, photo in named.items()},
        out,
        boxes=given,
        point_names=options.point_names,
        workers=options.workers or 1,
        shard=options.shard,
        progress=sys.stderr.isatty(),
        use=_finish(named, drawings, options.report),
    )
    return tell(options.photos[0] if len(options.photos) == 1 else "in all", report)


def _name_of(photo: Photo, options: argparse.Namespace) -> str:
    """The photo's name in the results: of one folder, and of .pts files, the path relative to the folder."""
    own_folder = len(options.photos) == 1 and Path(options.photos[0]).is_dir()
    return photo.name.as_posix() if own_folder or not Path(options.out).suffix else photo.path


def _finish(photos: Mapping[str, Photo], drawings: Drawings, report: str | None) -> Callable[[Path], None]:
    """What is done with the complete file of lines: drawings and a report of the photos of this run."""

    def results(lines: Path) -> Iterator[tuple[Photo, Faces | str]]:
        for row in read_rows(lines):
            if row["image"] in photos:
                yield photos[row["image"]], row["error"] if "error" in row else Faces.from_dict(row)

    def finish(lines: Path) -> None:
        if drawings.places:
            for photo, result in results(lines):
                if isinstance(result, Faces):
                    drawings.draw(photo, read_image(photo.source), result)
        if report:
            pairs = ((photo.path, result) for photo, result in results(lines))
            write_report(pairs, report, progress=sys.stderr.isatty())

    return finish
