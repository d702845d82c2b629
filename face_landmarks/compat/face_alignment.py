"""`FaceAlignment` with the signatures of face-alignment 1.5: change the import, keep the program.

    from face_landmarks import compat as face_alignment

    fa = face_alignment.FaceAlignment(face_alignment.LandmarksType.TWO_D, device="cpu")
    landmarks = fa.get_landmarks("photo.jpg")  # a list of (68, 2) arrays, or None

docs/migration.md lists the differences: landmarks are not rounded, the detector is MTCNN, and unusable
arguments raise `InputError`.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from face_landmarks._system.arguments import check_flag, check_path, shown
from face_landmarks.aligner import FaceAligner
from face_landmarks.detection.contract import Detector, run_detector
from face_landmarks.detection.mtcnn import MTCNN
from face_landmarks.errors import InputError
from face_landmarks.images import ImageSource, read_image
from face_landmarks.models.registry import DEFAULT_MODEL
from face_landmarks.results import Faces

Boxes: TypeAlias = "Sequence[ArrayLike]"
_DETECTORS: Final = ("sfd", "blazeface", "dlib", "retinaface", "scrfd", "yunet", "mtcnn")


class LandmarksType(IntEnum):
    """Kinds of landmarks; only TWO_D is offered. The old names are aliases."""

    TWO_D = 1
    TWO_HALF_D = 2
    THREE_D = 3
    _2D = 1
    _2halfD = 2
    _3D = 3


class NetworkSize(IntEnum):
    """Sizes of face-alignment's network; here the model decides."""

    LARGE = 4


class FaceAlignment:
    """Landmarks by `FaceAligner`, with the arguments and results of face-alignment 1.5.

    Args:
        landmarks_type: `LandmarksType.TWO_D`.
        network_size: `NetworkSize.LARGE`; `model` chooses the network.
        device: where the networks run, "cuda" by default as in face-alignment.
        dtype: type in which the landmark network computes.
        flip_input: average with the mirror image of every face.
        face_detector: any name that face-alignment knows, which all mean MTCNN here; or a
            `face_landmarks.Detector`. "folder" is not offered: pass the boxes as `detected_faces`.
        face_detector_kwargs: arguments of `face_landmarks.MTCNN`.
        verbose: accepted and ignored.
        compile: accepted and ignored.
        max_batch_size: crops per network call.
        model: as in `FaceAligner`.

    Attributes:
        face_detector: its methods `detect_from_image` and `detect_from_batch` give boxes (5,): x0 y0 x1
            y1 and score.

    Raises:
        InputError: 3D landmarks, or another argument that is not offered.
    """

    def __init__(
        self,
        landmarks_type: LandmarksType,
        network_size: NetworkSize = NetworkSize.LARGE,
        device: str = "cuda",
        dtype: torch.dtype = torch.float32,
        flip_input: bool = True,
        face_detector: str | Detector = "sfd",
        face_detector_kwargs: Mapping[str, Any] | None = None,
        verbose: bool = False,
        compile: bool = True,
        max_batch_size: int = 1,
        *,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
    ) -> None:
        if not isinstance(landmarks_type, int) or landmarks_type != LandmarksType.TWO_D:
            raise InputError(
                "landmarks_type: expected LandmarksType.TWO_D, as this package finds 2D landmarks only; "
                f"got {landmarks_type!r}"
            )
        if not isinstance(network_size, int) or network_size != NetworkSize.LARGE:
            raise InputError(f"network_size: expected NetworkSize.LARGE, got {network_size!r}")
        known = face_detector in _DETECTORS if isinstance(face_detector, str) else callable(face_detector)
        if not known:
            raise InputError(
                f"face_detector: expected one of {', '.join(_DETECTORS)} or a callable, got {face_detector!r}"
            )
        self.landmarks_type = LandmarksType(landmarks_type)
        self.device = device
        self.dtype = dtype
        self.flip_input = flip_input
        self.verbose = verbose
        self.max_batch_size = max_batch_size
        self._aligner = FaceAligner(
            model, detector=None, device=device, dtype=dtype, batch_size=max_batch_size, flip=flip_input
        )
        if isinstance(face_detector, str):
            try:
                options = {} if face_detector_kwargs is None else {**face_detector_kwargs}
                face_detector = MTCNN(device=device, **options)
            except TypeError as error:
                raise InputError(f"face_detector_kwargs: expected arguments of MTCNN, {error}") from error
        self.face_detector = _FaceDetector(face_detector)

    def get_landmarks(
        self,
        image_or_path: ImageSource,
        detected_faces: Boxes | None = None,
        return_bboxes: bool = False,
        return_landmark_score: bool = False,
    ) -> Any:
        """Another name of `get_landmarks_from_image`."""
        return self.get_landmarks_from_image(
            image_or_path, detected_faces, return_bboxes, return_landmark_score
        )

    def get_landmarks_from_image(
        self,
        image_or_path: ImageSource,
        detected_faces: Boxes | None = None,
        return_bboxes: bool = False,
        return_landmark_score: bool = False,
    ) -> Any:
        """The landmarks of every face of one image.

        Args:
            image_or_path: whatever `read_image` reads. Arrays and tensors are (H, W, 3); floats are in
                [0, 255], or in [0, 1] if none is above 1.
            detected_faces: a list of boxes x0 y0 x1 y1, to skip detection; further numbers are ignored.
            return_bboxes: also return the boxes.
            return_landmark_score: also return the scores.

        Returns:
            A list of (68, 2) float32 arrays, or None if there is no face. With boxes or scores: a tuple of
            landmarks, list of scores (68,) or None, boxes or None; three times None if there is no face.

        Raises:
            InputError: an unusable image or box.
        """
        check_flag("return_bboxes", return_bboxes)
        check_flag("return_landmark_score", return_landmark_score)
        pixels = _pixels(image_or_path)
        boxes = self.face_detector.detect_from_image(pixels) if detected_faces is None else detected_faces
        return self._answer(self._find([pixels], [boxes])[0], boxes, return_bboxes, return_landmark_score)

    def get_landmarks_from_batch(
        self,
        image_batch: Tensor | NDArray[Any],
        detected_faces: Sequence[Boxes] | None = None,
        return_bboxes: bool = False,
        return_landmark_score: bool = False,
    ) -> Any:
        """The landmarks of every face of a batch of images.

        Args:
            image_batch: (B, 3, H, W), or a list of B images (3, H, W), with values as in
                `get_landmarks_from_image`.
            detected_faces: the list of boxes of each image.
            return_bboxes: also return the boxes.
            return_landmark_score: also return the scores.

        Returns:
            For each image an array (68 n, 2) of the landmarks of its n faces, or [] if there is none; None
            for an empty batch. With boxes or scores: a tuple of this list, for each image a list of scores
            (68,) or None, and for each image its boxes. What is not asked for is None.

        Raises:
            InputError: an unusable batch or box, or another number of lists of boxes than of images.
        """
        check_flag("return_bboxes", return_bboxes)
        check_flag("return_landmark_score", return_landmark_score)
        images = _split(image_batch)
        if detected_faces is not None and not isinstance(detected_faces, Sequence):
            raise InputError(f"detected_faces: expected a list for each image, got {shown(detected_faces)}")
        find = self.face_detector.detect_from_image
        boxes = [find(image) for image in images] if detected_faces is None else detected_faces
        if not len(boxes):
            return (None, None, None) if return_bboxes or return_landmark_score else None
        found = self._find(images, boxes)
        landmarks: list[Any] = [np.concatenate(list(f.landmarks)) if len(f) else [] for f in found]
        if not (return_bboxes or return_landmark_score):
            return landmarks
        scores = [list(f.landmark_scores) if len(f) else None for f in found]
        return landmarks, scores if return_landmark_score else None, boxes if return_bboxes else None

    def get_landmarks_from_directory(
        self,
        path: str | os.PathLike[str],
        extensions: Iterable[str] = (".jpg", ".png"),
        recursive: bool = True,
        show_progress_bar: bool = True,
        return_bboxes: bool = False,
        return_landmark_score: bool = False,
    ) -> dict[str, Any]:
        """The landmarks of every image of a folder: path -> the result of `get_landmarks_from_image`.

        Raises:
            InputError: `path` is no path, or `extensions` are not several texts.
        """
        root = str(check_path("path", path))
        try:
            endings = [] if isinstance(extensions, (str, bytes)) else list(extensions)
        except TypeError:  # not iterable
            endings = []
        if not endings or not all(isinstance(ending, str) for ending in endings):
            raise InputError(f"extensions: expected texts such as ['.jpg'], got {shown(extensions)}")
        folder = os.path.join(glob.escape(root), "**" if recursive else "")
        files = [
            file
            for extension in endings
            for file in sorted(glob.glob(os.path.join(folder, "*" + extension), recursive=recursive))
        ]
        return {
            file: self.get_landmarks_from_image(file, None, return_bboxes, return_landmark_score)
            for file in tqdm(files, disable=not show_progress_bar)
        }

    def _find(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[Faces]:
        return self._aligner.align_batch(images, list(map(_corners, boxes)))

    @staticmethod
    def _answer(faces: Faces, boxes: Boxes, with_boxes: bool, with_scores: bool) -> Any:
        landmarks = list(faces.landmarks) if len(faces) else None
        if not (with_boxes or with_scores):
            return landmarks
        if landmarks is None:
            return None, None, None
        return landmarks, list(faces.landmark_scores) if with_scores else None, boxes if with_boxes else None


class _FaceDetector:
    """A detector with the methods of face-alignment's, for boxes (5,): x0 y0 x1 y1 and score."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def detect_from_image(self, tensor_or_path: ImageSource) -> list[NDArray[np.float32]]:
        boxes, scores, _ = run_detector(self._detector, _pixels(tensor_or_path))
        return list(np.column_stack([boxes, scores]))

    def detect_from_batch(self, tensor: Tensor | NDArray[Any]) -> list[list[NDArray[np.float32]]]:
        return [self.detect_from_image(image) for image in _split(tensor)]


def _split(batch: Tensor | NDArray[Any]) -> list[NDArray[np.uint8]]:
    """The images of a batch (B, 3, H, W); raise unless it is one."""
    if not isinstance(batch, (Tensor, np.ndarray, list, tuple)) or not getattr(batch, "ndim", 1):
        raise InputError(f"image_batch: expected shape (B, 3, H, W), got {type(batch).__name__}")
    images = []
    for image in batch:
        array = _to_array(image) if isinstance(image, Tensor) else np.asarray(image)
        if array.ndim != 3 or array.shape[0] != 3:
            raise InputError(f"image_batch: expected images of shape (3, H, W), got {array.shape}")
        images.append(_pixels(np.moveaxis(array, 0, -1)))
    return images


def _corners(boxes: Boxes) -> NDArray[np.float64]:
    """The corners (N, 4) of one image's boxes; raise unless each has four numbers or more."""
    corners = []
    try:
        for box in boxes:
            numbers = np.asarray(_to_array(box) if isinstance(box, Tensor) else box, np.float64)
            if numbers.ndim != 1 or len(numbers) < 4:
                raise ValueError(f"one of shape {numbers.shape}")
            corners.append(numbers[:4])
    except (TypeError, ValueError) as error:
        raise InputError(
            f"detected_faces: expected a list of boxes [x0, y0, x1, y1] for each image, got {error}"
        ) from error
    return np.array(corners).reshape(-1, 4)


def _to_array(image: Tensor) -> NDArray[Any]:
    image = image.detach().cpu()
    array: NDArray[Any] = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
    return array


def _pixels(image: ImageSource) -> NDArray[np.uint8]:
    """An image by face-alignment's rules: tensors are (H, W, 3), and floats are in [0, 255].

    Floats of which none is above 1 are read as [0, 1], since in [0, 255] they would be black.
    """
    if isinstance(image, Tensor):
        image = _to_array(image)
    if isinstance(image, np.ndarray) and image.dtype.kind == "f" and image.size and image.max() > 1:
        image = np.clip(image, 0, 255) / 255 if np.isfinite(image).all() else image
    return read_image(image)
