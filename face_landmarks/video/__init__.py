"""Videos: reading, writing, and tracking faces through them."""

from face_landmarks.video.reading import TruncatedVideoWarning, Video
from face_landmarks.video.smoothing import OneEuroFilter
from face_landmarks.video.tracker import FaceTracker, TrackedFaces
from face_landmarks.video.writing import VideoWriter

__all__ = ["FaceTracker", "OneEuroFilter", "TrackedFaces", "TruncatedVideoWarning", "Video", "VideoWriter"]
