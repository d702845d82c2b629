"""Files are written whole or not at all, and what cannot be written is one kind of error."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from face_landmarks._system.files import make_folder, remove, replacing, size_of, write_whole, writing
from face_landmarks.errors import InputError, WriteError


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == tmp_path
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    for error in (ValueError, KeyboardInterrupt, InputError):
        with pytest.raises(error), replacing(path) as temporary:
            temporary.write_text("half")
            raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_files_of_a_folder_are_written_at_once(tmp_path: Path) -> None:
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    with replacing(a) as first, replacing(b) as second:
        first.write_text("a")
        second.write_text("b")
    assert (a.read_text(), b.read_text()) == ("a", "b")
    long = tmp_path / ("n" * 250)
    write_whole(long, "long names leave no room for a suffix")
    assert size_of(long) == 37


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    write_whole(target, "old")
    link.symlink_to(target)
    write_whole(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_a_replaced_file_keeps_its_permissions_and_a_new_one_has_those_of_the_umask(tmp_path: Path) -> None:
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.touch()
    old.chmod(0o640)
    (tmp_path / "link.txt").symlink_to(old)
    umask = os.umask(0o002)
    try:
        write_whole(old, "old")
        assert stat.S_IMODE(old.stat().st_mode) == 0o640
        write_whole(new, "new")
        assert stat.S_IMODE(new.stat().st_mode) == 0o664
        write_whole(tmp_path / "link.txt", "through the link")
        assert stat.S_IMODE(old.stat().st_mode) == 0o640 and (tmp_path / "link.txt").is_symlink()
    finally:
        os.umask(umask)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX pipes")
def test_what_is_no_file_is_written_to_directly(tmp_path: Path) -> None:
    write_whole(Path(os.devnull), "nothing")
    assert not Path(os.devnull).is_file()


def test_what_cannot_be_written_is_one_kind_of_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    for path, reason in (
        (tmp_path / "missing" / "a.txt", "No such file"),
        (file / "a.txt", "Not a directory"),
        (tmp_path, "got a folder"),
        (tmp_path / "a\0b.txt", "null byte"),
        (tmp_path / ("n" * 300), "too long"),
    ):
        with pytest.raises(WriteError, match=reason):
            write_whole(path, "content")
    for folder, reason in (
        (file, "expected a place to write to, got a file instead of a folder"),
        (file / "in", "Not a directory"),
        (tmp_path / "\0", "null byte"),
    ):
        with pytest.raises(WriteError, match=reason):
            make_folder(folder)
    assert list(tmp_path.iterdir()) == [file]


def test_our_own_errors_pass_through() -> None:
    with pytest.raises(InputError, match="mine"), writing(Path("a")):
        raise InputError("mine")


def test_removing_ignores_what_is_not_there(tmp_path: Path) -> None:
    remove(tmp_path / "missing", tmp_path)
    assert tmp_path.is_dir() and size_of(tmp_path / "missing") == 0
