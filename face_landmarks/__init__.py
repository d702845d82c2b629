"""Facial landmarks that are accurate below the pixel.

from face_landmarks import FaceAligner

landmarks = FaceAligner().get_landmarks("photo.jpg")  # (N, 68, 2) float32, x y in pixels
"""

__version__ = "0.1.0"

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
    WriteError,
)
from face_landmarks.images import read_image
from face_landmarks.layouts import Layout, get_layout
from face_landmarks.models.card import ModelCard
from face_landmarks.models.registry import list_models
from face_landmarks.models.weights import LandmarkModel, load_model
from face_landmarks.output.crops import align_faces, five_points, head_pose
from face_landmarks.output.drawing import draw_faces
from face_landmarks.output.folders.run import align_folder
from face_landmarks.output.openness import eye_openness, mouth_openness
from face_landmarks.output.plotting import plot_faces, plot_heatmaps
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
    "WriteError",
    "YuNet",
    "__version__",
    "align_faces",
    "align_folder",
    "draw_faces",
    "eye_openness",
    "five_points",
    "get_layout",
    "head_pose",
    "list_models",
    "load_model",
    "mouth_openness",
    "plot_faces",
    "plot_heatmaps",
    "read_image",
]
