"""The detectors that come with the package, by name."""

from __future__ import annotations

import inspect
from typing import Final, Literal

import torch

from face_landmarks._system.arguments import shown
from face_landmarks.detection.contract import Detector
from face_landmarks.detection.rotations import Rotations, check_rotations
from face_landmarks.errors import InputError
from face_landmarks.runtime.runtimes import Backend

DETECTOR_NAMES: Final = ("mtcnn", "yunet")


def check_detector(detector: str | Detector | None, rotations: Rotations = "never") -> None:
    """Raise unless this is a detector's name, a callable or None, and rotations are given with a name only.

    Raises:
        InputError: it is not, or rotations are given with a callable or None.
    """
    check_rotations(rotations)
    if isinstance(detector, str) and detector in DETECTOR_NAMES:
        return
    if inspect.isclass(detector):
        raise InputError(
            f"detector: expected an object that can be called, got {shown(detector)}; call it first"
        )
    if not (detector is None or callable(detector)):
        names = ", ".join(map(repr, DETECTOR_NAMES))
        raise InputError(f"detector: expected {names}, a callable or None, got {shown(detector)}")
    if rotations != "never":
        raise InputError(
            f"rotations: expected 'never' unless the detector is given by name, got {rotations!r}; "
            "MTCNN and YuNet have an option of this name"
        )


def make_detector(
    name: str,
    *,
    device: str | torch.device | None = None,
    rotations: Rotations = "never",
    backend: Backend = "torch",
) -> Detector:
    """A detector of the package with its default settings.

    Args:
        name: "mtcnn" or "yunet".
        device: where MTCNN's networks run; YuNet runs on the CPU.
        rotations: see `MTCNN`.
        backend: of the landmarks' network. With another than torch, ONNX Runtime runs MTCNN's networks, too,
            where it is installed; YuNet uses it in any case.

    Raises:
        InputError: another name, or unusable rotations.
        MissingDependencyError: facenet-pytorch, which has MTCNN's weights, is not installed.
        WeightsError: YuNet's file cannot be obtained.
    """
    check_detector(name)
    if name == "yunet":
        from face_landmarks.detection.yunet import YuNet

        return YuNet(rotations=rotations)
    from face_landmarks.detection.mtcnn import MTCNN

    return MTCNN(device=device, rotations=rotations, runtime=runtime_beside(backend))


def runtime_beside(backend: Backend) -> Literal["auto", "torch", "onnxruntime"]:
    """What runs MTCNN's networks beside a landmark network that this backend runs."""
    return "auto" if backend == "openvino" else backend
