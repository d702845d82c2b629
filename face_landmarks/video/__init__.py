"""Videos: reading, writing, and following faces through them."""

from face_landmarks.video.tracker import FaceTracker, OneEuroFilter, TrackedFaces, Video, VideoWriter

__all__ = ["FaceTracker", "OneEuroFilter", "TrackedFaces", "Video", "VideoWriter"]
