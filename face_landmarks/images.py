"""Every image a caller may hold, read by one rule into (H, W, 3) uint8 RGB."""

from __future__ import annotations

import io
import os
import sys
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from face_landmarks.errors import ImageError, InputError

if TYPE_CHECKING:
    import torch
    from PIL import Image

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | IO[bytes] | NDArray[Any] | Image.Image | torch.Tensor"
)
ChannelOrder = Literal["rgb", "bgr"]

PHOTO_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})  # in folders

_ORIENTATION_TAG: Final = 0x0112
_SIXTEEN_BITS_IN_32: Final = ("PNG", "PPM")  # formats whose 16-bit gray Pillow may open as 32-bit "I"
_NOT_PHOTOS: Final = (  # no photo comes so, and their headers do not bound what reading them takes
    "EPS",  # Pillow hands PostScript to Ghostscript
    *("BLP", "ICNS", "ICO", "IPTC"),  # hold other files, of any size, decoded before theirs is known
)
_BAND: Final = 2**20  # pixels converted at a time
# By EXIF orientation, how the stored picture is mirrored to stand upright: (rows, columns); from 5 on
# rows and columns then trade places.
_FLIPS: Final = MappingProxyType(
    {
        1: (False, False),
        2: (False, True),
        3: (True, True),
        4: (True, False),
        5: (False, False),
        6: (True, False),
        7: (True, True),
        8: (False, True),
    }
)


def read_image(
    source: ImageSource, *, channels: ChannelOrder = "rgb", max_pixels: int = 200_000_000
) -> NDArray[np.uint8]:
    """Read an image from wherever it is.

    ===================================  =========================================================
    source                               rule
    ===================================  =========================================================
    str, os.PathLike                     a file Pillow can read, turned as its EXIF orientation says
    bytes, bytearray, binary file        the contents of such a file; a file from where it stands
    PIL image                            any mode, its current frame, turned by EXIF as a file is
    NumPy array                          (H, W), or (H, W, C) with C = 1 gray, 2 gray and alpha,
                                         3 colour, 4 colour and alpha
    torch tensor, on any device          (H, W), or (C, H, W) with C = 1, 3 or 4
    ===================================  =========================================================

    Values are never guessed at:

    ============  ================================================================================
    values        rule
    ============  ================================================================================
    uint8         as they are
    bool          False is 0, True is 255
    uint16        0..65535, of which the high byte is kept, as Pillow does with 16-bit colour
    floats        [0, 1], times 255, rounded; refused if any value would not round into 0..255
    other ints    0..255, refused beyond
    ============  ================================================================================

    Alpha is dropped: what is transparent shows the colour stored beneath it. Gray is repeated in
    the three channels. Of an animation the first frame is read. The result owns its memory.

    Args:
        source: the image, see above.
        channels: order of colour in an array or tensor of 3 or 4 channels; "bgr" is OpenCV's.
            Files and PIL images know their own order.
        max_pixels: refuse larger files by their header, before decoding them.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous.

    Raises:
        ImageError: the image is missing, damaged, empty, too large, of another shape, or holds
            values outside the rules above.
        InputError: `channels` is unknown or does not apply.

    Example:
        >>> read_image(np.array([[0.0, 0.5, 1.0]]))[0, :, 0].tolist()
        [0, 128, 255]
    """
    if channels not in ("rgb", "bgr"):
        raise InputError(f"channels: expected 'rgb' or 'bgr', got {channels!r}")
    if _is_tensor(source):
        return _from_array(_channels_last(source), channels)
    if isinstance(source, np.ndarray):
        return _from_array(np.asarray(source), channels)
    if channels == "bgr":
        raise InputError(f"channels: expected 'rgb' for {type(source).__name__}, only arrays may be 'bgr'")
    if _is_pillow(source):
        return _from_pillow(source, max_pixels, "PIL image")
    if isinstance(source, (bytes, bytearray)):
        return _from_file(io.BytesIO(source), max_pixels, f"{len(source)} bytes")
    if isinstance(source, (str, os.PathLike)):
        name = repr(os.fspath(source))
        try:
            file = open(source, "rb")  # noqa: SIM115
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise ImageError(f"image: cannot open {name}: {getattr(error, 'strerror', error)}") from error
        with file:
            return _from_file(file if file.seekable() else io.BytesIO(file.read()), max_pixels, name)
    if hasattr(source, "read"):
        try:
            data = source.read()
        except (OSError, ValueError) as error:  # ValueError: a closed file, or text that is not
            raise ImageError(f"image: cannot read {type(source).__name__}: {error}") from error
        if not isinstance(data, bytes):
            raise ImageError(f"image: expected a file open in binary mode, read {type(data).__name__}")
        return _from_file(io.BytesIO(data), max_pixels, f"{len(data)} bytes")
    raise ImageError(
        "image: expected a path, bytes, a binary file, a NumPy array, a PIL image or a torch tensor, "
        f"got {type(source).__name__}"
    )


def _from_file(file: IO[bytes], max_pixels: int, name: str) -> NDArray[np.uint8]:
    try:
        image = _open(file)
    except OSError as error:  # what can be opened cannot always be read
        raise ImageError(f"image: cannot read {name}: {error.strerror or error}") from error
    if image is None:
        raise ImageError(f"image: expected an image file, got {name}, whose format is not known")
    with image:
        if image.format == "WEBP" and not getattr(image, "is_animated", False):
            pixels = _still_webp(image, file, max_pixels)
            if pixels is not None:
                return pixels
        return _from_pillow(image, max_pixels, name)


def _open(file: IO[bytes]) -> Image.Image | None:
    """`PIL.Image.open` without its size limit, a global that warns and cannot be set per call.

    `max_pixels` takes the limit's place.
    """
    from PIL import Image

    prefix = file.read(16)
    for load_plugins in (Image.preinit, Image.init):  # the common formats, then all of them
        load_plugins()
        for name in Image.ID:
            if name in _NOT_PHOTOS:
                continue
            factory, accepts = Image.OPEN[name]
            try:
                if accepts is None or accepts(prefix) is True:
                    file.seek(0)
                    return factory(file, "")
            except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
                raise ImageError(f"image: {error}") from error  # Pillow's limit, where it cannot be passed by
            except Exception:  # how a reader says: not mine
                continue
    return None


def _still_webp(image: Image.Image, file: IO[bytes], max_pixels: int) -> NDArray[np.uint8] | None:
    """The pixels of a WebP that is no animation, upright; None if that is for Pillow to say.

    Pillow decodes every WebP as an animation, four copies of the whole picture with alpha. OpenCV has the
    same decoder write the colours once.
    """
    import cv2

    if image.width * image.height > max_pixels:
        return None
    file.seek(0)
    data = np.frombuffer(file.read(), np.uint8)
    try:
        stored = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if stored is None or stored.shape[1::-1] != image.size:
        return None
    upright, places = _upright_places(image)
    places[:] = stored[:, :, ::-1]  # OpenCV's colours are BGR
    return upright


def _from_pillow(image: Image.Image, max_pixels: int, name: str) -> NDArray[np.uint8]:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"image: expected at most {max_pixels} pixels, got {width} x {height} in {name}")
    if width * height == 0:
        raise ImageError(f"image: expected at least one pixel, got {width} x {height} in {name}")
    try:
        image.load()
        return _upright(image)
    except ImageError:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise ImageError(f"image: cannot decode {name}: {error}") from error


def _upright(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a loaded image, turned as its EXIF says, written once and straight to their place.

    Pillow's own `exif_transpose`, `convert` and array interface would each copy a large photo whole;
    the first would also fail on damaged EXIF.
    """
    upright, stored = _upright_places(image)
    deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
    if deep:
        values = np.asarray(image)
        if image.mode == "I" and image.format in _SIXTEEN_BITS_IN_32:
            values = values.astype(np.uint16)
        stored[:] = _to_uint8(values)[:, :, np.newaxis]
        return upright
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        stored[top : top + rows] = _colours(band)
    return upright


def _upright_places(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Room for an image's pixels (H, W, 3) as its EXIF turns them, and a view of it as they are stored."""
    orientation = _orientation(image)
    size = image.size if orientation >= 5 else image.size[::-1]
    upright = np.empty((*size, 3), np.uint8)
    stored = upright if orientation < 5 else upright.swapaxes(0, 1)
    flip_rows, flip_columns = _FLIPS[orientation]
    return upright, stored[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1, as stored, if there is none or none that makes sense."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF says nothing about the picture
        return 1
    return orientation if orientation in _FLIPS else 1


def _colours(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image of 8 bits a channel, or of 1."""
    if image.mode in ("P", "PA", "La", "RGBa"):  # whole colours first, then without alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    return np.asarray(image.convert("RGB"))


def _from_array(pixels: NDArray[Any], channels: ChannelOrder) -> NDArray[np.uint8]:
    """(H, W) or (H, W, C) of any dtype to (H, W, 3) uint8 RGB that owns its memory."""
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
        return np.repeat(_to_uint8(pixels[:, :, :1]), 3, axis=2)
    colours = pixels[:, :, :3] if channels == "rgb" else pixels[:, :, 2::-1]
    return np.array(_to_uint8(colours), order="C")


def _to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Values as `read_image` documents them; uint8 passes through uncopied."""
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
    if not (levels.min() >= 0 and levels.max() <= 255):  # so put, NaN fails too
        raise ImageError(
            f"image: expected {meaning} for dtype {pixels.dtype}, got {pixels.min()} to {pixels.max()}"
        )
    return levels.astype(np.uint8)


def _channels_last(tensor: torch.Tensor) -> NDArray[Any]:
    """(H, W) or (C, H, W) tensor to an (H, W) or (H, W, C) array."""
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


def _is_tensor(source: object) -> TypeGuard[torch.Tensor]:
    return isinstance(source, getattr(sys.modules.get("torch"), "Tensor", ()))


def _is_pillow(source: object) -> TypeGuard[Image.Image]:
    return isinstance(source, getattr(sys.modules.get("PIL.Image"), "Image", ()))
