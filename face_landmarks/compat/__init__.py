"""The interfaces of other packages, answered by this one; today that of face-alignment.

from face_landmarks import compat as face_alignment
"""

from face_landmarks.compat.face_alignment import FaceAlignment, LandmarksType, NetworkSize

__all__ = ["FaceAlignment", "LandmarksType", "NetworkSize"]
