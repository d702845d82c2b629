"""`face-landmarks models`: the models, as a table; all of one model's card."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from face_landmarks.cli.options import Commands
from face_landmarks.models.card import ModelCard
from face_landmarks.models.hourglass import complexity
from face_landmarks.models.registry import (
    DEFAULT_MODEL,
    DEFAULT_VIDEO_MODEL,
    DETECTORS,
    DetectorCard,
    get_card,
    list_models,
)
from face_landmarks.models.weights_file import WeightsFile

_HEAD = ("model", "layout", "weights", "GMAC a face", "licence")


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    models = commands.add_parser(
        "models",
        help="list the models; with a name, show one: licence, scores, provenance",
        description="List the models in a table; with a name, show one: its licence, scores and provenance.",
    )
    models.add_argument("name", nargs="?", metavar="NAME", help="show this model")
    models.add_argument("--json", action="store_true", help="print the full cards")
    models.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> int:
    if options.name in DETECTORS:
        print(_describe_detector(DETECTORS[options.name]))
        return 0
    cards = [get_card(options.name)] if options.name else [get_card(name) for name in list_models()]
    if options.json:
        print(json.dumps([_to_dict(card) for card in cards], indent=1))
    elif options.name:
        print(_describe(cards[0]))
    else:
        detectors = [(d.name, "face detector", _file(d.file), "-", d.licence) for d in DETECTORS.values()]
        print(_table([_HEAD, *map(_row, cards), *detectors]))
        print(f"\n* default; {DEFAULT_VIDEO_MODEL} is the default for videos")
        print("face-landmarks models NAME shows a model's licence, scores and provenance")
    return 0


def _to_dict(card: ModelCard) -> dict[str, Any]:
    parameters, products = complexity(card.network)
    return {**card.to_dict(), "parameters": parameters, "multiply_adds": products}


def _row(card: ModelCard) -> tuple[str, ...]:
    mark = " *" if card.name == DEFAULT_MODEL else ""
    _, products = complexity(card.network)
    licence = re.split("[:;]", card.licence)[0]  # in short
    return f"{card.name}{mark}", card.layout, _file(card.file), f"{products / 1e9:.2f}", licence


def _file(file: WeightsFile | None) -> str:
    """Size of a model's file, and where it comes from."""
    size = f"{file.size / 1e6:.1f} MB" if file and file.size else "?"
    return f"{size}, {'download' if file and file.urls else 'embedded'}"


def _table(rows: list[tuple[str, ...]]) -> str:
    """Columns aligned on the left, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _describe(card: ModelCard) -> str:
    """A model's card as text."""
    parameters, products = complexity(card.network)
    lines = [
        card.name,
        f"  {card.summary}",
        f"  layout: {card.layout}",
        f"  weights: {_file(card.file)}",
        f"  cost: {parameters / 1e6:.2f} M parameters, {products / 1e9:.2f} GMAC a face",
        f"  licence: {card.licence}",
        f"  training data: {card.training_data}",
        "  made by:",
        *(f"    {command}" for command in card.command.split(" && ")),
    ]
    for benchmark, scores in card.scores.items():
        lines += [f"  {benchmark}:", *(f"    {name}: {value}" for name, value in scores.items())]
    return "\n".join(lines)


def _describe_detector(card: DetectorCard) -> str:
    """A face detector's card as text."""
    return "\n".join(
        [
            card.name,
            f"  {card.summary}",
            f"  file: {_file(card.file)}",
            f"  licence: {card.licence}",
            "  downloaded from:",
            *(f"    {url}" for url in card.file.urls),
        ]
    )
