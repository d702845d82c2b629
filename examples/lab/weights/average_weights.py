"""Average the weights of a run with those of the model it began from: often better than either.

    python examples/lab/weights/average_weights.py runs/third --with shr-fan-68 --out runs/averaged
    python examples/lab/weights/embed_model.py runs/averaged ...

Both must have the same network and similar weights, as a run and its --init have.

Reference:
    Wortsman et al. Robust Fine-Tuning of Zero-Shot Models. CVPR 2022. https://arxiv.org/abs/2109.01903
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from face_landmarks.models.weights import check_state_dict, load_weights
from face_landmarks.training.runs import BEST, load_best, save_state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished training run")
    parser.add_argument("--with", dest="model", required=True, help="a model's name or file")
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the run's weights (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the averaged run")
    options = parser.parse_args()
    run = load_best(options.run)
    card, other = load_weights(options.model)
    check_state_dict(card, other, {name: value.shape for name, value in run["average"].items()})
    run["average"] = {
        name: torch.lerp(other[name].float(), value.float(), options.share)
        if value.is_floating_point()
        else value
        for name, value in run["average"].items()
    }
    options.out.mkdir(parents=True, exist_ok=True)
    save_state(options.out / BEST, run)


if __name__ == "__main__":
    main()
