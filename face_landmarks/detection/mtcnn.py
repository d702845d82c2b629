"""MTCNN, the default face detector: three small networks, whose weights come with facenet-pytorch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks._system.arguments import check_choice, check_number, check_whole, shown
from face_landmarks._system.devices import choose_device, to_device
from face_landmarks._system.forking import settle_threads
from face_landmarks._system.torch_state import own_types
from face_landmarks.detection._boxes import (
    Boxes,
    Found,
    Image,
    Scores,
    check_image,
    finish,
    no_faces,
    shrink,
    suppress,
    suppress_nested,
)
from face_landmarks.detection._mipmaps import Mipmaps
from face_landmarks.detection.contract import Detections
from face_landmarks.detection.mtcnn_networks import (
    CELL,
    OUTPUT,
    OUTPUT_SIZE,
    PROPOSAL,
    REFINEMENT,
    REFINEMENT_SIZE,
    STEP,
    Chain,
    for_runtimes,
    load_network,
)
from face_landmarks.detection.rotations import Rotations, check_rotations, search_turned
from face_landmarks.errors import InputError
from face_landmarks.runtime.graph import GraphSizes
from face_landmarks.runtime.runtimes import Network, default_device, make_runnable

Runtime = Literal["auto", "torch", "onnxruntime"]

_BORDER: Final = 1 / 8  # of the longer side: room around a face that fills its picture
_SMALLEST_FACE: Final = 6  # pixels: half the proposal network's input
_FACTORS: Final = (0.3, 0.95)
_LARGE: Final = 80 * 80  # pixels of a level that the first network sees alone
# Input sizes per power of two: oneDNN, which torch runs, compiles and keeps a program for each of them.
_SIZES: Final = {"torch": 4, "onnxruntime": 16}
_BATCH: Final = 48  # squares that a network computes together: their layers fit the cache


class MTCNN:
    """Finds faces of any size with three small networks, each refining the last one's boxes.

    A `face_landmarks.detection.Detector`. It keeps nothing between calls, may be shared by
    threads, and gives the same boxes for the same image.

    Boxes come largest first; equal areas from left to right, then from top to bottom. They may
    reach out of the image, as foreheads do. Where no face is found, the image is searched again
    with a border around it: a face cut tightly out of a photo needs that room.

    Args:
        device: where the networks run; by default the CPU for "onnxruntime", else CUDA if present.
        min_face_size: side of the smallest face that is searched for, in pixels of the image after
            shrinking, at least 6; time grows with its inverse square.
        thresholds: least scores, in [0, 1], to pass the three networks. The last is the least
            score of a box in the result.
        factor: ratio of neighbouring levels of the image pyramid, from 0.3 to 0.95: larger steps pass over
            faces of sizes between two levels.
        max_size: longer side, in pixels, to which larger images are shrunk, by area averaging, before
            the search; at least `min_face_size`. Boxes are in pixels of the image given.
        rotations: whether the image is also searched turned by 45 degrees and multiples of it: "never";
            "fallback", if no face is found as it is, first by quarters and then by the rest; or "always",
            which takes twelve times as long, as the diagonals make larger images.
        runtime: what runs the networks: "torch"; on the CPU "onnxruntime", which is faster; or "auto",
            ONNX Runtime where it is installed and the device is the CPU, else torch. The attribute tells
            which one was chosen. Their boxes are the same to 0.001 pixels.

    Raises:
        MissingDependencyError: facenet-pytorch is not installed, or lacks its weights; or ONNX Runtime is
            asked for and not installed.
        InputError: an argument is out of its range, or the runtime does not support the device.

    Reference:
        Zhang, Zhang, Li, Qiao. Joint Face Detection and Alignment using Multi-task Cascaded
        Convolutional Networks. IEEE SPL 2016. https://arxiv.org/abs/1604.02878
    """

    def __init__(
        self,
        *,
        device: str | torch.device | None = None,
        min_face_size: float = 30,
        thresholds: Sequence[float] = (0.6, 0.7, 0.9),
        factor: float = 0.709,
        max_size: int = 1280,
        rotations: Rotations = "never",
        runtime: Runtime = "torch",
    ) -> None:
        expected = f"at least {_SMALLEST_FACE} pixels"
        self.min_face_size = check_number("min_face_size", min_face_size, expected, least=_SMALLEST_FACE)
        self.thresholds = _check_thresholds(thresholds)
        low, high = _FACTORS
        expected = f"a ratio from {low} to {high}"
        self.factor = check_number("factor", factor, expected, least=low, most=high)
        self.max_size = check_whole("max_size", max_size, least=CELL)
        if self.max_size < self.min_face_size:
            raise InputError(
                f"max_size: expected at least min_face_size, {min_face_size}, or no face fits, got {max_size}"
            )
        check_rotations(rotations)
        self.rotations = rotations
        check_choice("runtime", runtime, ("auto", "torch", "onnxruntime"))
        self.device = choose_device(default_device(device, runtime))
        if runtime == "onnxruntime" and self.device.type != "cpu":
            raise InputError(f"device: expected 'cpu' for runtime 'onnxruntime', got '{self.device}'")
        self._propose = _make_runnable(PROPOSAL, runtime, self.device)
        self._refine = _make_runnable(REFINEMENT, runtime, self.device)
        self._output = _make_runnable(OUTPUT, runtime, self.device)
        self.runtime = self._propose.backend
        self._sizes = _SIZES[self.runtime]

    def __repr__(self) -> str:
        return (
            f"MTCNN(min_face_size={self.min_face_size}, thresholds={self.thresholds}, "
            f"factor={self.factor}, max_size={self.max_size}, rotations={self.rotations!r}, "
            f"runtime={self.runtime!r})"
        )

    def __call__(self, image: Image, /) -> Detections:
        """Find the faces of an image.

        Args:
            image: (H, W, 3) uint8 RGB, as `read_image` gives it.

        Returns:
            Boxes (N, 4), largest first, scores (N,), and five points of each face (N, 5, 2).

        Raises:
            InputError: another shape or type.
        """
        check_image(image)
        settle_threads()
        small = shrink(image, self.max_size)  # (h, w, 3)
        border = round(_BORDER * max(small.shape[:2]))
        searches = [partial(self._search, border=0), partial(self._search, border=border)]
        return finish(search_turned(small, searches, self.rotations), small, image)

    def _search(self, image: Image, border: int) -> Found:
        """The faces of an image with a border around it, in pixels of the image."""
        if border:
            frame = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE)
            image = np.asarray(frame, np.uint8)
        with torch.inference_mode(), own_types(self.device):
            edges, scores, points = self._detect(image)
        return edges - border, scores, points - border

    def _detect(self, image: Image) -> Found:
        """The cascade."""
        mipmaps = Mipmaps(image)
        edges = self._scan(mipmaps)
        squares, edges, scores, _ = self._judge(
            self._refine, mipmaps, edges, REFINEMENT_SIZE, self.thresholds[1]
        )
        edges = edges[suppress(squares, scores, 0.7)]
        squares, edges, scores, points = self._judge(
            self._output, mipmaps, edges, OUTPUT_SIZE, self.thresholds[2]
        )
        keep = suppress_nested(edges, scores, 0.7)
        return edges[keep], scores[keep], points[keep]

    def _scan(self, mipmaps: Mipmaps) -> Boxes:
        """Edges (N, 4) of what may be a face, at every place and size."""
        found = [(np.empty((0, 4)), np.empty((0, 4)), np.empty(0, np.float32))]
        height, width = mipmaps.images[0].shape[:2]
        for levels in _strips(_pyramid(mipmaps, CELL / self.min_face_size, self.factor)):
            for level, part in zip(levels, self._propose_faces(levels), strict=True):
                cells, edges, scores = part
                zoom = np.tile(np.divide((width, height), level.shape[1::-1]), 2)
                found.append((cells * zoom, edges * zoom, scores))
        all_cells, all_edges, all_scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return all_edges[suppress(all_cells, all_scores, 0.7)]

    def _propose_faces(self, levels: Sequence[Image]) -> Iterator[tuple[Boxes, Boxes, Scores]]:
        """Of each level: cells (N, 4) that may show a face, edges of these faces, and scores.

        The network sees the levels side by side.
        """
        widths = [level.shape[1] + level.shape[1] % STEP for level in levels]
        tallest = max(level.shape[0] for level in levels)
        size = _round_up(tallest, self._sizes), _round_up(sum(widths), self._sizes)
        canvas = np.zeros((1, *size, 3), np.uint8)
        lefts = np.cumsum([0, *widths[:-1]]).tolist()
        for level, left in zip(levels, lefts, strict=True):
            canvas[0, : level.shape[0], left : left + level.shape[1]] = level
        answer, scores = self._run(self._propose, canvas)
        for level, left in zip(levels, lefts, strict=True):
            height, width = ((side - CELL) // STEP + 1 for side in level.shape[:2])
            here = scores[0, :height, left // STEP : left // STEP + width]  # of cells within the level
            rows, columns = (here >= self.thresholds[0]).nonzero()
            corner = STEP * np.stack((columns, rows), axis=1).astype(np.float64)  # (N, 2)
            # As the published cascade counts: a cell begins with its second pixel.
            cells = np.concatenate((corner + 1, corner + CELL), axis=1)
            edges = cells + (CELL - 1) * answer[0, :4, rows, columns + left // STEP]
            keep = suppress(cells, here[rows, columns], 0.5)
            yield cells[keep], edges[keep], here[rows, columns][keep]

    def _judge(
        self, network: Network, mipmaps: Mipmaps, edges: Boxes, size: int, threshold: float
    ) -> tuple[Boxes, Boxes, Scores, Boxes]:
        """The squares around boxes in which a network of this input size sees a face.

        Returns:
            Squares (N, 4), the boxes that the network makes of them (N, 4), scores (N,), and points
            (N, 5, 2), which the second network does not know: (N, 0, 2).
        """
        crops, squares = mipmaps.crops(edges, size)
        if not len(squares):
            edges, scores, points = no_faces()
            return edges, edges, scores, points
        missing = _round_up(len(crops), self._sizes) - len(crops)
        canvas = np.pad(crops, ((0, missing), (0, 0), (0, 0), (0, 0)))
        parts = [self._run(network, canvas[i : i + _BATCH]) for i in range(0, len(canvas), _BATCH)]
        answers, scores = (
            np.concatenate(part)[: len(squares), ..., 0, 0] for part in zip(*parts, strict=True)
        )
        keep = scores >= threshold
        squares, answers = squares[keep], answers[keep].astype(np.float64)
        sides = squares[:, 2:] - squares[:, :2]  # (N, 2)
        corrected = squares + np.tile(sides, 2) * answers[:, :4]
        places = answers[:, 5:].reshape(len(squares), 2, (answers.shape[1] - 5) // 2).transpose(0, 2, 1)
        points = squares[:, np.newaxis, :2] + sides[:, np.newaxis] * places
        return squares, corrected, scores[keep], points

    def _run(self, network: Network, images: Image) -> tuple[NDArray[np.float32], Scores]:
        """What a network answers to (B, H, W, 3) uint8, (B, C, h, w), and its scores (B, h, w)."""
        pixels = to_device(images, self.device).permute(0, 3, 1, 2)
        answer: NDArray[np.float32] = network(pixels).cpu().numpy()
        scores = (1 + np.tanh(answer[:, 4] / 2)) / 2  # the logistic function, without overflow
        return answer, np.asarray(scores, np.float32)


def _make_runnable(chain: Chain, runtime: Runtime, device: torch.device) -> Network:
    """A network of the cascade, run by a runtime.

    Raises:
        MissingDependencyError: its weights or the runtime are missing.
    """
    network = load_network(chain)
    if runtime != "torch":
        sizes = GraphSizes(chain.input, chain.channels, 1) if chain.input else None
        found = make_runnable(
            for_runtimes(network), runtime, device, torch.float32, sizes, candidates=("onnxruntime",)
        )
        if found.backend != "torch":
            return found
    return make_runnable(network, "torch", device, torch.float32)


def _check_thresholds(thresholds: object) -> tuple[float, ...]:
    """Three scores in [0, 1].

    Raises:
        InputError: anything else.
    """
    expected = "three scores in [0, 1]"
    if not isinstance(thresholds, (tuple, list, np.ndarray)) or np.shape(thresholds) != (3,):
        raise InputError(f"thresholds: expected {expected}, got {shown(thresholds)}")
    return tuple(check_number("thresholds", value, expected, least=0, most=1) for value in thresholds)


def _pyramid(mipmaps: Mipmaps, scale: float, factor: float) -> Iterator[Image]:
    """The image at this scale, then each time smaller by the factor, while a cell fits in."""
    height, width = mipmaps.images[0].shape[:2]
    while min(height, width) * scale >= CELL:
        yield mipmaps.resized((round(width * scale), round(height * scale)))
        scale *= factor


def _strips(levels: Iterable[Image]) -> Iterator[list[Image]]:
    """Levels that the first network sees together: the small ones, as each call costs more than they do."""
    small = []
    for level in levels:
        if level.shape[0] * level.shape[1] > _LARGE:
            yield [level]
        else:
            small.append(level)
    if small:
        yield small


def _round_up(count: int, sizes: int) -> int:
    """The count, rounded up to one of a number of sizes per power of two; of four: 8, 10, 12, 14, 16, 20, ...

    The number is a power of two.
    """
    step = 1 << max(0, count.bit_length() - sizes.bit_length())
    return -(-count // step) * step
