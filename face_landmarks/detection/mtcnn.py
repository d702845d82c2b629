"""MTCNN, the default face detector: three small networks, whose weights come with facenet-pytorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from face_landmarks._system.devices import choose_device
from face_landmarks._system.forking import settle_threads
from face_landmarks.errors import InputError, MissingDependencyError

Detections: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
Boxes: TypeAlias = NDArray[np.float64]

_CELL: Final = 12  # side of what one cell of the first network sees, in pixels; the next cell is 2 further
_BORDER: Final = 1 / 8  # of the longer side: room around a face that fills its picture
_LARGEST: Final = 2  # times the longer side: no face in view is larger
_BATCH: Final = 256  # squares that a network looks at together; bounds memory


class MTCNN:
    """Finds faces of any size with three small networks, each refining the last one's boxes.

    A `face_landmarks.detection.Detector`. It keeps nothing between calls, may be shared by
    threads, and gives the same boxes for the same image.

    Boxes come largest first; equal areas from left to right, then from top to bottom. They may
    reach out of the image, as foreheads do. Where no face is found, the image is looked at once
    more with a border around it: a face cut tightly out of a photo needs that room.

    Args:
        device: where the networks run; CUDA if present by default, else the CPU.
        min_face_size: side of the smallest face looked for, in pixels of the image that is looked
            at; time grows with its inverse square.
        thresholds: least scores, in [0, 1], to pass the three networks. The last is the least
            score of a box in the result.
        factor: ratio of neighbouring levels of the image pyramid, in (0, 1).
        max_size: longer side, in pixels, down to which larger images are shrunk, by area, to be
            looked at. Boxes are in pixels of the image given.

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
    ) -> None:
        if not min_face_size >= 1:
            raise InputError(f"min_face_size: expected at least 1 pixel, got {min_face_size}")
        if len(thresholds) != 3 or not all(0 <= threshold <= 1 for threshold in thresholds):
            raise InputError(f"thresholds: expected three scores in [0, 1], got {thresholds}")
        if not 0 < factor < 1:
            raise InputError(f"factor: expected a ratio between 0 and 1, got {factor}")
        if not max_size >= 1:
            raise InputError(f"max_size: expected at least 1 pixel, got {max_size}")
        self.min_face_size = min_face_size
        self.thresholds = tuple(thresholds)
        self.factor = factor
        self.max_size = max_size
        self.device = choose_device(device)
        self._propose = _load(_Proposing(), "pnet.pt", self.device)
        self._refine = _load(_Refining(), "rnet.pt", self.device)
        self._decide = _load(_Deciding(), "onet.pt", self.device)

    def __call__(self, image: NDArray[np.uint8], /) -> Detections:
        """Find the faces of an image.

        Args:
            image: (H, W, 3) uint8 RGB, as `read_image` gives it.

        Returns:
            Boxes (N, 4) float32 x0 y0 x1 y1 in pixels, largest first, and scores (N,) float32.

        Raises:
            InputError: another shape or type.
        """
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(f"image: expected an array (H, W, 3), got {_describe(image)}")
        if image.dtype != np.uint8:
            raise InputError(f"image: expected uint8, got {_describe(image)}; read_image converts")
        settle_threads()
        height, width = image.shape[:2]
        small = _shrink(image, self.max_size)  # (h, w, 3)
        edges, scores = self._look(small, border=0)
        if not len(edges):
            edges, scores = self._look(small, border=round(_BORDER * max(small.shape[:2])))
        zoom = np.array([width, height, width, height]) / np.tile(small.shape[1::-1], 2)
        boxes = (edges * zoom - 0.5).astype(np.float32)

        keep = _is_plausible(boxes, width, height)
        boxes, scores = boxes[keep], scores[keep]
        x0, y0, x1, y1 = boxes.T
        order = np.lexsort((y0, x0, -(x1 - x0) * (y1 - y0)))  # the last key counts first
        return boxes[order], scores[order]

    def _look(self, image: NDArray[np.uint8], border: int) -> tuple[Boxes, NDArray[np.float32]]:
        """Boxes (N, 4) and scores (N,) of the image with a border around it, in pixels of the image.

        Here and below a box is given by its edges, counted from the outer edge of the first pixel.
        """
        framed = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE)
        with torch.inference_mode():
            edges, scores = self._detect(np.asarray(framed, np.uint8))
        return edges - border, scores

    def _detect(self, image: NDArray[np.uint8]) -> tuple[Boxes, NDArray[np.float32]]:
        """The cascade: edges (N, 4) and scores (N,)."""
        edges = self._scan(image)
        squares, edges, scores = self._judge(self._refine, image, edges, 24, self.thresholds[1])
        edges = edges[_suppress(squares, scores, 0.7)]
        _, edges, scores = self._judge(self._decide, image, edges, 48, self.thresholds[2])
        keep = _suppress_nested(edges, scores, 0.7)
        return edges[keep], scores[keep]

    def _scan(self, image: NDArray[np.uint8]) -> Boxes:
        """Edges (N, 4) of what may be a face, at every place and size."""
        found = [(np.empty((0, 4)), np.empty((0, 4)), np.empty(0, np.float32))]
        for level in _pyramid(image, _CELL / self.min_face_size, self.factor):
            height, width = level.shape[:2]
            canvas = np.zeros((_round_up(height), _round_up(width), 3), np.uint8)
            canvas[:height, :width] = level
            corrections, scores = self._propose(self._to_tensor(canvas[np.newaxis]))
            scores = scores[0, : height // 2 - 5, : width // 2 - 5]  # of cells within the level
            rows, columns = (scores >= self.thresholds[0]).nonzero(as_tuple=True)
            corner = 2.0 * torch.stack((columns, rows), dim=1)  # (n, 2)
            # As the published cascade counts: a cell begins with its second pixel.
            cells = torch.cat((corner + 1, corner + _CELL), dim=1)
            edges = cells + (_CELL - 1) * corrections[0, :, rows, columns].T
            level_scores = scores[rows, columns].cpu().numpy()
            keep = _suppress(_to_numpy(cells), level_scores, 0.5)
            zoom = np.tile(np.divide(image.shape[1::-1], (width, height)), 2)
            found.append((_to_numpy(cells)[keep] * zoom, _to_numpy(edges)[keep] * zoom, level_scores[keep]))
        all_cells, all_edges, all_scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return all_edges[_suppress(all_cells, all_scores, 0.7)]

    def _judge(
        self, network: nn.Module, image: NDArray[np.uint8], edges: Boxes, size: int, threshold: float
    ) -> tuple[Boxes, Boxes, NDArray[np.float32]]:
        """Squares that a network of this input size believes, the same as it corrects them, and scores."""
        squares = _squares(edges)
        squares = squares[_reaches_into(squares, image)]
        if not len(squares):
            return np.empty((0, 4)), np.empty((0, 4)), np.empty(0, np.float32)
        views = np.zeros((_round_up(len(squares)), size, size, 3), np.uint8)
        for view, square in zip(views, squares, strict=False):
            view[:] = cv2.resize(_cut(image, square), (size, size), interpolation=cv2.INTER_AREA)
        parts = [network(part) for part in torch.split(self._to_tensor(views), _BATCH)]
        corrections, scores = (torch.cat(part)[: len(squares)] for part in zip(*parts, strict=True))
        sides = squares[:, 2:3] - squares[:, 0:1]  # (N, 1)
        keep = (scores >= threshold).cpu().numpy()
        corrected = squares + sides * _to_numpy(corrections)
        return squares[keep], corrected[keep], scores.cpu().numpy()[keep]

    def _to_tensor(self, images: NDArray[np.uint8]) -> Tensor:
        """(B, H, W, 3) uint8 as the networks want it, (B, 3, H, W) about zero."""
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        return (pixels.float() - 127.5) / 128


class _Proposing(nn.Module):
    """Images (B, 3, H, W) -> corrections (B, 4, h, w) and scores (B, h, w) of 12 x 12 pixel cells."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 2)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), self.conv4_1(x).softmax(dim=1)[:, 1]


class _Refining(nn.Module):
    """Squares (B, 3, 24, 24) -> corrections (B, 4) and scores (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)  # (B, 28, 11, 11)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)  # (B, 48, 4, 4)
        x = self.prelu3(self.conv3(x))  # (B, 64, 3, 3)
        x = self.prelu4(self.dense4(_columns_first(x)))
        return self.dense5_2(x), self.dense5_1(x).softmax(dim=1)[:, 1]


class _Deciding(nn.Module):
    """Squares (B, 3, 48, 48) -> corrections (B, 4) and scores (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)  # five points, which we do not need

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)  # (B, 32, 23, 23)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)  # (B, 64, 10, 10)
        x = F.max_pool2d(self.prelu3(self.conv3(x)), 2)  # (B, 64, 4, 4)
        x = self.prelu4(self.conv4(x))  # (B, 128, 3, 3)
        x = self.prelu5(self.dense5(_columns_first(x)))
        return self.dense6_2(x), self.dense6_1(x).softmax(dim=1)[:, 1]


def _columns_first(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, W * H * C), the order in which the networks were trained."""
    return x.permute(0, 3, 2, 1).flatten(1)


def _load(network: nn.Module, name: str, device: torch.device) -> nn.Module:
    """A network with its weights; facenet-pytorch's own code is not imported."""
    package = find_spec("facenet_pytorch")
    folders = (package.submodule_search_locations if package else None) or []
    for path in (Path(folder, "data", name) for folder in folders):
        if path.is_file():
            network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
            network = network.eval().requires_grad_(False)
            return network.to(device).to(memory_format=torch.channels_last)
    found = f"it has no data/{name}" if package else "it is not installed"
    raise MissingDependencyError(
        f"MTCNN needs the weights in facenet-pytorch, pip install 'facenet-pytorch>=2.5.3,<2.6': {found}"
    )


def _pyramid(image: NDArray[np.uint8], scale: float, factor: float) -> Iterator[NDArray[np.uint8]]:
    """The image at this scale, then each time smaller by the factor, while a cell fits in."""
    height, width = image.shape[:2]
    while min(height, width) * scale >= _CELL:
        size = round(width * scale), round(height * scale)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        yield image
        scale *= factor


def _round_up(count: int) -> int:
    """The next of 4 numbers to each doubling.

    oneDNN keeps a program for every shape it ever saw; so there are few.
    """
    step = 1 << max(0, count.bit_length() - 3)
    return -(-count // step) * step


def _squares(edges: Boxes) -> Boxes:
    """The smallest squares (N, 4), about the same centres, of whole pixels."""
    sides = np.maximum(1, np.rint((edges[:, 2:] - edges[:, :2]).max(axis=1, keepdims=True, initial=0)))
    corner = np.rint((edges[:, :2] + edges[:, 2:] - sides) / 2)  # (N, 2)
    return np.concatenate((corner, corner + sides), axis=1)


def _reaches_into(squares: Boxes, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which squares (N, 4) overlap the image, and are not absurdly large."""
    size = np.array(image.shape[1::-1])
    overlap = np.minimum(squares[:, 2:], size) - np.maximum(squares[:, :2], 0)  # (N, 2)
    possible = squares[:, 2:] - squares[:, :2] <= _LARGEST * size.max()
    reaches: NDArray[np.bool_] = ((overlap > 0) & possible).all(axis=1)
    return reaches


def _cut(image: NDArray[np.uint8], square: Boxes) -> NDArray[np.uint8]:
    """A square of whole pixels; black outside the image."""
    x0, y0, x1, y1 = square.astype(int)
    height, width = image.shape[:2]
    part = image[max(0, y0) : y1, max(0, x0) : x1]
    outside = max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width)
    if any(outside):
        part = np.asarray(cv2.copyMakeBorder(part, *outside, cv2.BORDER_CONSTANT), np.uint8)
    return part


def _suppress(edges: Boxes, scores: NDArray[np.float32], overlap: float) -> NDArray[np.intp]:
    """Boxes to keep, best first: none overlaps a better one by more, in intersection over union."""
    if not len(edges):
        return np.empty(0, np.intp)
    corner_and_size = np.concatenate((edges[:, :2], edges[:, 2:] - edges[:, :2]), axis=1)
    return np.asarray(cv2.dnn.NMSBoxes(corner_and_size.tolist(), scores.tolist(), 0.0, overlap), np.intp)


def _suppress_nested(edges: Boxes, scores: NDArray[np.float32], overlap: float) -> NDArray[np.intp]:
    """The same, in intersection over the smaller area: also a box within a better one goes."""
    areas = np.prod(edges[:, 2:] - edges[:, :2], axis=1)
    keep: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        common = np.minimum(edges[i, 2:], edges[keep, 2:]) - np.maximum(edges[i, :2], edges[keep, :2])
        shares = common.clip(0).prod(axis=1) / np.minimum(areas[i], areas[keep])
        if not (shares > overlap).any():
            keep.append(int(i))
    return np.array(keep, np.intp)


def _to_numpy(tensor: Tensor) -> Boxes:
    return tensor.double().cpu().numpy()


def _shrink(image: NDArray[np.uint8], max_size: int) -> NDArray[np.uint8]:
    """The image, its longer side at most max_size."""
    height, width = image.shape[:2]
    scale = max_size / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _is_plausible(boxes: NDArray[np.float32], width: int, height: int) -> NDArray[np.bool_]:
    """Which boxes (N, 4) have a size, a possible one, and their centre in the image; NaN has not."""
    image = np.array([width, height])
    with np.errstate(invalid="ignore"):  # inf - inf
        sizes = boxes[:, 2:] - boxes[:, :2]  # (N, 2)
        centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    possible = (sizes > 0) & (sizes <= _LARGEST * image.max())
    inside = (centres >= -0.5) & (centres <= image - 0.5)
    plausible: NDArray[np.bool_] = (possible & inside).all(axis=1)
    return plausible


def _describe(image: object) -> str:
    if isinstance(image, np.ndarray):
        return f"shape {image.shape} of {image.dtype}"
    return type(image).__name__
