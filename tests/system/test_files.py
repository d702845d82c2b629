"""Files: the old one or the new one, whole, and one error for what cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from face_landmarks import WriteError
from face_landmarks._system.files import make_folder, replacing, write_whole, writing


def test_a_file_is_written_whole_and_alone(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "gräulich")
    write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_reader_sees_the_old_file_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == tmp_path
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(28, "No space left on device")])
def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, error: type[Exception]) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    kind = WriteError if isinstance(error, OSError) else error
    with pytest.raises(kind), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="needs pipes with a name")
def test_what_is_no_regular_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, b"through")
    assert os.read(reader, 10) == b"through" and pipe.is_fifo()
    os.close(reader)


def test_a_name_as_long_as_the_system_takes_is_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("n" * 251 + ".pts"), b"")
    assert len(os.listdir(tmp_path)) == 1


def test_what_cannot_be_written_is_one_error_that_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for write in (
        lambda: write_whole(tmp_path / "none" / "a", b""),
        lambda: write_whole(tmp_path / "file" / "a", b""),
        lambda: write_whole(tmp_path, b""),
        lambda: make_folder(tmp_path / "file" / "folder"),
    ):
        with pytest.raises(WriteError, match=f"{tmp_path}.*: expected a place to write to, got "):
            write()
    message = "a: expected a place to write to, got Permission denied"
    with pytest.raises(WriteError, match=message), writing(Path("a")):
        raise PermissionError(13, "Permission denied")


def test_a_folder_is_made_with_those_above_it_or_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
