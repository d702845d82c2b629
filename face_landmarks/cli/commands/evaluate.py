"""`face-landmarks evaluate`: scores on annotated photos, or on a benchmark."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from face_landmarks._system.extras import import_extra
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.benchmarks.comparison import evaluate_benchmark
from face_landmarks.benchmarks.curves import save_ced
from face_landmarks.benchmarks.evaluation import evaluate
from face_landmarks.benchmarks.protocols import BENCHMARKS, get_benchmark
from face_landmarks.cli.options import EXIT_CODES, Commands, make_aligner, model_options, page, path
from face_landmarks.cli.targets import prepare_file, prepare_folder
from face_landmarks.errors import InputError
from face_landmarks.reports.evaluation import write_evaluation_report

_EXAMPLES: Final = f"""examples:
  face-landmarks evaluate annotated
  face-landmarks evaluate annotated --boxes detector --save scores
  face-landmarks evaluate annotated --report worst.html
  face-landmarks evaluate --benchmark 300w --root data/300w

{EXIT_CODES}"""


def add_parser(commands: Commands) -> None:
    """Add the command and its arguments."""
    score = commands.add_parser(
        "evaluate",
        parents=[model_options()],
        help="score a model on annotated photos",
        description="Score a model on a folder of annotated photos, or on a benchmark.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument(
        "folder", nargs="?", help="photos NAME.jpg with NAME.pts, or with NAME.1.pts, NAME.2.pts, ..."
    )
    score.add_argument(
        "--benchmark", choices=tuple(BENCHMARKS), help="instead of a folder, by the protocol of its paper"
    )
    score.add_argument("--root", metavar="DIR", help="the official files of the benchmark")
    score.add_argument(
        "--boxes",
        choices=("truth", "detector"),
        default="truth",
        help="face boxes from the true landmarks, or from the detector (default: %(default)s)",
    )
    score.add_argument(
        "--normaliser",
        choices=("inter-ocular", "inter-pupil", "box", "diagonal"),
        help="of the errors in a folder (default: inter-ocular)",
    )
    score.add_argument(
        "--save", metavar="DIR", type=path, help="write summary.json, faces.csv and ced.png here"
    )
    score.add_argument(
        "--report",
        metavar="FILE.html",
        type=page,
        help="write a page that shows the faces with their true and their found landmarks, the worst first",
    )
    score.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    if (options.folder is None) == (options.benchmark is None):
        raise InputError("evaluate: expected a folder of photos, or --benchmark and --root")
    if options.benchmark:
        return _evaluate_benchmark(options)
    if options.root:
        raise InputError("--root: expected --benchmark beside it")
    _prepare(options)
    evaluation = evaluate(
        make_aligner(options),
        read_folder(options.folder),
        boxes=options.boxes,
        normaliser=options.normaliser or "inter-ocular",
        progress=sys.stderr.isatty(),
    )
    print(evaluation)
    if options.save:
        evaluation.save(options.save)
        save_ced({options.model: evaluation.errors}, Path(options.save) / "ced.png")
    if options.report:
        write_evaluation_report(evaluation, options.report)
    return 0


def _evaluate_benchmark(options: argparse.Namespace) -> int:
    if not options.root or options.normaliser:
        raise InputError("--benchmark: expected --root, and no --normaliser, as the protocol has its own")
    _prepare(options)
    result = evaluate_benchmark(
        make_aligner(options),
        get_benchmark(options.benchmark),
        options.root,
        boxes=options.boxes,
        progress=sys.stderr.isatty(),
    )
    print(result)
    if options.save:
        result.save(options.save)
        save_ced(result.errors(), Path(options.save) / "ced.png")
    if options.report:
        write_evaluation_report(result.evaluation, options.report)
    return 0


def _prepare(options: argparse.Namespace) -> None:
    """Raise before the evaluation if its scores could not be plotted and saved, or its report written."""
    if options.report:
        prepare_file(options.report)
    if options.save:
        import_extra("matplotlib", "plot", "plots")
        prepare_folder(options.save)
