r"""Put a trained run into the package: weights in half precision, with a card of measured scores.

    python examples/lab/weights/embed_model.py runs/fast --name shr-fan-68-fast --summary "..." \
        --training-data "..." --command "..." --crops 300w/crops/val --photos 300w/photos/val

The run is exported, loaded as a user would load it, and evaluated on both folders; then the card is written
beside the weights. Without a run, the embedded model of that name is measured and calibrated again, and only
its card is written:

    python examples/lab/weights/embed_model.py --name shr-fan-68-fast --crops FOLDER --photos FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import face_landmarks
from face_landmarks import FaceAligner, ModelCard
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.benchmarks.evaluation import BoxSource, evaluate
from face_landmarks.models.registry import get_card
from face_landmarks.models.weights import load_model
from face_landmarks.training.config import TrainConfig
from face_landmarks.training.data import load_faces
from face_landmarks.training.export import calibrate, export_model
from face_landmarks.training.runs import load_config

sys.path.insert(0, str(Path(__file__).parents[1] / "accuracy"))
from measure_model import measure_crops, measure_five_points, measure_hard

PRETRAINED = Path(face_landmarks.__file__).parent / "models" / "pretrained"


def measure(path: Path, folder: str, boxes: BoxSource) -> dict[str, object]:
    """The scores of a weights file that belong on its card."""
    result = evaluate(FaceAligner(path), read_folder(folder), boxes=boxes, progress=True)
    x, y = result.signed_error
    return {
        "faces": len(result),
        "found": round(result.found_share, 2),
        "inter-ocular NME": round(result.nme, 3),
        "signed error x": round(x, 3),
        "signed error y": round(y, 3),
        "failure rate at 8": round(result.failure_rate(8), 2),
        "AUC at 8": round(result.auc(8), 2),
        **{f"NME {part}": round(error, 3) for part, error in result.nme_by_group.items()},
    }


def plain(table: dict[str, float], starts: tuple[str, ...] = ("",)) -> dict[str, object]:
    """The rows of a table of measure_model.py whose names start so, without the set before them."""
    rows = {name.partition(": ")[2]: round(value, 3) for name, value in table.items()}
    return {name: value for name, value in rows.items() if name.startswith(starts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", nargs="?", help="folder of the training run")
    for text in ("--summary", "--training-data", "--command"):
        parser.add_argument(text, default="", help="for the card of a run")
    for text in ("--name", "--crops", "--photos"):
        parser.add_argument(text, required=True)
    for text in ("--hard", "--five-points"):
        parser.add_argument(text, type=Path, help="a folder as measure_model.py takes it, for the card")
    parser.add_argument("--out", type=Path, default=PRETRAINED, help="the package's pretrained folder")
    options = parser.parse_args()
    path = options.out / f"{options.name}.safetensors"

    config = load_config(options.run) if options.run else config_of(get_card(options.name))
    faces = load_faces(
        options.crops,
        crop_size=config.network.crop_size,
        crop_scale=config.crop_scale,
        crop_shift=config.crop_shift,
    )
    if options.run:
        card = export_model(
            options.run,
            path,
            name=options.name,
            summary=options.summary,
            training_data=options.training_data,
            command=options.command,
            validation=faces,
        )
    else:
        network = load_model(options.name).network
        card = replace(get_card(options.name), **calibrate(network, config, faces))
    scores = {
        "validation crops, true boxes": measure(path, options.crops, "truth"),
        "validation photos, MTCNN boxes": measure(path, options.photos, "detector"),
    }
    aligner = FaceAligner(path, detector=None, backend="torch")
    scores["validation crops, movement and confidence"] = plain(
        measure_crops(aligner, Path(options.crops)), ("jaw, along", "jaw, across", "movement", "within")
    )
    if options.hard:
        scores["hard faces, true boxes"] = plain(measure_hard(aligner, options.hard))
    if options.five_points:
        scores["five hand-drawn points"] = plain(measure_five_points(aligner, options.five_points))
    # The card beside the file has the scores; the file itself stays as it was measured.
    card = replace(card, scores=scores)
    text = json.dumps(card.to_dict(), indent=2) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    print(text)


def config_of(card: ModelCard) -> TrainConfig:
    """The part of a model's configuration that its card has."""
    return TrainConfig(
        network=card.network,
        crop_scale=card.crop_scale,
        crop_shift=card.crop_shift,
        window=card.window,
        temperature=card.temperature,
    )


if __name__ == "__main__":
    main()
