"""Landmark files: what is read, what is written, and what is refused."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_landmarks.benchmarks.annotations import AnnotatedImage, read_folder
from face_landmarks.errors import AnnotationError, InputError, WriteError
from face_landmarks.pts import read_pts, write_pts

STANDARD = "version: 1\nn_points: 3\n{\n1.0 1.0\n11.5 3.25\n-1 200\n}\n"
POINTS = [(0, 0), (10.5, 2.25), (-2, 199)]  # one-based in the file, zero-based in memory


def touch(folder: Path, names: str) -> None:
    """Empty photos, and .pts files of two points whose first x is the number of files so far."""
    for number, name in enumerate(names.split()):
        if name.lower().endswith(".pts"):
            write_pts(folder / name, [(number, 0), (5, 7)])
        else:
            (folder / name).touch()


def listing(samples: list[AnnotatedImage]) -> list[tuple[str, list[float]]]:
    """(photo's name, first x of each face) of every sample."""
    return [(sample.image.name, sample.landmarks[:, 0, 0].tolist()) for sample in samples]


@pytest.mark.parametrize(
    "text",
    [
        STANDARD,
        STANDARD.removesuffix("\n"),
        STANDARD.replace("\n", "\r\n"),
        STANDARD.replace("version: 1\n", ""),
        STANDARD.replace("n_points: 3\n", "n_points:  3 \n\n"),
        STANDARD.replace("n_points: 3\n", ""),
        "{ 1 1\n11.5\t3.25\n  -1 200 }",
        "1 1\n\n11.5 3.25\n-1 2e2\n",
        "\ufeff" + STANDARD,
    ],
)
def test_points_are_read_with_and_without_header(tmp_path, text):
    path = tmp_path / "face.pts"
    path.write_bytes(text.encode())
    points = read_pts(str(path))
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, POINTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected points, got none"),
        ("\n \n", "expected points, got none"),
        ("version: 1\nn_points: 0\n{\n}\n", "expected points, got none"),
        (STANDARD.replace("n_points: 3", "n_points: 68"), "expected n_points = 68, got 3"),
        (STANDARD.replace("11.5 3.25\n", ""), "expected n_points = 3, got 2"),
        (STANDARD.replace("n_points: 3", "n_points: three"), "got another structure"),
        (STANDARD.replace("version: 1", "JFIF"), "got another structure"),
        (STANDARD.replace("}", ""), "got another structure"),
        (STANDARD.replace("{", ""), "expected two numbers, got 'n_points: 3'|'version: 1'"),
        (STANDARD + "4 4\n", "got another structure"),
        (STANDARD + "}\n", "got another structure"),
        (STANDARD.replace("3.25", "here"), "expected two numbers, got '11.5 here'"),
        (STANDARD.replace("11.5 3.25", "11.5"), "expected two numbers, got '11.5'"),
        (STANDARD.replace("3.25", "3.25 1"), "expected two numbers, got '11.5 3.25 1'"),
        (STANDARD.replace("3.25", "3,25"), "expected two numbers, got '11.5 3,25'"),
        (STANDARD.replace("3.25", "nan"), "expected pixel coordinates, got '11.5 nan'"),
        (STANDARD.replace("11.5", "-inf"), "expected pixel coordinates, got '-inf 3.25'"),
        (STANDARD.replace("11.5", "1e300"), "expected pixel coordinates, got '1e300 3.25'"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "got bytes that are not text"),
        (b"\x00\x01\x02\x03", "expected two numbers"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "face.pts"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AnnotationError, match=message) as caught:
        read_pts(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_an_annotation_error(tmp_path):
    with pytest.raises(AnnotationError, match=r"gone\.pts: expected a \.pts file, got No such file"):
        read_pts(tmp_path / "gone.pts")
    with pytest.raises(AnnotationError, match=r"expected a \.pts file"):
        read_pts(tmp_path)


@pytest.mark.parametrize("path", [None, 3, b"face.pts"])
def test_a_path_that_is_none_is_refused(path):
    for call in (lambda: read_pts(path), lambda: write_pts(path, [(1, 2)])):
        with pytest.raises(InputError, match="path: expected a path, got"):
            call()


@given(st.binary(max_size=60))
def test_any_bytes_give_points_or_an_annotation_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.pts"
    path.write_bytes(content)
    try:
        points = read_pts(path)
    except AnnotationError:
        return
    assert points.ndim == 2 and points.shape[1] == 2 and np.isfinite(points).all()


def test_the_file_written_is_the_standard_one(tmp_path):
    write_pts(tmp_path / "face.pts", [(0, 0), (10.5, 2.25)])
    text = (tmp_path / "face.pts").read_bytes().decode()
    assert text == "version: 1\nn_points: 2\n{\n1.000000 1.000000\n11.500000 3.250000\n}\n"


def test_points_survive_a_round_trip(tmp_path):
    points = np.random.default_rng(0).uniform(-50, 4000, size=(98, 2)).astype(np.float32)
    write_pts(tmp_path / "face.pts", points)
    np.testing.assert_allclose(read_pts(tmp_path / "face.pts"), points, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((1, 3, 2)), r"expected shape \(K, 2\), got \(1, 3, 2\)"),
        (np.zeros((3, 3)), r"expected shape \(K, 2\), got \(3, 3\)"),
        (np.zeros((0, 2)), r"expected shape \(K, 2\), got \(0, 2\)"),
        ([(0, np.nan)], "expected finite coordinates"),
        ([("a", "b")], r"expected numbers of shape \(K, 2\), got list"),
        ([(1, 2), (3,)], r"expected numbers of shape \(K, 2\), got list"),
        (None, r"expected shape \(K, 2\), got \(\)"),
    ],
)
def test_only_finite_points_are_written(tmp_path, landmarks, message):
    with pytest.raises(InputError, match=message):
        write_pts(tmp_path / "face.pts", landmarks)
    assert not (tmp_path / "face.pts").exists()


@pytest.mark.parametrize("place", ["missing/face.pts", ".", "", "face.txt/face.pts"])
def test_what_cannot_be_written_is_one_kind_of_error(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    Path("face.txt").touch()
    with pytest.raises(WriteError, match="expected a (place|file) to write to"):
        write_pts(place, [(1, 2)])
    assert [path.name for path in tmp_path.iterdir()] == ["face.txt"]


def test_an_annotated_image_holds_faces_of_float32():
    sample = AnnotatedImage(Path("a.jpg"), np.zeros((2, 3, 2), np.float64))
    assert sample.landmarks.dtype == np.float32
    with pytest.raises(InputError, match=r"expected shape \(N, K, 2\), got \(3, 2\)"):
        AnnotatedImage(Path("a.jpg"), np.zeros((3, 2), np.float32))


def test_a_folder_pairs_each_photo_with_its_faces_in_order(tmp_path):
    touch(tmp_path, "b.JPG b.pts a.png a.10.pts a.2.pts a.1.pts c.jpeg c.PTS d.bmp d.1.pts readme.txt")
    assert listing(read_folder(tmp_path)) == [
        ("a.png", [5, 4, 3]),
        ("b.JPG", [1]),
        ("c.jpeg", [7]),
        ("d.bmp", [9]),
    ]


def test_a_name_that_ends_in_a_number_is_not_a_face_number(tmp_path):
    touch(tmp_path, "me.jpg me.1.jpg me.1.pts me.2.pts")
    assert listing(read_folder(tmp_path)) == [("me.1.jpg", [2]), ("me.jpg", [3])]


def test_photos_without_landmarks_are_left_out_and_counted(tmp_path, caplog):
    touch(tmp_path, "a.jpg a.pts b.jpg c.jpg")
    with caplog.at_level(logging.INFO, logger="face_landmarks"):
        assert listing(read_folder(str(tmp_path))) == [("a.jpg", [1])]
    assert "left out 2 photos without .pts files" in caplog.text


def test_hidden_files_and_subfolders_are_not_read(tmp_path):
    (tmp_path / "more").mkdir()
    touch(tmp_path / "more", "z.jpg z.pts")
    touch(tmp_path, "a.jpg a.pts ._a.jpg")
    (tmp_path / "._a.pts").write_bytes(b"\x00\x05\x16\x07")
    assert listing(read_folder(tmp_path)) == [("a.jpg", [1])]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", r"expected photos with \.pts files, got no such pair"),
        ("a.jpg b.png", r"expected photos with \.pts files, got no such pair"),
        ("a.jpg a.pts b.pts", r"b\.pts: expected one photo named b\.\*, got 0"),
        ("a.jpg a.png a.pts", r"a\.pts: expected one photo named a\.\*, got 2"),
    ],
)
def test_a_folder_without_clear_pairs_is_refused(tmp_path, names, message):
    touch(tmp_path, names)
    with pytest.raises(AnnotationError, match=message):
        read_folder(tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match="expected a folder"):
        read_folder(tmp_path / "gone")


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    def scandir(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(AnnotationError, match="expected a folder of photos, got Permission denied"):
        read_folder(tmp_path)


def test_photos_of_every_suffix_are_paired(tmp_path):
    touch(tmp_path, "a.webp a.pts b.TIF b.pts c.tiff c.pts d.bmp d.pts")
    assert [name for name, _ in listing(read_folder(tmp_path))] == ["a.webp", "b.TIF", "c.tiff", "d.bmp"]


@pytest.mark.parametrize("other", ["a.2.pts", "b.pts"])
def test_all_faces_of_a_folder_have_the_same_number_of_points(tmp_path, other):
    touch(tmp_path, "a.jpg b.jpg a.1.pts")
    write_pts(tmp_path / other, np.zeros((3, 2)))
    with pytest.raises(AnnotationError, match=r"expected 2 points as in a\.1\.pts, got 3"):
        read_folder(tmp_path)
