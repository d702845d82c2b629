"""The `face-landmarks` command.

Exit codes: 0 all done; 1 some photos could not be read (the others are done), a video ended early, or
the cache holds a damaged file; 2 the command could not be carried out, because an argument, a model, a video
or a folder cannot be used.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

from face_landmarks import __version__
from face_landmarks.cli import align, cache, download, evaluate, export, models, train, video
from face_landmarks.errors import FaceLandmarksError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    options.words = words
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("face_landmarks").setLevel(logging.INFO)
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        code = run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except FaceLandmarksError as error:
        print(f"face-landmarks: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="face-landmarks", description="Facial landmarks that are accurate below the pixel."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (align, video, models, evaluate, export, download, cache, train):
        command.add_parser(commands)
    return parser
