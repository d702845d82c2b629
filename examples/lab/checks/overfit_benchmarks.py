"""Whether training and evaluation of each benchmark agree: learn a few drawn faces by heart.

    python examples/lab/checks/overfit_benchmarks.py [--only wflw ...]

Writes small samples of the official files in their true formats (as the tests do), trains a tiny network
on the training part through the train command, and scores it on the same faces. Only the truth itself is
below 0.5 %: a forgotten half pixel, a base of one, a transposed picture or an exchanged landmark all show.

Last result, NME in %, with the mean signed error in x and y:

    300w         0.12 inter-ocular, signed -0.02, -0.02
    300w-split2  0.28 inter-ocular, signed -0.01, +0.02
    aflw19       0.06 box, signed -0.02, +0.00
    cofw         0.05 inter-ocular, signed -0.00, -0.01
    cofw68       0.34 box, signed -0.00, +0.00
    wflw         0.24 inter-ocular, signed -0.02, -0.02
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from face_landmarks import FaceAligner
from face_landmarks.benchmarks.evaluation import evaluate
from face_landmarks.benchmarks.protocols import BENCHMARKS, TRAINING_SETS
from face_landmarks.cli import main as run_command

sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "support"))
from official_files import write_benchmark

SETTINGS = {
    **{"network.crop_size": 64, "network.heatmap_size": 16, "network.features": 48, "network.depth": 2},
    **{"network.stacks": 1, "network.norm": "after", "siamese_weight": 0, "source_margin": 1},
    **{"steps": 240, "validate_every": 60, "batch_size": 4, "learning_rate": 4e-3},
    **{"ema_decay": 0.9, "weight_decay": 0},
    **{f"augment.{name}": 0 for name in ("rotation", "scale", "shift", "flip", "colour", "gray")},
    **{f"augment.{name}": 0 for name in ("blur", "noise", "occlusion")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(BENCHMARKS), default=tuple(BENCHMARKS))
    for name in parser.parse_args().only:
        with tempfile.TemporaryDirectory() as folder:
            root, run = Path(folder) / "data", Path(folder) / "run"
            write_benchmark(name, root)
            words = ["--recipe", f"shr-fan-{name}", "--root", str(root), "--out", str(run), "--hold-out", "0"]
            flags = ["--no-compile", "--quiet", "--precision=float32"]
            run_command(
                ["train", *words, *flags, *(f"--set={key}={value}" for key, value in SETTINGS.items())]
            )
            faces = TRAINING_SETS[name]
            aligner = FaceAligner(run / "model.safetensors", detector=None)
            result = evaluate(aligner, faces.read(root), normaliser=faces.normaliser)
            x, y = result.signed_error
            print(f"{name:12} {result.nme:.2f} {result.normaliser}, signed {x:+.2f}, {y:+.2f}", flush=True)


if __name__ == "__main__":
    main()
