"""Another face detector in place of MTCNN: python examples/bring_your_own_detector.py photo.jpg.

A detector is any callable from an image (H, W, 3) uint8 RGB to boxes (N, 4), x0 y0 x1 y1 in pixels, from
forehead to chin. This one takes the part of the picture that has the colour of skin: it works on the
astronaut and shows the interface; a real one would call a network here.
"""

import sys

import cv2
import numpy as np

from face_landmarks import FaceAligner


def detect_skin(image: np.ndarray) -> np.ndarray:
    """The largest patch of skin, (1, 4), or no box, (0, 4)."""
    skin = cv2.inRange(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb), (80, 140, 90), (255, 165, 120))
    skin = cv2.morphologyEx(skin, cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(skin)
    if count == 1:  # the background alone
        return np.empty((0, 4))
    x, y, width, height, _ = max(stats[1:].tolist(), key=lambda patch: patch[4])
    return np.array([[x, y, x + width, y + height]]) - 0.5


def main(photo: str) -> None:
    faces = FaceAligner(detector=detect_skin).align(photo)
    print(faces)


if __name__ == "__main__":
    main(*sys.argv[1:])
