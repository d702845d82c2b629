"""MTCNN, the default face detector: three small networks, whose weights come with facenet-pytorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from face_landmarks._system.arguments import check_number, check_whole, shown
from face_landmarks._system.devices import choose_device, to_device
from face_landmarks._system.forking import settle_threads
from face_landmarks._system.torch_state import own_types
from face_landmarks.detection._boxes import (
    LARGEST,
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
from face_landmarks.detection.contract import Detections
from face_landmarks.detection.mtcnn_networks import (
    CELL,
    OutputNetwork,
    ProposalNetwork,
    RefinementNetwork,
    load_network,
)
from face_landmarks.detection.rotations import Rotations, check_rotations, search_turned
from face_landmarks.errors import InputError

_BORDER: Final = 1 / 8  # of the longer side: room around a face that fills its picture
_SMALLEST_FACE: Final = 6  # pixels: half the proposal network's input
_FACTORS: Final = (0.3, 0.95)
_BATCH: Final = 48  # squares that a network computes together: their layers fit the cache


class MTCNN:
    """Finds faces of any size with three small networks, each refining the last one's boxes.

    A `face_landmarks.detection.Detector`. It keeps nothing between calls, may be shared by
    threads, and gives the same boxes for the same image.

    Boxes come largest first; equal areas from left to right, then from top to bottom. They may
    reach out of the image, as foreheads do. Where no face is found, the image is searched again
    with a border around it: a face cut tightly out of a photo needs that room.

    Args:
        device: where the networks run; CUDA if present by default, else the CPU.
        min_face_size: side of the smallest face that is searched for, in pixels of the image after
            shrinking, at least 6; time grows with its inverse square.
        thresholds: least scores, in [0, 1], to pass the three networks. The last is the least
            score of a box in the result.
        factor: ratio of neighbouring levels of the image pyramid, from 0.3 to 0.95: larger steps pass over
            faces of sizes between two levels, and smaller ones blur the levels, each of which is made from
            the one before.
        max_size: longer side, in pixels, to which larger images are shrunk, by area averaging, before
            the search; at least `min_face_size`. Boxes are in pixels of the image given.
        rotations: whether the image is also searched turned by 45 degrees and multiples of it: "never";
            "fallback", if no face is found as it is, first by quarters and then by the rest; or "always",
            which takes twelve times as long, as the diagonals make larger images.

    Raises:
        MissingDependencyError: facenet-pytorch is not installed, or lacks its weights.
        InputError: an argument is out of its range.

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
        self.device = choose_device(device)
        self._propose = load_network(ProposalNetwork, "pnet.pt", self.device)
        self._refine = load_network(RefinementNetwork, "rnet.pt", self.device)
        self._output = load_network(OutputNetwork, "onet.pt", self.device)

    def __repr__(self) -> str:
        return (
            f"MTCNN(min_face_size={self.min_face_size}, thresholds={self.thresholds}, "
            f"factor={self.factor}, max_size={self.max_size}, rotations={self.rotations!r})"
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
        framed = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE)
        with torch.inference_mode(), own_types(self.device):
            edges, scores, points = self._detect(np.asarray(framed, np.uint8))
        return edges - border, scores, points - border

    def _detect(self, image: Image) -> Found:
        """The cascade."""
        edges = self._scan(image)
        squares, edges, scores, _ = self._judge(self._refine, image, edges, 24, self.thresholds[1])
        edges = edges[suppress(squares, scores, 0.7)]
        squares, edges, scores, points = self._judge(self._output, image, edges, 48, self.thresholds[2])
        keep = suppress_nested(edges, scores, 0.7)
        return edges[keep], scores[keep], points[keep]

    def _scan(self, image: Image) -> Boxes:
        """Edges (N, 4) of what may be a face, at every place and size."""
        found = [(np.empty((0, 4)), np.empty((0, 4)), np.empty(0, np.float32))]
        for level in _pyramid(image, CELL / self.min_face_size, self.factor):
            height, width = level.shape[:2]
            canvas = np.zeros((_round_up(height), _round_up(width), 3), np.uint8)
            canvas[:height, :width] = level
            corrections, scores = self._run(self._propose, canvas[np.newaxis])
            scores = scores[0, : height // 2 - 5, : width // 2 - 5]  # of cells within the level
            rows, columns = (scores >= self.thresholds[0]).nonzero(as_tuple=True)
            corner = 2 * torch.stack((columns, rows), dim=1).float()  # (n, 2)
            # As the published cascade counts: a cell begins with its second pixel.
            cells = torch.cat((corner + 1, corner + CELL), dim=1)
            edges = cells + (CELL - 1) * corrections[0, :, rows, columns].T
            level_scores = scores[rows, columns].cpu().numpy()
            keep = suppress(_to_numpy(cells), level_scores, 0.5)
            zoom = np.tile(np.divide(image.shape[1::-1], (width, height)), 2)
            found.append((_to_numpy(cells)[keep] * zoom, _to_numpy(edges)[keep] * zoom, level_scores[keep]))
        all_cells, all_edges, all_scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return all_edges[suppress(all_cells, all_scores, 0.7)]

    def _judge(
        self,
        network: RefinementNetwork | OutputNetwork,
        image: Image,
        edges: Boxes,
        size: int,
        threshold: float,
    ) -> tuple[Boxes, Boxes, Scores, Boxes]:
        """The squares around boxes in which a network of this input size sees a face.

        Returns:
            Squares (N, 4), the boxes that the network makes of them (N, 4), scores (N,), and points
            (N, 5, 2), which the second network does not know: (N, 0, 2).
        """
        squares = _squares(edges)
        squares = squares[_reaches_into(squares, image)]
        if not len(squares):
            edges, scores, points = no_faces()
            return edges, edges, scores, points
        views = np.zeros((_round_up(len(squares)), size, size, 3), np.uint8)
        for view, square in zip(views, squares, strict=False):
            view[:] = cv2.resize(_cut(image, square), (size, size), interpolation=cv2.INTER_AREA)
        parts = [self._run(network, views[i : i + _BATCH]) for i in range(0, len(views), _BATCH)]
        corrections, judged, *rest = (torch.cat(part)[: len(squares)] for part in zip(*parts, strict=True))
        places = _to_numpy(rest[0]) if rest else np.empty((len(squares), 0, 2))
        sides = squares[:, 2:3] - squares[:, 0:1]  # (N, 1)
        corrected = squares + sides * _to_numpy(corrections)
        points = squares[:, np.newaxis, :2] + sides[:, np.newaxis] * places
        scores = judged.cpu().numpy()
        keep = scores >= threshold
        return squares[keep], corrected[keep], scores[keep], points[keep]

    def _run(
        self, network: ProposalNetwork | RefinementNetwork | OutputNetwork, images: Image
    ) -> tuple[Tensor, ...]:
        """What a network answers to (B, H, W, 3) uint8; it wants (B, 3, H, W) about zero."""
        pixels = to_device(images, self.device).permute(0, 3, 1, 2)
        answer: tuple[Tensor, ...] = network((pixels.float() - 127.5) / 128)
        return answer


def _check_thresholds(thresholds: object) -> tuple[float, ...]:
    """Three scores in [0, 1].

    Raises:
        InputError: anything else.
    """
    expected = "three scores in [0, 1]"
    if not isinstance(thresholds, (tuple, list, np.ndarray)) or np.shape(thresholds) != (3,):
        raise InputError(f"thresholds: expected {expected}, got {shown(thresholds)}")
    return tuple(check_number("thresholds", value, expected, least=0, most=1) for value in thresholds)


def _pyramid(image: Image, scale: float, factor: float) -> Iterator[Image]:
    """The image at this scale, then each time smaller by the factor, while a cell fits in."""
    height, width = image.shape[:2]
    while min(height, width) * scale >= CELL:
        size = round(width * scale), round(height * scale)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        yield image
        scale *= factor


def _round_up(count: int) -> int:
    """The count, rounded up to one of four sizes per power of two: ..., 8, 10, 12, 14, 16, 20, ...

    oneDNN caches a compiled program for every shape that it has seen; this keeps their number small.
    """
    step = 1 << max(0, count.bit_length() - 3)
    return -(-count // step) * step


def _squares(edges: Boxes) -> Boxes:
    """The smallest squares (N, 4), about the same centres, of whole pixels."""
    sides = np.maximum(1, np.rint((edges[:, 2:] - edges[:, :2]).max(axis=1, keepdims=True, initial=0)))
    corner = np.rint((edges[:, :2] + edges[:, 2:] - sides) / 2)  # (N, 2)
    return np.concatenate((corner, corner + sides), axis=1)


def _reaches_into(squares: Boxes, image: Image) -> NDArray[np.bool_]:
    """Which squares (N, 4) overlap the image, and are not absurdly large."""
    size = np.array(image.shape[1::-1])
    overlap = np.minimum(squares[:, 2:], size) - np.maximum(squares[:, :2], 0)  # (N, 2)
    possible = squares[:, 2:] - squares[:, :2] <= LARGEST * size.max()
    reaches: NDArray[np.bool_] = ((overlap > 0) & possible).all(axis=1)
    return reaches


def _cut(image: Image, square: Boxes) -> Image:
    """A square of whole pixels; black outside the image."""
    x0, y0, x1, y1 = square.astype(int)
    height, width = image.shape[:2]
    part = image[max(0, y0) : y1, max(0, x0) : x1]
    outside = max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width)
    if any(outside):
        part = np.asarray(cv2.copyMakeBorder(part, *outside, cv2.BORDER_CONSTANT), np.uint8)
    return part


def _to_numpy(tensor: Tensor) -> Boxes:
    return tensor.double().cpu().numpy()
