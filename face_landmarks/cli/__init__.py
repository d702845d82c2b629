"""The `face-landmarks` command.

Exit codes: 0 all done; 1 some photos could not be read (the others are done), a video ended early, or
the cache holds a damaged file; 2 the command could not be carried out, because an argument, a model, a video
or a folder cannot be used.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import IO, Any

import cv2
from tqdm import tqdm

from face_landmarks import __version__
from face_landmarks._system.extras import import_extra
from face_landmarks.aligner import FaceAligner
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.benchmarks.evaluation import evaluate, evaluate_benchmark
from face_landmarks.benchmarks.readers import BENCHMARKS, get_benchmark
from face_landmarks.errors import FaceLandmarksError, ImageError, InputError
from face_landmarks.models.hourglass import complexity, config_of
from face_landmarks.models.weights import (
    cache_folder,
    cached_files,
    clear_cache,
    download,
    get_card,
    list_models,
)
from face_landmarks.output.folders import align_folder
from face_landmarks.output.plotting import draw_faces, save_ced
from face_landmarks.video.tracker import FaceTracker, Video, VideoWriter

_WHOLE = 0.95  # of the frames a video's header announces; headers are off by some


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["train"]:  # the training wing has its own parser and is not part of the package's floors
        return _train(words[1:])
    options = _parser().parse_args(words)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("face_landmarks").setLevel(logging.INFO)
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        code = run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except FaceLandmarksError as error:
        print(f"face-landmarks: error: {error}", file=sys.stderr)
        return 2


def _align(options: argparse.Namespace) -> int:
    if options.out:
        return _align_folder(options)
    if folders := [photo for photo in options.photos if Path(photo).is_dir()]:
        raise InputError(f"expected photos, got the folder {folders[0]!r}; --out PATH aligns a whole folder")
    draw = _drawing_path(options.draw, options.photos)
    drawings = [str(draw(photo)) for photo in options.photos] if options.draw else []
    _check_targets(options.photos, options.json, *drawings)
    aligner = _aligner(options)
    results, unreadable = [], 0
    for photo in options.photos:
        try:
            faces = aligner.align(photo)
            if options.draw:
                _write_picture(draw(photo), draw_faces(photo, faces))
        except ImageError as error:
            print(f"face-landmarks: {error}", file=sys.stderr)
            unreadable += 1
            continue
        results.append({"image": photo, **faces.to_dict()})
        print(f"{photo}: {len(faces)} face{'s' * (len(faces) != 1)}", file=sys.stderr)
    if options.json:
        _write(Path(options.json), json.dumps(results, indent=1))
    elif not options.draw:
        json.dump(results, sys.stdout, indent=1)
        print()
    return 1 if unreadable else 0


def _align_folder(options: argparse.Namespace) -> int:
    if len(options.photos) != 1 or options.draw or options.json:
        raise InputError("--out: expected one folder of photos, without --draw and --json")
    (folder,) = options.photos
    report = align_folder(_aligner(options), folder, options.out, progress=sys.stderr.isatty())
    for photo, reason in report.unreadable.items():
        print(f"face-landmarks: {photo}: {reason}", file=sys.stderr)
    resumed = f", {report.resumed} of them earlier" if report.resumed else ""
    print(
        f"{folder}: {report.faces} faces in {report.images} photos{resumed}, "
        f"{len(report.unreadable)} unreadable",
        file=sys.stderr,
    )
    return 1 if report.unreadable else 0


def _drawing_path(target: str | None, photos: Sequence[str]) -> Callable[[str], Path]:
    """Where each photo's drawing goes: the file named, or a file of its own in the folder named."""
    if target is None or (len(photos) == 1 and Path(target).suffix):
        return lambda photo: Path(target or photo)
    folder = Path(target)
    if folder.suffix and not folder.is_dir():
        raise InputError(f"--draw: expected a folder for {len(photos)} photos, got the file name {target!r}")
    names = [Path(photo).stem for photo in photos]
    if len(set(names)) < len(names):
        raise InputError("--draw: expected photos of different names, as drawings are named after them")
    return lambda photo: folder / f"{Path(photo).stem}.png"


def _check_targets(sources: Sequence[str], *targets: str | None) -> None:
    """Whether nothing that is read would be written over, and nothing be written twice."""
    places = [os.path.realpath(target) for target in targets if target]
    if len(set(places)) < len(places):
        raise InputError("expected files of different names to write to")
    if both := set(places) & {os.path.realpath(source) for source in sources}:
        raise InputError(f"expected another file to write to than {both.pop()}, which is read")


def _video(options: argparse.Namespace) -> int:
    _check_targets([options.video], options.draw, options.json)
    video = Video(int(options.video) if options.video.isdecimal() else options.video)
    tracker = FaceTracker(
        _aligner(options),
        frame_rate=video.frame_rate,
        detect_every=options.detect_every,
        smooth=not options.raw,
    )
    total = min(filter(None, (video.frame_count, options.frames)), default=0)
    frames, identities, start = 0, set[int](), time.perf_counter()
    with ExitStack() as stack:
        lines = None if options.draw else sys.stdout
        if options.json:
            lines = stack.enter_context(_open(Path(options.json)))
        writer = stack.enter_context(VideoWriter(options.draw, video.frame_rate)) if options.draw else None
        progress = stack.enter_context(
            tqdm(total=total or None, unit=" frames", disable=not sys.stderr.isatty())
        )
        stack.enter_context(suppress(KeyboardInterrupt))  # how a camera is ended: the files are finished
        for frame in islice(video, options.frames):
            tracked = tracker.update(frame)
            if lines:
                row = {"frame": frames, "seconds": frames / video.frame_rate, **tracked.to_dict()}
                print(json.dumps(row), file=lines)
            if writer:
                writer.write(draw_faces(frame, tracked.faces, labels=tracked.identities))
            identities.update(tracked.identities.tolist())
            frames += 1
            progress.update()
    rate = frames / (time.perf_counter() - start)
    count = f"{len(identities)} face{'s' * (len(identities) != 1)}"
    print(f"{options.video}: {frames} frames, {count}, {rate:.1f} frames/s", file=sys.stderr)
    return 1 if frames < _WHOLE * total else 0


def _models(options: argparse.Namespace) -> int:
    cards = [get_card(name) for name in list_models()]
    costs = [complexity(config_of(card)) for card in cards]
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
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    if (options.folder is None) == (options.benchmark is None):
        raise InputError("evaluate: expected a folder of photos, or --benchmark and --root")
    if options.benchmark:
        return _evaluate_benchmark(options)
    if options.root:
        raise InputError("--root: expected it with --benchmark alone")
    _prepare_folder(options.save)
    evaluation = evaluate(
        _aligner(options),
        read_folder(options.folder),
        boxes=options.boxes,
        normaliser=options.normaliser or "inter-ocular",
        progress=sys.stderr.isatty(),
    )
    print(evaluation)
    if options.save:
        evaluation.save(options.save)
        save_ced({options.model: evaluation.errors}, Path(options.save) / "ced.png")
    return 0


def _evaluate_benchmark(options: argparse.Namespace) -> int:
    if not options.root or options.normaliser:
        raise InputError("--benchmark: expected --root, and no --normaliser, which the protocol gives")
    _prepare_folder(options.save)
    result = evaluate_benchmark(
        _aligner(options),
        get_benchmark(options.benchmark),
        options.root,
        boxes=options.boxes,
        progress=sys.stderr.isatty(),
    )
    print(result)
    if options.save:
        result.save(options.save)
        save_ced(result.errors(), Path(options.save) / "ced.png")
    return 0


def _prepare_folder(save: str | None) -> None:
    """Before the work, prove that its scores can be saved and plotted."""
    if save:
        import_extra("matplotlib", "plot", "plots")
        try:
            Path(save).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--save: expected a folder to write to, got {save}: {error.strerror}"
            ) from error


def _export(options: argparse.Namespace) -> int:
    aligner = FaceAligner(options.model, detector=None, device="cpu")
    print(aligner.export(options.path, decode=options.decode))
    return 0


def _download(options: argparse.Namespace) -> int:
    print(download(options.model))
    return 0


def _cache(options: argparse.Namespace) -> int:
    if options.action == "clear":
        for file in clear_cache():
            print(f"removed {file.path}")
        return 0
    files, damaged = cached_files(), False
    print(cache_folder())
    if not files:
        print("  empty")
    for file in files:
        state = "incomplete" if file.sha256 is None else ""
        if options.action == "verify" and file.sha256 is not None:
            state = "whole" if file.verify() else "damaged"
            damaged |= state == "damaged"
        print(f"  {file.path.name}  {file.size / 1e6:.1f} MB  {state}".rstrip())
    return 1 if damaged else 0


def _train(words: list[str]) -> int:
    """Hand over to the parser of the training wing."""
    train: Callable[[Sequence[str]], int] = import_module("face_landmarks.cli.train").main
    return train(words)


def _aligner(options: argparse.Namespace) -> FaceAligner:
    return FaceAligner(
        options.model,
        device=options.device,
        flip=options.flip,
        refine=options.refine,
        backend=options.backend,
    )


def _write_picture(path: Path, picture: Any) -> None:
    try:
        _, data = cv2.imencode(path.suffix or ".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise InputError(f"--draw: expected a picture type such as .png, got {path.name!r}") from error
    _write(path, data.tobytes())


def _open(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: expected a place to write to, got {error.strerror or error}") from error


def _write(path: Path, content: str | bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise InputError(f"{path}: expected a place to write to, got {error.strerror or error}") from error


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def _model_options(model: str) -> argparse.ArgumentParser:
    """What the commands that look for landmarks have in common."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model", default=model, help="name or weights file (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, ...; the best present if not given")
    parser.add_argument("--flip", action="store_true", help="average with the mirror: slower, more accurate")
    parser.add_argument("--refine", action="store_true", help="look twice, at a better crop the second time")
    parser.add_argument(
        "--backend",
        choices=("torch", "onnxruntime", "openvino"),
        default="torch",
        help="what runs the network (default: %(default)s)",
    )
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="face-landmarks", description="Facial landmarks that are accurate below the pixel."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    model, quick = _model_options("shr-fan-68"), _model_options("shr-fan-68-fast")

    align = commands.add_parser("align", parents=[model], help="find the landmarks of photos")
    align.add_argument("photos", nargs="+", metavar="PHOTO")
    align.add_argument("--json", metavar="FILE", help="write the landmarks here; by default to stdout")
    align.add_argument("--draw", metavar="PATH", help="draw them: a picture, or a folder for many photos")
    align.add_argument(
        "--out",
        metavar="PATH",
        help="align a whole folder into a .jsonl, .csv or .parquet file or a folder of .pts files, "
        "going on where an earlier run stopped",
    )
    align.set_defaults(run=_align)

    video = commands.add_parser("video", parents=[quick], help="follow the faces of a video or a camera")
    video.add_argument("video", metavar="VIDEO", help="a file, a URL, or the number of a camera")
    video.add_argument("--draw", metavar="FILE", help="draw the faces into this video, e.g. out.mp4")
    video.add_argument(
        "--json", metavar="FILE", help="a line of JSON per frame; to stdout if nothing is drawn"
    )
    video.add_argument("--frames", type=_positive, metavar="N", help="stop after this many")
    video.add_argument(
        "--detect-every",
        type=_positive,
        default=30,
        metavar="N",
        help="frames between looks of the face detector (default: %(default)s)",
    )
    video.add_argument("--raw", action="store_true", help="landmarks as measured, not steadied")
    video.set_defaults(run=_video)

    models = commands.add_parser("models", help="list the models, with licence and scores")
    models.add_argument("--json", action="store_true", help="print the full cards")
    models.set_defaults(run=_models)

    score = commands.add_parser("evaluate", parents=[model], help="score a model on annotated photos")
    score.add_argument("folder", nargs="?", help="NAME.jpg with NAME.pts, or NAME.1.pts, NAME.2.pts, ...")
    score.add_argument(
        "--benchmark", choices=tuple(BENCHMARKS), help="instead of a folder, by the protocol of the paper"
    )
    score.add_argument("--root", metavar="DIR", help="the official files of the benchmark")
    score.add_argument("--boxes", choices=("truth", "detector"), default="truth")
    score.add_argument(
        "--normaliser",
        choices=("inter-ocular", "inter-pupil", "box", "diagonal"),
        help="of the errors in a folder (default: inter-ocular)",
    )
    score.add_argument("--save", metavar="DIR", help="write summary.json, faces.csv and ced.png here")
    score.set_defaults(run=_evaluate)

    export = commands.add_parser("export", help="write a model as ONNX")
    export.add_argument("model", nargs="?", default="shr-fan-68", help="name or file (default: %(default)s)")
    export.add_argument("path", metavar="OUT.onnx")
    export.add_argument("--decode", action="store_true", help="landmarks come out, instead of heatmaps")
    export.set_defaults(run=_export)

    fetch = commands.add_parser("download", help="put a model's weights into the cache")
    fetch.add_argument("model")
    fetch.set_defaults(run=_download)

    cache = commands.add_parser("cache", help="what is in the cache, and where")
    cache.add_argument("action", nargs="?", choices=("list", "verify", "clear"), default="list")
    cache.set_defaults(run=_cache)

    commands.add_parser("train", help="train a model")
    return parser


if __name__ == "__main__":
    sys.exit(main())
