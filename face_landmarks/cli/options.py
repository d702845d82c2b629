"""What the commands share: arguments, the aligner they describe, and messages on stderr."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import Any, Final, TypeAlias

import torch

from face_landmarks.aligner import BACKENDS, DEFAULT_BACKEND, FaceAligner
from face_landmarks.detection.contract import Detector
from face_landmarks.detection.mtcnn import MTCNN
from face_landmarks.detection.named import DETECTOR_NAMES, runtime_beside
from face_landmarks.errors import InputError
from face_landmarks.models.registry import DEFAULT_MODEL
from face_landmarks.runtime.runtimes import default_device

Commands: TypeAlias = "argparse._SubParsersAction[Any]"

EXIT_CODES: Final = """exit codes:
  0    all done
  1    some photos or folders could not be read, a video ended before its header
       said, or the cache holds a damaged file
  2    the command could not be carried out
  3    there is no photo to align
  130  stopped by Ctrl-C"""


def model_options(model: str = DEFAULT_MODEL) -> argparse.ArgumentParser:
    """The arguments of the commands that find landmarks, with their default model."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument_group("model and detector").add_argument
    add("--model", default=model, help="name or weights file (default: %(default)s)")
    add("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one and torch runs the network)")
    add(
        "--flip",
        action="store_true",
        help="average with the mirrored face: half the speed, a little more accurate",
    )
    add("--refine", action="store_true", help="run a second time on an upright crop made from the landmarks")
    add(
        "--detector",
        choices=DETECTOR_NAMES,
        default="mtcnn",
        help="what finds the faces; yunet is faster, its file is downloaded once (default: %(default)s)",
    )
    add(
        "--min-face-size",
        type=positive,
        metavar="N",
        help="smallest face, in pixels, that mtcnn looks for; smaller is slower (default: 30)",
    )
    add(
        "--rotations",
        choices=("never", "fallback", "always"),
        default="never",
        help="also search photos turned in steps of 45 degrees: if no face is found otherwise (fallback), "
        "or always, at twelve times the cost (default: %(default)s)",
    )
    add(
        "--backend",
        choices=BACKENDS,
        default=DEFAULT_BACKEND,
        help="what runs the network; auto: the first installed of openvino, onnxruntime and torch. With "
        "another than torch, onnxruntime runs MTCNN's networks, too, if installed (default: %(default)s)",
    )
    add(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="what the network computes in; onnxruntime knows float32 alone (default: float32)",
    )
    add(
        "--batch-size",
        type=positive,
        default=32,
        metavar="N",
        help="faces per run of the network; bounds memory (default: %(default)s)",
    )
    return parser


def make_aligner(options: argparse.Namespace) -> FaceAligner:
    """The aligner that `model_options` describe; without a detector where the boxes come from a file."""
    detector: str | Detector | None = options.detector
    rotations = options.rotations
    if getattr(options, "boxes_file", None):
        detector, rotations = None, "never"
    elif options.min_face_size is not None:
        if options.detector != "mtcnn":
            raise InputError(f"--min-face-size: expected --detector mtcnn, got {options.detector}")
        detector = MTCNN(
            min_face_size=options.min_face_size,
            rotations=rotations,
            device=default_device(options.device, options.backend),
            runtime=runtime_beside(options.backend),
        )
        rotations = "never"
    return FaceAligner(
        options.model,
        detector=detector,
        rotations=rotations,
        device=options.device,
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        batch_size=options.batch_size,
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


def page(text: str) -> str:
    """The type of an argument that names a page to write."""
    if not text.lower().endswith((".html", ".htm")):
        raise argparse.ArgumentTypeError(f"expected the name of an .html file, got {text!r}")
    return text


def say(line: str) -> None:
    """Print a line on stderr; nothing happens if nobody reads it any more."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def complain(error: str) -> None:
    """Print an error on stderr."""
    say(f"face-landmarks: error: {error}")
