"""YuNet, a detector of one small network: its file is downloaded once, OpenCV or ONNX Runtime runs it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.arguments import check_choice, check_number, check_whole
from face_landmarks._system.extras import import_extra
from face_landmarks._system.forking import settle_threads
from face_landmarks.detection._boxes import Found, Image, check_image, finish, no_faces, shrink, suppress
from face_landmarks.detection.contract import Detections
from face_landmarks.detection.rotations import Rotations, check_rotations, search_turned
from face_landmarks.errors import WeightsFormatError
from face_landmarks.models.downloads import obtain
from face_landmarks.models.registry import PRETRAINED, YUNET

Runtime = Literal["auto", "opencv", "onnxruntime"]
Run: TypeAlias = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]

_STRIDES: Final = (8, 16, 32)  # pixels between the cells of each of the three grids
_KINDS: Final = ("cls", "obj", "bbox", "kps")
_OUTPUTS: Final = tuple(f"{kind}_{stride}" for stride in _STRIDES for kind in _KINDS)
_OVERLAP: Final = 0.3  # more, in intersection over union, and two boxes are of one face


class YuNet:
    """Finds faces, and five points of each, with one small network.

    A `face_landmarks.detection.Detector`. It is several times faster than MTCNN, and finds more masked
    and turned faces. Its file, 230 kB under the MIT licence, is downloaded when the first detector is
    made, verified and kept in the cache; `face-landmarks download yunet` brings it ahead of time.

    It may be shared by threads, forked and pickled, and gives the same boxes for the same image. Boxes
    are those of the network, forehead to chin as MTCNN's: each edge is within 3 % of a face from where
    MTCNN's is, in the median (examples/lab/accuracy/measure_boxes.py). They come largest first; equal
    areas from left to right, then from top to bottom.

    Args:
        min_score: least score, in [0, 1], of a face in the result.
        max_size: longer side, in pixels, to which larger images are shrunk, by area averaging, before
            the search; at least 32. The time grows with its square, and faces smaller than about 10 pixels
            after shrinking are not found.
        rotations: whether the image is also searched turned by 45 degrees and multiples of it: "never";
            "fallback", if no face is found as it is, first by quarters and then by the rest; or "always",
            which takes twelve times as long, as the diagonals make larger images.
        runtime: what runs the network: "opencv", any version that this package works with; or
            "onnxruntime", which is faster. Their answers are the same to 0.001 pixels. By default
            "onnxruntime" if it is installed.

    Raises:
        WeightsError: the file cannot be obtained.
        WeightsFormatError: this version of the runtime cannot read the file.
        MissingDependencyError: ONNX Runtime is asked for and not installed.
        InputError: an argument is out of its range.

    Reference:
        Wu, Peng, Yu. YuNet: A Tiny Millisecond-level Face Detector. Machine Intelligence Research 2023.
        https://doi.org/10.1007/s11633-023-1423-y
    """

    def __init__(
        self,
        *,
        min_score: float = 0.6,
        max_size: int = 640,
        rotations: Rotations = "never",
        runtime: Runtime = "auto",
    ) -> None:
        self.min_score = check_number("min_score", min_score, "a score in [0, 1]", least=0, most=1)
        self.max_size = check_whole("max_size", max_size, least=_STRIDES[-1])
        check_rotations(rotations)
        check_choice("runtime", runtime, ("auto", "opencv", "onnxruntime"))
        if runtime == "auto":
            runtime = "onnxruntime" if find_spec("onnxruntime") else "opencv"
        self.rotations = rotations
        self.runtime = runtime
        _, self._graph = obtain(YUNET.name, YUNET.file, PRETRAINED)
        self._start()

    def __repr__(self) -> str:
        return (
            f"YuNet(min_score={self.min_score}, max_size={self.max_size}, rotations={self.rotations!r}, "
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
        small = shrink(image, self.max_size)
        return finish(search_turned(small, [self._search], self.rotations), small, image)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_mine"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._mine = threading.local()  # a network is for one thread at a time
        self._network()

    def _network(self) -> Run:
        """The calling thread's network; in a forked process another one than the parent's."""
        if getattr(self._mine, "process", None) != os.getpid():
            load = _load_onnxruntime if self.runtime == "onnxruntime" else _load_opencv
            self._mine.run, self._mine.process = load(self._graph), os.getpid()
        run: Run = self._mine.run
        return run

    def _search(self, image: Image) -> Found:
        """The faces of an image, in pixels from its outer edge."""
        missing = [-side % _STRIDES[-1] for side in image.shape[:2]]
        if any(missing):
            image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)))
        canvas = np.asarray(cv2.dnn.blobFromImage(image, swapRB=True), np.float32)  # (1, 3, H, W), in BGR
        outputs = self._network()(canvas)
        kinds = [np.concatenate([part[0] for part in outputs[k :: len(_KINDS)]]) for k in range(len(_KINDS))]
        edges, scores, points = _decode(kinds, image.shape[:2], self.min_score)
        keep = suppress(edges, scores, _OVERLAP)
        return edges[keep], scores[keep], points[keep]


def _decode(outputs: list[NDArray[np.float32]], size: tuple[int, ...], min_score: float) -> Found:
    """The faces on the network's grids, which follow one another in its A cells.

    Args:
        outputs: of the cells, in this order: (A, 1) the probability that what is seen there is a face;
            (A, 1) that anything is; (A, 4) the box, its centre x y from the cell's and the logarithms of its
            width and height; (A, 10) five points x y from the cell's. Lengths are in strides.
        size: (H, W) of the network's input, in pixels.
        min_score: least score of a face.
    """
    classes, objects, boxes, points = outputs
    scores = np.sqrt(classes.clip(0, 1) * objects.clip(0, 1))[:, 0]
    chosen = (scores >= min_score).nonzero()[0]
    if not len(chosen):
        return no_faces()
    counts = np.array([(size[0] // stride) * (size[1] // stride) for stride in _STRIDES])
    ends = np.cumsum(counts)
    grid = np.searchsorted(ends, chosen, side="right")  # (N,), which of the three
    strides = np.array(_STRIDES)[grid]
    rows, columns = np.divmod(chosen - (ends - counts)[grid], size[1] // strides)
    cells = np.stack((columns, rows), axis=1).astype(np.float64)  # (N, 2)
    centres = cells + boxes[chosen, :2]
    half = np.exp(boxes[chosen, 2:].astype(np.float64)) / 2
    places = cells[:, np.newaxis] + points[chosen].reshape(-1, 5, 2)
    edges = np.concatenate((centres - half, centres + half), axis=1)
    return edges * strides[:, np.newaxis], scores[chosen], places * strides[:, np.newaxis, np.newaxis]


def _load_opencv(graph: bytes) -> Run:
    """The network in OpenCV."""
    try:
        network = cv2.dnn.readNetFromONNX(np.frombuffer(graph, np.uint8))
    except cv2.error as error:
        raise WeightsFormatError(
            f"yunet: expected a version of OpenCV that reads {YUNET.file.name}, as 4.7 to 5.0 do, got "
            f"{cv2.__version__}: {error}; pip install onnxruntime is a way out"
        ) from error

    def run(canvas: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        network.setInput(canvas)
        return [np.asarray(output, np.float32) for output in network.forward(list(_OUTPUTS))]

    return run


def _load_onnxruntime(graph: bytes) -> Run:
    """The network in ONNX Runtime, on one thread: more gain it nothing, and would not survive a fork."""
    onnxruntime = import_extra("onnxruntime", "onnx", "YuNet's runtime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base
        raise WeightsFormatError(
            f"yunet: expected a version of ONNX Runtime that reads {YUNET.file.name}, got "
            f"{onnxruntime.__version__}: {error}"
        ) from error
    name = session.get_inputs()[0].name

    def run(canvas: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        outputs: list[NDArray[np.float32]] = session.run(list(_OUTPUTS), {name: canvas})
        return outputs

    return run
