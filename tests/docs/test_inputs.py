"""docs/inputs.md is true: every row of its tables is run."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiffs import packed_12_bits, tiff

import face_landmarks
from face_landmarks import FaceAligner, FaceLandmarksError, errors, read_image
from face_landmarks.detection.contract import check_boxes
from face_landmarks.pts import read_pts

PAGE = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text(encoding="utf-8")
COLOUR = np.full((5, 7, 3), (10, 20, 30), np.uint8)


def rows(*titles):
    """(what, example, result) of each row of the tables under these headings."""
    found = []
    for title in titles:
        section = re.search(rf"^##+ {title}\n(.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)[1]
        row = re.compile(r"^\| ([^|]+) \| `([^|]+)` \| (.+) \|$", flags=re.MULTILINE)
        found += [pytest.param(example, result, id=what) for what, example, result in row.findall(section)]
    return found


@pytest.fixture
def names(tmp_path):
    """What the examples may speak of."""

    def encode(image, image_format, **options):
        buffer = io.BytesIO()
        image.save(buffer, image_format, **options)
        return buffer.getvalue()

    def saved(name):
        path = tmp_path / name
        path.write_bytes(encode(Image.fromarray(COLOUR), "PNG"))
        return path

    def closed(file):
        file.close()
        return file

    def orientation(value):
        exif = Image.Exif()
        exif[0x0112] = value
        return exif

    return {
        **{"np": np, "torch": torch, "Image": Image, "io": io, "FaceAligner": FaceAligner},
        **{"encode": encode, "saved": saved, "closed": closed, "orientation": orientation},
        **{"colour": COLOUR, "gray": COLOUR[:, :, 0], "picture": Image.fromarray(COLOUR)},
        "tiff12": tiff(packed_12_bits(16 * COLOUR[:, :, 0].astype(int)), COLOUR.shape[:2], 12),
        **{"tensor": torch.from_numpy(COLOUR).permute(2, 0, 1), "folder": tmp_path},
    }


def check(result, work):
    """The result of this work is the one the page tells, here as text; or its error is."""
    error = re.fullmatch(r"`(\w+Error)`: (.+)", result)
    if error is None:
        assert work() == result
        return
    with pytest.raises(getattr(errors, error[1])) as raised:
        work()
    assert error[2] in str(raised.value)


@pytest.mark.parametrize(("example", "result"), rows("Images", "Arrays and tensors", "PIL images", "Files"))
def test_images(example, result, names, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)

    def work():
        pixels = eval(f"read_image({example})", {**names, "read_image": read_image})
        assert pixels.dtype == np.uint8 and (pixels == pixels[0, 0]).all()
        return f"`{pixels.shape[:2]}` of `{' '.join(map(str, pixels[0, 0]))}`"

    check(result, work)


@pytest.mark.parametrize(("example", "result"), rows("Boxes"))
def test_boxes(example, result, names):
    def work():
        boxes = check_boxes(eval(example, names))
        return "accepted" if boxes.shape[1:] == (4,) and boxes.dtype == np.float32 else "broken"

    check(result, work)


@pytest.mark.parametrize(("example", "result"), rows("Landmark files"))
def test_landmark_files(example, result, names):
    def work():
        content = eval(example, names)
        path = names["folder"] / "face.pts"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return f"`{', '.join(f'{x:g} {y:g}' for x, y in read_pts(path))}`"

    check(result, work)


@pytest.mark.parametrize(("example", "result"), rows("All other errors"))
def test_all_other_errors(example, result, names, monkeypatch):
    monkeypatch.setenv("FACE_LANDMARKS_OFFLINE", "1")
    check(result, lambda: eval(example, names))


def test_the_tables_are_found():
    tables = {"Arrays and tensors": 30, "PIL images": 12, "Files": 18, "Boxes": 12, "Landmark files": 8}
    for title, least in tables.items():
        assert len(rows(title)) >= least, title


def test_every_error_is_on_the_page():
    for name in face_landmarks.__all__:
        kind = getattr(face_landmarks, name)
        if isinstance(kind, type) and issubclass(kind, FaceLandmarksError):
            assert name in PAGE, name
