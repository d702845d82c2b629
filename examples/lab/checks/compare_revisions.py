"""Whether two checkouts of this project find the same landmarks, to the last bit.

    git worktree add ../before v0.1.0
    python examples/lab/checks/compare_revisions.py ../before . --photos FOLDER --crops FOLDER

Each checkout runs in a process of its own, through the public API alone, with both embedded models on the
CPU: on whole photos with the boxes of MTCNN, and on photos with .pts files with the boxes of their landmarks.
Exits with 1 if landmarks, scores, expected errors or boxes differ by a bit anywhere.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}
MODELS = ("shr-fan-68", "shr-fan-68-fast")
ARRAYS = {
    "landmarks": "landmarks",
    "scores": "landmark_scores",
    "errors": "landmark_errors",
    "boxes": "boxes",
    "box scores": "box_scores",
}


def main() -> int:
    """Run both checkouts, print how far they are apart, and return 1 if they are."""
    options = parse()
    if options.run:
        run(options)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        results = [Path(folder) / name for name in ("old.npz", "new.npz")]
        for source, result in zip((options.old, options.new), results, strict=True):
            words = [sys.executable, __file__, str(source), str(source), "--run", str(result)]
            words += ["--threads", str(options.threads), "--photos", *map(str, options.photos)]
            subprocess.run([*words, "--crops", *map(str, options.crops)], check=True)
        old, new = (dict(np.load(result)) for result in results)
    return report(old, new)


def report(old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> int:
    """Print a row per model and folder; 1 if any array differs, 0 otherwise."""
    print(f"{'largest difference':52}{'faces':>6}" + "".join(f"{name:>12}" for name in ARRAYS))
    equal = old.keys() == new.keys()
    for name in dict.fromkeys(key.rpartition("|")[0] for key in old):
        row = f"{name:52}{len(old[f'{name}|boxes']):6}"
        for array in ARRAYS:
            a, b = old[f"{name}|{array}"], new.get(f"{name}|{array}", np.empty(0))
            equal &= a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
            row += f"{np.abs(a - b).max(initial=0):12.3g}" if a.shape == b.shape else f"{'other faces':>12}"
        print(row)
    print("equal to the bit" if equal else "not equal")
    return 0 if equal else 1


def run(options: argparse.Namespace) -> None:
    """Align with the package of one checkout, and save what it found."""
    source = options.old.resolve()
    sys.path.insert(0, str(source))
    import torch

    import face_landmarks
    from face_landmarks import FaceAligner, Faces

    assert Path(face_landmarks.__file__).is_relative_to(source), face_landmarks.__file__
    torch.set_num_threads(options.threads)
    arrays = {}
    for model in MODELS:
        aligner = FaceAligner(model, device="cpu")
        for folder in options.photos:
            photos = [photo for photo in sorted(folder.iterdir()) if photo.suffix.lower() in SUFFIXES]
            arrays[f"{model}, {len(photos)} of {folder.parent.name}/{folder.name}, MTCNN"] = [
                aligner.align(photo) for photo in photos
            ]
        for folder in options.crops:
            pairs = [(photo, true_boxes(photo)) for photo in sorted(folder.iterdir())]
            pairs = [
                (photo, boxes) for photo, boxes in pairs if photo.suffix.lower() in SUFFIXES and len(boxes)
            ]
            arrays[f"{model}, {len(pairs)} of {folder.parent.name}/{folder.name}, true boxes"] = [
                aligner.align(photo, boxes) for photo, boxes in pairs
            ]
    saved: dict[str, np.ndarray] = {}
    for name, results in arrays.items():
        faces = Faces.concatenate([Faces.empty(aligner.layout), *results])
        saved |= {f"{name}|{short}": getattr(faces, attribute) for short, attribute in ARRAYS.items()}
    np.savez(options.run, **saved)


def true_boxes(photo: Path) -> np.ndarray:
    """(N, 4) boxes of the faces in the .pts files of a photo."""
    from face_landmarks.geometry import boxes_from_landmarks

    landmarks = []
    for path in sorted([photo.with_suffix(".pts"), *photo.parent.glob(f"{photo.stem}.[0-9]*.pts")]):
        if path.is_file():
            numbers = path.read_text().partition("{")[2].partition("}")[0].split()
            landmarks.append(np.array(numbers, np.float32).reshape(-1, 2) - 1)
    return boxes_from_landmarks(np.stack(landmarks)) if landmarks else np.empty((0, 4), np.float32)


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, help="another one")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="folders of photos")
    parser.add_argument("--crops", type=Path, nargs="*", default=[], help="folders of photos with .pts files")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
