"""`face-landmarks merge`: files of results joined into one."""

from __future__ import annotations

import argparse
from pathlib import Path

from face_landmarks.cli.lists import add_list_column, tell
from face_landmarks.cli.options import Commands, path
from face_landmarks.cli.targets import prepare_file, prepare_folder
from face_landmarks.output.folders import merge_results

_DESCRIPTION = """Join .jsonl files that 'face-landmarks align' has written, such as those of
shards, into one file. Of a photo with several lines one is kept. Files of
different settings, damaged files and two photos of one name are refused."""


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    merge = commands.add_parser(
        "merge",
        help="join files of results",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    merge.add_argument("parts", nargs="+", metavar="PART", help=".jsonl files")
    merge.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        type=path,
        help="a new .jsonl, .json, .csv or .parquet file, or folder of .pts files",
    )
    merge.add_argument(
        "--photos",
        metavar="PATH",
        type=path,
        help="a folder, or a list as in --list of align: raise an error unless each photo has its line",
    )
    add_list_column(merge)
    merge.add_argument(
        "--point-names",
        action="store_true",
        help="in .csv and .parquet, columns such as nose_tip_x instead of x_30",
    )
    merge.set_defaults(run=_merge)


def _merge(options: argparse.Namespace) -> int:
    out = Path(options.out)
    (prepare_file if out.suffix else prepare_folder)(out)
    report = merge_results(
        options.parts,
        out,
        photos=options.photos,
        column=options.list_column,
        point_names=options.point_names,
    )
    return tell(options.out, report)
