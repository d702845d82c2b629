"""Image files: depth and polarity from the header, formats that are named, and slow decoders bounded."""

from __future__ import annotations

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image
from tiffs import packed_12_bits, tiff

from face_landmarks.errors import ImageError, InputError
from face_landmarks.images import files, read_image


def test_a_12_bit_tiff_spans_black_to_white() -> None:
    data = tiff(packed_12_bits([[0, 16, 2048, 4095]]), (1, 4), 12)
    assert read_image(data)[0, :, 0].tolist() == [0, 1, 128, 255]
    with Image.open(io.BytesIO(data)) as image:
        assert read_image(image)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "bits", "levels"),
    [
        (bytes([0b00_01_10_11]), 2, [0, 85, 170, 255]),
        (bytes([0x05, 0xAF]), 4, [0, 85, 170, 255]),
        (bytes([0, 85, 170, 255]), 8, [0, 85, 170, 255]),
        (packed_12_bits([[0, 1365, 2730, 4095]]), 12, [0, 85, 170, 255]),
        (np.array([0, 0x5500, 0xAAAA, 0xFFFF], "<u2").tobytes(), 16, [0, 85, 170, 255]),
    ],
)
def test_gray_tiffs_of_every_depth_have_the_same_levels(values: bytes, bits: int, levels: list[int]) -> None:
    assert read_image(tiff(values, (1, 4), bits))[0, :, 0].tolist() == levels
    if bits != 12:  # Pillow knows these with white as zero, too
        inverted = read_image(tiff(values, (1, 4), bits, white_is_zero=True))
        assert inverted[0, :, 0].tolist() == levels[::-1]


def test_a_float_tiff_with_white_as_zero_is_inverted() -> None:
    values = np.array([0, 0.2, 1], "<f4").tobytes()
    for white_is_zero, levels in ((False, [0, 51, 255]), (True, [255, 204, 0])):
        data = tiff(values, (1, 3), 32, white_is_zero=white_is_zero, t339=3)
        assert read_image(data)[0, :, 0].tolist() == levels


@pytest.mark.parametrize("bits", [6, 10, 14, 24])
def test_a_depth_that_pillow_cannot_decode_is_refused_as_tiff(bits: int) -> None:
    with pytest.raises(
        ImageError, match="whose format is TIFF, damaged or of an unknown kind: unknown pixel mode"
    ):
        read_image(tiff(bytes(range(12)), (1, 4), bits))


def test_the_preview_of_a_raw_photo_is_not_taken_for_the_photo() -> None:
    values = bytes([0, 85, 170, 255])
    assert read_image(tiff(values, (1, 4), 8, t254=0)).shape == (1, 4, 3)
    with pytest.raises(ImageError, match="whose first picture is the preview of another"):
        read_image(tiff(values, (1, 4), 8, t254=1))


@pytest.mark.parametrize("largest", [1, 99, 256, 4095, 65534, 65535])
@pytest.mark.parametrize("kind", ["P5", "P6"])
def test_a_ppm_of_any_largest_value_has_the_pixels_that_pillow_gives(kind: str, largest: int) -> None:
    channels = {"P5": 1, "P6": 3}[kind]
    random = np.random.default_rng(0).integers(0, min(largest + 9, 65535), (5, 7, channels), endpoint=True)
    random.flat[:2] = 0, largest
    values = random.clip(max=255 if largest < 256 else 65535).astype(">u2" if largest > 255 else "u1")
    data = f"{kind} 7 5 {largest}\n".encode() + values.tobytes()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        expected = read_image(image)
    np.testing.assert_array_equal(read_image(data), expected)
    assert (expected.min(), expected.max()) == (0, 255)
    with pytest.raises(ImageError, match="truncated|cannot decode"):
        read_image(data[:-1])


def test_what_pillow_decodes_in_python_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = b"P3 2 3 255\n" + b"10 20 30 " * 6
    assert read_image(plain).tolist() == [[[10, 20, 30]] * 2] * 3
    monkeypatch.setattr(files, "_PYTHON_PIXELS", 5)
    with pytest.raises(
        ImageError, match="at most 5 pixels, as Pillow decodes this kind of PPM slowly, got 2 x 3"
    ):
        read_image(plain)
    compiled = b"P6 2 3 255\n" + bytes(18)
    assert read_image(compiled).shape == (3, 2, 3)


@pytest.mark.parametrize("kind", ["DDS", "EPS", "ICO", "ICNS", "MSP", "XBM"])
def test_formats_that_are_not_of_photos_are_named_and_not_decoded(kind: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this version of Pillow does not write {kind}")
    buffer = io.BytesIO()
    Image.new("1" if kind in ("MSP", "XBM") else "RGB", (32, 32)).save(buffer, kind)
    with pytest.raises(ImageError, match=f"whose format, {kind}, is not one of photos"):
        read_image(buffer.getvalue())


@pytest.mark.parametrize(
    "data",
    [b"qoif\0\0\0\2\0\0\0\3\3\0" + b"\xfd" * 99, b"/* XPM */\nstatic char *a[] = {"],
    ids=["QOI", "XPM"],
)
def test_qoi_and_xpm_are_not_decoded(data: bytes) -> None:
    """Versions of Pillow that do not know QOI take it for a brush of GIMP."""
    with pytest.raises(ImageError, match="whose format, (QOI|GBR|XPM), is not one of photos"):
        read_image(data)


def test_the_formats_of_photos_that_pillow_writes_are_read() -> None:
    Image.init()
    photo = Image.new("RGB", (8, 6), (200, 100, 50))
    for kind in sorted(files._FORMATS & Image.SAVE.keys()):
        buffer = io.BytesIO()
        try:
            photo.save(buffer, kind)
        except (OSError, KeyError):  # this Pillow was built without it
            continue
        assert read_image(buffer.getvalue()).shape == (6, 8, 3), kind


def test_a_plugin_that_the_user_installed_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def factory(file: io.BytesIO, name: str) -> Image.Image:
        return Image.new("RGB", (7, 5), "red")

    Image.init()
    monkeypatch.setitem(Image.OPEN, "MINE", (factory, lambda prefix: prefix.startswith(b"mine")))
    monkeypatch.setattr(Image, "ID", [*Image.ID, "MINE"])
    assert read_image(b"mine 123")[0, 0].tolist() == [255, 0, 0]


HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"


def test_heic_is_named_with_the_package_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="28 bytes, whose format is HEIC: pip install pillow-heif"):
        read_image(HEIC)


def test_heic_is_read_once_pillow_heif_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(file: io.BytesIO) -> Image.Image:
        assert file.read() == HEIC
        return Image.new("RGB", (7, 5), "red")

    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(HeifImageFile=opened))  # type: ignore[arg-type]
    assert read_image(HEIC).shape == (5, 7, 3)
    with pytest.raises(ImageError, match="at most 34 pixels"):
        read_image(HEIC, max_pixels=34)


def test_a_real_heic_file_is_turned_by_its_orientation() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    photo = Image.new("RGB", (64, 48), (200, 100, 50))
    pillow_heif.from_pillow(photo).save(buffer, quality=90, exif=exif.tobytes())
    result = read_image(buffer.getvalue())
    assert result.shape == (64, 48, 3)
    np.testing.assert_allclose(result[20, 20], (200, 100, 50), atol=4)
    with pytest.raises(ImageError, match="cannot decode"):
        read_image(buffer.getvalue()[:100])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\x0a1234", "JPEG XL: pip install pillow-jxl-plugin and import pillow_jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
    ],
)
def test_other_formats_of_photos_are_named(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(data)


@pytest.mark.parametrize("limit", [0, -1, None, "many", float("nan")])
def test_a_limit_is_a_positive_number(limit: object) -> None:
    with pytest.raises(InputError, match="max_pixels: expected a positive number, got"):
        read_image(np.zeros((2, 3), np.uint8), max_pixels=limit)  # type: ignore[arg-type]


def progressive(scans: int) -> bytes:
    """A progressive JPEG, whose last scan is repeated until there are so many."""
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG", progressive=True)
    head, *parts = stream.getvalue()[:-2].split(b"\xff\xda")
    assert 1 < len(parts) < 20
    parts += parts[-1:] * (scans - len(parts))
    return b"\xff\xda".join([head, *parts]) + b"\xff\xd9"


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded() -> None:
    assert read_image(progressive(100)).shape == (16, 16, 3)
    with pytest.raises(ImageError, match="expected a JPEG of at most 100 scans, got 5000 in .* bytes"):
        read_image(progressive(5000))


def test_other_data_in_a_jpeg_is_not_taken_for_scans() -> None:
    data = progressive(20)
    look_alikes = b"\xff\xda" * 300
    comment = b"\xff\xfe" + (2 + len(look_alikes)).to_bytes(2, "big") + look_alikes
    expected = read_image(data)
    for changed in (data + look_alikes, data[:2] + comment + data[2:]):
        np.testing.assert_array_equal(read_image(changed), expected)
