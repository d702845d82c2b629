"""Finding faces: what a detector is, and the one that comes with the package."""

from face_landmarks.detection.contract import Detector, check_boxes, run_detector
from face_landmarks.detection.mtcnn import MTCNN

__all__ = ["MTCNN", "Detector", "check_boxes", "run_detector"]
