"""Train a recipe on folders of photos, or on a benchmark's files."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch

from face_landmarks.benchmarks.annotations import PHOTO_SUFFIXES
from face_landmarks.benchmarks.metrics import Normaliser
from face_landmarks.benchmarks.readers import TRAINING_SETS, hold_out
from face_landmarks.errors import FaceLandmarksError, InputError
from face_landmarks.models.hourglass import HourglassConfig, config_of
from face_landmarks.models.weights import ModelCard, load_weights
from face_landmarks.training.config import RECIPES, AugmentConfig, TrainConfig
from face_landmarks.training.data import FaceSet, crop_faces, join_faces, load_faces, load_unlabelled
from face_landmarks.training.export import export_model
from face_landmarks.training.loop import Trainer, TrainingData

_LOGGER = logging.getLogger(__name__)
_PREFIX = "shr-fan-"  # of recipes; what follows is the name of the benchmark

_Config = TypeVar("_Config", TrainConfig, HourglassConfig, AugmentConfig)


class _CropRule(TypedDict):
    crop_size: int
    crop_scale: float
    crop_shift: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and return an exit code: 0 done, 2 for settings or data that cannot be used."""
    options = _parser().parse_args(arguments)
    options.words = sys.argv[1:] if arguments is None else list(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        best, normaliser = _train(options)
    except FaceLandmarksError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"best validation NME ({normaliser}): {best:.3f} %")
    print(f"use it as FaceAligner({str(Path(options.out) / 'model.safetensors')!r})")
    return 0


def override(config: TrainConfig, settings: Sequence[str]) -> TrainConfig:
    """A configuration with some fields replaced, e.g. ["steps=100", "network.features=64"].

    Raises:
        InputError: an unknown field, or a value of another type.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator:
            raise InputError(f"--set: expected name=value, got {setting!r}")
        *groups, name = path.split(".")
        node = changes
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise InputError(f"--set: {group!r} is set as one value and as a group, in {setting!r}")
        node[name] = text
    return _replace(config, changes)


def _replace(config: _Config, changes: dict[str, Any]) -> _Config:
    """The changes of one group of settings, made together, as they may depend on each other."""
    new = {}
    for name, change in changes.items():
        if name not in {field.name for field in dataclasses.fields(config)}:
            raise InputError(f"--set: {type(config).__name__} has no setting {name!r}")
        value = getattr(config, name)
        if dataclasses.is_dataclass(value) != isinstance(change, dict):
            raise InputError(
                f"--set: {name!r} is {'a group' if dataclasses.is_dataclass(value) else 'one value'}"
            )
        new[name] = _replace(value, change) if isinstance(change, dict) else _parse(name, change, type(value))
    return dataclasses.replace(config, **new)


def _parse(name: str, text: str, kind: type) -> Any:
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise InputError(f"--set {name}: expected {kind.__name__}, got {text!r}") from None


def _train(options: argparse.Namespace) -> tuple[float, Normaliser]:
    """Train, export, and return the best validation NME in percent and what normalised it."""
    config = override(RECIPES[options.recipe], options.set)
    data, source = _benchmark_data(options, config) if options.root else _folder_data(options, config)
    before, initial = _initial_weights(options.init, config) if options.init else (None, None)
    sources = _sources(source, data, options, before)
    trainer = Trainer(
        config,
        data,
        options.out,
        device=options.device,
        initial=initial,
        precision=getattr(torch, options.precision),
        compile=not options.no_compile,
    )
    best = trainer.run(progress=not options.quiet)
    export_model(
        options.out,
        Path(options.out) / "model.safetensors",
        name=f"{options.recipe}-{Path(options.out).resolve().name}",
        summary=f"{options.recipe} trained on {sources}.",
        training_data=sources,
        command=shlex.join(["face-landmarks", "train", *options.words]),
        licence="that of its training data",
        scores={"validation": {f"{data.normaliser} NME": round(best, 3), "faces": len(data.validation)}},
        validation=data.validation,
    )
    return best, data.normaliser


def _folder_data(options: argparse.Namespace, config: TrainConfig) -> tuple[TrainingData, str]:
    """The faces of the folders named, and what the main one is called."""
    if not (options.train and options.val):
        raise InputError("expected --train and --val, or --root with the recipe of a benchmark")
    if options.large_pose and not config.large_pose_share:
        raise InputError("--large-pose: expected --set large_pose_share=0.25, say; with 0 no batch has any")
    margin = config.source_margin

    def faces(root: str, margin: float) -> FaceSet:
        return load_faces(root, **_crop_rule(config), margin=margin, progress=not options.quiet)

    data = TrainingData(
        labelled=faces(options.train, margin),
        validation=faces(options.val, 1.0),
        large_pose=join_faces([faces(root, margin) for root in options.large_pose]),
        unlabelled=_unlabelled(options, config),
    )
    return data, Path(options.train).name


def _benchmark_data(options: argparse.Namespace, config: TrainConfig) -> tuple[TrainingData, str]:
    """The training faces of the recipe's benchmark, some of them set aside, and what they are called."""
    known = {f"{_PREFIX}{name}": faces for name, faces in TRAINING_SETS.items()}
    if options.recipe not in known:
        raise InputError(
            f"--root: expected a recipe of a benchmark ({', '.join(known)}), got {options.recipe}"
        )
    if options.train or options.val or options.large_pose:
        raise InputError("--root: expected no --train, --val or --large-pose beside it")
    chosen = known[options.recipe]
    samples = chosen.read(options.root)
    count = sum(len(sample.landmarks) for sample in samples)
    if count != chosen.faces:
        _LOGGER.warning("not the published protocol: expected %d training faces, got %d", chosen.faces, count)
    training, aside = hold_out(samples, options.hold_out)
    data = TrainingData(
        labelled=crop_faces(
            training,
            **_crop_rule(config),
            margin=config.source_margin,
            store=Path(options.out) / "pictures",
            progress=not options.quiet,
        ),
        validation=crop_faces(aside, **_crop_rule(config), progress=not options.quiet),
        unlabelled=_unlabelled(options, config),
        normaliser=chosen.normaliser,
    )
    return data, chosen.name


def _crop_rule(config: TrainConfig) -> _CropRule:
    return {
        "crop_size": config.network.crop_size,
        "crop_scale": config.crop_scale,
        "crop_shift": config.crop_shift,
    }


def _unlabelled(options: argparse.Namespace, config: TrainConfig) -> FaceSet | None:
    if not options.unlabelled:
        return None
    if not config.unlabelled_share:
        raise InputError("--unlabelled: expected --set unlabelled_share=0.3, say; with 0 no batch has any")
    photos = sorted(
        path for path in Path(options.unlabelled).glob("*") if path.suffix.lower() in PHOTO_SUFFIXES
    )
    if not photos:
        raise InputError(f"--unlabelled: expected photos in {options.unlabelled}, got none")
    return load_unlabelled(photos, round(config.source_margin * config.network.crop_size))


def _sources(main: str, data: TrainingData, options: argparse.Namespace, before: ModelCard | None) -> str:
    """Every face the weights have seen, for their card."""
    parts = [f"{len(data.labelled)} faces of {main}"]
    if data.large_pose is not None:
        folders = " and ".join(Path(folder).name for folder in options.large_pose)
        parts.append(f"{len(data.large_pose)} of {folders}")
    if data.unlabelled is not None:
        parts.append(f"{len(data.unlabelled)} without landmarks of {Path(options.unlabelled).name}")
    if before is not None:
        parts.append(f"from {before.name}, trained on {before.training_data}")
    return ", ".join(parts)


def _initial_weights(model: str, config: TrainConfig) -> tuple[ModelCard, dict[str, torch.Tensor]]:
    """The weights to fine-tune, and their card.

    Being convolutional, they serve crops of any size; and pooling, which has no weights, may change.

    Raises:
        InputError: they are of a network of another shape.
        WeightsError: they cannot be had.
    """
    card, state = load_weights(model)
    network = dataclasses.replace(
        config_of(card),
        crop_size=config.network.crop_size,
        heatmap_size=config.network.heatmap_size,
        stem_pool=config.network.stem_pool,
    )
    if card.format != "native" or network != config.network:
        raise InputError(f"--init: expected weights of {config.network}, got those of {card.network}")
    return card, state


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="face-landmarks train", description=__doc__)
    add = parser.add_argument
    add("--recipe", choices=sorted(RECIPES), default="shr-fan-68-fast")
    add("--root", metavar="DIR", help="the official files of the recipe's benchmark, to train on")
    add(
        "--hold-out",
        type=int,
        default=20,
        metavar="N",
        help="of a benchmark, validate on every Nth training photo and train on the others; 0: train and "
        "validate on all (default: %(default)s)",
    )
    add("--train", metavar="DIR", help="or photos with .pts files to train on")
    add("--val", metavar="DIR", help="and photos with .pts files to validate on")
    add(
        "--large-pose",
        metavar="DIR",
        nargs="+",
        default=[],
        help="secondary photos with .pts files, drawn from alike",
    )
    add("--unlabelled", metavar="DIR", help="face photos without landmarks, for the Siamese term")
    add("--out", required=True, metavar="DIR", help="the run's folder; a run found there goes on")
    add(
        "--init",
        metavar="MODEL",
        help="fine-tune this model, by name or file, of the recipe's shape; its crop size and stem_pool may "
        "differ",
    )
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, e.g. steps=100")
    add("--device", help="cpu, cuda, cuda:1, ...; the best present if not given")
    add("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    add("--no-compile", action="store_true", help="start at once, train at half the speed")
    add("--quiet", action="store_true", help="no progress bars")
    return parser


if __name__ == "__main__":
    sys.exit(main())
