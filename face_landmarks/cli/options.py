"""What the commands share: arguments, the aligner they describe, and files they must not overwrite."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

from face_landmarks.aligner import FaceAligner
from face_landmarks.errors import InputError

Commands: TypeAlias = "argparse._SubParsersAction[Any]"


def model_options(model: str) -> argparse.ArgumentParser:
    """The arguments of the commands that find landmarks, with their default model."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model", default=model, help="name or weights file (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, ...; the best present if not given")
    parser.add_argument("--flip", action="store_true", help="average with the mirror: slower, more accurate")
    parser.add_argument("--refine", action="store_true", help="look twice, at a better crop the second time")
    parser.add_argument(
        "--detector",
        choices=("mtcnn", "yunet"),
        default="mtcnn",
        help="what finds the faces; yunet is faster, its file is downloaded once (default: %(default)s)",
    )
    parser.add_argument(
        "--rotations",
        choices=("never", "fallback", "always"),
        default="never",
        help="also search photos turned by 90, 180 and 270 degrees: if no face is found otherwise "
        "(fallback), or always, at four times the cost (default: %(default)s)",
    )
    parser.add_argument(
        "--backend",
        choices=("torch", "onnxruntime", "openvino"),
        default="torch",
        help="what runs the network (default: %(default)s)",
    )
    return parser


def make_aligner(options: argparse.Namespace) -> FaceAligner:
    """The aligner that `model_options` describe."""
    return FaceAligner(
        options.model,
        detector=options.detector,
        rotations=options.rotations,
        device=options.device,
        flip=options.flip,
        refine=options.refine,
        backend=options.backend,
    )


def positive(text: str) -> int:
    """An argument that is a whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def check_targets(sources: Sequence[str], *targets: str | None) -> None:
    """Raise if a file that is read would be written over, or a file be written twice.

    Raises:
        InputError: one of these.
    """
    places = [os.path.realpath(target) for target in targets if target]
    if len(set(places)) < len(places):
        raise InputError("expected files of different names to write to")
    if both := set(places) & {os.path.realpath(source) for source in sources}:
        raise InputError(f"expected another file to write to than {both.pop()}, which is read")
