"""What the commands share: arguments, the aligner they describe, checks of files, and messages on stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from face_landmarks.aligner import BACKENDS, DEFAULT_BACKEND, FaceAligner
from face_landmarks.errors import InputError

Commands: TypeAlias = "argparse._SubParsersAction[Any]"

DEFAULT_MODEL: Final = "shr-fan-68"
DEFAULT_VIDEO_MODEL: Final = "shr-fan-68-fast"


def model_options(model: str = DEFAULT_MODEL) -> argparse.ArgumentParser:
    """The arguments of the commands that find landmarks, with their default model."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model", default=model, help="name or weights file (default: %(default)s)")
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one and torch runs the network)"
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="average with the mirrored face: half the speed, a little more accurate",
    )
    parser.add_argument(
        "--refine", action="store_true", help="run a second time on an upright crop made from the landmarks"
    )
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
        choices=BACKENDS,
        default=DEFAULT_BACKEND,
        help="what runs the network; auto: the fastest installed (default: %(default)s)",
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
    """The type of an argument that is a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def path(text: str) -> str:
    """The type of an argument that names a file or a folder to write."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return text


def count_faces(count: int) -> str:
    """A number of faces in words, e.g. 1 face or 2 faces."""
    return f"{count} face{'s' * (count != 1)}"


def check_targets(sources: Sequence[str], *targets: str | None) -> None:
    """Raise InputError if a file that is read would be overwritten, or a file be written twice."""
    places = [os.path.realpath(target) for target in targets if target]
    if len(set(places)) < len(places):
        raise InputError("expected files of different names to write to")
    if both := set(places) & {os.path.realpath(source) for source in sources}:
        raise InputError(f"expected another file to write to than {both.pop()}, which is read")


def say(line: str) -> None:
    """Print a line on stderr; nothing happens if nobody reads it any more."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def complain(error: str) -> None:
    """Print an error on stderr."""
    say(f"face-landmarks: error: {error}")
