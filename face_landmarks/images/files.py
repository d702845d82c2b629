"""Image files and PIL images as (H, W, 3) uint8 RGB."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from face_landmarks.errors import ImageError
from face_landmarks.images.arrays import to_uint8

if TYPE_CHECKING:
    from PIL import Image

# Of Pillow's own formats, those that are read. The others are no photos, and some are a risk: EPS is run by
# Ghostscript, icons hold files of any size, and decoding DDS, QOI or XPM in Python takes minutes for a small
# file.
_FORMATS: Final = frozenset(
    {"AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "SGI", "SUN", "TGA", "TIFF"}
    | {"WEBP"}
)
_PYTHON_PIXELS: Final = 2**22  # limit where a format above has a variant that Pillow decodes in Python
_HEIC_BRANDS: Final = frozenset(  # bytes 8 to 12 of such files
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
_SCANS: Final = 100  # of a JPEG; encoders make some ten, and each costs a pass over the whole picture
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # of JPEG, but for those within a scan
_JPEG_XL: Final = (b"\xff\x0a", b"\0\0\0\x0cJXL ")

_ORIENTATION_TAG: Final = 0x0112
_SUBFILE_TAG: Final = 254  # of TIFF; bit 0: a smaller copy of another picture in the file
_DEPTH_TAG: Final = 258  # of TIFF: bits of each channel
_PHOTOMETRIC_TAG: Final = 262  # of TIFF; 0: the largest value is black
_SIXTEEN_BITS_IN_32: Final = ("PNG", "PPM")  # formats whose 16-bit gray Pillow may open as 32-bit "I"
_BAND: Final = 2**20  # pixels converted at a time
# For each EXIF orientation, whether to reverse (rows, columns) of the stored picture. From 5 on, rows and
# columns are exchanged afterwards.
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


def from_file(file: IO[bytes], max_pixels: float, name: str) -> NDArray[np.uint8]:
    """Read an image file, turned by its EXIF orientation.

    Args:
        file: seekable, at the start of the image.
        max_pixels: raise for larger pictures, before decoding them.
        name: of the file, for messages.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: it cannot be read or decoded, is too large, or of a format that is not read.
    """
    try:
        image = _open(file, name)
    except OSError as error:  # reading can fail after opening did not
        raise ImageError(f"image: cannot read {name}: {error.strerror or error}") from error
    with image:
        if _tiff_tag(image, _SUBFILE_TAG, 0) & 1:
            raise ImageError(
                f"image: expected a photo, got {name}, whose first picture is the preview of another"
            )
        if image.format in ("JPEG", "MPO"):
            _check_scans(file, name)
        if image.format == "WEBP" and not getattr(image, "is_animated", False):
            pixels = _still_webp(image, file, max_pixels)
            if pixels is not None:
                return pixels
        return from_pillow(image, max_pixels, name)


def _open(file: IO[bytes], name: str) -> Image.Image:
    """`PIL.Image.open` for `_FORMATS` and installed plugins, without its size limit.

    That limit is a global that warns and cannot be set per call; `max_pixels` takes its place.

    Raises:
        ImageError: no reader accepts the file; the message names its format where that is known.
    """
    from PIL import Image

    prefix = file.read(16)
    problem = "whose format is not known"
    for load_plugins in (Image.preinit, Image.init):  # the common formats, then all of them
        load_plugins()
        for kind in Image.ID:
            factory, accepts = Image.OPEN[kind]
            claimed = _claims(accepts, prefix)
            if kind not in _FORMATS and factory.__module__.startswith("PIL."):
                if claimed:
                    problem = f"whose format, {kind}, is not one of photos"
                continue
            if accepts is not None and not claimed:
                continue
            try:
                file.seek(0)
                return factory(file, "")
            except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
                raise ImageError(f"image: {error}") from error  # raised by decoders before Pillow's own check
            except Exception as error:  # how a reader refuses a file
                if claimed:
                    problem = f"whose format is {kind}, damaged or of an unknown kind: {error}"
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIC_BRANDS:
        return _open_heic(file, name)
    if prefix[4:12] == b"ftypavif" and "AVIF" not in problem:
        problem = "whose format is AVIF: Pillow reads it from 11.3 on"
    if prefix.startswith(_JPEG_XL):
        problem = "whose format is JPEG XL: pip install pillow-jxl-plugin and import pillow_jxl"
    raise ImageError(f"image: expected an image file, got {name}, {problem}")


def _claims(accepts: Callable[[bytes], object] | None, prefix: bytes) -> bool:
    """Whether a reader of Pillow recognises a file by its first bytes."""
    try:
        return accepts is not None and accepts(prefix) is True
    except Exception:  # some fail for a file of a few bytes
        return False


def _open_heic(file: IO[bytes], name: str) -> Image.Image:
    """Open an HEIC file with pillow-heif, without registering it in Pillow."""
    try:
        plugin = import_module("pillow_heif")
    except ImportError as error:
        raise ImageError(
            f"image: expected an image file, got {name}, whose format is HEIC: pip install pillow-heif"
        ) from error
    file.seek(0)
    try:
        image: Image.Image = plugin.HeifImageFile(file)
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise ImageError(f"image: cannot decode {name}: {error}") from error
    return image


def _check_scans(file: IO[bytes], name: str) -> None:
    """Raise for a JPEG of very many scans, of which a few kilobytes take minutes to decode.

    Raises:
        ImageError: it has more than `_SCANS`.
    """
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    if data.count(b"\xff\xda") <= _SCANS:  # also those in other data, such as previews
        return
    scans, marker = 0, _MARKER.search(data, 2)
    while marker and marker[0] != b"\xff\xd9":
        scans += marker[0] == b"\xff\xda"
        length = int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        marker = _MARKER.search(data, marker.end() + length)
    if scans > _SCANS:
        raise ImageError(f"image: expected a JPEG of at most {_SCANS} scans, got {scans} in {name}")


def _still_webp(image: Image.Image, file: IO[bytes], max_pixels: float) -> NDArray[np.uint8] | None:
    """The pixels of a WebP that is not animated, turned by EXIF; None where Pillow must read it.

    Pillow decodes every WebP as an animation, with four copies of the whole picture with alpha. OpenCV uses
    the same decoder and writes the colours once.
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


def from_pillow(image: Image.Image, max_pixels: float, name: str) -> NDArray[np.uint8]:
    """Read the current frame of a PIL image, turned by its EXIF orientation; arguments as in `from_file`."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"image: expected at most {max_pixels} pixels, got {width} x {height} in {name}")
    if width * height == 0:
        raise ImageError(f"image: expected at least one pixel, got {width} x {height} in {name}")
    try:
        codecs = {tile[0] for tile in getattr(image, "tile", ())}
        if codecs == {"ppm"}:
            return _scaled_ppm(image)
        slow = codecs & getattr(sys.modules["PIL.Image"], "DECODERS", {}).keys()
        if slow and width * height > _PYTHON_PIXELS:
            raise ImageError(
                f"image: expected at most {_PYTHON_PIXELS} pixels, as Pillow decodes this kind of "
                f"{image.format} slowly, got {width} x {height} in {name}"
            )
        image.load()
        return _upright(image)
    except ImageError:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise ImageError(f"image: cannot decode {name}: {error}") from error


def _scaled_ppm(image: Any) -> NDArray[np.uint8]:
    """The pixels of a binary PPM or PGM whose largest value is not 255, scaled as Pillow scales them.

    Pillow decodes such files in Python, at seconds per megapixel.
    """
    _, _, offset, arguments = image.tile[0]
    largest, channels = int(arguments[-1]), len(image.getbands())
    values = np.dtype(">u2" if largest > 255 else np.uint8)
    shares = np.minimum(np.arange(256**values.itemsize), largest) / largest
    if channels == 1 and largest > 255:
        levels = np.rint(65535 * shares).astype(int) >> 8
    else:
        levels = np.rint(255 * shares)
    count = channels * image.width * image.height
    image.fp.seek(offset)
    data = image.fp.read(values.itemsize * count)
    if len(data) < values.itemsize * count:
        raise ImageError(
            f"image: expected {count} values in a {image.format} file, got fewer: it is truncated"
        )
    stored = np.frombuffer(data, values).reshape(image.height, image.width, channels)
    return np.broadcast_to(levels.astype(np.uint8)[stored], (image.height, image.width, 3)).copy()


def _upright(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a loaded image, turned by its EXIF orientation, written once and in place.

    Pillow's own `exif_transpose`, `convert` and array interface would each copy a large photo whole;
    the first would also fail on damaged EXIF.
    """
    upright, stored = _upright_places(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        stored[:] = _deep_levels(image)[:, :, np.newaxis]
        return upright
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        band = image.crop((0, top, image.width, bottom)) if rows < image.height else image
        stored[top:bottom] = _colours(band)
    return upright


def _deep_levels(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W) levels of an image of more than 8 bits, by the depth and polarity that a TIFF header states.

    Pillow applies neither at these depths: 12 bits come in the low bits of 16, and white may be 0.
    """
    values = np.asarray(image)
    if image.mode == "I" and image.format in _SIXTEEN_BITS_IN_32:
        values = values.astype(np.uint16)
    if image.mode.startswith("I;16"):
        values = values << (16 - min(16, _tiff_tag(image, _DEPTH_TAG, (16,))[0]))
    levels = to_uint8(values)
    return 255 - levels if _tiff_tag(image, _PHOTOMETRIC_TAG, 1) == 0 else levels


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    """The value of a tag in a TIFF header, or the default where there is none."""
    return getattr(image, "tag_v2", {}).get(tag, default)


def _upright_places(image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An empty array for the turned pixels (H, W, 3), and a view of it in the order they are stored."""
    orientation = _orientation(image)
    size = image.size if orientation >= 5 else image.size[::-1]
    upright = np.empty((*size, 3), np.uint8)
    stored = upright if orientation < 5 else upright.swapaxes(0, 1)
    flip_rows, flip_columns = _FLIPS[orientation]
    return upright, stored[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image, 1 to 8; 1 (as stored) if it is missing or invalid."""
    if hasattr(image, "tag_v2"):  # Pillow turns a TIFF when it loads it; early versions keep the tag
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF is no reason to reject the picture
        return 1
    return orientation if orientation in _FLIPS else 1


def _colours(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image of 8 bits or 1 bit per channel."""
    if image.mode in ("P", "PA", "La", "RGBa"):  # undo palette and premultiplication, then drop alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    return np.asarray(image.convert("RGB"))
