"""The results: faces, with their landmarks, boxes and scores; and the heatmaps they were decoded from."""

from face_landmarks.results.faces import Faces, check_faces
from face_landmarks.results.heatmaps import FaceHeatmaps
from face_landmarks.results.single import Face

__all__ = ["Face", "FaceHeatmaps", "Faces", "check_faces"]
