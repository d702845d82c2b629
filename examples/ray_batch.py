"""The landmarks of a large set of photos, on one machine or many, with Ray Data.

    pip install "shr-fan[ray]"
    python examples/ray_batch.py photos landmarks.jsonl --workers 2

Every worker is an actor that holds one aligner, so that models are loaded once. A line is written for each
photo when it is done, as `align_folder` would, but in no order. On a cluster, name its address in
RAY_ADDRESS; every machine must reach the photos under the same path.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from face_landmarks import FaceAligner, read_image
from face_landmarks.errors import ImageError
from face_landmarks.output.folders.journal import settings_of

PHOTOS = ["jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff"]


class Align:
    """An actor: batches of files in, a line of JSON for each out."""

    def __init__(self, model: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.aligner = FaceAligner(model)
        self.settings = settings_of(self.aligner)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        photos = [read(data) for data in batch["bytes"]]
        results = iter(self.aligner.align_batch(p for p in photos if not isinstance(p, ImageError)))
        rows = [
            {"error": str(photo)} if isinstance(photo, ImageError) else next(results).to_dict()
            for photo in photos
        ]
        heads = [{"bytes": len(data), **self.settings} for data in batch["bytes"]]
        return {
            "path": list(batch["path"]),
            "row": [json.dumps(head | row) for head, row in zip(heads, rows, strict=True)],
        }


def read(data: bytes) -> NDArray[np.uint8] | ImageError:
    try:
        return read_image(data)
    except ImageError as error:
        return error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="of photos, with its subfolders")
    parser.add_argument("out", type=Path, help="a .jsonl file")
    parser.add_argument("--model", default="shr-fan-68")
    parser.add_argument("--workers", type=int, default=2, help="actors (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPUs of each (default: %(default)s)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each, e.g. 0.25 (default: none)")
    options = parser.parse_args()
    folder = options.folder.resolve()

    files = ray.data.read_binary_files(
        str(folder),
        include_paths=True,
        file_extensions=PHOTOS,
        ray_remote_args={"num_cpus": 0},  # else it waits for ever where the workers have all of them
    )
    aligned = files.map_batches(
        Align,
        fn_constructor_args=(options.model, options.threads),
        batch_size=8,
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        num_cpus=options.threads,
        num_gpus=options.gpus,
    )
    photos = faces = unreadable = 0
    with options.out.open("w", encoding="utf-8") as out:
        for line in aligned.iter_rows():
            row = {"image": Path(line["path"]).relative_to(folder).as_posix(), **json.loads(line["row"])}
            out.write(json.dumps(row) + "\n")
            photos += 1
            faces += len(row.get("boxes", ()))
            unreadable += "error" in row
    print(f"{faces} faces in {photos - unreadable} photos, {unreadable} unreadable")


if __name__ == "__main__":
    main()
