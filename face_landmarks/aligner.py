"""FaceAligner: a photo in, subpixel landmarks out."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from face_landmarks._system.devices import choose_device
from face_landmarks._system.forking import settle_threads
from face_landmarks.detection.contract import Detector, check_boxes, run_detector
from face_landmarks.errors import InputError
from face_landmarks.images import ImageSource, read_image
from face_landmarks.locating.locate import Located, Locator
from face_landmarks.locating.search import locate_with_search
from face_landmarks.models.weights import LandmarkModel, load_model
from face_landmarks.results import FaceHeatmaps, Faces
from face_landmarks.runtime.export import export_onnx
from face_landmarks.runtime.runtimes import Backend, RuntimeNetwork, check_backend

_T = TypeVar("_T")


class FaceAligner:
    """Finds the landmarks of every face in a photo, below the pixel.

    The aligner keeps nothing between calls, may be shared by threads, and can be pickled; in a
    forked process it computes on one thread. docs/speed.md says which backend and type suit which
    processor.

    Args:
        model: a name from `list_models()`, a weights file, an https URL (with `sha256`), or a
            `LandmarkModel`.
        detector: "mtcnn"; any callable that maps an image (H, W, 3) uint8 RGB to face boxes
            (N, 4), or to boxes and scores (N,); or None, if boxes will always be given.
        device: where the network runs, e.g. "cpu" or "cuda:1"; CUDA if present by default, if torch
            runs the network.
        dtype: type the network computes in, float32 by default. Landmarks are always decoded
            in float32.
        batch_size: crops per network call; bounds memory, whatever the number of faces.
        flip: also look at every face in the mirror and average: twice the work, a little more
            accurate.
        refine: look at every face twice, the second time at an upright crop made from the landmarks
            of the first. Without it only faces whose first look is doubtful (mean score below 0.77)
            are looked at again. Those that stay doubtful are sought lying on either side and
            upside down, too.
        sha256: full hash of the weights, for a URL.
        backend: what runs the network: "torch"; or, on the CPU, "onnxruntime", which computes in
            float32, or "openvino".

    Raises:
        UnknownModelError: no model of this name.
        WeightsError: the weights cannot be had or do not fit.
        InputError: another argument is unusable.
        MissingDependencyError: the backend is not installed.
        ExportError: the backend cannot run a network of your own.

    Example:
        >>> from face_landmarks import FaceAligner
        >>> landmarks = FaceAligner().get_landmarks("examples/data/astronaut.jpg")
        >>> landmarks.shape
        (1, 68, 2)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | LandmarkModel = "shr-fan-68",
        *,
        detector: str | Detector | None = "mtcnn",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int = 32,
        flip: bool = False,
        refine: bool = False,
        sha256: str | None = None,
        backend: Backend = "torch",
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size: expected at least 1, got {batch_size}")
        if isinstance(detector, str) and detector != "mtcnn":
            raise InputError(f"detector: expected 'mtcnn', a callable or None, got {detector!r}")
        if dtype is not None and not dtype.is_floating_point:
            raise InputError(f"dtype: expected a floating type, got {dtype}")
        self.device: torch.device = choose_device("cpu" if device is None and backend != "torch" else device)
        self.dtype = dtype or torch.float32
        check_backend(backend, self.device, self.dtype)
        self.backend = backend
        self.batch_size = batch_size
        self.refine = refine
        if not isinstance(model, LandmarkModel):
            model = load_model(model, sha256=sha256)
        network = copy.deepcopy(model.network).eval().requires_grad_(False)  # the caller's stays as it is
        self._locator = Locator(
            network.to(self.device, self.dtype).to(memory_format=torch.channels_last)
            if backend == "torch"
            else RuntimeNetwork(network, backend, self.dtype),
            model.card,
            self.device,
            self.dtype,
            flip,
        )
        self.card = model.card
        self.layout = self._locator.layout
        self.crop_size = self._locator.crop_size
        self.heatmap_to_crop = self._locator.heatmap_to_crop
        if refine and not self.layout.tells_its_box:
            raise InputError(f"refine: expected a layout with the line of the jaw, got {self.layout.name}")
        self._detector = detector

    def __repr__(self) -> str:
        return f"FaceAligner({self.card.name!r}, device='{self.device}', dtype={self.dtype})"

    @property
    def network(self) -> nn.Module | Callable[[Tensor], Tensor]:
        """Crops (B, 3, crop_size, crop_size) in [0, 1] -> heatmaps (B, K, H, W)."""
        return self._locator.network

    @property
    def flip(self) -> bool:
        """Whether every face is also looked at in the mirror."""
        return self._locator.flip

    @property
    def detector(self) -> Detector | None:
        """The face detector; MTCNN is imported and loaded when first asked for."""
        if isinstance(self._detector, str):
            from face_landmarks.detection.mtcnn import MTCNN

            self._detector = MTCNN(device=self.device)
        return self._detector

    def get_landmarks(self, image: ImageSource, boxes: ArrayLike | None = None) -> NDArray[np.float32]:
        """The landmarks alone: (N, K, 2) float32, x y in pixels of the photo; see `align`."""
        return self.align(image, boxes).landmarks

    def align(self, image: ImageSource, boxes: ArrayLike | None = None) -> Faces:
        """Find the faces of one photo and their landmarks.

        Args:
            image: whatever `read_image` reads: a path, a NumPy array, a PIL image, a tensor.
            boxes: (N, 4) x0 y0 x1 y1, forehead to chin, to skip detection.

        Returns:
            One face per box in the order given, or as the detector orders them (MTCNN: largest
            first). No face is an empty result, `len(faces) == 0`, landmarks (0, K, 2).

        Raises:
            InputError: an unusable image or box.
            DetectorError: the detector broke its contract.
        """
        return self.align_batch([image], None if boxes is None else [boxes])[0]

    __call__ = align

    def align_batch(
        self, images: Iterable[ImageSource], boxes: Sequence[ArrayLike | None] | None = None
    ) -> list[Faces]:
        """Align many photos; the crops of all of them share network batches.

        Photos are read one after the other and kept until the batch of their faces is done, so a
        generator of any length works.

        Args:
            images: as in `align`.
            boxes: for each image its boxes, or None to detect them.

        Returns:
            One `Faces` per image, in order.

        Raises:
            InputError: as in `align`, or another number of images than of boxes.
        """
        settle_threads()
        photos: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []

        def faces() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
            for image, given in _pairs(images, boxes):
                pixels = read_image(image)
                photos.append(self._find(pixels, given))  # (N, 4), (N,)
                for box in photos[-1][0]:
                    yield pixels, box

        parts = [self._align_faces(batch) for batch in _batched(faces(), self.batch_size)]
        found = Located.concatenate([Located.empty(len(self.layout)), *parts])

        results, start = [], 0
        for face_boxes, box_scores in photos:
            mine = slice(start, start + len(face_boxes))
            landmarks, scores, errors = (part[mine].numpy() for part in found)
            results.append(Faces(landmarks, scores, face_boxes, box_scores, self.layout, errors))
            start = mine.stop
        return results

    def heatmaps(self, image: ImageSource, boxes: ArrayLike | None = None) -> FaceHeatmaps:
        """The heatmaps of every face of one photo, to look at them or to decode them in another way.

        Arguments and errors are those of `align`. The network looks at each box once, as it is given
        or detected: nothing is mirrored.
        """
        settle_threads()
        pixels = read_image(image)
        face_boxes, _ = self._find(pixels, boxes)
        return self._locator.heatmaps(pixels, torch.from_numpy(face_boxes), self.batch_size)

    def export(self, path: str | os.PathLike[str], *, decode: bool = False) -> Path:
        """Write the network as ONNX in float32, for any batch size; `docs/export.md` shows its use.

        The file's metadata tells the crop rule, layout, lean and licence. Its answers are compared
        with torch's on a real face, to 0.001 crop pixels, if ONNX Runtime is installed.

        Args:
            path: the file to write, whose name ends in .onnx.
            decode: put the decoder into the graph: landmarks (B, K, 2) in crop pixels and scores
                (B, K) come out, instead of heatmaps (B, K, H, W).

        Returns:
            The path.

        Raises:
            InputError: another name, another backend than torch, or an aligner that flips: a file
                looks at each crop once.
            MissingDependencyError: the extra `onnx` is not installed.
            ExportError: the network cannot be exported, or the file answers differently.
            WriteError: the file cannot be written.
        """
        if self.flip:
            raise InputError("flip: expected False, as an exported network looks at a crop once; got True")
        if not isinstance(self.network, nn.Module):
            raise InputError(f"backend: expected 'torch' to export from, got {self.backend!r}")
        return export_onnx(path, self.network, self.card, self.heatmap_to_crop, decode=decode)

    def _find(
        self, pixels: NDArray[np.uint8], boxes: ArrayLike | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (N, 4) and scores (N,): those given, with score 1, or the detector's."""
        if boxes is not None:
            given = check_boxes(boxes)
            return given, np.ones(len(given), np.float32)
        if self.detector is None:
            raise InputError("boxes: expected (N, 4) boxes, as this aligner has no detector; got None")
        return run_detector(self.detector, pixels)

    def _align_faces(self, faces: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> Located:
        """The landmarks of B faces, each given by its photo and its box (4,)."""
        photos = [pixels for pixels, _ in faces]
        boxes = torch.from_numpy(np.stack([box for _, box in faces]))  # (B, 4)
        return locate_with_search(self._locator, photos, boxes, refine=self.refine)


def _pairs(
    images: Iterable[ImageSource], boxes: Sequence[ArrayLike | None] | None
) -> Iterator[tuple[ImageSource, ArrayLike | None]]:
    """Each image with its boxes; both must end together."""
    if boxes is None:
        yield from ((image, None) for image in images)
        return
    count = 0
    for image in images:
        count += 1
        if count <= len(boxes):
            yield image, boxes[count - 1]
    if count != len(boxes):
        raise InputError(
            f"boxes: expected one entry (boxes or None) for each of {count} images, got {len(boxes)}"
        )


def _batched(faces: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size`; the last one may be shorter."""
    faces = iter(faces)
    while batch := list(islice(faces, size)):
        yield batch
