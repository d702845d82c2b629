"""Reading images from any source into (H, W, 3) uint8 RGB."""

from face_landmarks.images.arrays import ChannelOrder
from face_landmarks.images.folders import PHOTO_SUFFIXES, find_photos
from face_landmarks.images.reading import ImageSource, is_one_image, read_image, view_image

__all__ = [
    "PHOTO_SUFFIXES",
    "ChannelOrder",
    "ImageSource",
    "find_photos",
    "is_one_image",
    "read_image",
    "view_image",
]
