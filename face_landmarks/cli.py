"""The `face-landmarks` command.

Exit codes: 0 all done; 1 some photos could not be read (the others are done), or the cache holds a
damaged file; 2 nothing was done, because an argument, a model or a folder cannot be used.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2

from face_landmarks._version import __version__
from face_landmarks.aligner import FaceAligner
from face_landmarks.annotations import read_folder
from face_landmarks.errors import FaceLandmarksError, ImageError, InputError
from face_landmarks.evaluation import evaluate
from face_landmarks.plotting import draw_faces, save_ced
from face_landmarks.weights import (
    ALIASES,
    cache_folder,
    cached_files,
    clear_cache,
    download,
    get_card,
    list_models,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["train"]:  # the training wing has its own parser and is not part of the package's floors
        return _train(words[1:])
    options = _parser().parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except FaceLandmarksError as error:
        print(f"face-landmarks: error: {error}", file=sys.stderr)
        return 2


def _align(options: argparse.Namespace) -> int:
    aligner = _aligner(options)
    draw = _drawing_path(options.draw, options.photos)
    results, unreadable = [], 0
    for photo in options.photos:
        try:
            faces = aligner.align(photo)
            if options.draw:
                _write_picture(draw(photo), draw_faces(photo, faces))
        except ImageError as error:
            print(f"face-landmarks: {error}", file=sys.stderr)
            unreadable += 1
            continue
        results.append({"image": photo, **faces.to_dict()})
        print(f"{photo}: {len(faces)} face{'s' * (len(faces) != 1)}", file=sys.stderr)
    if options.json:
        _write(Path(options.json), json.dumps(results, indent=1))
    elif not options.draw:
        json.dump(results, sys.stdout, indent=1)
        print()
    return 1 if unreadable else 0


def _drawing_path(target: str | None, photos: Sequence[str]) -> Callable[[str], Path]:
    """Where each photo's drawing goes: the file named, or a file of its own in the folder named."""
    if target is None or (len(photos) == 1 and Path(target).suffix):
        return lambda photo: Path(target or photo)
    folder = Path(target)
    if folder.suffix and not folder.is_dir():
        raise InputError(f"--draw: expected a folder for {len(photos)} photos, got the file name {target!r}")
    names = [Path(photo).stem for photo in photos]
    if len(set(names)) < len(names):
        raise InputError("--draw: expected photos of different names, as drawings are named after them")
    return lambda photo: folder / f"{Path(photo).stem}.png"


def _models(options: argparse.Namespace) -> int:
    cards = [get_card(name) for name in list_models()]
    if options.json:
        print(json.dumps([card.to_dict() for card in cards], indent=1))
        return 0
    aliases = {target: alias for alias, target in ALIASES.items()}
    for card in cards:
        file = card.file
        place = "download" if file and file.urls else "embedded"
        size = f"{file.size / 1e6:.1f} MB" if file and file.size else "?"
        alias = f" (alias {aliases[card.name]})" if card.name in aliases else ""
        print(f"{card.name}{alias}: {place}, {size}\n  {card.summary}\n  licence: {card.licence}")
        for benchmark, scores in card.scores.items():
            listed = ", ".join(f"{name} {value}" for name, value in scores.items())
            print(f"  {benchmark}: {listed}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    evaluation = evaluate(
        _aligner(options),
        read_folder(options.folder),
        boxes=options.boxes,
        normaliser=options.normaliser,
        progress=sys.stderr.isatty(),
    )
    print(evaluation)
    if options.save:
        evaluation.save(options.save)
        save_ced({options.model: evaluation.errors}, Path(options.save) / "ced.png")
    return 0


def _download(options: argparse.Namespace) -> int:
    print(download(options.model))
    return 0


def _cache(options: argparse.Namespace) -> int:
    if options.action == "clear":
        for file in clear_cache():
            print(f"removed {file.path}")
        return 0
    print(cache_folder())
    damaged = False
    for file in cached_files():
        state = "incomplete" if file.sha256 is None else ""
        if options.action == "verify" and file.sha256 is not None:
            state = "whole" if file.verify() else "damaged"
            damaged |= state == "damaged"
        print(f"  {file.path.name}  {file.size / 1e6:.1f} MB  {state}".rstrip())
    return 1 if damaged else 0


def _train(words: list[str]) -> int:
    """Hand over to `python -m face_landmarks.training`."""
    train: Callable[[Sequence[str]], int] = import_module("face_landmarks.training.__main__").main
    return train(words)


def _aligner(options: argparse.Namespace) -> FaceAligner:
    return FaceAligner(options.model, device=options.device, flip=options.flip)


def _write_picture(path: Path, picture: Any) -> None:
    done, data = cv2.imencode(path.suffix or ".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise InputError(f"--draw: expected a picture type such as .png or .jpg, got {path.name!r}")
    _write(path, data.tobytes())


def _write(path: Path, content: str | bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise InputError(f"{path}: expected a place to write to, got {error.strerror or error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="face-landmarks", description="Facial landmarks that are accurate below the pixel."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("--model", default="shr-fan-68", help="name or weights file (default: %(default)s)")
    model.add_argument("--device", help="cpu, cuda, ...; the best present if not given")
    model.add_argument("--flip", action="store_true", help="average with the mirror: slower, more accurate")

    align = commands.add_parser("align", parents=[model], help="find the landmarks of photos")
    align.add_argument("photos", nargs="+", metavar="PHOTO")
    align.add_argument("--json", metavar="FILE", help="write the landmarks here; by default to stdout")
    align.add_argument("--draw", metavar="PATH", help="draw them: a picture, or a folder for many photos")
    align.set_defaults(run=_align)

    models = commands.add_parser("models", help="list the models, with licence and scores")
    models.add_argument("--json", action="store_true", help="print the full cards")
    models.set_defaults(run=_models)

    score = commands.add_parser("evaluate", parents=[model], help="score a model on photos with .pts files")
    score.add_argument("folder", help="NAME.jpg with NAME.pts, or NAME.1.pts, NAME.2.pts, ...")
    score.add_argument("--boxes", choices=("truth", "detector"), default="truth")
    score.add_argument(
        "--normaliser",
        choices=("inter-ocular", "inter-pupil", "box", "diagonal"),
        default="inter-ocular",
    )
    score.add_argument("--save", metavar="DIR", help="write summary.json, faces.csv and ced.png here")
    score.set_defaults(run=_evaluate)

    fetch = commands.add_parser("download", help="put a model's weights into the cache")
    fetch.add_argument("model")
    fetch.set_defaults(run=_download)

    cache = commands.add_parser("cache", help="what is in the cache, and where")
    cache.add_argument("action", nargs="?", choices=("list", "verify", "clear"), default="list")
    cache.set_defaults(run=_cache)

    commands.add_parser("train", help="train a model: the same as python -m face_landmarks.training")
    return parser


if __name__ == "__main__":
    sys.exit(main())
