"""`face-landmarks download`: a model's weights, put into the cache."""

from __future__ import annotations

import argparse

from face_landmarks.cli.options import Commands
from face_landmarks.models.weights import download


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    fetch = commands.add_parser(
        "download",
        help="put a model's weights into the cache",
        description="Put a model's weights into the cache and print where they are.",
    )
    fetch.add_argument("model", help="name, see 'face-landmarks models'")
    fetch.set_defaults(run=_download)


def _download(options: argparse.Namespace) -> int:
    print(download(options.model))
    return 0
