"""Which files of a folder are photos."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_landmarks.benchmarks import read_folder
from face_landmarks.errors import InputError
from face_landmarks.images import PHOTO_SUFFIXES, find_photos


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_photos_are_found_by_suffix_in_either_case_and_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.webp", "c.pts", "notes.txt", "noextension", "d.heic")
    assert [path.name for path in find_photos(tmp_path)] == ["a.webp", "b.JPG", "d.heic"]
    assert find_photos(str(tmp_path)) == find_photos(tmp_path)
    assert all(suffix == suffix.lower() for suffix in PHOTO_SUFFIXES)


def test_hidden_files_and_folders_are_no_photos(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "._a.jpg", ".hidden/b.jpg", "c/.d.jpg", "c/e.jpg")
    assert find_photos(tmp_path) == [tmp_path / "a.jpg"]
    assert find_photos(tmp_path, recursive=True) == [tmp_path / "a.jpg", tmp_path / "c/e.jpg"]


def test_a_folder_below_a_hidden_one_is_read(tmp_path: Path) -> None:
    touch(tmp_path, ".cache/photos/a.jpg")
    assert find_photos(tmp_path / ".cache/photos", recursive=True) == [tmp_path / ".cache/photos/a.jpg"]


def test_the_order_is_that_of_names_as_text(tmp_path: Path) -> None:
    touch(tmp_path, "a/z.jpg", "a.jpg", "a-b.jpg", "a0.jpg")
    names = [path.relative_to(tmp_path).as_posix() for path in find_photos(tmp_path, recursive=True)]
    assert names == ["a-b.jpg", "a.jpg", "a/z.jpg", "a0.jpg"] == sorted(names)


def test_folders_named_like_photos_are_none_and_links_to_nothing_are(tmp_path: Path) -> None:
    touch(tmp_path, "album.jpg/inside.jpg", "photo.jpg")
    os.symlink(tmp_path / "gone.jpg", tmp_path / "link.jpg")
    assert find_photos(tmp_path) == [tmp_path / "link.jpg", tmp_path / "photo.jpg"]


@pytest.mark.parametrize("name", ["nothing", "file.jpg", "null\0byte"])
def test_what_is_no_folder_is_an_error(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "file.jpg")
    with pytest.raises(InputError, match=r"^[^:]+: expected a folder of photos, got [^:]+$"):
        find_photos(tmp_path / name)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_subfolder_that_cannot_be_read_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    (tmp_path / "locked").chmod(0)
    try:
        assert find_photos(tmp_path, recursive=True) == [tmp_path / "a.jpg"]
        assert "locked: left out" in caplog.text
        told: list[tuple[Path, str]] = []
        find_photos(tmp_path, recursive=True, left_out=lambda *words: told.append(words))
        assert told == [(tmp_path / "locked", "Permission denied")]
        with pytest.raises(InputError, match="Permission denied"):
            find_photos(tmp_path / "locked")
    finally:
        (tmp_path / "locked").chmod(0o755)


def test_every_listing_of_photos_is_this_one(tmp_path: Path) -> None:
    """A photo that macOS wrote a hidden companion for has one owner, and one only."""
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(tmp_path / "a.jpg")
    touch(tmp_path, "._a.jpg", "a.jpg.d/b.jpg")
    (tmp_path / "a.pts").write_text("version: 1\nn_points: 1\n{\n1 1\n}\n")
    assert [sample.image for sample in read_folder(tmp_path)] == find_photos(tmp_path)
