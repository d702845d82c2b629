"""Subpixel facial landmarks.

from face_landmarks import FaceAligner

landmarks = FaceAligner().get_landmarks("photo.jpg")  # (N, 68, 2) float32, x y in pixels
"""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

from face_landmarks._system import forking as forking  # notes the process, without importing torch

if TYPE_CHECKING:  # for type checkers; when the program runs, the table below says where a name is
    from face_landmarks.aligner import FaceAligner
    from face_landmarks.detection.contract import Detections, Detector
    from face_landmarks.detection.mtcnn import MTCNN
    from face_landmarks.detection.yunet import YuNet
    from face_landmarks.errors import (
        AnnotationError,
        CacheError,
        ChecksumError,
        DetectorError,
        DownloadError,
        ExportError,
        FaceLandmarksError,
        ImageError,
        InputError,
        MissingDependencyError,
        TrainingError,
        UnknownModelError,
        WeightsError,
        WeightsFormatError,
        WorkerError,
        WriteError,
    )
    from face_landmarks.images import read_image
    from face_landmarks.layouts import Layout, get_layout
    from face_landmarks.models.card import ModelCard
    from face_landmarks.models.registry import list_models
    from face_landmarks.models.weights import LandmarkModel, load_model
    from face_landmarks.output.crops import align_faces, five_points, head_pose
    from face_landmarks.output.drawing import draw_faces
    from face_landmarks.output.folders.merge import merge_results
    from face_landmarks.output.folders.run import align_folder, align_list
    from face_landmarks.output.openness import eye_openness, mouth_openness
    from face_landmarks.output.plotting import plot_faces, plot_heatmaps
    from face_landmarks.reports.results import write_report
    from face_landmarks.results import Face, FaceHeatmaps, Faces
    from face_landmarks.video.reading import Video
    from face_landmarks.video.tracker import FaceTracker, TrackedFaces
    from face_landmarks.video.writing import VideoWriter

__all__ = [
    "MTCNN",
    "AnnotationError",
    "CacheError",
    "ChecksumError",
    "Detections",
    "Detector",
    "DetectorError",
    "DownloadError",
    "ExportError",
    "Face",
    "FaceAligner",
    "FaceHeatmaps",
    "FaceLandmarksError",
    "FaceTracker",
    "Faces",
    "ImageError",
    "InputError",
    "LandmarkModel",
    "Layout",
    "MissingDependencyError",
    "ModelCard",
    "TrackedFaces",
    "TrainingError",
    "UnknownModelError",
    "Video",
    "VideoWriter",
    "WeightsError",
    "WeightsFormatError",
    "WorkerError",
    "WriteError",
    "YuNet",
    "__version__",
    "align_faces",
    "align_folder",
    "align_list",
    "draw_faces",
    "eye_openness",
    "five_points",
    "get_layout",
    "head_pose",
    "list_models",
    "load_model",
    "merge_results",
    "mouth_openness",
    "plot_faces",
    "plot_heatmaps",
    "read_image",
    "write_report",
]

# Imported when first used: torch takes seconds, and a command that is stopped meanwhile must end cleanly.
_PLACES = {
    "aligner": "FaceAligner",
    "detection.contract": "Detections Detector",
    "detection.mtcnn": "MTCNN",
    "detection.yunet": "YuNet",
    "errors": "AnnotationError CacheError ChecksumError DetectorError DownloadError ExportError ImageError "
    "FaceLandmarksError InputError MissingDependencyError TrainingError UnknownModelError WeightsError "
    "WeightsFormatError WorkerError WriteError",
    "images": "read_image",
    "layouts": "Layout get_layout",
    "models.card": "ModelCard",
    "models.registry": "list_models",
    "models.weights": "LandmarkModel load_model",
    "output.crops": "align_faces five_points head_pose",
    "output.drawing": "draw_faces",
    "output.folders.merge": "merge_results",
    "output.folders.run": "align_folder align_list",
    "output.openness": "eye_openness mouth_openness",
    "output.plotting": "plot_faces plot_heatmaps",
    "reports.results": "write_report",
    "results": "Face FaceHeatmaps Faces",
    "video.reading": "Video",
    "video.tracker": "FaceTracker TrackedFaces",
    "video.writing": "VideoWriter",
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names.split()}
_OTHERS = ["geometry", "heatmap", "locating", "pts", "runtime"]
_ROOMS = {*_OTHERS, *(module.partition(".")[0] for module in _PLACES)}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    elif name in _ROOMS:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
