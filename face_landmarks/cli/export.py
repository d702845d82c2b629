"""`face-landmarks export`: a model as an ONNX file."""

from __future__ import annotations

import argparse

from face_landmarks.aligner import FaceAligner
from face_landmarks.cli.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    export = commands.add_parser("export", help="write a model as ONNX")
    export.add_argument("model", nargs="?", default="shr-fan-68", help="name or file (default: %(default)s)")
    export.add_argument("path", metavar="OUT.onnx")
    export.add_argument("--decode", action="store_true", help="landmarks come out, instead of heatmaps")
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    aligner = FaceAligner(options.model, detector=None, device="cpu")
    print(aligner.export(options.path, decode=options.decode))
    return 0
