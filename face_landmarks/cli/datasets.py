"""`face-landmarks align --ray`: large sets of photos, on this machine or a cluster."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from typing import Final

from face_landmarks._system.arguments import counted
from face_landmarks.cli.options import complain, make_aligner, positive, say
from face_landmarks.errors import InputError
from face_landmarks.output.cluster import align_dataset
from face_landmarks.output.folders.lists import read_list

_NOT_WITH_RAY: Final = ("json", "draw", "boxes_file", "point_names", "shard", "report")
_SHOWN: Final = 20  # problems; the results have all of them


def dataset_options() -> argparse.ArgumentParser:
    """The arguments of a run with Ray."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("large sets of photos, with Ray Data")
    group.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="align the photos of a folder, a pattern, a list, Parquet files or a store such as s3://bucket "
        "on the cluster at this address, auto for the one of this machine; by default the cluster in "
        "RAY_ADDRESS, else this machine alone. --out names a folder of Parquet files; an interrupted run "
        "resumes",
    )
    group.add_argument("--column", metavar="NAME", help="of Parquet files: the bytes of a photo in each row")
    group.add_argument(
        "--names", metavar="NAME", help="column of Parquet files: the photos' names (default: FILE#ROW)"
    )
    group.add_argument(
        "--cpus", type=positive, default=1, metavar="N", help="processors of a worker (default: %(default)s)"
    )
    group.add_argument(
        "--gpus",
        type=_share,
        default=0.0,
        metavar="N",
        help="GPUs of a worker, 0.5 to share one by two (default: none)",
    )
    group.add_argument(
        "--part-size",
        type=positive,
        default=512,
        metavar="N",
        help="photos of a Parquet file, which is written at once (default: %(default)s)",
    )
    return parser


def check_no_ray(options: argparse.Namespace) -> None:
    """Raise if an argument is given that only a run with Ray has.

    Raises:
        InputError: one of these.
    """
    for name in ("column", "names", "gpus"):
        if getattr(options, name):
            raise InputError(f"--{name}: expected --ray with it")


def align_with_ray(options: argparse.Namespace) -> int:
    """Align a set of photos into a folder of Parquet files; return the exit code."""
    if not options.out:
        raise InputError("--ray: expected --out with it, a folder for Parquet files")
    if os.path.splitext(options.out)[1] in (".jsonl", ".json", ".csv"):
        raise InputError(f"--out: expected a folder for Parquet files, got {options.out!r}")
    for name in _NOT_WITH_RAY:
        if getattr(options, name):
            word = name.removesuffix("_file").replace("_", "-")
            raise InputError(f"--{word}: expected no --ray beside it")
    if os.path.exists(options.model):
        options.model = os.path.abspath(options.model)  # workers run elsewhere
    options.device = options.device or ("cuda" if options.gpus else "cpu")
    if bool(options.photos) == bool(options.list):
        raise InputError("--ray: expected either photos or --list FILE with it")
    source: str | list[str] = options.photos
    if options.list:
        source = list(read_list(options.list, options.list_column)())
    elif len(options.photos) == 1:
        source = options.photos[0]
    report = align_dataset(
        partial(make_aligner, options),
        source,
        options.out,
        column=options.column,
        names=options.names,
        root=options.root,
        address=options.ray or None,
        workers=options.workers,
        num_cpus=options.cpus,
        num_gpus=options.gpus,
        part_size=options.part_size,
        progress=sys.stderr.isatty(),
    )
    problems = report.unreadable | report.failed
    if not report.images and not problems:
        complain(f"{options.list or ' '.join(options.photos)}: expected photos, got none")
        return 3
    for photo in sorted(problems)[:_SHOWN]:
        complain(f"{photo}: {problems[photo]}")
    if len(problems) > _SHOWN:
        complain(f"and {len(problems) - _SHOWN} more: the rows of {options.out} with an error")
    resumed = f", {counted(report.resumed, 'photo')} done earlier" if report.resumed else ""
    failed = f", {len(report.failed)} failed" if report.failed else ""
    say(
        f"{options.out}: {counted(report.faces, 'face')} in {counted(report.images, 'photo')}{resumed}, "
        f"{len(report.unreadable)} unreadable{failed}"
    )
    return 1 if problems else 0


def _share(text: str) -> float:
    """The type of an argument that is a number of GPUs."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number from 0 up, got {text!r}")
    return value
