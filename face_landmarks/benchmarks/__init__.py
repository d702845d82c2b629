"""Annotated photos, the paper's benchmarks, and scores on them."""

from face_landmarks.benchmarks.annotations import AnnotatedImage, read_folder, read_pts, write_pts
from face_landmarks.benchmarks.evaluation import Evaluation, evaluate, evaluate_benchmark
from face_landmarks.benchmarks.readers import BENCHMARKS, get_benchmark

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
