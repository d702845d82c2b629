"""`face-landmarks models`: the models, with licence and scores."""

from __future__ import annotations

import argparse
import json

from face_landmarks.cli.options import Commands
from face_landmarks.models.hourglass import complexity
from face_landmarks.models.registry import DETECTORS, get_card, list_models


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    models = commands.add_parser("models", help="list the models, with licence and scores")
    models.add_argument("--json", action="store_true", help="print the full cards")
    models.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> int:
    cards = [get_card(name) for name in list_models()]
    costs = [complexity(card.network) for card in cards]
    if options.json:
        listed = [
            {**card.to_dict(), "parameters": parameters, "multiply_adds": products}
            for card, (parameters, products) in zip(cards, costs, strict=True)
        ]
        print(json.dumps(listed, indent=1))
        return 0
    for card, (parameters, products) in zip(cards, costs, strict=True):
        file = card.file
        place = "download" if file and file.urls else "embedded"
        size = f"{file.size / 1e6:.1f} MB" if file and file.size else "?"
        cost = f"{parameters / 1e6:.2f} M parameters, {products / 1e9:.2f} GMAC a face"
        print(f"{card.name}: {place}, {size}, {cost}\n  {card.summary}\n  licence: {card.licence}")
        print(f"  data: {card.training_data}\n  made by: {card.command}")
        for benchmark, scores in card.scores.items():
            print(f"  {benchmark}: {', '.join(f'{name} {value}' for name, value in scores.items())}")
    for detector in DETECTORS.values():
        print(f"{detector.name}: a face detector, download, {(detector.file.size or 0) / 1e6:.1f} MB")
        print(f"  {detector.summary}\n  licence: {detector.licence}")
    return 0
