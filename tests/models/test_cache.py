"""The cache folder: where it is, what it holds, what happens if it cannot be used."""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fault_server import FaultServer
from filelock import FileLock
from tiny_model import CONTENT, OTHER, register, sha256

from face_landmarks.errors import CacheError, ChecksumError, DownloadError
from face_landmarks.models import downloads
from face_landmarks.models.cache import cached_files, clear_cache
from face_landmarks.models.weights import download
from face_landmarks.models.weights_file import WeightsFile, cache_folder


def test_a_damaged_file_is_fetched_again_once(
    server: FaultServer, pretrained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = register(pretrained, server.url())
    path.parent.mkdir()
    for damage in (CONTENT[:30], b"", OTHER):
        path.write_bytes(damage)
        server.requests.clear()
        with caplog.at_level(logging.WARNING, "face_landmarks"):
            assert download("tiny").read_bytes() == CONTENT
        assert len(server.requests) == 1
        assert caplog.messages == [f"tiny: {path} is damaged and will be replaced"]
        caplog.clear()


def test_a_file_put_there_by_hand_is_found(
    server: FaultServer, pretrained: Path, temporary_home: Path
) -> None:
    path = register(pretrained, server.url())
    hub = temporary_home / "torch" / "hub" / "checkpoints" / "tiny.bin"
    for place, other in ((hub, path), (path, hub)):
        place.parent.mkdir(parents=True)
        place.write_bytes(CONTENT)
        assert download("tiny") == place
        place.write_bytes(OTHER)
        assert not other.exists()
        place.unlink()
    assert server.requests == []


def test_offline_touches_no_network(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = register(pretrained, server.url())
    monkeypatch.setenv("FACE_LANDMARKS_OFFLINE", "1")
    with pytest.raises(
        DownloadError, match="FACE_LANDMARKS_OFFLINE forbids the network[^$]*found     nothing"
    ):
        download("tiny")
    assert not path.parent.exists()
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert download("tiny") == path
    path.write_bytes(OTHER)
    with pytest.raises(ChecksumError, match=f"found     64 bytes, sha256 {sha256(OTHER)}"):
        download("tiny")
    assert server.requests == []
    monkeypatch.setenv("FACE_LANDMARKS_OFFLINE", "0")
    assert download("tiny") == path


def test_a_mirror_replaces_the_host(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = register(pretrained, "https://example.com/a/b.bin?v=1", "https://example.org/a/b.bin?v=1")
    for mirror, asked in ((server.url(""), "/a/b.bin?v=1"), (server.url("/m/"), "/m/a/b.bin?v=1")):
        monkeypatch.setenv("FACE_LANDMARKS_MIRROR", mirror)
        assert download("tiny") == path
        assert server.requests.pop().path == asked
        assert server.requests == []
        path.unlink()
    monkeypatch.setenv("FACE_LANDMARKS_MIRROR", "mirror.invalid")
    with pytest.raises(DownloadError, match="tried     https://mirror.invalid/a/b.bin\\?v=1: "):
        download("tiny")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named_and_not_left_full(server: FaultServer, pretrained: Path) -> None:
    path = register(pretrained, server.url())
    path.parent.mkdir()
    path.with_name("tiny.bin.part").symlink_to("/dev/full")
    with pytest.raises(CacheError, match="cannot be used: No space left on device[^$]*FACE_LANDMARKS_HOME"):
        download("tiny")
    assert not path.with_name("tiny.bin.part").is_symlink()
    assert download("tiny") == path


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder with tiny.bin that this process, even if it belongs to root, cannot write to."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs POSIX rights")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "cache")
        cache.mkdir()
        (cache / "tiny.bin").write_bytes(CONTENT)
        cache.chmod(0o555)
        os.chmod(folder, 0o755)
        monkeypatch.setenv("FACE_LANDMARKS_HOME", str(cache))
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
            yield cache
        finally:
            os.seteuid(user)
            cache.chmod(0o755)


def test_a_read_only_cache_is_named_unless_the_file_is_there(
    server: FaultServer, tmp_path: Path, read_only: Path
) -> None:
    file = WeightsFile("tiny.bin", sha256(CONTENT), len(CONTENT), (server.url(),))
    assert downloads.obtain("tiny", file, tmp_path)[1] == CONTENT
    with pytest.raises(CacheError, match=f"{read_only} cannot be used: Permission denied"):
        downloads.obtain("tiny", replace(file, name="other.bin"), tmp_path)
    assert server.requests == []


def test_a_cache_that_cannot_be_made_is_named(server: FaultServer, pretrained: Path, cache: Path) -> None:
    register(pretrained, server.url())
    cache.write_bytes(b"in the way")
    with pytest.raises(CacheError, match="cannot be used"):
        download("tiny")
    assert server.requests == []


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"FACE_LANDMARKS_HOME": "/here"}, "/here"),
        ("linux", {"FACE_LANDMARKS_HOME": "~/here"}, "/home/me/here"),
        ("linux", {}, "/home/me/.cache/face_landmarks"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/face_landmarks"),
        ("darwin", {}, "/home/me/Library/Caches/face_landmarks"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/face_landmarks"),
        ("win32", {}, "/home/me/AppData/Local/face_landmarks"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    for name in ("FACE_LANDMARKS_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path(expected)


def test_the_cache_lists_verifies_and_clears_its_own_files_only(
    server: FaultServer, pretrained: Path, cache: Path
) -> None:
    assert cached_files() == []
    register(pretrained, server.url())
    download("tiny")
    url_file, part = f"a-{sha256(OTHER)}.pth", "2DFAN4-11f355bf06.pth.tar.part"
    for name, data in {url_file: CONTENT, part: b"123", "notes.txt": b"mine"}.items():
        (cache / name).write_bytes(data)
    files = {file.path.name: (file.size, file.verify()) for file in cached_files()}
    assert files == {
        "tiny.bin": (64, True),
        url_file: (64, False),
        part: (3, False),
    }
    assert len(clear_cache()) == 3
    assert {entry.name for entry in cache.iterdir() if entry.suffix != ".lock"} == {"notes.txt"}
    assert cached_files() == clear_cache() == []


def test_a_file_that_another_process_downloads_is_not_cleared(
    server: FaultServer, pretrained: Path, cache: Path
) -> None:
    path = register(pretrained, server.url())
    download("tiny")
    part, other = path.with_name("tiny.bin.part"), cache / f"a-{sha256(OTHER)}.pth"
    part.write_bytes(CONTENT[:9])
    other.write_bytes(OTHER)
    lock = path.with_name("tiny.bin.lock")
    with FileLock(lock):
        with pytest.raises(
            CacheError, match=r"tiny\.bin: expected to remove it, got a process that is download"
        ):
            clear_cache()
        assert path.exists() and part.exists() and lock.exists()
        assert not other.exists()
    assert [file.path.name for file in clear_cache()] == ["tiny.bin", "tiny.bin.part"]
    assert not path.exists() and not part.exists()


def test_clearing_never_removes_a_lock_file(server: FaultServer, pretrained: Path) -> None:
    """A process that waits for the removed file would hold it beside one that made it anew."""
    path = register(pretrained, server.url())
    download("tiny")
    lock = path.with_name("tiny.bin.lock")
    lock.touch()
    clear_cache()
    with FileLock(path.with_name("probe.lock")):
        removes_its_own = sys.platform == "win32"
    removes_its_own |= not path.with_name("probe.lock").exists()
    assert removes_its_own or lock.exists()


def test_a_cached_file_that_cannot_be_read_is_named(server: FaultServer, pretrained: Path) -> None:
    path = register(pretrained, server.url())
    download("tiny")
    (file,) = cached_files()
    path.unlink()
    with pytest.raises(CacheError, match=r"tiny\.bin: expected to read it, got No such file"):
        file.verify()


@pytest.mark.parametrize(("progress", "shown"), [(None, False), (False, False), (True, True)])
def test_progress_is_on_stderr_when_asked_for(
    server: FaultServer,
    pretrained: Path,
    capsys: pytest.CaptureFixture[str],
    progress: bool | None,
    shown: bool,
) -> None:
    register(pretrained, server.url())
    download("tiny", progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("tiny" in err) == shown


def test_progress_is_shown_on_a_terminal(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    register(pretrained, server.url())
    download("tiny")
    assert "tiny" in terminal.getvalue() and "64.0/64.0" in terminal.getvalue()


def test_a_cache_folder_that_is_a_file_is_no_empty_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from face_landmarks.cli import main

    (tmp_path / "file").touch()
    monkeypatch.setenv("FACE_LANDMARKS_HOME", str(tmp_path / "file"))
    for call in (cached_files, clear_cache):
        with pytest.raises(
            CacheError, match=r"file \(FACE_LANDMARKS_HOME\): expected a folder, got Not a dir"
        ):
            call()
    for words in (["cache"], ["cache", "verify"], ["cache", "clear"]):
        assert main(words) == 2
        assert "(FACE_LANDMARKS_HOME): expected a folder" in capsys.readouterr().err
    assert main(["download", "2dfan4"]) == 2
    assert f"the cache folder {tmp_path / 'file'} cannot be used" in capsys.readouterr().err


def test_a_cache_folder_that_cannot_be_listed_is_no_empty_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def iterdir(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("FACE_LANDMARKS_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(CacheError, match="expected a folder, got Permission denied"):
        cached_files()
