"""The interfaces of other packages, served by this one: face-alignment's.

from face_landmarks import compat as face_alignment
"""

from face_landmarks.compat.face_alignment import FaceAlignment, LandmarksType, NetworkSize

__all__ = ["FaceAlignment", "LandmarksType", "NetworkSize"]
