"""Drawings of photos with their faces: options, and where each picture goes."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks.cli.options import path
from face_landmarks.cli.photos import Photo
from face_landmarks.cli.targets import prepare_file, prepare_folder, write_file
from face_landmarks.errors import InputError
from face_landmarks.output.drawing import draw_faces
from face_landmarks.output.strokes import HEAVIEST
from face_landmarks.results import Faces


def drawing_options() -> argparse.ArgumentParser:
    """The arguments that say what is drawn, and where."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument_group("drawing").add_argument
    add(
        "--draw",
        metavar="PATH",
        type=path,
        help="draw the faces: a picture for one photo, else a folder of .png files",
    )
    add("--labels", action="store_true", help="write each face's number, its place in the results")
    add("--scores", action="store_true", help="colour each landmark by its score, from red to green")
    add(
        "--weight",
        type=_weight,
        metavar="X",
        help="factor on the width of lines and dots, up to 100 (default: 1)",
    )
    return parser


def check_drawing(options: argparse.Namespace) -> None:
    """Raise InputError for options of a drawing where nothing is drawn."""
    for name in ("labels", "scores", "weight"):
        if getattr(options, name) and not options.draw:
            raise InputError(f"--{name}: expected --draw beside it")


class Drawings:
    """The drawings of a command, if it was asked for any.

    Args:
        options: of `drawing_options`.
        photos: that will be drawn.

    Raises:
        InputError: a file name for several photos, two photos whose drawings would have the same name, or a
            folder in one that is read, where the next run would take the drawings for photos.
    """

    def __init__(self, options: argparse.Namespace, photos: Sequence[Photo]) -> None:
        self._options = options
        self._folder: Path | None = None
        self._files: dict[Photo, Path] = {}
        if not options.draw:
            return
        target = Path(options.draw)
        if len(photos) == 1 and target.suffix and not target.is_dir():
            self._files[photos[0]] = target
            return
        if target.suffix and not target.is_dir():
            raise InputError(
                f"--draw: expected a folder for {len(photos)} photos, got the file name {options.draw!r}"
            )
        self._folder = target
        for word in options.photos:
            if Path(word).is_dir() and _is_within(target, Path(word)):
                raise InputError(
                    f"--draw: expected a folder outside of {word!r}, which is read, got {options.draw!r}; "
                    f"the next run would take the drawings for photos"
                )
        stems = Counter(photo.name.with_suffix("") for photo in photos)
        for photo in photos:
            alone = stems[photo.name.with_suffix("")] == 1
            name = photo.name.with_suffix(".png") if alone else photo.name.with_name(f"{photo.name.name}.png")
            self._files[photo] = target / name
        if len(set(self._files.values())) < len(photos):
            raise InputError("--draw: expected photos of different names, as drawings are named after them")

    @property
    def places(self) -> list[str]:
        """The files that will be written."""
        return [str(file) for file in self._files.values()]

    def prepare(self) -> None:
        """Raise before the work what would be raised after it.

        Raises:
            InputError: OpenCV writes no pictures of this type.
            WriteError: the place cannot be written.
        """
        if self._folder is not None:
            prepare_folder(self._folder)
        for file in self._files.values() if self._folder is None else ():
            _encode(file, np.zeros((1, 1, 3), np.uint8))
            prepare_file(file)

    def draw(self, photo: Photo, pixels: NDArray[np.uint8], faces: Faces) -> None:
        """Draw and write a photo's picture, if drawings were asked for."""
        if photo not in self._files:
            return
        picture = draw_faces(
            pixels,
            faces,
            scores=self._options.scores,
            labels=range(len(faces)) if self._options.labels else None,
            weight=self._options.weight or 1.0,
        )
        write_file(self._files[photo], _encode(self._files[photo], picture))


def _is_within(folder: Path, parent: Path) -> bool:
    """Whether photos in a folder are among those of another; hidden folders are left out of these."""
    inner, outer = Path(os.path.realpath(folder)), Path(os.path.realpath(parent))
    if not inner.is_relative_to(outer):
        return False
    return not any(part.startswith(".") for part in inner.relative_to(outer).parts)


def _encode(file: Path, picture: NDArray[np.uint8]) -> bytes:
    try:
        _, data = cv2.imencode(file.suffix or ".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise InputError(f"--draw: expected a picture type such as .png, got {file.name!r}") from error
    return data.tobytes()


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight <= HEAVIEST:
        raise argparse.ArgumentTypeError(f"expected a positive number, at most {HEAVIEST:g}, got {text!r}")
    return weight
