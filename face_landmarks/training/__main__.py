"""`python -m face_landmarks.training`: train a recipe on folders of photos with .pts files."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from face_landmarks.errors import FaceLandmarksError, InputError
from face_landmarks.training.config import RECIPES, TrainConfig
from face_landmarks.training.data import FaceSet, load_faces, load_unlabelled
from face_landmarks.training.loop import Trainer, TrainingData


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and return an exit code: 0 done, 2 for settings or data that cannot be used."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        best = _train(options)
    except FaceLandmarksError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"best validation NME (inter-ocular): {best:.3f} %")
    return 0


def override(config: TrainConfig, settings: Sequence[str]) -> TrainConfig:
    """A configuration with some fields replaced, e.g. ["steps=100", "network.features=64"].

    Raises:
        InputError: an unknown field, or a value of another type.
    """
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator:
            raise InputError(f"--set: expected name=value, got {setting!r}")
        config = _replace(config, path.split("."), text, path)
    return config


def _replace(node: Any, path: Sequence[str], text: str, whole: str) -> Any:
    name, rest = path[0], path[1:]
    if not dataclasses.is_dataclass(node) or name not in {f.name for f in dataclasses.fields(node)}:
        raise InputError(f"--set: no setting is called {whole!r}")
    value = getattr(node, name)
    if rest:
        return dataclasses.replace(node, **{name: _replace(value, rest, text, whole)})  # type: ignore[type-var]
    if dataclasses.is_dataclass(value):
        raise InputError(f"--set: {whole!r} is a group of settings; name one of them")
    try:
        new = text.lower() in {"1", "true", "yes"} if isinstance(value, bool) else type(value)(text)
    except ValueError:
        raise InputError(f"--set {whole}: expected {type(value).__name__}, got {text!r}") from None
    return dataclasses.replace(node, **{name: new})  # type: ignore[type-var]


def _train(options: argparse.Namespace) -> float:
    config = override(RECIPES[options.recipe], options.set)
    show = not options.quiet

    def faces(root: str, margin: float) -> FaceSet:
        return load_faces(
            root,
            crop_size=config.network.crop_size,
            crop_scale=config.crop_scale,
            crop_shift=config.crop_shift,
            margin=margin,
            progress=show,
        )

    margin = config.source_margin
    picture_size = round(margin * config.network.crop_size)
    photos = sorted(Path(options.unlabelled).glob("*.jpg")) if options.unlabelled else []
    data = TrainingData(
        labelled=faces(options.train, margin),
        validation=faces(options.val, 1.0),
        large_pose=faces(options.large_pose, margin) if options.large_pose else None,
        unlabelled=load_unlabelled(photos, picture_size) if photos else None,
    )
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(
        config,
        data,
        options.out,
        device=device,
        precision=getattr(torch, options.precision),
        compile=not options.no_compile,
    )
    return trainer.run(progress=show)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m face_landmarks.training", description=__doc__)
    add = parser.add_argument
    add("--recipe", choices=sorted(RECIPES), default="shr-fan-68-fast")
    add("--train", required=True, metavar="DIR", help="photos with .pts files to train on")
    add("--val", required=True, metavar="DIR", help="photos with .pts files to validate on")
    add("--large-pose", metavar="DIR", help="secondary labelled photos, e.g. 300W-LP")
    add("--unlabelled", metavar="DIR", help="face photos without landmarks, for the Siamese term")
    add("--out", required=True, metavar="DIR", help="the run's folder; a run found there goes on")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, e.g. steps=100")
    add("--device", help="cpu, cuda, cuda:1, ...; the best present if not given")
    add("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    add("--no-compile", action="store_true", help="start at once, train at half the speed")
    add("--quiet", action="store_true", help="no progress bars")
    return parser


if __name__ == "__main__":
    sys.exit(main())
