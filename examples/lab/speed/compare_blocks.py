"""What FAN's blocks and plain ones cost in a runtime, in a network of the size of shr-fan-68-tiny.

    python examples/lab/speed/compare_blocks.py [--threads 2]

The networks have random weights, and take crops of 96 pixels, one at a time, in turns. A time is the median
over all rounds. Needs the extra `onnx`.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from face_landmarks.models.hourglass import HourglassConfig, complexity, fold_batch_norms, random_network
from face_landmarks.runtime.graph import GraphSizes
from face_landmarks.runtime.runtimes import RuntimeNetwork

SHAPE = {"stacks": 1, "features": 64, "depth": 3, "crop_size": 96, "heatmap_size": 24, "stem_pool": "blur"}
CONFIGS = {
    "FAN's, a waist of 2": HourglassConfig(**SHAPE, norm="after", waist=2),
    "plain, a waist of 4": HourglassConfig(**SHAPE, norm="after", waist=4, block="plain"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    crop = torch.rand(1, 3, SHAPE["crop_size"], SHAPE["crop_size"])
    networks = {
        name: RuntimeNetwork(
            fold_batch_norms(random_network(config)),
            "onnxruntime",
            sizes=GraphSizes.of(config),
            threads=options.threads,
        )
        for name, config in CONFIGS.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in CONFIGS}
    for round_number in range(options.rounds + 20):
        for name, network in networks.items():
            start = time.perf_counter()
            network(crop)
            if round_number >= 20:  # warm
                taken[name].append(1e3 * (time.perf_counter() - start))
    plural = "s" * (options.threads != 1)
    print(f"| blocks | parameters | GMAC | ms on {options.threads} thread{plural} |\n|---|---|---|---|")
    for name, config in CONFIGS.items():
        parameters, products = complexity(config)
        median = statistics.median(taken[name])
        print(f"| {name} | {parameters / 1e6:.2f} M | {products / 1e9:.3f} | {median:.2f} |")


if __name__ == "__main__":
    main()
