"""`face-landmarks train`: a recipe, trained on folders of photos or on a benchmark's files."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import shlex
from pathlib import Path
from typing import TypedDict

import torch

from face_landmarks._system.compiling import can_compile
from face_landmarks._system.devices import choose_device
from face_landmarks._system.files import make_folder
from face_landmarks._system.locks import only_run
from face_landmarks.benchmarks.metrics import Normaliser
from face_landmarks.benchmarks.protocols import TRAINING_SETS, hold_out
from face_landmarks.cli.options import Commands, path
from face_landmarks.errors import InputError
from face_landmarks.models.card import ModelCard
from face_landmarks.models.weights import LandmarkModel, load_model, load_weights
from face_landmarks.training.config import RECIPES, TrainConfig
from face_landmarks.training.data import (
    FaceSet,
    TrainingData,
    crop_faces,
    join_faces,
    load_faces,
    load_unlabelled,
)
from face_landmarks.training.export import export_model
from face_landmarks.training.loop import Trainer
from face_landmarks.training.runs import load_checkpoint
from face_landmarks.training.settings import override

_LOGGER = logging.getLogger(__name__)
_DESCRIPTION = "Train a recipe on folders of photos, or on a benchmark's files."
_PREFIX = "shr-fan-"  # of a benchmark's recipe; the rest is the benchmark's name


class _CropRule(TypedDict):
    crop_size: int
    crop_scale: float
    crop_shift: float
    margin: float


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("train", help="train a model", description=_DESCRIPTION)
    parser.set_defaults(run=_train)
    _add_data(parser)
    _add_run(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what is trained on."""
    add = parser.add_argument
    add(
        "--recipe",
        choices=sorted(RECIPES),
        default="shr-fan-68-fast",
        help="network and settings (default: %(default)s)",
    )
    add("--root", metavar="DIR", help="the official files of the recipe's benchmark, to train on")
    add(
        "--hold-out",
        type=int,
        default=20,
        metavar="N",
        help="with --root, validate on every Nth training photo and train on the others; 0: train and "
        "validate on all (default: %(default)s)",
    )
    add("--train", metavar="DIR", help="without --root, photos with .pts files to train on")
    add("--val", metavar="DIR", help="without --root, photos with .pts files to validate on")
    add(
        "--large-pose",
        metavar="DIR",
        nargs="+",
        default=[],
        help="more photos with .pts files; every face of these folders is drawn equally often",
    )
    add(
        "--unlabelled",
        metavar="DIR",
        help="face photos without landmarks, for the terms that compare views or follow a teacher",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    """The arguments that say from where, to where and how."""
    add = parser.add_argument
    add(
        "--out",
        required=True,
        metavar="DIR",
        type=path,
        help="the run's folder; an interrupted run continues there",
    )
    add(
        "--init",
        metavar="MODEL",
        help="fine-tune this model, by name or file; its network must be the recipe's, but its crop size and "
        "stem_pool may differ, and its waist may be narrower",
    )
    add(
        "--teacher",
        metavar="MODEL",
        help="learn the heatmaps or the landmarks of this model, by name or file, or both; needs "
        "--set teacher_weight=1 or --set teacher_coordinate_weight=1, say",
    )
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, e.g. steps=100")
    add("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    add(
        "--precision",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="type of the network's computations (default: %(default)s)",
    )
    add("--no-compile", action="store_true", help="do not compile: start at once, train at half the speed")
    add("--quiet", action="store_true", help="no progress bars")


def _train(options: argparse.Namespace) -> int:
    make_folder(Path(options.out))
    with only_run(Path(options.out)):
        best, normaliser = _run(options)
    print(f"best validation NME ({normaliser}): {best:.3f} %")
    print(f"use it as FaceAligner({str(Path(options.out) / 'model.safetensors')!r})")
    return 0


def _run(options: argparse.Namespace) -> tuple[float, Normaliser]:
    """Train, export, and return the best validation NME in percent and what normalised it."""
    config = override(RECIPES[options.recipe], options.set)
    device = choose_device(options.device)
    before, initial = _initial_weights(options.init, config) if options.init else (None, None)
    teacher = load_model(options.teacher) if options.teacher else None
    if teacher is not None:
        config = _with_teacher(config, teacher)
    load_checkpoint(options.out, config)  # refuse what cannot be continued before photos are decoded
    compile = not options.no_compile and can_compile(device)
    data, source = _benchmark_data(options, config) if options.root else _folder_data(options, config)
    sources = _sources(source, data, options, before, teacher)
    trainer = Trainer(
        config,
        data,
        options.out,
        device=device,
        initial=initial,
        teacher=teacher,
        precision=getattr(torch, options.precision),
        compile=compile,
    )
    try:
        best = trainer.run(progress=not options.quiet)
    except KeyboardInterrupt:
        resumes = (Path(options.out) / "checkpoint.pt").exists()
        hint = "run it again to go on from the last checkpoint" if resumes else "no checkpoint yet"
        raise KeyboardInterrupt(f"{trainer.step} of {config.steps} steps done; {hint}") from None
    export_model(
        options.out,
        Path(options.out) / "model.safetensors",
        name=f"{options.recipe}-{Path(options.out).resolve().name}",
        summary=f"{options.recipe} trained on {sources}.",
        training_data=sources,
        command=shlex.join(["face-landmarks", *options.words]),
        licence="that of its training data",
        scores={"validation": {f"{data.normaliser} NME": round(best, 3), "faces": len(data.validation)}},
        validation=data.validation,
        device=device,
    )
    return best, data.normaliser


def _folder_data(options: argparse.Namespace, config: TrainConfig) -> tuple[TrainingData, str]:
    """The faces of the folders, and the name of the main one."""
    if not (options.train and options.val):
        raise InputError("expected --train and --val, or --root with the recipe of a benchmark")
    if options.large_pose and not config.large_pose_share:
        raise InputError("--large-pose: expected --set large_pose_share=0.25 or so; at 0 no batch has any")
    progress = not options.quiet

    def faces(root: str) -> FaceSet:
        return load_faces(root, **_source_rule(config), progress=progress)

    data = TrainingData(
        labelled=faces(options.train),
        validation=load_faces(options.val, **_crop_rule(config), progress=progress),
        large_pose=join_faces([faces(root) for root in options.large_pose]),
        unlabelled=_unlabelled(options, config),
    )
    return data, Path(options.train).name


def _benchmark_data(options: argparse.Namespace, config: TrainConfig) -> tuple[TrainingData, str]:
    """The training faces of the recipe's benchmark, some of them held out, and the benchmark's name."""
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
            **_source_rule(config),
            store=Path(options.out) / "pictures",
            progress=not options.quiet,
        ),
        validation=crop_faces(aside, **_crop_rule(config), progress=not options.quiet),
        unlabelled=_unlabelled(options, config),
        normaliser=chosen.normaliser,
    )
    return data, chosen.name


def _crop_rule(config: TrainConfig) -> _CropRule:
    """How crops are cut, for the network as it is used."""
    return {
        "crop_size": config.network.crop_size,
        "crop_scale": config.crop_scale,
        "crop_shift": config.crop_shift,
        "margin": 1.0,
    }


def _source_rule(config: TrainConfig) -> _CropRule:
    """How the pictures are cut that training views are cut from."""
    return {**_crop_rule(config), "crop_size": config.source_size, "margin": config.source_margin}


def _unlabelled(options: argparse.Namespace, config: TrainConfig) -> FaceSet | None:
    if not options.unlabelled:
        return None
    if not config.unlabelled_share:
        raise InputError("--unlabelled: expected --set unlabelled_share=0.3 or so; at 0 no batch has any")
    return load_unlabelled(options.unlabelled, round(config.source_margin * config.source_size))


def _sources(
    main: str,
    data: TrainingData,
    options: argparse.Namespace,
    before: ModelCard | None,
    teacher: LandmarkModel | None,
) -> str:
    """Everything the weights were made from, for their card."""
    parts = [f"{len(data.labelled)} faces of {main}"]
    if data.large_pose is not None:
        folders = " and ".join(Path(folder).name for folder in options.large_pose)
        parts.append(f"{len(data.large_pose)} of {folders}")
    if data.unlabelled is not None:
        parts.append(f"{len(data.unlabelled)} without landmarks of {Path(options.unlabelled).name}")
    if before is not None:
        parts.append(f"from {before.name}, trained on {before.training_data}")
    if teacher is not None:
        parts.append(f"taught by {teacher.card.name}, trained on {teacher.card.training_data}")
    return ", ".join(parts)


def _initial_weights(model: str, config: TrainConfig) -> tuple[ModelCard, dict[str, torch.Tensor]]:
    """The weights to fine-tune, and their card.

    The network is convolutional, so its weights fit crops of any size; pooling has no weights and may change;
    further blocks of the waist start as identities.

    Raises:
        InputError: the weights are of another network.
        WeightsError: the weights cannot be loaded.
    """
    card, state = load_weights(model)
    network = dataclasses.replace(
        card.network,
        crop_size=config.network.crop_size,
        heatmap_size=config.network.heatmap_size,
        stem_pool=config.network.stem_pool,
        waist=max(card.network.waist, config.network.waist),
    )
    if card.format != "native" or network != config.network:
        raise InputError(f"--init: expected weights of {config.network}, got those of {card.network}")
    return card, state


def _with_teacher(config: TrainConfig, teacher: LandmarkModel) -> TrainConfig:
    """The configuration with pictures fine enough for a teacher whose crops are larger than the network's."""
    ratio = teacher.card.network.crop_size / config.network.crop_size
    return dataclasses.replace(config, source_scale=max(config.source_scale, ratio))
