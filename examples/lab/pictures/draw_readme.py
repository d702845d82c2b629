"""Draw the README's picture: python examples/lab/pictures/draw_readme.py docs/images/landmarks.png."""

import sys
from pathlib import Path

import cv2
import numpy as np

from face_landmarks import FaceAligner, Faces, draw_faces, read_image

PHOTO = Path(__file__).parents[2] / "data" / "astronaut.jpg"
ZOOM = 3  # the drawing shows where between the pixels a landmark lies
PART = (slice(20, 200), slice(126, 326))  # rows, columns of the photo


def main(path: str) -> None:
    photo = read_image(PHOTO)
    faces = FaceAligner().align(photo)
    low = np.array([PART[1].start, PART[0].start])
    large = cv2.resize(photo[PART], None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC)
    moved = Faces(
        (faces.landmarks - low + 0.5) * ZOOM - 0.5,
        faces.landmark_scores,
        (faces.boxes - np.tile(low, 2) + 0.5) * ZOOM - 0.5,
        faces.box_scores,
        layout=faces.layout,
    )
    cv2.imwrite(path, cv2.cvtColor(draw_faces(large, moved), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main(sys.argv[1])
