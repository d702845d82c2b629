"""Every source of an image gives the same pixels, and no range is guessed."""

from __future__ import annotations

import io
import os
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from face_landmarks.errors import ImageError, InputError
from face_landmarks.images import ImageSource, files, read_image

H, W = 5, 7
COLOUR = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
GRAY = COLOUR[:, :, 0]
ALPHA = COLOUR[:, :, 1]
GRAY_AS_COLOUR = np.stack([GRAY] * 3, axis=2)


def encoded(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def sources_of(pixels: np.ndarray, folder: pathlib.Path) -> dict[str, ImageSource]:
    image = Image.fromarray(pixels)
    path = folder / "image.png"
    path.write_bytes(encoded(image))
    channels_first = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return {
        "str": str(path),
        "pathlib": path,
        "bytes": path.read_bytes(),
        "bytearray": bytearray(path.read_bytes()),
        "file": io.BytesIO(path.read_bytes()),
        "PIL": image,
        "array": pixels,
        "float array": pixels / 255,
        "int array": pixels.astype(np.int64),
        "uint16 array": pixels.astype(np.uint16) * 257,
        "tensor": torch.from_numpy(channels_first.copy()),
        "float tensor": torch.from_numpy(channels_first / np.float32(255)).requires_grad_(),
    }


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (COLOUR, COLOUR),
        (GRAY, GRAY_AS_COLOUR),
        (np.dstack([COLOUR, ALPHA]), COLOUR),
        (COLOUR[:1, :1], COLOUR[:1, :1]),
    ],
    ids=["colour", "gray", "alpha", "1x1"],
)
def test_one_picture_is_the_same_from_every_source(
    pixels: np.ndarray, expected: np.ndarray, tmp_path: pathlib.Path
) -> None:
    for name, source in sources_of(pixels, tmp_path).items():
        result = read_image(source)
        assert result.dtype == np.uint8 and result.flags.c_contiguous, name
        np.testing.assert_array_equal(result, expected, err_msg=name)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (GRAY[:, :, None], GRAY_AS_COLOUR),
        (np.dstack([GRAY, ALPHA]), GRAY_AS_COLOUR),
        (COLOUR[::-1, ::-1], COLOUR[::-1, ::-1]),
        (np.asfortranarray(COLOUR), COLOUR),
        (COLOUR.astype(">u2") * 257, COLOUR),
        (COLOUR.astype(">f8") / 255, COLOUR),
        ((COLOUR / 255).astype(np.float16), COLOUR),
        (COLOUR.astype(">i4"), COLOUR),
        (COLOUR.astype(np.uint64), COLOUR),
        (GRAY > 99, np.stack([(GRAY > 99) * 255] * 3, axis=2)),
    ],
    ids=["HW1", "HW2", "reversed", "fortran", ">u2", ">f8", "f2", ">i4", "u8", "bool"],
)
def test_arrays_of_any_layout_and_dtype(pixels: np.ndarray, expected: np.ndarray) -> None:
    result = read_image(pixels)
    assert result.dtype == np.uint8 and result.flags.c_contiguous
    np.testing.assert_array_equal(result, expected)


@given(hnp.arrays(np.uint16, (2, 3)))
def test_sixteen_bits_keep_their_high_byte(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(pixels)[:, :, 0], pixels // 256)


@given(hnp.arrays(np.float64, (2, 3), elements=st.floats(0, 1)))
def test_floats_are_rounded_to_the_nearest_level(pixels: np.ndarray) -> None:
    assert np.abs(read_image(pixels)[:, :, 0] / 255 - pixels).max() <= 0.5 / 255 + 1e-12


def test_floats_may_miss_their_range_by_rounding() -> None:
    np.testing.assert_array_equal(read_image(np.array([[-1e-7, 1.0000001]]))[0, :, 0], [0, 255])


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (COLOUR.astype(np.float32), r"expected floats in \[0, 1\] for dtype float32, got 1?\d?\.0 to 2\d\d"),
        (np.full((2, 2), 1.01), r"\[0, 1\]"),
        (np.full((2, 2), -0.01), r"\[0, 1\]"),
        (np.array([[0.5, np.nan]]), "nan"),
        (np.array([[0.5, np.inf]], np.float32), "inf"),
        (np.array([[3e38]], np.float32), r"\[0, 1\]"),
        (np.array([[-1]]), r"integers in 0\.\.255 for dtype int64, got -1 to -1"),
        (np.array([[256]], np.uint32), r"0\.\.255"),
        (np.array([[1j]]), "complex128"),
        (np.array([["a"]]), "dtype <U1"),
        (np.array([[None]]), "object"),
        (np.zeros((0, 4, 3), np.uint8), r"at least one pixel, got shape \(0, 4, 3\)"),
        (np.zeros((4, 0), np.uint8), "at least one pixel"),
        (np.zeros((3, 5, 7), np.uint8), r"\(H, W, C\).*\(3, 5, 7\)"),
        (np.zeros((1, 5, 7, 3), np.uint8), r"\(1, 5, 7, 3\)"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.uint8(3), "uint8"),
        (torch.zeros(5, 7, 3), r"permute\(2, 0, 1\) puts channels first"),
        (torch.zeros(1, 3, 5, 7), r"expected a tensor of shape \(C, H, W\).*\(1, 3, 5, 7\)"),
        (torch.zeros(2, 5, 7), r"got \(2, 5, 7\)$"),
        (torch.full((3, 5, 7), 255.0), r"\[0, 1\]"),
        (torch.zeros(3, 0, 7), "at least one pixel"),
        ([[1, 2], [3, 4]], "got list"),
        (None, "got NoneType"),
        (io.StringIO("text"), "binary mode, read str"),
        (Image.new("RGB", (0, 3)), "at least one pixel"),
    ],
)
def test_what_would_need_a_guess_is_refused(pixels: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(pixels)  # type: ignore[arg-type]


def test_tensors_of_every_shape_and_type() -> None:
    chw = torch.from_numpy(COLOUR).permute(2, 0, 1)
    np.testing.assert_array_equal(read_image(chw), COLOUR)
    np.testing.assert_array_equal(read_image(chw[:1]), GRAY_AS_COLOUR)
    np.testing.assert_array_equal(read_image(torch.cat([chw, chw[:1]])), COLOUR)
    np.testing.assert_array_equal(read_image(chw[0] > 99)[:, :, 2], (GRAY > 99) * 255)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        levels = torch.tensor([[0, 0.5, 1]], dtype=dtype)
        assert read_image(levels)[0, :, 1].tolist() == [0, 128, 255]


def test_tensors_may_live_on_the_gpu(cuda: torch.device) -> None:
    np.testing.assert_array_equal(read_image(torch.from_numpy(COLOUR).permute(2, 0, 1).to(cuda)), COLOUR)


def test_bgr_reverses_the_colours_of_arrays_and_tensors() -> None:
    np.testing.assert_array_equal(read_image(COLOUR[:, :, ::-1], channels="bgr"), COLOUR)
    np.testing.assert_array_equal(read_image(np.dstack([COLOUR, ALPHA]), channels="bgr"), COLOUR[:, :, ::-1])
    tensor = torch.from_numpy(COLOUR).permute(2, 0, 1)
    np.testing.assert_array_equal(read_image(tensor, channels="bgr"), COLOUR[:, :, ::-1])


@pytest.mark.parametrize("source", [GRAY, "photo.jpg", b"", Image.new("RGB", (2, 3))])
def test_bgr_means_nothing_elsewhere(source: object) -> None:
    with pytest.raises(InputError, match="channels: expected 'rgb' for"):
        read_image(source, channels="bgr")  # type: ignore[arg-type]


def test_an_unknown_channel_order_is_refused() -> None:
    with pytest.raises(InputError, match="'rgb' or 'bgr', got 'rbg'"):
        read_image(COLOUR, channels="rbg")  # type: ignore[arg-type]


def test_the_result_shares_no_memory_with_its_source() -> None:
    for source in (COLOUR.copy(), GRAY.copy(), torch.from_numpy(COLOUR.copy()).permute(2, 0, 1)):
        before = read_image(source)
        read_image(source)[:] = 0
        np.testing.assert_array_equal(read_image(source), before)
    frozen = COLOUR.copy()
    frozen.setflags(write=False)
    assert read_image(frozen).flags.writeable


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_honoured(orientation: int, image_format: str, tmp_path: pathlib.Path) -> None:
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255  # a white corner, top left as stored
    top, left = {
        1: (True, True),
        2: (True, False),
        3: (False, False),
        4: (False, True),
        5: (True, True),
        6: (True, False),
        7: (False, False),
        8: (False, True),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(stored), image_format, exif=exif)
    result = read_image(data)
    assert result.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
    white = np.zeros(result.shape[:2], bool)
    white[slice(8) if top else slice(-8, None), slice(8) if left else slice(-8, None)] = True
    np.testing.assert_array_equal(result[:, :, 0] > 127, white)

    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(read_image(image), result)


def test_damaged_exif_leaves_the_picture_as_stored() -> None:
    image = Image.new("RGB", (3, 2), "red")
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b""):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert read_image(encoded(image, "JPEG", exif=exif)).shape == (2, 3, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LA", "PA"])
def test_pil_images_of_every_mode(mode: str) -> None:
    image = Image.fromarray(np.full((H, W, 3), 255, np.uint8)).convert(mode)
    np.testing.assert_allclose(read_image(image), 255, atol=1)


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_premultiplied_alpha_is_undone(mode: str) -> None:
    whole = Image.merge("RGBA", [Image.new("L", (W, H), 200)] * 3 + [Image.new("L", (W, H), 128)])
    image = whole.convert(mode) if mode == "RGBa" else whole.convert("LA").convert(mode)
    np.testing.assert_allclose(read_image(image), 200, atol=1)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_pil_images_of_sixteen_bits(mode: str) -> None:
    raw = (GRAY.astype(np.uint16) * 257).astype(">u2" if mode == "I;16B" else "<u2")
    np.testing.assert_array_equal(read_image(Image.frombytes(mode, (W, H), raw.tobytes())), GRAY_AS_COLOUR)


def test_pil_images_of_floats_and_ints_follow_the_rules_of_arrays() -> None:
    np.testing.assert_array_equal(read_image(Image.fromarray(GRAY / np.float32(255))), GRAY_AS_COLOUR)
    np.testing.assert_array_equal(read_image(Image.fromarray(GRAY.astype(np.int32))), GRAY_AS_COLOUR)
    with pytest.raises(ImageError, match=r"\[0, 1\]"):
        read_image(Image.fromarray(GRAY.astype(np.float32)))


def test_sixteen_bit_files_keep_their_high_byte(tmp_path: pathlib.Path) -> None:
    deep = GRAY.astype(np.uint16) * 256 + 255
    for image_format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(
            read_image(encoded(Image.fromarray(deep), image_format)), GRAY_AS_COLOUR
        )
    portable = b"P5 %d %d 65535\n" % (W, H) + deep.astype(">u2").tobytes()
    np.testing.assert_array_equal(read_image(portable), GRAY_AS_COLOUR)


def test_transparent_palettes_show_their_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    for transparency in (0, b"\x00\x80"):
        data = encoded(image, transparency=transparency)
        np.testing.assert_array_equal(read_image(data), [[[10, 20, 30], [40, 50, 60]]])


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_still_webp_has_the_pixels_that_pillow_gives(mode: str, lossless: bool) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (19, 23, len(mode)), dtype=np.uint8)
    data = encoded(Image.fromarray(noise, mode), "WEBP", lossless=lossless)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(read_image(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(image_format: str) -> None:
    frames = [Image.new("RGB", (W, H), colour) for colour in ("white", "black")]
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(read_image(data), 255, atol=1)


def test_cmyk_files_are_read() -> None:
    data = encoded(Image.new("CMYK", (W, H), (0, 255, 255, 0)), "JPEG", quality=95)
    np.testing.assert_allclose(read_image(data), np.broadcast_to([255, 0, 0], (H, W, 3)), atol=4)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_truncated_file_is_an_image_error_wherever_it_ends(image_format: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), image_format)
    for share in (0.02, 0.1, 0.5, 0.8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ImageError):
                read_image(data[: int(share * len(data))])


@given(st.binary(max_size=200))
def test_junk_is_an_image_error(junk: bytes) -> None:
    with pytest.raises(ImageError, match="bytes, whose format"):
        read_image(b"??" + junk)


def test_nothing_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="got 0 bytes, whose format is not known"):
        read_image(b"")


def test_postscript_is_not_handed_to_an_interpreter() -> None:
    with pytest.raises(ImageError, match="whose format, EPS, is not one of photos"):
        read_image(encoded(Image.new("RGB", (2, 2)), "EPS"))


def test_errors_say_the_path(tmp_path: pathlib.Path) -> None:
    missing = tmp_path / "missing.jpg"
    with pytest.raises(ImageError, match=r"missing\.jpg': No such file"):
        read_image(missing)
    with pytest.raises(ImageError, match="cannot open"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="null"):
        read_image("a\0b.jpg")
    text = tmp_path / "notes.txt"
    text.write_text("not an image")
    with pytest.raises(ImageError, match=r"notes\.txt', whose format is not known"):
        read_image(text)
    half = tmp_path / "half.png"
    half.write_bytes(encoded(Image.fromarray(COLOUR))[:-40])
    with pytest.raises(ImageError, match=r"cannot decode .*half\.png"):
        read_image(half)


def test_a_pil_image_whose_file_is_truncated_is_an_image_error() -> None:
    with (
        Image.open(io.BytesIO(encoded(Image.fromarray(COLOUR))[:-40])) as image,
        pytest.raises(ImageError, match="cannot decode PIL image"),
    ):
        read_image(image)


def test_a_file_is_read_from_where_it_stands_and_left_open() -> None:
    file = io.BytesIO(b"header" + encoded(Image.fromarray(COLOUR)))
    file.seek(6)
    np.testing.assert_array_equal(read_image(file), COLOUR)
    assert not file.closed


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="needs /dev/fd")
def test_a_pipe_has_a_path_too() -> None:
    readable, writable = os.pipe()
    os.write(writable, encoded(Image.fromarray(COLOUR)))
    os.close(writable)
    try:
        np.testing.assert_array_equal(read_image(f"/dev/fd/{readable}"), COLOUR)
    finally:
        os.close(readable)


@pytest.mark.parametrize("path", ["/proc/self/mem", "/dev/zero", "/dev/null"])
def test_a_device_without_a_picture_is_an_image_error(path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"needs {path}")
    with pytest.raises(ImageError, match=path):
        read_image(path)


def test_a_file_whose_reading_fails_is_an_image_error() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the cable was pulled")

    with pytest.raises(ImageError, match="cannot read Broken: the cable was pulled"):
        read_image(Broken())


def test_a_path_leaves_no_file_open(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encoded(Image.fromarray(COLOUR)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        read_image(path)
    os.rename(path, tmp_path / "moved.png")


def test_the_pixel_limit_is_checked_before_decoding() -> None:
    data = encoded(Image.fromarray(COLOUR))
    np.testing.assert_array_equal(read_image(data, max_pixels=H * W), COLOUR)
    with pytest.raises(ImageError, match=f"at most {H * W - 1} pixels, got {W} x {H}"):
        read_image(data, max_pixels=H * W - 1)
    with pytest.raises(ImageError, match="PIL image"):
        read_image(Image.fromarray(COLOUR), max_pixels=1)
    header = b"P6 100000 100000 255\n"  # 30 GB of pixels, none of which are there
    with pytest.raises(ImageError, match="at most 200000000 pixels, got 100000 x 100000"):
        read_image(header)


def test_pillows_own_limit_neither_warns_nor_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 10, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(picture))
    monkeypatch.setattr(files, "_BAND", 10)  # a row at a time: the crops of most Pillows are limited, too
    for limit in (639, 300):  # where Pillow would warn, and where it would raise
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        np.testing.assert_array_equal(read_image(data), picture)
    assert Image.MAX_IMAGE_PIXELS == 300


@pytest.mark.parametrize("image_format", ["WEBP", "GIF"])
def test_a_limit_that_pillow_checks_itself_is_named(
    image_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(Image.new("RGB", (40, 30), "red"), image_format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    try:
        assert read_image(data).shape == (30, 40, 3)  # it depends on Pillow's version and the format
    except ImageError as error:
        assert "exceeds limit of" in str(error)


def test_the_picture_within_an_icon_is_not_decoded() -> None:
    large = Image.new("RGB", (200, 200))
    for image_format in ("ICO", "ICNS"):
        with pytest.raises(ImageError, match=f"whose format, {image_format}, is not one of photos"):
            read_image(encoded(large.resize((256, 256)), image_format), max_pixels=10)


def test_arrays_need_neither_pillow_nor_torch() -> None:
    code = """if True:
        import sys, types
        sys.modules["face_landmarks"] = package = types.ModuleType("face_landmarks")
        package.__path__ = [sys.argv[1]]  # without running the package's __init__
        import numpy as np
        from face_landmarks.images import read_image
        assert read_image(np.zeros((2, 3), np.uint8)).shape == (2, 3, 3)
        print(sorted({"torch", "PIL", "cv2"} & set(sys.modules)))
    """
    package = pathlib.Path(__file__).parents[2] / "face_landmarks"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(package)], capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
