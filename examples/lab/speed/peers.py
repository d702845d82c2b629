"""Other landmark libraries as work to be timed by benchmark.py: each on one face, if it is installed.

face-alignment 1.5    its FAN-4 with random weights, as the published ones may not be at hand: the
                      same work; its crop and decoder, with and without averaging with the mirrored face
dlib                  with the 68-point model of face_recognition_models; its HOG detector
mediapipe             FaceMesh, detection included
PFLD                  an ONNX file of one's own, by ONNX Runtime, without cropping
MobileNetV2           torchvision's, of which PFLD is made, at PFLD's 112 px: random weights, ONNX Runtime
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

Work = tuple[str, Callable[[], object]]


def peers(pixels: np.ndarray, box: np.ndarray, pfld: Path | None = None) -> Iterator[Work]:
    """What can be timed here: names that end in "from a box" or "from the photo", and the work."""
    if find_spec("face_alignment"):
        yield from _face_alignment(pixels, box)
    if find_spec("dlib") and find_spec("face_recognition_models"):
        yield from _dlib(pixels, box)
    if find_spec("mediapipe"):
        import mediapipe

        mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True)
        yield "mediapipe, from the photo", lambda: mesh.process(pixels)
    if find_spec("onnxruntime") and pfld:
        yield _onnx(pfld.stem, pfld)
    if find_spec("onnxruntime") and find_spec("onnxscript") and find_spec("torchvision"):
        from torchvision.models import mobilenet_v2

        file = io.BytesIO()
        example = (torch.zeros(1, 3, 112, 112),)
        torch.onnx.export(mobilenet_v2(num_classes=2 * 68).eval(), example, file, dynamo=True, verbose=False)
        yield _onnx("MobileNetV2", file.getvalue())


def _onnx(name: str, model: Path | bytes) -> Work:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    crop = np.zeros([side if isinstance(side, int) else 1 for side in source.shape], np.float32)
    return f"{name}, network alone, from a box", lambda: session.run(None, {source.name: crop})


def _face_alignment(pixels: np.ndarray, box: np.ndarray) -> Iterator[Work]:
    import face_alignment
    from face_alignment.models import FAN

    class Untrained(face_alignment.FaceAlignment):
        def _load_native(self, name: str, size: int, device: str, dtype: torch.dtype) -> torch.nn.Module:
            return FAN(size).to(device, dtype).eval()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for flip in (True, False):
        aligner = Untrained(
            face_alignment.LandmarksType.TWO_D,
            device=device,
            flip_input=flip,
            face_detector="folder",
            compile=False,
        )
        name = f"face-alignment, {'default' if flip else 'flip_input=False'}, from a box"
        yield (
            name,
            lambda aligner=aligner: aligner.get_landmarks(pixels, detected_faces=[[*box.tolist(), 1.0]]),
        )


def _dlib(pixels: np.ndarray, box: np.ndarray) -> Iterator[Work]:
    import dlib

    package = find_spec("face_recognition_models")
    assert package is not None and package.submodule_search_locations
    folder = package.submodule_search_locations[0]
    predict = dlib.shape_predictor(str(Path(folder, "models", "shape_predictor_68_face_landmarks.dat")))
    detect = dlib.get_frontal_face_detector()
    x0, y0, x1, y1 = (round(float(edge)) for edge in box)
    given = dlib.rectangle(x0, y0, x1, y1)
    yield "dlib, from a box", lambda: predict(pixels, given)
    yield "dlib, from the photo", lambda: [predict(pixels, found) for found in detect(pixels, 0)]
