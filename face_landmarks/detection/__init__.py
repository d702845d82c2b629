"""Face detection: the contract of a detector, and the detectors of the package."""

from face_landmarks.detection.contract import Detections, Detector, check_boxes, run_detector
from face_landmarks.detection.mtcnn import MTCNN

__all__ = ["MTCNN", "Detections", "Detector", "check_boxes", "run_detector"]
