"""Whatever the shape, the type, the box or the text: a result that keeps its promises, or an error."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from face_landmarks.detection.contract import check_boxes
from face_landmarks.errors import AnnotationError, ImageError, InputError
from face_landmarks.geometry import crop_matrices, transform_points, warp
from face_landmarks.images import read_image
from face_landmarks.pts import read_pts, write_pts

EXAMPLES = Path(__file__).parents[1] / "examples"
SEEDS = sorted(path for path in (EXAMPLES / "lab" / "checks" / "fuzz_corpus").glob("*/*"))

any_dtype = (
    hnp.boolean_dtypes() | hnp.unsigned_integer_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes()
)
any_array = hnp.arrays(
    any_dtype | hnp.complex_number_dtypes() | hnp.datetime64_dtypes() | hnp.byte_string_dtypes(),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)
image_shapes = st.tuples(st.integers(1, 6), st.integers(1, 6)) | st.tuples(
    st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)
)
coordinates = st.floats(-(2.0**24), 2.0**24, exclude_min=True, exclude_max=True, width=32)
pixels_of_a_photo = st.integers(1, 400)


@given(any_array)
def test_any_array_is_read_or_refused(array):
    try:
        pixels = read_image(array)
    except ImageError:
        return
    assert pixels.shape == (*array.shape[:2], 3) and pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous and pixels.flags.owndata and pixels.flags.writeable


@given(hnp.arrays(np.uint8, image_shapes), st.sampled_from("?BHhiIlLqQefd"), st.sampled_from("<>"), st.data())
def test_a_picture_is_the_same_in_every_type_order_and_stride(levels, code, order, data):
    if code == "?":
        levels = (levels > 127) * np.uint8(255)
    scale = {"H": 257.0, **dict.fromkeys("?efd", 1 / 255)}.get(code, 1.0)
    stored = (levels * scale).astype(np.dtype(code).newbyteorder(order))
    expected = read_image(levels)
    flips = tuple(slice(None, None, data.draw(st.sampled_from([1, -1]))) for _ in range(2))
    np.testing.assert_array_equal(read_image(stored[flips]), expected[flips])
    np.testing.assert_array_equal(read_image(np.asfortranarray(stored)), expected)


@given(hnp.arrays(np.uint8, st.tuples(st.sampled_from([1, 3, 4]), st.integers(1, 5), st.integers(1, 5))))
def test_arrays_tensors_pictures_and_files_agree(channels_first):
    array = np.moveaxis(channels_first, 0, -1)
    expected = read_image(array)
    picture = Image.fromarray(np.ascontiguousarray(array.squeeze(-1) if array.shape[2] == 1 else array))
    file = io.BytesIO()
    picture.save(file, "PNG")
    for source in (torch.from_numpy(channels_first), picture, file.getvalue()):
        np.testing.assert_array_equal(read_image(source), expected)


@given(
    hnp.arrays(
        hnp.floating_dtypes() | hnp.integer_dtypes(), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)
    )
    | st.lists(st.lists(st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=2), max_size=5))
)
def test_any_boxes_are_checked_or_refused(boxes):
    try:
        checked = check_boxes(boxes)
    except InputError:
        return
    assert checked.dtype == np.float32 and checked.ndim == 2 and checked.shape[1] == 4
    assert np.isfinite(checked).all() and (checked[:, :2] < checked[:, 2:]).all()


@settings(deadline=None)
@given(
    st.tuples(pixels_of_a_photo, pixels_of_a_photo),
    st.tuples(coordinates, coordinates, coordinates, coordinates),
)
def test_any_box_of_any_photo_gives_a_crop_and_a_way_back(size, numbers):
    (x0, x1), (y0, y1) = sorted(numbers[::2]), sorted(numbers[1::2])
    if x0 == x1 or y0 == y1:
        return
    boxes = torch.from_numpy(check_boxes([(x0, y0, x1, y1)]))
    image_to_crop = crop_matrices(boxes, 16, 0.61, 0.1365)
    crop = warp(np.full((*size, 3), 255, np.uint8), image_to_crop, 16)
    assert crop.shape == (1, 3, 16, 16) and crop.isfinite().all()
    assert crop.min() >= 0 and crop.max() <= 1 + 1e-6
    points = torch.tensor([[[0.0, 0.0], [15.0, 7.0]]])
    there_and_back = transform_points(
        image_to_crop, transform_points(image_to_crop.inverse(), points.double())
    )
    step = 2.0**-52 * float(boxes.abs().max() / (boxes[:, 2:] - boxes[:, :2]).max())  # of a double, in crops
    torch.testing.assert_close(there_and_back, points.double(), rtol=0, atol=1e-9 + 1e3 * step)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(2)), elements=st.floats(-1e4, 1e4, width=32))
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_points_survive_a_file(tmp_path, points):
    write_pts(tmp_path / "face.pts", points)
    np.testing.assert_allclose(read_pts(tmp_path / "face.pts"), points, rtol=1e-7, atol=1e-6)


header = st.sampled_from(["", "version: 1\n", "n_points: 2\n", "version: 1\nn_points: 68\n", "points"])
number = st.floats().map(repr) | st.integers().map(str) | st.text("0123456789.eE+-_naif\u0663", max_size=8)
lines = st.lists(st.lists(number, max_size=3).map(" ".join), max_size=4).map("\n".join)


@given(header, st.sampled_from(["", "{\n"]), lines, st.sampled_from(["", "\n}", "}}"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_gives_points_or_an_annotation_error(tmp_path, head, opening, body, closing):
    path = tmp_path / "face.pts"
    path.write_text(head + opening + body + closing, encoding="utf-8")
    try:
        points = read_pts(path)
    except AnnotationError:
        return
    assert points.dtype == np.float32 and points.shape == (len(points), 2) and len(points) > 0
    assert (np.abs(points) <= 2**24).all()


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", EXAMPLES / "lab" / "checks" / "fuzz.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")  # Pillow's, about the damage it meets
@pytest.mark.parametrize(("target", "least"), [("image", 8), ("pts", 8), ("mat", 4), ("results", 8)])
def test_every_seed_of_the_fuzzer_is_read_or_refused(fuzz, target, least):
    seeds = [path for path in SEEDS if path.parent.name == target]
    assert len(seeds) >= least
    for seed in seeds:
        fuzz.CHECKS[target](seed.read_bytes())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", ["image", "pts", "mat", "results"])
def test_the_fuzzer_works_without_atheris(fuzz, target, capsys):
    assert fuzz.edit_seeds(target, seconds=0.01) == 0
    assert "executions without a finding" in capsys.readouterr().out


def test_the_corpus_stays_small():
    assert sum(path.stat().st_size for path in SEEDS) < 200_000
