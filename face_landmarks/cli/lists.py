"""Runs of `face-landmarks align` over many photos: lists, shards, processes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from face_landmarks._system.arguments import counted
from face_landmarks.cli.options import complain, make_aligner, path, positive, say
from face_landmarks.cli.targets import prepare_file, prepare_folder
from face_landmarks.errors import InputError
from face_landmarks.output.folders import FolderReport, MergeReport, align_list
from face_landmarks.output.folders.lists import Shard

_SHOWN: Final = 100  # problems; the lines have all of them
_NOT_WITH_LIST: Final = {
    "photos": "PHOTO",
    "json": "--json",
    "draw": "--draw",
    "report": "--report",
    "boxes_file": "--boxes",
}


def many_photos_options() -> argparse.ArgumentParser:
    """The arguments of runs over many photos, which need --out."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("many photos, with --out")
    group.add_argument(
        "--workers", type=positive, metavar="N", help="processes that align photos (default: 1)"
    )
    group.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="align the I-th of N parts of the photos, which their paths decide; each part needs a file of "
        "its own, and 'face-landmarks merge' joins them",
    )
    group.add_argument(
        "--list",
        metavar="FILE",
        type=path,
        help="the photos: a file with a path on each line, or a .csv or .parquet table; of any length",
    )
    add_list_column(group)
    group.add_argument(
        "--root", metavar="DIR", type=path, help="what relative paths of a list are relative to (default: .)"
    )
    return parser


def add_list_column(arguments: argparse._ActionsContainer) -> None:
    """Add the option that names a table's column of paths."""
    arguments.add_argument(
        "--list-column", metavar="NAME", help="column of a table that has the paths (default: image)"
    )


def check_many_photos(options: argparse.Namespace) -> None:
    """Raise if arguments do not go together.

    Raises:
        InputError: no photos; or an argument that needs --out or --list without it.
    """
    if not options.photos and not options.list:
        raise InputError("the following arguments are required: PHOTO, or --list FILE")
    for name, needed in (("workers", "out"), ("shard", "out"), ("list", "out")):
        if getattr(options, name) and not getattr(options, needed):
            raise InputError(f"--{name}: expected --{needed} with it")
    for name in ("list_column", "root"):
        if getattr(options, name) and not options.list:
            raise InputError(f"--{name.replace('_', '-')}: expected --list with it")


def align_listed(options: argparse.Namespace) -> int:
    """Align the photos of a list into a file; return the exit code."""
    for name, word in _NOT_WITH_LIST.items():
        if getattr(options, name):
            raise InputError(f"{word}: expected no --list beside it")
    out = Path(options.out)
    (prepare_file if out.suffix else prepare_folder)(out)
    report = align_list(
        make_aligner(options),
        options.list,
        out,
        root=options.root or ".",
        column=options.list_column,
        point_names=options.point_names,
        workers=options.workers or 1,
        shard=options.shard,
        progress=sys.stderr.isatty(),
    )
    if not (report.images or report.unreadable or report.failed or options.shard):
        complain(f"{options.list}: expected photos, got none")
        return 3
    return tell(options.list, report)


def tell(source: str, report: FolderReport | MergeReport) -> int:
    """Say what became of the photos, on stderr; return the exit code."""
    problems = report.unreadable | report.failed
    for photo, reason in list(problems.items())[:_SHOWN]:
        complain(f"{photo}: {reason}")
    if len(problems) > _SHOWN:
        complain(f"and {counted(len(problems) - _SHOWN, 'more photo')} with an error, which the lines tell")
    more = ""
    if isinstance(report, FolderReport) and report.resumed:
        more = f", {counted(report.resumed, 'photo')} done earlier"
    if isinstance(report, MergeReport) and report.duplicates:
        more = f", {report.duplicates} further lines left out"
    failed = f", {len(report.failed)} failed: the next run tries them again" if report.failed else ""
    say(
        f"{source}: {counted(report.faces, 'face')} in {counted(report.images, 'photo')}{more}, "
        f"{len(report.unreadable)} unreadable{failed}"
    )
    return 1 if problems else 0


def _shard(text: str) -> tuple[int, int]:
    """The type of an argument such as 3/16."""
    try:
        shard = Shard.of(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return shard.number, shard.total
