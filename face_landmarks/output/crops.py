"""Upright crops of faces, as recognition and generation networks expect them, and head poses."""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from face_landmarks._system.arguments import check_whole
from face_landmarks.errors import InputError
from face_landmarks.geometry import resize_matrix, similarity, transform_points, warp
from face_landmarks.images import ImageSource, read_image
from face_landmarks.results import Faces, check_faces

# The five points in a crop of 112 x 112 pixels. Most recognition networks were trained on such crops.
# Deng et al. ArcFace. CVPR 2019. https://arxiv.org/abs/1801.07698
_ARCFACE: Final = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
_ARCFACE_SIZE: Final = 112
_LARGEST: Final = 8192  # side of a crop, in pixels; one takes 0.2 GB, and four times this while it is made

# A widely used three-dimensional face: x to the right of the picture, y down, z away from the camera. Tip of
# the nose, chin, outer corners of the eyes, corners of the mouth; right before left.
_HEAD: Final = (
    (0.0, 0.0, 0.0),
    (0.0, 330.0, 65.0),
    (-225.0, -170.0, 135.0),
    (225.0, -170.0, 135.0),
    (-150.0, 150.0, 125.0),
    (150.0, 150.0, 125.0),
)
_HEAD_DISTANCE: Final = 45000.0  # from the camera, large enough to make perspective negligible
_FLAT: Final = 1e-6  # ratio of the two spreads of points that lie on one line


def five_points(faces: Faces) -> NDArray[np.float32]:
    """The five points that face recognition uses.

    Returns:
        (N, 5, 2) x y in pixels: centre of the right eye, centre of the left eye, tip of the nose, right and
        left corner of the mouth. Right is the subject's, so the first point is on the left of the picture.

    Raises:
        InputError: `faces` is not `Faces`.
    """
    layout = check_faces(faces).layout
    eyes = [faces.landmarks[:, indices].mean(axis=1) for indices in layout.eyes]
    places = (layout.nose_tip, *layout.mouth_corners)
    return np.concatenate([np.stack(eyes, axis=1), faces.landmarks[:, places]], axis=1)


def align_matrices(faces: Faces, size: int = 112, template: str | ArrayLike = "arcface") -> Tensor:
    """The similarities that `align_faces` crops by; `geometry.transform_points` applies them to landmarks.

    Args:
        faces: N faces.
        size: side of the square crops, in pixels.
        template: as in `align_faces`.

    Returns:
        image_to_crop: (N, 3, 3) float64.

    Raises:
        InputError: an unusable size or template, or `faces` is not `Faces`.
    """
    size = check_whole("size", size)
    if size > _LARGEST:
        raise InputError(f"size: expected at most {_LARGEST} pixels, got {size}")
    points = five_points(faces).astype(np.float64)  # (N, 5, 2)
    if isinstance(template, str) and template == "ffhq":
        return _ffhq_matrices(points, size)
    if isinstance(template, str):
        if template != "arcface":
            raise InputError(f"template: expected 'arcface', 'ffhq' or five points, got {template!r}")
        target = transform_points(
            resize_matrix(_ARCFACE_SIZE / size).inverse(),
            torch.tensor(_ARCFACE, dtype=torch.float64, device="cpu"),
        )
    else:
        target = torch.from_numpy(_template(template))
    return _fit_similarities(points, target.numpy())


def align_faces(
    image: ImageSource, faces: Faces, size: int = 112, template: str | ArrayLike = "arcface"
) -> NDArray[np.uint8]:
    """Crop every face upright: turned, scaled and moved so that its five points fit the template's.

    Faces larger than the crop are smoothed as they shrink. Pixels outside the photo are black.

    Args:
        image: whatever `read_image` reads.
        faces: as `FaceAligner` gives them for this image.
        size: side of the square crops, in pixels, up to 8192.
        template: "arcface", the crop of most recognition networks, defined for 112 pixels and resized;
            "ffhq", the wider crop of the FFHQ photos that StyleGAN was trained on; or five points (5, 2),
            x y in pixels of the crop, in the order of `five_points`.

    Returns:
        (N, size, size, 3) uint8 RGB.

    Raises:
        InputError: an unusable image, size or template, or `faces` is not `Faces`.

    Reference:
        Umeyama. Least-Squares Estimation of Transformation Parameters Between Two Point Patterns. PAMI 1991.
        Karras, Laine, Aila. A Style-Based Generator Architecture. CVPR 2019. https://arxiv.org/abs/1812.04948
    """
    crops = warp(read_image(image), align_matrices(faces, size, template), size)  # (N, 3, size, size)
    return np.ascontiguousarray((255 * crops).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def head_pose(faces: Faces) -> NDArray[np.float32]:
    """The direction of each head, relative to the line from the camera to it.

    Six landmarks are fitted to one three-dimensional face for everybody: expect errors of several degrees,
    the largest in pitch.

    Convention:
        All three angles are 0 for a face that looks into the camera. Yaw is positive when the nose points
        to the right of the picture, pitch when it points up, roll when the head is tilted clockwise in the
        picture. The head is pitched first, then yawed, then rolled.

    Returns:
        (N, 3) float32 yaw, pitch, roll in degrees; NaN for a face whose six landmarks lie in one place or on
        one line.

    Raises:
        InputError: `faces` is not `Faces`.
    """
    layout = check_faces(faces).layout
    places = (layout.nose_tip, layout.chin, *layout.eye_corners, *layout.mouth_corners)
    pictured = faces.landmarks[:, places].astype(np.float64)  # (N, 6, 2)
    return np.array([_pose(points) for points in pictured], np.float32).reshape(-1, 3)


def _pose(points: NDArray[np.float64]) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of one head from its six points (6, 2), or three times NaN."""
    model = np.array(_HEAD)  # (6, 3)
    points = points - points.mean(axis=0)  # a new array: OpenCV misreads one whose rows are apart in memory
    along, across = np.linalg.svd(points, compute_uv=False)
    if across <= _FLAT * along:
        return math.nan, math.nan, math.nan
    points *= np.linalg.norm(model[:, :2]) / np.linalg.norm(points) / _HEAD_DISTANCE
    _, turn, _ = cv2.solvePnP(model, points, np.eye(3), None, flags=cv2.SOLVEPNP_SQPNP)
    r = cv2.Rodrigues(turn)[0]
    yaw = math.atan2(r[2, 0], math.hypot(r[2, 1], r[2, 2]))
    pitch, roll = -math.atan2(r[2, 1], r[2, 2]), math.atan2(r[1, 0], r[0, 0])
    return math.degrees(yaw), math.degrees(pitch), math.degrees(roll)


def _fit_similarities(source: NDArray[np.float64], target: NDArray[np.float64]) -> Tensor:
    """The similarities that bring points (N, P, 2) closest to the target (P, 2), by least squares.

    In the plane, Umeyama's solution is a complex regression without intercept: w = a z, with
    a = sum(conj(z) w) / sum(|z|^2). The modulus of a is the scale, its argument the angle.
    """
    centres, centre = source.mean(axis=1), target.mean(axis=0)
    z = (source - centres[:, np.newaxis]) @ (1, 1j)  # (N, P)
    w = (target - centre) @ (1, 1j)  # (P,)
    a = (z.conj() @ w) / np.maximum((abs(z) ** 2).sum(axis=1), 1e-9)  # (N,)
    return similarity(
        torch.from_numpy(np.maximum(abs(a), 1e-6)),  # 0 for points in one place
        torch.from_numpy(np.angle(a)),
        torch.from_numpy(centres),
        torch.from_numpy(centre).expand(len(source), 2),
    )


def _ffhq_matrices(points: NDArray[np.float64], size: int) -> Tensor:
    """The crop of the FFHQ photos: centred near the eyes, about four times as wide as their distance."""
    right_eye, left_eye, _, right_mouth, left_mouth = points.transpose(1, 0, 2)  # each (N, 2)
    eyes, mouth = (right_eye + left_eye) / 2, (right_mouth + left_mouth) / 2
    across, down = left_eye - right_eye, mouth - eyes
    axis = across + down[:, ::-1] * (1, -1)  # rightwards across the face, from both vectors
    half = np.maximum(2.0 * np.linalg.norm(across, axis=1), 1.8 * np.linalg.norm(down, axis=1))
    middle = torch.full((len(points), 2), (size - 1) / 2, dtype=torch.float64, device="cpu")
    return similarity(
        torch.from_numpy(size / (2 * np.maximum(half, 1e-6))),
        torch.from_numpy(-np.arctan2(axis[:, 1], axis[:, 0])),
        torch.from_numpy(eyes + 0.1 * down),
        middle,
    )


def _template(points: ArrayLike) -> NDArray[np.float64]:
    try:
        target = np.asarray(points, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # words, ragged lists, a tensor on another device
        raise InputError(f"template: expected five points (5, 2), got {type(points).__name__}") from error
    if target.shape != (5, 2) or not np.isfinite(target).all():
        raise InputError(f"template: expected five finite points (5, 2) in pixels, got shape {target.shape}")
    if not np.ptp(target, axis=0).any():
        raise InputError("template: expected five different points, got one place")
    return target
