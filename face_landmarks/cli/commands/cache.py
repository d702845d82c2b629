"""`face-landmarks download` and `cache`: weights put into the cache, what is in it, and where it is."""

from __future__ import annotations

import argparse

from face_landmarks.cli.options import Commands
from face_landmarks.models.cache import cached_files, clear_cache
from face_landmarks.models.weights import download
from face_landmarks.models.weights_file import cache_folder


def add_parser(commands: Commands) -> None:
    """Add the commands and their arguments."""
    fetch = commands.add_parser(
        "download",
        help="put a model's weights into the cache",
        description="Put a model's weights into the cache and print where they are.",
    )
    fetch.add_argument("model", help="name, see 'face-landmarks models'")
    fetch.set_defaults(run=_download)
    cache = commands.add_parser(
        "cache", help="list, verify or clear the downloaded weights", description="Manage downloaded weights."
    )
    cache.add_argument(
        "action",
        nargs="?",
        choices=("list", "verify", "clear"),
        default="list",
        help="list the files, compare them with their SHA-256, or delete them (default: %(default)s)",
    )
    cache.set_defaults(run=_cache)


def _download(options: argparse.Namespace) -> int:
    print(download(options.model))
    return 0


def _cache(options: argparse.Namespace) -> int:
    if options.action == "clear":
        for file in clear_cache():
            print(f"removed {file.path}")
        return 0
    files, damaged = cached_files(), False
    print(cache_folder())
    if not files:
        print("  empty")
    for file in files:
        state = "incomplete" if file.sha256 is None else ""
        if options.action == "verify" and file.sha256 is not None:
            state = "whole" if file.verify() else "damaged"
            damaged |= state == "damaged"
        print(f"  {file.path.name}  {file.size / 1e6:.1f} MB  {state}".rstrip())
    return 1 if damaged else 0
