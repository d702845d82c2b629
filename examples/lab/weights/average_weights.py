"""Average the weights of a run with those of other models of its family: often better than each of them.

    python examples/lab/weights/average_weights.py runs/third --with shr-fan-68 --out runs/averaged
    python examples/lab/weights/embed_model.py runs/averaged ...
    face-landmarks train --init runs/averaged/model.safetensors ...

All must have the same network and similar weights, as a run and its --init have, or runs that begin from the
same model.

Reference:
    Wortsman et al. Robust Fine-Tuning of Zero-Shot Models. CVPR 2022. https://arxiv.org/abs/2109.01903
    Wortsman et al. Model Soups. ICML 2022. https://arxiv.org/abs/2203.05482
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from face_landmarks.models.weights import check_state_dict, load_weights
from face_landmarks.training.export import export_model
from face_landmarks.training.runs import BEST, load_best, save_state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished training run")
    parser.add_argument(
        "--with", dest="models", nargs="+", required=True, metavar="MODEL", help="names or files of models"
    )
    parser.add_argument(
        "--share",
        type=float,
        help="of the run's weights; the models share the rest (default: equal shares)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the averaged run")
    options = parser.parse_args()
    run = load_best(options.run)
    weights = run["average"]
    shapes = {name: value.shape for name, value in weights.items()}
    others = []
    for model in options.models:
        card, state = load_weights(model)
        check_state_dict(card, state, shapes)
        others.append(state)
    share = 1 / (1 + len(others)) if options.share is None else options.share
    rest = (1 - share) / len(others)
    run["average"] = {
        name: share * value.float() + rest * sum(other[name].float() for other in others)
        if value.is_floating_point()
        else value
        for name, value in weights.items()
    }
    options.out.mkdir(parents=True, exist_ok=True)
    save_state(options.out / BEST, run)
    names = [str(options.run), *options.models]
    export_model(
        options.out,
        options.out / "model.safetensors",
        name=options.out.name,
        summary=f"The average of {', '.join(names)}.",
        training_data="That of each of them.",
        command=shlex.join(sys.argv),
    )


if __name__ == "__main__":
    main()
