"""FaceAligner: a photo in, subpixel landmarks out."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from face_landmarks._system.arguments import check_choice, check_flag, check_whole, shown
from face_landmarks._system.devices import choose_device
from face_landmarks._system.forking import ForkableLock, settle_threads
from face_landmarks.detection.contract import Detector, check_rolls, run_detector
from face_landmarks.detection.contract import check_boxes as check_boxes
from face_landmarks.detection.named import check_detector, make_detector
from face_landmarks.detection.rotations import Rotations
from face_landmarks.detection.upright import upright_faces
from face_landmarks.errors import DetectorError, InputError
from face_landmarks.images import ChannelOrder, ImageSource, read_image, view_image
from face_landmarks.locating.batches import align_photos
from face_landmarks.locating.locate import Locator
from face_landmarks.locating.photos import Photo, check_several, rows_of
from face_landmarks.models.registry import DEFAULT_MODEL
from face_landmarks.models.weights import LandmarkModel, load_model
from face_landmarks.results import FaceHeatmaps, Faces
from face_landmarks.runtime.export import export_onnx
from face_landmarks.runtime.graph import GraphSizes
from face_landmarks.runtime.runtimes import BACKENDS as BACKENDS
from face_landmarks.runtime.runtimes import DEFAULT_BACKEND as DEFAULT_BACKEND
from face_landmarks.runtime.runtimes import Backend, check_backend, default_device, make_runnable

OnError: TypeAlias = Literal["raise", "warn"] | Callable[[int, Exception], object]

_TYPES: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


_loading = ForkableLock()  # a detector


class FaceAligner:
    """Finds the landmarks of every face in a photo, with subpixel accuracy.

    The aligner keeps nothing between calls, may be shared by threads, and can be pickled; in a
    forked process it computes on one thread. docs/speed.md says which backend and type suit which
    processor.

    Args:
        model: a name from `list_models()`, a weights file, an https URL (with `sha256`), or a
            `LandmarkModel`.
        detector: "mtcnn"; "yunet", which is faster and finds more turned and masked faces, and whose
            file is downloaded once; any callable that maps an image (H, W, 3) uint8 RGB to face boxes
            (N, 4), with or without scores (N,) and five points (N, 5, 2), see `Detector`; or None, if
            boxes will always be given.
        rotations: whether a detector given by name also searches photos turned in steps of 45 degrees:
            "never"; "fallback", if it finds no face otherwise; or "always", which takes twelve times as long.
        device: where the network runs, e.g. "cpu" or "cuda:1"; CUDA if present by default, if the
            backend is "torch" or "auto".
        dtype: type the network computes in, float32 by default. Landmarks are always decoded
            in float32.
        batch_size: crops per network call; bounds memory, whatever the number of faces.
        flip: average with the landmarks of the mirrored crop: twice the work, a little more accurate.
        refine: locate every face a second time, at an upright crop made from its landmarks; of the two
            answers, the one that scores higher on average is kept.
        search: locate doubtful faces again, whose mean score is below the `doubtful_score` of the model's
            card: first upright, as `refine` does; if the score stays low, also turned by 90, 180 and 270
            degrees. Where the mirror image then gives other landmarks, the scores are lowered. Most photos
            have no such face; one costs up to six more passes of the network.
        sha256: full hash of the weights, for a URL.
        backend: what runs the network: "torch"; or, on the CPU, "onnxruntime", which computes in
            float32, or "openvino". "auto" is the first that is installed: on the CPU OpenVINO, then
            ONNX Runtime, else torch. The attribute `backend` tells which one was chosen. With another than
            torch, ONNX Runtime runs the networks of a detector named "mtcnn", too, where it is installed.

    Raises:
        UnknownModelError: no model of this name.
        WeightsError: the weights cannot be obtained or do not fit.
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
        model: str | os.PathLike[str] | LandmarkModel = DEFAULT_MODEL,
        *,
        detector: str | Detector | None = "mtcnn",
        rotations: Rotations = "never",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int = 32,
        flip: bool = False,
        refine: bool = False,
        search: bool = True,
        sha256: str | None = None,
        backend: Backend = DEFAULT_BACKEND,
    ) -> None:
        self.batch_size = check_whole("batch_size", batch_size)
        flip = check_flag("flip", flip)
        self.refine = check_flag("refine", refine)
        self.search = check_flag("search", search)
        check_detector(detector, rotations)
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in _TYPES):
            expected = ", ".join(map(str, _TYPES))
            raise InputError(f"dtype: expected one of {expected}, got {shown(dtype)}")
        check_choice("backend", backend, BACKENDS)
        self.device: torch.device = choose_device(default_device(device, backend))
        self.dtype = dtype or torch.float32
        check_backend(backend, self.device, self.dtype)
        self.rotations = rotations
        if not isinstance(model, LandmarkModel):
            model = load_model(model, sha256=sha256)
        # The caller's network stays as it is. An export needs its values as they are here.
        self._original = copy.deepcopy(model.network).eval().requires_grad_(False)
        sizes = GraphSizes.of(model.card.network)
        network = make_runnable(self._original, backend, self.device, self.dtype, sizes)
        self.backend: Backend = network.backend
        self._backend = backend  # as asked for
        self._locator = Locator(network, model.card, self.device, flip)
        self.card = model.card
        self.layout = self._locator.layout
        self.crop_size = self._locator.crop_size
        self.heatmap_to_crop = self._locator.heatmap_to_crop
        if refine and not self.layout.has_jaw:
            raise InputError(f"refine: expected a layout with the jaw, got {self.layout.name}")
        self._detector = detector

    def __repr__(self) -> str:
        return f"FaceAligner({self.card.name!r}, device='{self.device}', dtype={self.dtype})"

    @property
    def network(self) -> Callable[[Tensor], Tensor]:
        """Crops (B, 3, crop_size, crop_size) in [0, 1] -> heatmaps (B, K, H, W)."""
        return self._locator.network

    @property
    def flip(self) -> bool:
        """Whether landmarks are averaged with those of the mirrored crop."""
        return self._locator.flip

    @property
    def detector(self) -> Detector | None:
        """The face detector; one given by name is loaded when it is first needed."""
        if isinstance(self._detector, str):
            with _loading:
                if isinstance(self._detector, str):  # no other thread has been here
                    self._detector = make_detector(
                        self._detector, device=self.device, rotations=self.rotations, backend=self._backend
                    )
        return self._detector

    def get_landmarks(
        self,
        image: ImageSource,
        boxes: ArrayLike | None = None,
        rolls: ArrayLike | None = None,
        *,
        channels: ChannelOrder = "rgb",
    ) -> NDArray[np.float32]:
        """The landmarks alone: (N, K, 2) float32, x y in pixels of the photo; see `align`."""
        return self.align(image, boxes, rolls, channels=channels).landmarks

    def align(
        self,
        image: ImageSource,
        boxes: ArrayLike | None = None,
        rolls: ArrayLike | None = None,
        *,
        channels: ChannelOrder = "rgb",
    ) -> Faces:
        """Find the faces of one photo and their landmarks.

        Args:
            image: whatever `read_image` reads: a path, a NumPy array, a PIL image, a tensor. An array is used
                as it is where it can be, and must not change during the call.
            boxes: (N, 4) x0 y0 x1 y1, forehead to chin, to skip detection.
            rolls: (N,) degrees by which the face in each box is turned, clockwise on the screen, as
                `head_pose` gives it; 0 by default. A box with a roll is that of the face upright, turned
                about its centre.
            channels: "bgr" for arrays and tensors in OpenCV's order of colours.

        Returns:
            One face per box in the order given, or as the detector orders them (MTCNN and YuNet: largest
            first). No face is an empty result, `len(faces) == 0`, landmarks (0, K, 2).

        Raises:
            InputError: an unusable image, box or roll.
            DetectorError: the detector broke its contract.
            WeightsError: YuNet's file cannot be obtained.

        Example:
            A face of 80 x 110 pixels about the point (200, 150) lies on its side, its forehead to the right
            of the picture. Turned upright it spans x 160 to 240 and y 95 to 205; from there it was turned
            clockwise by a quarter:

            >>> faces = aligner.align(photo, [(160, 95, 240, 205)], rolls=[90])  # doctest: +SKIP
        """
        return self._align_photos([self._find(view_image(image, channels), boxes, rolls)])[0]

    __call__ = align

    def align_batch(
        self,
        images: Iterable[ImageSource],
        boxes: Sequence[ArrayLike | None] | None = None,
        rolls: Sequence[ArrayLike | None] | None = None,
        *,
        channels: ChannelOrder = "rgb",
        on_error: OnError = "raise",
    ) -> list[Faces]:
        """Align many photos; the crops of all of them share network batches.

        Photos are read one after the other and kept until the batch of their faces is done, so a
        generator of any length works.

        Args:
            images: several, each as in `align`.
            boxes: for each image its boxes, or None to detect them.
            rolls: for each image the rolls of its boxes, or None.
            channels: as in `align`.
            on_error: what happens when a photo cannot be read, its boxes or rolls are unusable, or the
                detector raises, whatever it raises. "raise" raises the error. Otherwise the photo gets an
                empty result, and "warn" gives a warning with the error's type; a function is called with the
                photo's index and the error.

        Returns:
            One `Faces` per image, in order.

        Raises:
            InputError: as in `align`, with the index of the photo; one photo instead of several; or another
                number of images than of boxes or rolls.
            DetectorError: as in `align`.
        """
        check_several(images)
        if not ((isinstance(on_error, str) and on_error in ("raise", "warn")) or callable(on_error)):
            raise InputError(f"on_error: expected 'raise', 'warn' or a function, got {shown(on_error)}")

        failed: list[tuple[int, Exception]] = []

        def photos() -> Iterator[Photo]:
            for index, (image, given, turned) in enumerate(rows_of(images, boxes=boxes, rolls=rolls)):
                if given is None:
                    self._need_detector()
                try:
                    yield self._find(read_image(image, channels=channels), given, turned)
                except Exception as error:
                    if on_error == "raise":
                        if isinstance(error, (InputError, DetectorError)):
                            raise type(error)(f"images[{index}]: {error}") from error
                        raise
                    failed.append((index, error))
                    if on_error != "warn":
                        on_error(index, error)
                    yield Photo.unreadable()

        results = self._align_photos(photos())
        for index, error in failed if on_error == "warn" else ():
            warnings.warn(
                f"images[{index}] has an empty result: {type(error).__name__}: {error}", stacklevel=2
            )
        return results

    def heatmaps(
        self,
        image: ImageSource,
        boxes: ArrayLike | None = None,
        rolls: ArrayLike | None = None,
        *,
        channels: ChannelOrder = "rgb",
    ) -> FaceHeatmaps:
        """The heatmaps of every face of one photo, to show them or to decode them in another way.

        Arguments and errors are those of `align`. The network runs once on each box as it is given or
        detected: nothing is mirrored, refined or searched.
        """
        photo = self._find(read_image(image, channels=channels), boxes, rolls)
        upright, radians = torch.from_numpy(photo.upright), torch.from_numpy(np.radians(photo.rolls))
        return self._locator.heatmaps(photo.pixels, upright, radians, self.batch_size)

    def export(self, path: str | os.PathLike[str], *, decode: bool = False) -> Path:
        """Write the network as ONNX in float32, for any batch size; `docs/export.md` shows its use.

        The file's metadata states the crop rule, the layout, the label offset of the training data (`lean`
        of the card) and the licence. The file holds the weights as they were loaded, whatever type and
        backend this aligner computes with. Its answers on a real face are compared with torch's in float32,
        to 0.001 crop pixels, if ONNX Runtime is installed.

        Args:
            path: the file to write, whose name ends in .onnx.
            decode: put the decoder into the graph: landmarks (B, K, 2) in crop pixels and scores
                (B, K) come out, instead of heatmaps (B, K, H, W).

        Returns:
            The path.

        Raises:
            InputError: another name, or an aligner with `flip` or `refine`: a file runs once on each crop.
            MissingDependencyError: the extra `onnx` is not installed.
            ExportError: a layer of the network cannot be written, or the file answers differently.
            WriteError: the file cannot be written.
        """
        for name in ("flip", "refine"):
            if getattr(self, name):
                raise InputError(
                    f"{name}: expected False, as an exported network runs once on each crop; got True"
                )
        return export_onnx(path, self._original, self.card, self.heatmap_to_crop, decode=decode)

    def _find(self, pixels: NDArray[np.uint8], boxes: ArrayLike | None, rolls: ArrayLike | None) -> Photo:
        """A photo with its faces: in the boxes given, with score 1, or the detector's."""
        settle_threads()
        if boxes is not None:
            given = check_boxes(boxes)
            turned = np.zeros(len(given), np.float32) if rolls is None else check_rolls(rolls, len(given))
            return Photo(pixels, given, np.ones(len(given), np.float32), given, turned)
        if rolls is not None:
            raise InputError(
                "rolls: expected None without boxes, as detectors give their own, got rolls alone"
            )
        found = run_detector(self._need_detector(), pixels)
        return Photo(pixels, found.boxes, found.scores, *upright_faces(found))

    def _need_detector(self) -> Detector:
        if self.detector is None:
            raise InputError("boxes: expected (N, 4) boxes, as this aligner has no detector; got None")
        return self.detector

    def _align_photos(self, photos: Iterable[Photo]) -> list[Faces]:
        """The faces of photos, in batches across photos."""
        return align_photos(self._locator, photos, self.batch_size, refine=self.refine, search=self.search)
