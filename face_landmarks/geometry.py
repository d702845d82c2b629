"""Frames, boxes, crops and the matrices between them.

Convention:
    Pixel centres are integers. A point is (x, y); an image of size (H, W) spans
    [-0.5, W - 0.5] x [-0.5, H - 0.5]; a box is (x0, y0, x1, y1) in the same frame, its width
    x1 - x0. Three frames are used, and a matrix is named source_to_target:

        image    the photo, in its own pixels
        crop     the square the network sees, e.g. 256 x 256 pixels
        heatmap  the grid of the network's output, e.g. 64 x 64 cells

    Resizing by s maps x to (x + 0.5) s - 0.5, so crop x = 4 (heatmap x + 0.5) - 0.5:

        crop     0   1   2   3   4   5   6   7   8 ...
        heatmap       0               1            ...      cell 0 is centred at crop pixel 1.5

    Half-pixel offsets occur in this file only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from face_landmarks._system.devices import to_device
from face_landmarks._system.forking import settle_threads
from face_landmarks.errors import InputError

# MTCNN's face box, from forehead to chin, in units of the tight box around the 68 landmarks: the medians
# that examples/lab/accuracy/measure_boxes.py prints for the 300-W training crops, made symmetric in x.
_FACE_BOX = (0.01, -0.337, 0.99, 0.978)

_Float = TypeVar("_Float", np.float32, np.float64)

_BORDER = 2  # pixels around a crop's footprint that bilinear sampling can read
_LARGEST_BLOCK = 1024  # beyond it, where a crop covers 2 ** 17 pixels of photo, OpenCV's sums overflow


def boxes_from_landmarks(landmarks: ArrayLike) -> NDArray[np.float32]:
    """Face boxes like a detector's, from forehead to chin, from landmarks that include jaw and eyebrows.

    Args:
        landmarks: (N, K, 2) x y in pixels.

    Returns:
        (N, 4) x0 y0 x1 y1 in pixels.

    Raises:
        InputError: another shape, or a coordinate that is not a finite number.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim != 3 or points.shape[1] < 2 or points.shape[2] != 2:
        raise InputError(f"landmarks: expected shape (N, K, 2), got {points.shape}")
    if not np.isfinite(points).all():
        raise InputError("landmarks: expected finite coordinates, got NaN or infinity")
    low, high = points.min(axis=1), points.max(axis=1)  # (N, 2)
    size = high - low
    parts = (low + size * _FACE_BOX[:2], low + size * _FACE_BOX[2:])
    return np.concatenate(parts, axis=1).astype(np.float32)  # (N, 4)


def crop_matrices(
    boxes: Tensor,
    crop_size: int,
    crop_scale: float,
    crop_shift: float = 0.0,
    rolls: Tensor | None = None,
) -> Tensor:
    """The similarity from the image to each face's square crop, in which the face is upright.

    Args:
        boxes: (N, 4) x0 y0 x1 y1 in image pixels.
        crop_size: side of the crop in crop pixels.
        crop_scale: side of the crop's footprint, in units of box width + height.
        crop_shift: how far below the box's centre the footprint's centre lies, in box heights.
        rolls: (N,) rotation of each box and its face about the box's centre, in radians, clockwise on the
            screen; zero by default.

    Returns:
        image_to_crop: (N, 3, 3) float64.

    Raises:
        InputError: a box without an extent, or a box or roll that is not finite.
    """
    turns = [0.0] * len(boxes) if rolls is None else rolls.tolist()
    matrices = []
    for (x0, y0, x1, y1), roll in zip(boxes.tolist(), turns, strict=True):  # plain numbers, as they are few
        width, height = x1 - x0, y1 - y0
        if not (0 < width + height < math.inf and math.isfinite(roll)):  # written so that NaN is wrong
            raise InputError(
                "boxes, rolls: expected boxes x0 y0 x1 y1 with x0 < x1 and y0 < y1, and finite rolls, got "
                f"{[x0, y0, x1, y1]}, {roll}"
            )
        scale = crop_size / (crop_scale * (width + height))
        sin, cos = math.sin(roll), math.cos(roll)
        centre_x = (x0 + x1) / 2 - crop_shift * height * sin  # down, from forehead to chin, is (-sin, cos)
        centre_y = (y0 + y1) / 2 + crop_shift * height * cos
        along, across, middle = scale * cos, scale * sin, (crop_size - 1) / 2
        x = middle - (along * centre_x + across * centre_y)
        y = middle - (along * centre_y - across * centre_x)
        matrices.append([[along, across, x], [-across, along, y], [0.0, 0.0, 1.0]])
    return torch.from_numpy(np.array(matrices, np.float64).reshape(-1, 3, 3))


def quarter_turned(boxes: Tensor) -> Tensor:
    """Boxes (N, 4) of the same centres with width and height exchanged, for faces turned by a quarter."""
    corner, opposite = torch.split(boxes.double(), 2, dim=1)  # half of the smallest float32 box needs float64
    centre, half = (corner + opposite) / 2, (opposite - corner) / 2
    return torch.cat((centre - half.flip(1), centre + half.flip(1)), dim=1)


def face_rolls(landmarks: NDArray[_Float], eyes: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """By how much faces are turned in the image plane, from landmarks that include jaw and eyebrows.

    Two directions tell, see `roll_of`: from the right eye to the left, and from the eyes to the mean of all
    landmarks.

    Args:
        landmarks: (N, K, 2) x y in pixels.
        eyes: indices of the landmarks of the right eye and of the left.

    Returns:
        (N,) radians, clockwise on the screen.
    """
    right, left = (landmarks[:, list(eye)].mean(axis=1, dtype=np.float64) for eye in eyes)  # (N, 2)
    across, down = left - right, landmarks.mean(axis=1, dtype=np.float64) - (left + right) / 2
    return roll_of(across, down)


def roll_of(across: NDArray[np.float64], down: NDArray[np.float64]) -> NDArray[np.float64]:
    """Radians (N,), clockwise on the screen, by which faces are turned, from two directions (N, 2) in each.

    One goes across the face, from its right side to its left, the other down. The first is short in
    profile, the second in a face that is tilted up or down. Their sum, with the second turned by a quarter,
    is reliable in both cases.
    """
    rolls: NDArray[np.float64] = np.arctan2(across[:, 1] - down[:, 0], across[:, 0] + down[:, 1])
    return rolls


def turned_boxes(landmarks: NDArray[_Float], rolls: NDArray[np.float64]) -> NDArray[np.float64]:
    """Face boxes (N, 4) of landmarks (N, K, 2), to be turned about their centres by the rolls, in radians."""
    points = torch.from_numpy(landmarks)
    middle, turns = points.double().mean(dim=1), torch.from_numpy(rolls)
    turn = similarity(torch.ones_like(turns), -turns, middle, middle)  # image_to_upright (N, 3, 3)
    boxes = torch.from_numpy(boxes_from_landmarks(transform_points(turn, points).numpy())).double()
    centres = transform_points(torch.linalg.inv(turn), (boxes[:, None, :2] + boxes[:, None, 2:]) / 2)[:, 0]
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    return torch.cat((centres - half, centres + half), dim=1).numpy()


def upright_boxes(landmarks: Tensor, eyes: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Face boxes (N, 4) and rolls (N,), as `crop_matrices` takes them, from landmarks (N, K, 2) on the CPU.

    The landmarks include jaw and eyebrows; see `face_rolls` and `turned_boxes`.
    """
    points = landmarks.numpy()
    rolls = face_rolls(points, eyes)
    return torch.from_numpy(turned_boxes(points, rolls)), torch.from_numpy(rolls)


def _is_small_matter(*tensors: Tensor) -> bool:
    """Whether NumPy can take this from torch, whose calls take several times as long for so few numbers."""
    return all(
        tensor.device.type == "cpu"
        and tensor.dtype in (torch.float32, torch.float64)
        and not tensor.requires_grad
        for tensor in tensors
    )


def similarity(scale: Tensor, rotation: Tensor, source_centre: Tensor, target_centre: Tensor) -> Tensor:
    """Matrices that scale and rotate about source_centre and move it to target_centre.

    Args:
        scale: (B,) target pixels per source pixel.
        rotation: (B,) radians, clockwise on the screen (x right, y down).
        source_centre: (B, 2).
        target_centre: (B, 2).

    Returns:
        source_to_target: (B, 3, 3) float64.
    """
    cos, sin = scale * rotation.cos(), scale * rotation.sin()
    linear = torch.stack((cos, -sin, sin, cos), dim=1).view(-1, 2, 2).double()  # (B, 2, 2)
    source, target = source_centre.double(), target_centre.double()
    matrices = torch.eye(3, dtype=torch.float64, device=scale.device).repeat(len(scale), 1, 1)
    matrices[:, :2, :2] = linear
    matrices[:, :2, 2] = target - (linear @ source.unsqueeze(2)).squeeze(2)
    return matrices


def resize_matrix(scale: float) -> Tensor:
    """source_to_resized, (3, 3) float64, of a resize by this factor: x to (x + 0.5) s - 0.5."""
    half = (scale - 1) / 2
    return _matrix([[scale, 0.0, half], [0.0, scale, half], [0.0, 0.0, 1.0]])


def mirror_matrix(width: int) -> Tensor:
    """source_to_mirrored, (3, 3) float64, of an image this many pixels wide."""
    return _matrix([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def transform_points(source_to_target: Tensor, points: Tensor) -> Tensor:
    """Points (..., K, 2) of the source frame in the target frame: (..., K, 2), same dtype.

    The arithmetic is in float64.
    """
    if _is_small_matter(source_to_target, points):
        return torch.from_numpy(transform_arrays(source_to_target.numpy(), points.numpy()))
    matrix = source_to_target.double()
    linear, offset = matrix[..., :2, :2], matrix[..., None, :2, 2]
    return (points.double() @ linear.transpose(-1, -2) + offset).to(points.dtype)


def transform_arrays(source_to_target: NDArray[Any], points: NDArray[_Float]) -> NDArray[_Float]:
    """`transform_points` for arrays."""
    matrix = source_to_target.astype(np.float64, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):  # of points at infinity
        found = points @ matrix[..., :2, :2].swapaxes(-1, -2) + matrix[..., None, :2, 2]
        return found.astype(points.dtype, copy=False)


def warp(
    photos: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    image_to_crop: Tensor,
    crop_size: int,
    device: torch.device | None = None,
) -> Tensor:
    """Cut crops from photos at subpixel positions, with smoothing where a crop is smaller than its footprint.

    The footprint of a crop is the part of the photo that it shows. A footprint larger than the crop is
    first averaged over blocks of pixels, so that fine texture turns to grey instead of aliasing. Then it is
    sampled bilinearly. Outside the photo is black. Only the footprints are read and moved to the device,
    as bytes, so memory does not grow with the photo.

    Args:
        photos: one photo for all crops, or one for each; (H, W, 3) uint8.
        image_to_crop: (N, 3, 3) float64 similarities, on the CPU.
        crop_size: side of a crop in pixels.
        device: the device to sample on; the CPU by default.

    Returns:
        (N, 3, crop_size, crop_size) float32 in [0, 1], on the device.

    Raises:
        InputError: a matrix that has no inverse.
    """
    settle_threads()
    if not len(image_to_crop):
        return torch.empty(0, 3, crop_size, crop_size, dtype=torch.float32, device=device or "cpu")
    if isinstance(photos, np.ndarray):
        photos = [photos] * len(image_to_crop)
    patches, crop_to_patch = [], []
    for image, ((a, b, x), (c, d, y), _) in zip(photos, image_to_crop.tolist(), strict=True):
        area = a * d - b * c  # of a photo's pixel in the crop
        if not abs(area) > 0:  # written so that NaN is wrong
            raise InputError(f"image_to_crop: expected similarities, got {[[a, b, x], [c, d, y]]}")
        a, b, c, d = d / area, -b / area, -c / area, a / area  # crop to image
        x, y = -(a * x + b * y), -(c * x + d * y)
        block = min(max(1, round(abs(area) ** -0.5)), _LARGEST_BLOCK)  # pixels averaged into one, each way
        middle, reach = (crop_size - 1) / 2, crop_size / 2  # the footprint's centre, and half of its extent
        centre_x, centre_y = (a + b) * middle + x, (c + d) * middle + y
        reach_x, reach_y = (abs(a) + abs(b)) * reach, (abs(c) + abs(d)) * reach
        border = _BORDER * block
        columns = _cells(centre_x - reach_x - border, centre_x + reach_x + border, image.shape[1])
        rows = _cells(centre_y - reach_y - border, centre_y + reach_y + border, image.shape[0])
        patches.append(_patch(image, rows, columns, block))
        x, y = (x - columns.start - (block - 1) / 2) / block, (y - rows.start - (block - 1) / 2) / block
        crop_to_patch.append([[a / block, b / block, x], [c / block, d / block, y], [0.0, 0.0, 1.0]])

    height, width = (max(sides) for sides in zip(*(patch.shape[:2] for patch in patches), strict=True))
    stack = np.zeros((len(patches), 3, height, width), np.uint8)
    for place, patch in zip(stack, patches, strict=True):
        place[:, : patch.shape[0], : patch.shape[1]] = patch.transpose(2, 0, 1)
    return sample(_unit_range(stack, device), torch.from_numpy(np.array(crop_to_patch)), crop_size)


def _unit_range(stack: NDArray[np.uint8], device: torch.device | None) -> Tensor:
    """Bytes as float32 in [0, 1] on a device; to a GPU they go as bytes.

    On the CPU NumPy divides, to the same bit: torch would start threads for it, which keep the cores busy for
    milliseconds after, while another runtime needs them.
    """
    if device is None or device.type == "cpu":
        return torch.from_numpy(np.divide(stack, 255, dtype=np.float32))
    return to_device(stack, device).float().div_(255)


def _matrix(rows: Sequence[object]) -> Tensor:
    """Numbers as a float64 tensor on the CPU, whatever torch's defaults are."""
    return torch.tensor(rows, dtype=torch.float64, device="cpu")


def _cells(low: float, high: float, length: int) -> slice:
    """The pixels of an axis between two places, both included."""
    first = min(max(math.floor(low), 0), length)
    return slice(first, max(first, min(max(math.ceil(high) + 1, 0), length)))


def _patch(image: NDArray[np.uint8], rows: slice, columns: slice, block: int) -> NDArray[np.uint8]:
    """The pixels that sampling may read, averaged over blocks; without any, one black pixel."""
    patch = image[rows, columns]
    if not patch.size:
        return np.zeros((1, 1, 3), np.uint8)
    return patch if block == 1 else _block_mean(patch, block)


def _block_mean(patch: NDArray[np.uint8], block: int) -> NDArray[np.uint8]:
    """Averages over blocks; a block that the patch covers in part is black in the rest."""
    height, width = patch.shape[:2]
    means = np.empty((-(-height // block), -(-width // block), 3), np.uint8)
    for rows in _whole_and_rest(height, block):
        for columns in _whole_and_rest(width, block):
            part = patch[rows, columns]
            down, across = (-(-side // block) for side in part.shape[:2])
            covered = part.shape[0] * part.shape[1] / (down * across * block**2)  # 1 for whole blocks
            mean = cv2.resize(part, (across, down), interpolation=cv2.INTER_AREA)
            top, left = rows.start // block, columns.start // block
            means[top : top + down, left : left + across] = np.rint(mean * covered)
    return means


def _whole_and_rest(length: int, block: int) -> list[slice]:
    """The part of an axis in whole blocks, and the rest; an empty part is omitted."""
    whole = length - length % block
    return [part for part in (slice(0, whole), slice(whole, length)) if part.start < part.stop]


def sample(pixels: Tensor, target_to_source: Tensor, target_size: int) -> Tensor:
    """Bilinear samples of a batch of images on a square target grid; black outside.

    Args:
        pixels: (B, C, H, W) float.
        target_to_source: (B, 3, 3).
        target_size: side of the target grid.

    Returns:
        (B, C, target_size, target_size), of the type of `pixels`.
    """
    height, width = pixels.shape[-2:]
    grid = _grid(target_to_source, target_size, width, height, pixels)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _grid(target_to_source: Tensor, target_size: int, width: int, height: int, like: Tensor) -> Tensor:
    """Where each target pixel is sampled, (B, target_size, target_size, 2), of the type and device of `like`.

    x and y are as grid_sample (align_corners=False) wants them, -1 .. 1 across the source's outer edges.
    They are a row's part and a column's part, added up in the end; in NumPy where it can, as it is faster
    for so few numbers and starts no threads.
    """
    small = _is_small_matter(target_to_source) and like.device.type == "cpu" and like.dtype == torch.float32
    grid = torch.empty(
        len(target_to_source), target_size, target_size, 2, dtype=like.dtype, device=like.device
    )
    for axis, side in enumerate((width, height)):
        if small:
            theta = target_to_source.numpy()[:, axis].astype(np.float64, copy=False) * (2 / side)  # (B, 3)
            steps = np.arange(target_size)
            across = (steps * theta[:, :1]).astype(np.float32)  # (B, target_size)
            down = (steps * theta[:, 1:2] + (theta[:, 2:] + (1 / side - 1))).astype(np.float32)
            np.add(across[:, None, :], down[:, :, None], out=grid.numpy()[..., axis])
        else:
            turned = target_to_source.to(like.device, torch.float64)[:, axis] * (2 / side)
            places = torch.arange(target_size, dtype=torch.float64, device=like.device)
            row = (places * turned[:, :1]).to(like.dtype)
            column = (places * turned[:, 1:2] + (turned[:, 2:] + (1 / side - 1))).to(like.dtype)
            torch.add(row[:, None, :], column[:, :, None], out=grid[..., axis])
    return grid
