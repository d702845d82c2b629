"""The `face-landmarks` command.

Exit codes:

=====  =========================================================================================
0      all done
1      some photos or folders could not be read or were not there (the others are done), a video
       ended before its header said, or the cache holds a damaged file
2      the command could not be carried out: an argument, a model, a video, a file or a folder
       cannot be used
3      there is no photo to align: an empty folder, or a pattern that nothing matches
130    stopped by Ctrl-C
=====  =========================================================================================

Errors and warnings are lines on stderr that begin with "face-landmarks: error: " and
"face-landmarks: warning: ".
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import cv2

from face_landmarks import __version__
from face_landmarks.cli.commands import align, cache, demo, evaluate, export, merge, models, train, video
from face_landmarks.cli.options import EXIT_CODES, complain, say
from face_landmarks.errors import FaceLandmarksError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Raises:
        SystemExit: the help or the version was asked for (0), or an argument is unusable (2).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell, `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    try:
        with _own_messages():
            try:
                return _run(words)
            finally:
                sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for instance, has closed the pipe
        _drop_output()
        return 0
    except KeyboardInterrupt as stop:
        say(", ".join(["face-landmarks: stopped", *map(str, stop.args)]))
        return 130
    except FaceLandmarksError as error:
        complain(str(error))
    except OSError as error:  # writing to stdout, on a full disk for instance
        complain(f"{error.filename or 'output'}: {error.strerror or error}")
        _drop_output()
    return 2


def _run(words: list[str]) -> int:
    options = _parser().parse_args(words)
    options.words = words
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


class _Parser(argparse.ArgumentParser):
    """Reports an unusable argument as every other error."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message} ('{self.prog} --help' lists the arguments)")
        self.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="face-landmarks",
        description="Find facial landmarks with subpixel accuracy.",
        epilog=f"'face-landmarks COMMAND --help' shows a command's arguments and examples.\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (align, merge, video, demo, models, evaluate, export, cache, train):
        command.add_parser(commands)
    return parser


@contextmanager
def _own_messages() -> Iterator[None]:
    """Print log records and warnings on stderr as lines of the command; silence OpenCV and FFmpeg.

    A level that the environment sets for OpenCV's log is kept.
    """
    logger, handler = logging.getLogger("face_landmarks"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    level, propagate = logger.level, logger.propagate
    opencv = getattr(cv2.utils, "logging", cv2)  # in OpenCV 5, and in OpenCV 4
    opencv_level = opencv.getLogLevel()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's AV_LOG_QUIET
    if "OPENCV_LOG_LEVEL" not in os.environ:
        opencv.setLogLevel(0)  # silent
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        opencv.setLogLevel(opencv_level)
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Formatter(logging.Formatter):
    """Messages alone; those of warnings and errors with the command's name and their level."""

    def format(self, record: logging.LogRecord) -> str:
        kind = f"face-landmarks: {record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return kind + super().format(record)


def _show_warning(message: Warning | str, *_place: object, **_more: object) -> None:
    say(f"face-landmarks: warning: {message}")


def _drop_output() -> None:
    """Redirect stdout to the null device, so that Python's flush at exit does not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
