"""`face-landmarks export`: a model as an ONNX file."""

from __future__ import annotations

import argparse

from face_landmarks.aligner import FaceAligner
from face_landmarks.cli.options import Commands, path
from face_landmarks.models.registry import DEFAULT_MODEL


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    export = commands.add_parser(
        "export", help="write a model as ONNX", description="Write a model as an ONNX file."
    )
    export.add_argument(
        "model", nargs="?", default=DEFAULT_MODEL, help="name or weights file (default: %(default)s)"
    )
    export.add_argument("path", metavar="OUT.onnx", type=path, help="the file to write")
    export.add_argument("--decode", action="store_true", help="output landmarks instead of heatmaps")
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    aligner = FaceAligner(options.model, detector=None, device="cpu")
    print(aligner.export(options.path, decode=options.decode))
    return 0
