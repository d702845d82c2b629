"""A cluster of two Ray nodes on this machine, each with one processor; the second is killed in mid-run.

    python tests/support/two_nodes.py PHOTOS OUT LOG

Each photo that the detector is given is a line of LOG: the node's name and the grey level that tells the
photo. "second" is the node that this process is not connected to: Ray before 2.60 connects to any of a
machine. The worker on the second node stops at its sixth photo, in its second part of four, and waits to be
killed; that on the first node waits for it to come so far. The line "killed" is written before the kill.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import ray
from ray.cluster_utils import Cluster

from face_landmarks import FaceAligner
from face_landmarks.output.cluster import align_dataset

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
BOX = [[52.0, 38.0, 150.0, 158.0]]
PATIENCE = 240  # seconds


class Watched:
    """A detector that logs its photos, and waits as told above."""

    def __init__(self, log: str, victim: str) -> None:
        self.log, self.victim, self.count = Path(log), victim, 0

    def __repr__(self) -> str:
        return "Watched"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        mine = ray.get_runtime_context().get_node_id() == self.victim
        self.count += 1
        with self.log.open("a") as log:
            log.write(f"{'second' if mine else 'first'} {image[0, 0, 0]}\n")
        if mine and self.count == 6:
            time.sleep(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not mine and self.log.read_text().count("second") < 6 and time.monotonic() < deadline:
            time.sleep(0.1)
        return np.array(BOX)


def kill_when_stopped(log: Path, node: object) -> None:
    """Kill the raylet of a node, and its workers, with no chance to say goodbye."""
    while log.read_text().count("second") < 6:
        time.sleep(0.1)
    with log.open("a") as file:
        file.write("killed\n")
    (raylet,) = (info.process for info in node.all_processes["raylet"])
    family = [psutil.Process(raylet.pid), *psutil.Process(raylet.pid).children(recursive=True)]
    for process in family:
        process.send_signal(signal.SIGKILL)


def main() -> None:
    """Run it, and print the report's counts."""
    photos, out, log = sys.argv[1:]
    Path(log).touch()
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    nodes = (cluster.head_node, cluster.add_node(**NODE))
    ray.init(address=cluster.address, log_to_driver=False)
    mine = ray.get_runtime_context().get_node_id()
    ray.shutdown()
    (second,) = (node for node in nodes if node.node_id != mine)
    victim = second.node_id

    def make() -> FaceAligner:
        return FaceAligner("shr-fan-68-fast", detector=Watched(log, victim), device="cpu")

    threading.Thread(target=kill_when_stopped, args=(Path(log), second), daemon=True).start()
    report = align_dataset(make, photos, out, address=cluster.address, part_size=4)
    print(json.dumps([report.images, report.faces, report.unreadable]), flush=True)


if __name__ == "__main__":
    main()
