"""Weights arrive whole or not at all, and every failure says what to do."""

from __future__ import annotations

import io
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
from fault_server import FaultServer, Reply, wait_until
from tiny_model import CONTENT, OTHER, STATE, fan_state, register, sha256
from tiny_model import tiny_card as card

from face_landmarks._system.files import size_of
from face_landmarks.errors import (
    CacheError,
    ChecksumError,
    DownloadError,
    InputError,
    WeightsError,
    WeightsFormatError,
)
from face_landmarks.models import downloads
from face_landmarks.models.cache import clear_cache
from face_landmarks.models.registry import get_card
from face_landmarks.models.weights import download, load_weights, save_weights
from face_landmarks.models.weights_file import WeightsFile

SOURCE = Path(__file__).parents[2]


def test_a_model_is_downloaded_once_and_leaves_no_traces(server: FaultServer, pretrained: Path) -> None:
    path = register(pretrained, server.url())
    assert download("tiny") == path
    assert download("tiny") == path
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert {entry.name for entry in path.parent.iterdir()} <= {"tiny.bin", "tiny.bin.lock"}
    assert server.requests[0].headers["User-Agent"].startswith("shr-fan/")


def test_a_url_is_a_model_with_its_hash(server: FaultServer, tmp_path: Path, cache: Path) -> None:
    saved = save_weights(tmp_path / "a.safetensors", STATE, card())
    server.content = (tmp_path / "a.safetensors").read_bytes()
    assert saved.file is not None
    url, digest = server.url("/folder/my%20model.safetensors?download=true"), saved.file.sha256
    for _ in range(2):
        found, state = load_weights(url, sha256=digest)
        assert torch.equal(state["conv.weight"], STATE["conv.weight"])
    assert found.file == WeightsFile(f"my_20model-{digest}.safetensors", digest, len(server.content), (url,))
    assert (cache / found.file.name).read_bytes() == server.content
    assert len(server.requests) == 1


def test_the_published_fan_comes_through_the_network(server: FaultServer, pretrained: Path) -> None:
    buffer = io.BytesIO()
    torch.save(fan_state(stacks=4), buffer)
    server.content = buffer.getvalue()
    fan = get_card("2dfan4")
    file = WeightsFile("2DFAN4.pth.tar", sha256(server.content), urls=(server.url(),))
    (pretrained / "2dfan4.json").write_text(json.dumps(replace(fan, file=file).to_dict()))
    found, state = load_weights("2dfan4")
    assert found == replace(fan, file=replace(file, size=len(server.content)))
    assert state.keys() == fan_state(stacks=4).keys()


def test_a_url_needs_a_hash_and_https() -> None:
    with pytest.raises(InputError, match="sha256: expected the full hash of https://example.com/a.pth"):
        load_weights("https://example.com/a.pth")
    with pytest.raises(InputError, match="sha256: expected 64 hexadecimal digits, got '11f355bf06'"):
        load_weights("https://example.com/a.pth", sha256="11f355bf06")
    for url in (
        "http://example.com/a.pth",
        "ftp://127.0.0.1/a",
        "http://127.0.0.1@example.com/a",
        "http://[",
    ):
        with pytest.raises(DownloadError, match="refused: not an https URL"):
            load_weights(url, sha256=sha256(CONTENT))


def test_a_connection_cut_at_any_byte_is_resumed_there(server: FaultServer, pretrained: Path) -> None:
    for position in range(len(CONTENT)):
        path = register(pretrained, server.url())
        server.script[:] = [Reply(cut_after=position)]
        server.requests.clear()
        download("tiny")
        assert path.read_bytes() == CONTENT
        assert server.ranges == [None, f"bytes={position}-" if position else None]
        if position:
            assert server.requests[1].headers["If-Range"] == '"one"'
        path.unlink()


@pytest.mark.parametrize(
    ("version", "condition"),
    [
        ({"etag": None}, None),
        ({"etag": 'W/"one"'}, None),
        ({"etag": None, "last_modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, "Wed, 21 Oct 2015 07:28:00 GMT"),
    ],
)
def test_a_download_resumes_by_whatever_names_the_version(
    server: FaultServer, pretrained: Path, version: dict[str, Any], condition: str | None
) -> None:
    path = register(pretrained, server.url())
    server.script[:] = [Reply(cut_after=20, **version), Reply(**version)]
    download("tiny")
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=20-"]
    assert server.requests[1].headers.get("If-Range") == condition


def test_a_body_without_length_that_ends_early_is_resumed(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, server.url())
    server.script[:] = [Reply(announce=False, cut_after=20), Reply(announce=False)]
    assert download("tiny").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=20-"]


def test_a_later_start_resumes_an_earlier_one(server: FaultServer, pretrained: Path) -> None:
    path = register(pretrained, server.url())
    server.script[:] = [Reply(cut_after=20), Reply(status=404)]
    with pytest.raises(DownloadError, match="the first 20 bytes, kept in tiny.bin.part"):
        download("tiny")
    assert download("tiny") == path
    assert server.ranges == [None, "bytes=20-", "bytes=20-"]


def test_a_server_without_ranges_sends_it_all_again(server: FaultServer, pretrained: Path) -> None:
    path = register(pretrained, server.url())
    server.script[:] = [Reply(cut_after=20), Reply(honest_range=False)]
    assert download("tiny").read_bytes() == CONTENT
    assert len(server.requests) == 2
    assert not path.with_name("tiny.bin.part").exists()


def test_a_file_that_changed_is_sent_whole(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, server.url())
    server.script[:] = [Reply(body=OTHER, cut_after=20), Reply(etag='"two"')]
    assert download("tiny").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=20-"]


def test_two_halves_of_different_files_are_thrown_away(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, server.url())
    server.script[:] = [Reply(body=OTHER, cut_after=20), Reply(etag='"two"', check_version=False)]
    assert download("tiny").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=20-", None]


@pytest.mark.parametrize("left", [CONTENT, OTHER, CONTENT + b"more", b"\0" * 30])
def test_whatever_a_part_holds_the_file_comes_out_right(
    server: FaultServer, pretrained: Path, left: bytes
) -> None:
    path = register(pretrained, server.url())
    path.parent.mkdir()
    path.with_name("tiny.bin.part").write_bytes(left)
    path.with_name("tiny.bin.etag").write_bytes(b"\0\r\n\xff")
    assert download("tiny").read_bytes() == CONTENT
    assert len(server.requests) == (1 if left == CONTENT else 2)


def test_another_range_than_asked_for_is_not_appended(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = register(pretrained, server.url())
    path.parent.mkdir()
    path.with_name("tiny.bin.part").write_bytes(CONTENT[:20])
    whole = FaultServer._range_holds
    monkeypatch.setattr(  # a server that starts one byte late
        FaultServer,
        "_range_holds",
        staticmethod(
            lambda reply, request: (
                whole(reply, request)
                and request.headers.update(Range=f"bytes={int(request.headers['Range'][6:-1]) + 1}-") is None
            )
        ),
    )
    assert download("tiny").read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_the_wrong_file_is_never_kept(server: FaultServer, pretrained: Path, cache: Path) -> None:
    register(pretrained, server.url())
    for wrong in (OTHER, CONTENT[:40], CONTENT + b"more", b""):
        server.content = wrong
        with pytest.raises(ChecksumError) as caught:
            download("tiny")
        for fact in ("tiny: ", server.url(), str(cache / "tiny.bin"), f"64 bytes, sha256 {sha256(CONTENT)}"):
            assert fact in str(caught.value)
        assert not (cache / "tiny.bin").exists()
        assert not (cache / "tiny.bin.part").exists()


def test_an_endless_body_is_stopped_at_the_known_size(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, server.url())
    server.otherwise = Reply(body=bytes(1 << 22), announce=False, piece=1 << 13)
    with pytest.raises(ChecksumError, match="sent another file"):
        download("tiny")
    assert server.requests[0].sent < 1 << 22


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final_and_says_what_to_do(
    server: FaultServer, pretrained: Path, cache: Path, status: int
) -> None:
    register(pretrained, server.url())
    server.otherwise = Reply(status=status)
    with pytest.raises(DownloadError) as caught:
        download("tiny")
    assert len(server.requests) == 1
    lines = str(caught.value).splitlines()
    assert lines[0] == "tiny: no server gave the file"
    assert lines[1].startswith(f"  tried     {server.url()}: {status} ")
    assert lines[2:6] == [
        f"  url       {server.url()}",
        f"  path      {cache / 'tiny.bin'}",
        f"  expected  64 bytes, sha256 {sha256(CONTENT)}",
        "  found     nothing",
    ]
    assert lines[6].startswith("  by hand   get the file from the url in any way")
    assert len(lines) == 7


def test_missing_certificates_are_no_fault_of_the_cache(
    server: FaultServer, pretrained: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    register(pretrained, "https://localhost:1/tiny.bin")
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "tiny.bin.part").write_bytes(CONTENT[:9])
    with pytest.raises(DownloadError, match="certificate"):
        download("tiny")
    assert (cache / "tiny.bin.part").read_bytes() == CONTENT[:9]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_passing_fault_is_tried_three_times(server: FaultServer, pretrained: Path, status: int) -> None:
    register(pretrained, server.url())
    server.script[:] = [Reply(status=status)] * 2
    assert download("tiny").read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_three_tries_are_all(server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(pretrained, server.url())
    pauses: list[float] = []
    monkeypatch.setattr(downloads, "_BACKOFF", 1.0)
    monkeypatch.setattr(downloads.time, "sleep", pauses.append)
    server.otherwise = Reply(status=500)
    with pytest.raises(DownloadError, match="500 Internal Server Error"):
        download("tiny")
    assert len(server.requests) == 3
    assert pauses == [1.0, 2.0]


def test_tries_that_bring_much_are_not_counted(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_WORTHWHILE", 10)
    register(pretrained, server.url())
    server.otherwise = Reply(cut_after=10)
    assert download("tiny").read_bytes() == CONTENT
    assert len(server.requests) == 7


def test_mirrors_are_asked_in_turn(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, *(server.url(f"/{n}") for n in range(4)))
    server.script[:] = [Reply(status=404), Reply(body=OTHER), *[Reply(status=500)] * 3]
    assert download("tiny").read_bytes() == CONTENT
    assert [request.path for request in server.requests] == ["/0", "/1", "/2", "/2", "/2", "/3"]


def test_a_proxy_is_asked_as_requests_would(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, server.url(""))
    register(pretrained, "http://127.0.0.1:1/a.bin")  # nobody listens there
    assert download("tiny").read_bytes() == CONTENT
    assert [request.path for request in server.requests] == ["http://127.0.0.1:1/a.bin"]
    register(pretrained, "https://example.com/other.bin", data=OTHER)  # it refuses to tunnel
    with pytest.raises(
        DownloadError, match="Tunnel connection failed: 501[^$]*behind a proxy set HTTPS_PROXY"
    ):
        download("tiny")


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
def test_a_certificate_authority_is_believed_as_requests_would(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    request = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    )
    files = ["-out", str(certificate), "-keyout", str(key)]
    subprocess.run([*request.split(), *files], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with FaultServer(CONTENT, tls=tls) as server:
        register(pretrained, server.url())
        with pytest.raises(DownloadError, match="CERTIFICATE_VERIFY_FAILED[^$]*REQUESTS_CA_BUNDLE"):
            download("tiny")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert download("tiny").read_bytes() == CONTENT
        assert len(server.requests) == 1


def test_redirects_are_followed(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, server.url("/old"))
    server.script[:] = [
        Reply(status=302, location="/new"),
        Reply(cut_after=20),
        Reply(status=307, location="/new"),
    ]
    assert download("tiny").read_bytes() == CONTENT
    assert [request.path for request in server.requests] == ["/old", "/new", "/old", "/new"]
    assert server.ranges == [None, None, "bytes=20-", "bytes=20-"]


def test_redirects_in_a_circle_or_away_from_https_are_refused(server: FaultServer, pretrained: Path) -> None:
    register(pretrained, server.url())
    server.otherwise = Reply(status=302, location="/weights.bin")
    with pytest.raises(DownloadError, match="[Ee]xceeded .* redirects"):
        download("tiny")
    server.otherwise = Reply(status=302, location="http://example.com/a")
    with pytest.raises(DownloadError, match="refused: redirected to http://example.com/a, not an https"):
        download("tiny")


def test_a_slow_body_arrives(server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_TIMEOUTS", (1.0, 0.3))
    register(pretrained, server.url())
    server.otherwise = Reply(piece=8, pause=0.06)  # 0.5 s in all, longer than the time-out
    assert download("tiny").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_stalled_body_is_resumed_and_a_mute_server_given_up(
    server: FaultServer, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_TIMEOUTS", (1.0, 0.1))
    server.content = CONTENT * 1000
    register(pretrained, server.url(), data=server.content)
    server.script[:] = [Reply(stall_after=40_000)]
    assert download("tiny").read_bytes() == server.content
    assert server.ranges == [None, "bytes=40000-"]
    clear_cache()
    server.requests.clear()
    server.otherwise = Reply(stall_after=-1)
    with pytest.raises(DownloadError, match="Read timed out"):
        download("tiny")
    assert len(server.requests) == 3


def test_a_closed_port_is_a_download_error(pretrained: Path) -> None:
    with FaultServer(CONTENT) as gone:
        url = gone.url()
    register(pretrained, url)
    with pytest.raises(DownloadError, match="Connection refused"):
        download("tiny")


@pytest.mark.parametrize("kind", [DownloadError, ChecksumError, CacheError, WeightsFormatError])
def test_every_failure_tells_all_there_is_to_know(
    server: FaultServer, pretrained: Path, cache: Path, kind: type[WeightsError]
) -> None:
    path, found = register(pretrained, server.url()), "nothing"
    if kind is DownloadError:
        server.otherwise = Reply(status=404)
    elif kind is ChecksumError:
        server.content, found = OTHER, f"64 bytes, sha256 {sha256(OTHER)}"
    elif kind is CacheError:
        cache.write_bytes(b"in the way")
    else:  # the right bytes, which are no model
        found = f"64 bytes, sha256 {sha256(CONTENT)}"
    with pytest.raises(WeightsError) as caught:
        load_weights("tiny")
    assert type(caught.value) is kind
    problem, *facts = [line for line in str(caught.value).splitlines() if "tried" not in line]
    assert problem.startswith("tiny: ")
    assert facts[:4] == [
        f"  url       {server.url()}",
        f"  path      {path}",
        f"  expected  64 bytes, sha256 {sha256(CONTENT)}",
        f"  found     {found}",
    ]
    assert facts[4].startswith("  by hand   ") and len(facts) == 5


# --- Many processes ---


# The downloader alone, without the package around it: quick to start, and without torch's threads.
ALONE = """
import importlib.util, os, sys
from pathlib import Path
spec = importlib.util.find_spec("face_landmarks")
package = sys.modules["face_landmarks"] = importlib.util.module_from_spec(spec)
package.__version__ = "0"
import filelock, requests, tqdm
from face_landmarks.models.downloads import WeightsFile, obtain
assert "torch" not in sys.modules
base, sha256 = sys.argv[1:]
"""
CROWD = (
    ALONE
    + """
good = 0
for repeat in range(20):
    file = WeightsFile(f"{repeat}.bin", sha256, None, (f"{base}/{repeat}",))
    children = []
    for _ in range(8):
        children.append(os.fork())
        if not children[-1]:
            os._exit(obtain("crowd", file, Path("."))[0].path.name != file.name)
    good += sum(os.waitpid(child, 0)[1] == 0 for child in children)
print(good)
"""
)
ONE = ALONE + """obtain("one", WeightsFile("tiny.bin", sha256, None, (base,)), Path("."))"""


def start(program: str, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, url, sha256(CONTENT)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_eight_processes_at_once_share_one_download_twenty_times(server: FaultServer, cache: Path) -> None:
    server.otherwise = Reply(piece=32, pause=0.02)
    with start(CROWD, server.url("")) as crowd:
        out, err = crowd.communicate(timeout=60)
    assert (out, err) == ("160\n", "")
    assert Counter(request.path for request in server.requests) == {f"/{n}": 1 for n in range(20)}
    assert all((cache / f"{n}.bin").read_bytes() == CONTENT for n in range(20))


def test_after_a_killed_downloader_the_next_start_succeeds(
    server: FaultServer, pretrained: Path, cache: Path
) -> None:
    path = register(pretrained, server.url())
    server.content = CONTENT * 1000
    register(pretrained, server.url(), data=server.content)
    server.script[:] = [Reply(stall_after=40_000)]
    with start(ONE, server.url()) as killed:
        wait_until(lambda: size_of(path.with_name("tiny.bin.part")) >= 16_384)
        killed.kill()
        killed.communicate(timeout=10)
    assert (cache / "tiny.bin.lock").exists()
    assert download("tiny").read_bytes() == server.content
    assert len(server.requests) == 2
    assert server.ranges[1] is not None


def test_a_living_but_stuck_downloader_is_not_waited_for_in_vain(
    server: FaultServer, pretrained: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_PATIENCE", 0.05)
    register(pretrained, server.url())
    cache.mkdir()
    message = "another process holds .*tiny.bin.lock and its download does not grow"
    with filelock.FileLock(cache / "tiny.bin.lock"), pytest.raises(CacheError, match=message):
        download("tiny")
    assert download("tiny").read_bytes() == CONTENT
