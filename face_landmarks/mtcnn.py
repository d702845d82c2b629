"""MTCNN, the default face detector: an adapter of facenet-pytorch's, imported only when used."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from face_landmarks.errors import InputError, MissingDependencyError
from face_landmarks.forking import settle_threads

Detections: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]

# facenet-pytorch counts pixels from one, and its boxes name their first and their last pixel. This
# leads to the outer edges of these two, with pixel centres at integers from zero. Measured, as what
# stays constant when 16 faces are resized from 24 to 110 pixels: -1.6 -1.9 -0.6 -0.4, each +-0.2.
_EDGES: Final = np.array([-1.5, -1.5, -0.5, -0.5])
_BORDER: Final = 1 / 8  # of the longer side: room around a face that fills its picture
_LARGEST: Final = 2  # times the longer side: no face in view is larger
_NO_FACE: Final = (np.empty((0, 4)), np.empty(0, np.float32))
_LOADING: Final = threading.Lock()


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
        MissingDependencyError: facenet-pytorch cannot be imported.
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
        self.max_size = max_size
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        networks = _load(
            keep_all=True,
            post_process=False,
            min_face_size=min_face_size,
            thresholds=list(thresholds),
            factor=factor,
            device=device,
        )
        if device.type == "cpu":
            _replace_convolutions(networks)
        self._detect = networks.detect

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
        boxes, scores = self._look(small, border=0)
        if not len(boxes):
            boxes, scores = self._look(small, border=round(_BORDER * max(small.shape[:2])))
        zoom = np.array([width, height, width, height]) / np.tile(small.shape[1::-1], 2)
        boxes = ((boxes + 0.5) * zoom - 0.5).astype(np.float32)

        keep = _is_plausible(boxes, width, height)
        boxes, scores = boxes[keep], scores[keep]
        x0, y0, x1, y1 = boxes.T
        order = np.lexsort((y0, x0, -(x1 - x0) * (y1 - y0)))  # the last key counts first
        return boxes[order], scores[order]

    def _look(self, image: NDArray[np.uint8], border: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Boxes (N, 4) in pixels of the image, and scores (N,), of the image with a border around it."""
        framed = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE)
        if min(framed.shape[:2]) * (12.0 / self.min_face_size) < 12.0:
            return _NO_FACE  # facenet-pytorch's own measure: its pyramid would have no level, and crash
        with torch.inference_mode():
            boxes, scores = self._detect(framed)
        if boxes is None:
            return _NO_FACE
        return boxes.astype(np.float64) + _EDGES - border, scores.astype(np.float32)


def _load(**options: object) -> Any:
    with _LOADING, warnings.catch_warnings():  # its import edits the filters for good; lock: they are global
        warnings.simplefilter("ignore")
        try:
            facenet_pytorch = import_module("facenet_pytorch")
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch
            raise MissingDependencyError(
                "MTCNN needs facenet-pytorch, pip install 'facenet-pytorch>=2.5.3,<2.6', "
                f"which cannot be imported: {error}"
            ) from error
        return facenet_pytorch.MTCNN(**options).eval()


class _Convolution(nn.Module):
    """A convolution that remembers nothing of its inputs.

    Torch's own keeps, through oneDNN, a program for every size of input, and each photo brings new
    ones: memory grew by 0.06 MB with every photo of a new size. This takes a fifth more time.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert convolution.stride == (1, 1) and convolution.padding == (0, 0) and convolution.groups == 1
        self.convolution = convolution

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H - h + 1, W - w + 1), for kernels of (h, w)."""
        weight, bias = self.convolution.weight, self.convolution.bias
        rows, columns = images.shape[2] - weight.shape[2] + 1, images.shape[3] - weight.shape[3] + 1
        patches = F.unfold(images, weight.shape[2:])  # (B, C * h * w, rows * columns)
        kernels = weight.flatten(1).expand(len(images), -1, -1)  # (B, O, C * h * w)
        assert bias is not None
        return torch.baddbmm(bias[:, None], kernels, patches).view(len(images), -1, rows, columns)


def _replace_convolutions(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, _Convolution(child))
        else:
            _replace_convolutions(child)


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
