"""Reading images from any source into (H, W, 3) uint8 RGB."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.arguments import shown
from face_landmarks.errors import ImageError, InputError
from face_landmarks.images.arrays import ChannelOrder, channels_last, from_array
from face_landmarks.images.files import from_file, from_pillow

if TYPE_CHECKING:
    import torch
    from PIL import Image

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | IO[bytes] | NDArray[Any] | Image.Image | torch.Tensor"
)


def read_image(
    source: ImageSource, *, channels: ChannelOrder = "rgb", max_pixels: int = 200_000_000
) -> NDArray[np.uint8]:
    """Read an image from any source.

    ===================================  =========================================================
    source                               rule
    ===================================  =========================================================
    str, os.PathLike                     path of an image file, turned by its EXIF orientation
    bytes, bytearray, binary file        contents of such a file, from an open file's position on
    PIL image                            any mode, its current frame, turned by its EXIF orientation
    NumPy array                          (H, W), or (H, W, C) with C = 1 gray, 2 gray and alpha,
                                         3 colour, 4 colour and alpha
    torch tensor, on any device          (H, W), or (C, H, W) with C = 1, 3 or 4
    ===================================  =========================================================

    The range of values follows from their type:

    ============  ================================================================================
    values        rule
    ============  ================================================================================
    uint8         unchanged
    bool          False is 0, True is 255
    uint16        0..65535; the high byte is kept, as Pillow does for 16-bit colour
    floats        [0, 1], times 255, rounded; an error if any value would not round into 0..255
    other ints    0..255, an error beyond
    ============  ================================================================================

    The depth of a file is read from its header: 12-bit TIFF ranges over 0..4095. HEIC needs the package
    pillow-heif. Alpha is dropped: transparent pixels show their stored colour. Gray is repeated in
    the three channels. Of an animation the first frame is read. The result owns its memory.

    Args:
        source: the image, see above.
        channels: colour order of an array or tensor of 3 or 4 channels; "bgr" is OpenCV's.
            Files and PIL images state their own order.
        max_pixels: raise for larger files, by their header, before decoding them.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous.

    Raises:
        ImageError: the image is missing, damaged, empty, too large, of another format or shape, or has
            values outside the ranges above.
        InputError: `channels` is unknown or does not apply, or `max_pixels` is not a positive number.

    Example:
        >>> read_image(np.array([[0.0, 0.5, 1.0]]))[0, :, 0].tolist()
        [0, 128, 255]
    """
    if not isinstance(channels, str) or channels not in ("rgb", "bgr"):
        raise InputError(f"channels: expected 'rgb' or 'bgr', got {shown(channels)}")
    number = isinstance(max_pixels, (int, float, np.integer)) and not isinstance(max_pixels, bool)
    if not (number and max_pixels >= 1):
        raise InputError(f"max_pixels: expected a positive number, got {shown(max_pixels)}")
    if _is_tensor(source):
        return from_array(channels_last(source), channels)
    if isinstance(source, np.ndarray):
        return from_array(np.asarray(source), channels)
    if channels == "bgr":
        raise InputError(f"channels: expected 'rgb' for {type(source).__name__}, only arrays may be 'bgr'")
    if _is_pillow(source):
        return from_pillow(source, max_pixels, "PIL image")
    if isinstance(source, (bytes, bytearray)):
        return from_file(io.BytesIO(source), max_pixels, f"{len(source)} bytes")
    if isinstance(source, (str, os.PathLike)):
        name = repr(os.fspath(source))
        try:
            file = open(source, "rb")  # noqa: SIM115
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise ImageError(f"image: cannot open {name}: {getattr(error, 'strerror', error)}") from error
        with file:
            return from_file(file if file.seekable() else io.BytesIO(file.read()), max_pixels, name)
    if hasattr(source, "read"):
        try:
            data = source.read()
        except (OSError, ValueError) as error:  # ValueError: a closed file, or undecodable text
            raise ImageError(f"image: cannot read {type(source).__name__}: {error}") from error
        if not isinstance(data, bytes):
            raise ImageError(f"image: expected a file open in binary mode, read {type(data).__name__}")
        return from_file(io.BytesIO(data), max_pixels, f"{len(data)} bytes")
    raise ImageError(
        "image: expected a path, bytes, a binary file, a NumPy array, a PIL image or a torch tensor, "
        f"got {type(source).__name__}"
    )


def view_image(source: ImageSource, channels: ChannelOrder) -> NDArray[np.uint8]:
    """An image to be read at once and not changed: as `read_image`, which would copy an array for nothing."""
    if (
        type(source) is np.ndarray
        and isinstance(channels, str)
        and channels == "rgb"
        and source.dtype == np.uint8
        and source.ndim == 3
        and source.shape[2] == 3
        and source.size > 0
        and source.flags.c_contiguous
    ):
        return source
    return read_image(source, channels=channels)


def is_one_image(source: object) -> bool:
    """Whether this is one image, by its type and its number of axes, and not several of them."""
    if isinstance(source, np.ndarray) or _is_tensor(source):
        return source.ndim < 4
    return (
        isinstance(source, (str, os.PathLike, bytes, bytearray))
        or _is_pillow(source)
        or hasattr(source, "read")
    )


def _is_tensor(source: object) -> TypeGuard[torch.Tensor]:
    return isinstance(source, getattr(sys.modules.get("torch"), "Tensor", ()))


def _is_pillow(source: object) -> TypeGuard[Image.Image]:
    return isinstance(source, getattr(sys.modules.get("PIL.Image"), "Image", ()))
