"""Landmarks of a photo, drawn: python examples/align_image.py photo.jpg drawn.png."""

import sys

from PIL import Image

from face_landmarks import FaceAligner, draw_faces, read_image


def main(photo: str, drawn: str) -> None:
    image = read_image(photo)
    faces = FaceAligner().align(image)
    for landmarks, scores in zip(faces.landmarks, faces.landmark_scores, strict=True):
        x, y = landmarks[30]  # the tip of the nose
        print(f"nose at ({x:.2f}, {y:.2f}), mean score {scores.mean():.2f}")
    Image.fromarray(draw_faces(image, faces)).save(drawn)


if __name__ == "__main__":
    main(*sys.argv[1:])
