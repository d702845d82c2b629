"""Annotated photos, the paper's benchmarks, and scores on them."""

from face_landmarks.benchmarks.annotations import AnnotatedImage, read_folder
from face_landmarks.benchmarks.comparison import evaluate_benchmark
from face_landmarks.benchmarks.evaluation import Evaluation, evaluate
from face_landmarks.benchmarks.protocols import BENCHMARKS, get_benchmark
from face_landmarks.pts import read_pts, write_pts

__all__ = [
    "BENCHMARKS",
    "AnnotatedImage",
    "Evaluation",
    "evaluate",
    "evaluate_benchmark",
    "get_benchmark",
    "read_folder",
    "read_pts",
    "write_pts",
]
