"""A short film of two faces that walk past each other."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_landmarks import VideoWriter, read_image

ASTRONAUT = Path(__file__).parents[2] / "examples" / "data" / "astronaut.jpg"


def crossing(frames: int = 30) -> Iterator[NDArray[np.uint8]]:
    """The astronaut, and the astronaut in a mirror with other colours, in frames of 640 x 240 pixels."""
    face = read_image(ASTRONAUT)[20:200, 140:310]
    rows, columns = np.mgrid[:180, :170]
    mask = ((((columns - 85) / 62) ** 2 + ((rows - 92) / 84) ** 2) < 1)[..., None]
    other = face[:, ::-1, ::-1] // 2 + 70
    for t in range(frames):
        frame = np.full((240, 640, 3), (90, 110, 130), np.uint8)
        frame[:, ::32] = 200
        for person, x, y in ((other, 440 - 14 * t, 40), (face, 20 + 14 * t, 30)):
            part = frame[y : y + 180, x : x + 170]
            part[:] = np.where(mask, person, part)
        yield frame


def write_crossing(path: Path, frames: int) -> Path:
    """The film as a file of 25 frames per second."""
    with VideoWriter(path, frame_rate=25) as writer:
        for frame in crossing(frames):
            writer.write(frame)
    return path
