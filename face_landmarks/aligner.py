"""FaceAligner: a photo in, subpixel landmarks out."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from face_landmarks._system.devices import choose_device
from face_landmarks._system.forking import settle_threads
from face_landmarks.detection.contract import Detector, check_boxes, run_detector
from face_landmarks.errors import InputError
from face_landmarks.geometry import (
    crop_matrices,
    mirror_matrix,
    quarter_turned,
    resize_matrix,
    transform_points,
    upright_boxes,
    warp,
)
from face_landmarks.heatmap import decode_heatmaps
from face_landmarks.images import ImageSource, read_image
from face_landmarks.layouts import Layout, get_layout
from face_landmarks.models.confidence import expected_errors
from face_landmarks.models.hourglass import (
    StackedHourglass,
    config_of,
    convert_fan_state_dict,
    fold_batch_norms,
)
from face_landmarks.models.weights import ModelCard, check_state_dict, load_weights
from face_landmarks.results import Faces
from face_landmarks.runtime.export import export_onnx
from face_landmarks.runtime.runtimes import Backend, RuntimeNetwork, check_backend

_T = TypeVar("_T")

# A face is looked at again if its mean score is below this, as that of hardly any whole, upright face of the
# 300-W validation photos is (examples/lab/measure_confidence.py). A tilt by 60 degrees comes out just below.
_DOUBTFUL: Final = 0.77
_SMALLEST_FACE: Final = 0.25  # of the box it was sought in


@dataclass(frozen=True)
class LandmarkModel:
    """A landmark network and the card that says how to use it.

    Attributes:
        card: layout, crop rule and decoder settings.
        network: crops (B, 3, crop_size, crop_size) in [0, 1] -> heatmaps (B, K, H, W).
    """

    card: ModelCard
    network: nn.Module


@dataclass(frozen=True, eq=False)
class FaceHeatmaps:
    """What the network saw of each face of a photo, and what it answered.

    Attributes:
        crops: (N, S, S, 3) uint8 RGB, what the network saw.
        heatmaps: (N, K, H, W) float32, what it answered.
        points: (N, K, 2) float32, x y in cells of the heatmaps, as decoded.
        heatmap_to_crop: (3, 3) float64.
        heatmap_to_image: (N, 3, 3) float64.
    """

    crops: NDArray[np.uint8]
    heatmaps: NDArray[np.float32]
    points: NDArray[np.float32]
    heatmap_to_crop: NDArray[np.float64]
    heatmap_to_image: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.crops)


class _Look(NamedTuple):
    """What the network found at B faces, in the pixels of their photos.

    Attributes:
        landmarks: (B, K, 2).
        scores: (B, K).
        errors: (B, K), NaN without a calibration.
    """

    landmarks: Tensor
    scores: Tensor
    errors: Tensor

    @property
    def certainty(self) -> Tensor:
        """(B,) mean score of each face."""
        return self.scores.mean(dim=1)

    @classmethod
    def empty(cls, landmarks: int) -> _Look:
        return cls(torch.empty(0, landmarks, 2), torch.empty(0, landmarks), torch.empty(0, landmarks))

    @classmethod
    def concatenate(cls, looks: Sequence[_Look]) -> _Look:
        return cls(*map(torch.cat, zip(*looks, strict=True)))


def load_model(model: str | os.PathLike[str] = "shr-fan-68", *, sha256: str | None = None) -> LandmarkModel:
    """Load a network with its weights, on the CPU, ready for inference.

    Args:
        model: a name from `list_models()`, a weights file, or an https URL.
        sha256: the file's full hash; required for a URL.

    Raises:
        UnknownModelError: no such name.
        WeightsError: the weights cannot be had, are damaged, or do not fit their card.
    """
    settle_threads()
    card, state = load_weights(model, sha256=sha256)
    config = config_of(card)
    network = StackedHourglass(config)
    if card.format == "fan":
        state = convert_fan_state_dict(state, config)
    check_state_dict(card, state, {name: value.shape for name, value in network.state_dict().items()})
    network.load_state_dict(state, strict=True)
    return LandmarkModel(card, fold_batch_norms(network))


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
        self.device = choose_device("cpu" if device is None and backend != "torch" else device)
        self.dtype = dtype or torch.float32
        check_backend(backend, self.device, self.dtype)
        self.backend = backend
        self.batch_size = batch_size
        self.flip = flip
        self.refine = refine
        if not isinstance(model, LandmarkModel):
            model = load_model(model, sha256=sha256)
        self.card = model.card
        self.layout: Layout = get_layout(model.card.layout)
        if refine and not self.layout.tells_its_box:
            raise InputError(f"refine: expected a layout with the line of the jaw, got {self.layout.name}")
        network = copy.deepcopy(model.network).eval().requires_grad_(False)  # the caller's stays as it is
        self.network: nn.Module | RuntimeNetwork
        if backend == "torch":
            self.network = network.to(self.device, self.dtype).to(memory_format=torch.channels_last)
        else:
            self.network = RuntimeNetwork(network, backend, self.dtype)
        self.crop_size: int = model.card.network["crop_size"]
        heatmap_to_crop = resize_matrix(self.crop_size / model.card.network["heatmap_size"])
        heatmap_to_crop[:2, 2] -= torch.tensor(model.card.offset, dtype=torch.float64)
        self.heatmap_to_crop = heatmap_to_crop
        self._detector = detector

    def __repr__(self) -> str:
        return f"FaceAligner({self.card.name!r}, device='{self.device}', dtype={self.dtype})"

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
        looks = _Look.concatenate([_Look.empty(len(self.layout)), *parts])

        results, start = [], 0
        for face_boxes, box_scores in photos:
            mine = slice(start, start + len(face_boxes))
            landmarks, scores, errors = (part[mine].numpy() for part in looks)
            results.append(Faces(landmarks, scores, face_boxes, box_scores, self.layout, errors))
            start = mine.stop
        return results

    @torch.inference_mode()
    def heatmaps(self, image: ImageSource, boxes: ArrayLike | None = None) -> FaceHeatmaps:
        """The heatmaps of every face of one photo, to look at them or to decode them in another way.

        Arguments and errors are those of `align`. The network looks at each box once, as it is given
        or detected: nothing is mirrored.
        """
        settle_threads()
        pixels = read_image(image)
        face_boxes, _ = self._find(pixels, boxes)
        image_to_crop = crop_matrices(
            torch.from_numpy(face_boxes), self.crop_size, self.card.crop_scale, self.card.crop_shift
        )  # (N, 3, 3)
        crops = warp(pixels, image_to_crop, self.crop_size)  # (N, 3, S, S)
        batches = torch.split(crops, self.batch_size)
        heatmaps = torch.cat([self.network(self._place(b)).float().cpu() for b in batches])  # (N, K, H, W)
        points, _ = decode_heatmaps(heatmaps, window=self.card.window, temperature=self.card.temperature)
        return FaceHeatmaps(
            crops=(255 * crops).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy(),
            heatmaps=heatmaps.numpy(),
            points=points.numpy(),
            heatmap_to_crop=self.heatmap_to_crop.clone().numpy(),  # the caller's own
            heatmap_to_image=(image_to_crop.inverse() @ self.heatmap_to_crop).numpy(),
        )

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
            WeightsError: the file cannot be written.
        """
        if self.flip:
            raise InputError("flip: expected False, as an exported network looks at a crop once; got True")
        if isinstance(self.network, RuntimeNetwork):
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

    def _align_faces(self, faces: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> _Look:
        """The landmarks of B faces, each given by its photo and its box (4,)."""
        photos = [pixels for pixels, _ in faces]
        boxes = torch.from_numpy(np.stack([box for _, box in faces]))  # (B, 4)
        first = self._look(photos, boxes, torch.zeros(len(boxes)))

        doubtful = first.certainty < _DOUBTFUL
        look = self._look_upright(first, doubtful | self.refine, photos, boxes)
        doubtful = look.certainty < _DOUBTFUL
        if doubtful.any():
            lying = quarter_turned(boxes)
            for turned, roll in ((lying, math.pi / 2), (boxes, math.pi), (lying, -math.pi / 2)):
                look = self._look_again(look, doubtful, photos, turned, torch.full((len(boxes),), roll))
            changed = look.certainty > first.certainty  # the others were looked at upright as they are
            look = self._look_upright(look, doubtful & changed, photos, boxes)
        return look

    def _look_upright(
        self, first: _Look, chosen: Tensor, photos: Sequence[NDArray[np.uint8]], boxes: Tensor
    ) -> _Look:
        """Look again at the chosen faces (B,), at upright crops made from the landmarks first found."""
        if not self.layout.tells_its_box or not chosen.any():
            return first
        upright, rolls = upright_boxes(first.landmarks, self.layout.eyes)
        shaped = _sides(upright) > _SMALLEST_FACE * _sides(boxes)  # landmarks in a heap have no box
        return self._look_again(first, chosen & shaped, photos, upright, rolls)

    def _look_again(
        self, first: _Look, chosen: Tensor, photos: Sequence[NDArray[np.uint8]], boxes: Tensor, rolls: Tensor
    ) -> _Look:
        """The first look at B faces, but for those of the chosen (B,) that another look is surer about."""
        rows = chosen.nonzero().squeeze(1)
        if not len(rows):
            return first
        second = self._look([photos[row] for row in rows.tolist()], boxes[rows], rolls[rows])
        surer = second.certainty > first.certainty[rows]
        return _Look(
            *(old.index_copy(0, rows[surer], new[surer]) for old, new in zip(first, second, strict=True))
        )

    @torch.inference_mode()
    def _look(self, photos: Sequence[NDArray[np.uint8]], boxes: Tensor, rolls: Tensor) -> _Look:
        """Crop B faces, run the network on them, and carry what it finds back to the photos."""
        image_to_crop = crop_matrices(
            boxes, self.crop_size, self.card.crop_scale, self.card.crop_shift, rolls
        )  # (B, 3, 3)
        crops = warp(photos, image_to_crop, self.crop_size, self.device)
        points, scores = self._locate(crops)
        pixel = 1 / torch.linalg.det(image_to_crop).sqrt()  # (B,) image pixels in a crop pixel
        if self.card.calibration is None:
            errors = torch.full_like(scores, torch.nan)
        else:
            errors = expected_errors(scores, self.card.calibration) * pixel.float().unsqueeze(1)
        return _Look(transform_points(image_to_crop.inverse(), points), scores, errors)

    def _locate(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks in crop pixels (B, K, 2) and their scores (B, K) of a batch of crops."""
        crops = self._place(crops)
        points, scores = self._decode(self.network(crops))
        if self.flip:
            mirrored, mirrored_scores = self._decode(self.network(crops.flip(-1)))
            order = list(self.layout.mirror)
            unmirrored = transform_points(mirror_matrix(self.crop_size), mirrored[:, order])
            points, scores = (points + unmirrored) / 2, (scores + mirrored_scores[:, order]) / 2
            points = self._restore_lean(points)
        return points, scores

    def _place(self, crops: Tensor) -> Tensor:
        """Crops (B, 3, S, S) as the network wants them."""
        if self.backend != "torch":
            return crops
        return crops.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)

    def _decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        points, scores = decode_heatmaps(heatmaps, window=self.card.window, temperature=self.card.temperature)
        found = torch.cat((points, scores.unsqueeze(-1)), dim=-1).cpu()  # (B, K, 3): one transfer
        return transform_points(self.heatmap_to_crop, found[..., :2]), found[..., 2]

    def _restore_lean(self, points: Tensor) -> Tensor:
        """Averaging with the mirror takes away the lean of the labels; put it back."""
        right, left = self.layout.eye_corners
        inter_ocular = (points[:, left] - points[:, right]).norm(dim=-1)  # (B,)
        offset = torch.zeros_like(points)
        offset[..., 0] = self.card.lean * inter_ocular.unsqueeze(1)
        return points + offset


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


def _sides(boxes: Tensor) -> Tensor:
    """Width + height, (N,)."""
    return (boxes[:, 2:] - boxes[:, :2]).sum(dim=1)
