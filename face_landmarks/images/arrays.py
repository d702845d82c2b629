"""Arrays and tensors of any type as (H, W, 3) uint8 RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.forking import settle_threads
from face_landmarks.errors import ImageError, InputError

if TYPE_CHECKING:
    import torch

ChannelOrder = Literal["rgb", "bgr"]


def from_array(pixels: NDArray[Any], channels: ChannelOrder) -> NDArray[np.uint8]:
    """(H, W) or (H, W, C) of any dtype to (H, W, 3) uint8 RGB in memory of its own."""
    shape = pixels.shape
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4):
        raise ImageError(f"image: expected shape (H, W) or (H, W, C) with C from 1 to 4, got {shape}")
    if pixels.size == 0:
        raise ImageError(f"image: expected at least one pixel, got shape {shape}")
    if pixels.shape[2] < 3:
        if channels == "bgr":
            raise InputError(f"channels: expected 'rgb' for a gray image of shape {shape}, got 'bgr'")
        return np.repeat(to_uint8(pixels[:, :, :1]), 3, axis=2)
    colours = pixels[:, :, :3] if channels == "rgb" else pixels[:, :, 2::-1]
    return np.array(to_uint8(colours), order="C")


def to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Values converted as `read_image` documents; uint8 is returned without a copy."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:  # either byte order
        return (pixels.astype(np.uint16) >> 8).astype(np.uint8)
    levels, meaning = pixels, "integers in 0..255"
    if pixels.dtype.kind == "f":
        meaning = "floats in [0, 1]"
        with np.errstate(over="ignore"):
            levels = np.rint(np.multiply(pixels, 255, dtype=np.result_type(pixels, np.float32)))
    elif pixels.dtype.kind not in "iu":
        raise ImageError(f"image: expected numbers, got dtype {pixels.dtype}")
    if not (levels.min() >= 0 and levels.max() <= 255):  # written so that NaN fails too
        raise ImageError(
            f"image: expected {meaning} for dtype {pixels.dtype}, got {pixels.min()} to {pixels.max()}"
        )
    return levels.astype(np.uint8)


def channels_last(tensor: torch.Tensor) -> NDArray[Any]:
    """(H, W) or (C, H, W) tensor to an (H, W) or (H, W, C) array."""
    settle_threads()
    shape = tuple(tensor.shape)
    if tensor.ndim != 2 and (tensor.ndim != 3 or shape[0] not in (1, 3, 4)):
        hint = "; permute(2, 0, 1) puts channels first" if shape[2:] in ((1,), (3,), (4,)) else ""
        raise ImageError(
            f"image: expected a tensor of shape (C, H, W) with C = 1, 3 or 4, or (H, W), got {shape}{hint}"
        )
    try:
        if tensor.dtype.itemsize < 4 and tensor.is_floating_point():
            tensor = tensor.float()  # NumPy has no bfloat16
        array: NDArray[Any] = tensor.numpy(force=True)
    except (RuntimeError, TypeError) as error:  # sparse, quantized, without data
        raise ImageError(
            f"image: expected a dense tensor of numbers, got {tensor.layout} {tensor.dtype} on "
            f"{tensor.device}: {error}"
        ) from error
    return array if array.ndim == 2 else np.moveaxis(array, 0, -1)
