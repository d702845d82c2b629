"""The demo: who may talk to its server, what it answers, and the page with a camera in a real browser."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from chromium import Browser, find_browser

from face_landmarks import FaceAligner, read_image
from face_landmarks.cli import main
from face_landmarks.demo.server import DemoServer
from face_landmarks.errors import WriteError

PORTRAIT = Path(str(files("face_landmarks") / "runtime" / "portrait.jpg"))


@pytest.fixture(scope="module")
def aligner():
    return FaceAligner("shr-fan-68-fast", device="cpu")


@pytest.fixture
def server(aligner):
    with DemoServer(aligner) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, method="GET", path="/", body=None, **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): v for name, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


@pytest.fixture
def cookie(server):
    status, headers, _ = ask(server, path="/?" + urlsplit(server.url).query)
    assert status == 303 and headers["Location"] == "/"
    assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Strict" in headers["Set-Cookie"]
    return headers["Set-Cookie"].partition(";")[0]


def test_a_length_of_thousands_of_digits_is_refused(server, cookie):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest("POST", "/align")
    for name, value in (("Cookie", cookie), ("Content-Length", "9" * 5000)):
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_failure_of_the_network_is_told(server, cookie, monkeypatch):
    def fail(pixels):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(server, "aligner", SimpleNamespace(align=fail))
    status, _, body = ask(server, "POST", "/align", PORTRAIT.read_bytes(), Cookie=cookie)
    assert status == 500
    assert json.loads(body) == {"error": "the program failed: RuntimeError: no memory left"}


def test_it_listens_on_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"


def test_the_address_opens_the_page_once(server):
    path = "/?" + urlsplit(server.url).query
    assert ask(server)[0] == ask(server, path="/?token=wrong")[0] == 403
    assert ask(server, path=path)[0] == 303
    assert ask(server, path=path)[0] == 403


def test_the_page_is_given_to_the_browser_that_is_known(server, cookie):
    status, headers, body = ask(server, Cookie=cookie)
    assert status == 200 and b"Start the camera" in body
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert ask(server, Cookie="session=wrong")[0] == ask(server, Cookie="a=b=c;;\x01")[0] == 403
    assert ask(server, path="/../secret", Cookie=cookie)[0] == 404


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
)
def test_other_names_and_other_pages_are_refused(server, cookie, headers):
    assert ask(server, Cookie=cookie, **headers)[0] == 403
    assert ask(server, "POST", "/align", PORTRAIT.read_bytes(), Cookie=cookie, **headers)[0] == 403


def test_a_picture_is_answered_with_its_landmarks(server, cookie, aligner):
    status, _, body = ask(server, "POST", "/align", PORTRAIT.read_bytes(), Cookie=cookie)
    answer = json.loads(body)
    expected = aligner.align(PORTRAIT)
    assert status == 200 and len(expected) == 1
    np.testing.assert_allclose(answer["landmarks"], expected.landmarks, atol=1e-3)
    assert (answer["height"], answer["width"]) == read_image(PORTRAIT).shape[:2]


def test_what_cannot_be_used_is_refused(server, cookie):
    assert ask(server, "POST", "/align", PORTRAIT.read_bytes())[0] == 403
    status, _, body = ask(server, "POST", "/align", b"no photo", Cookie=cookie)
    assert status == 400 and "image" in json.loads(body)["error"]
    assert ask(server, "POST", "/align", b"", Cookie=cookie, Content_Length="17000000")[0] == 413
    assert ask(server, "POST", "/align", b"", Cookie=cookie, Content_Length="-1")[0] == 411
    assert ask(server, "POST", "/other", b"", Cookie=cookie)[0] == 404
    assert ask(server, Cookie=cookie)[0] == 200  # it is still there


def test_a_port_that_is_taken_is_said(aligner):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WriteError, match=f"port {port}: expected a free one on 127.0.0.1"):
            DemoServer(aligner, port)


def test_the_command_prints_its_address_and_ends_by_ctrl_c(capsys):
    command = [sys.executable, "-m", "face_landmarks", "demo", "--no-browser", "--device", "cpu"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        line = process.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{40,}\n", line)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
    with pytest.raises(SystemExit):
        main(["demo", "--port", "70000"])
    assert "expected a port from 0 to 65535, got '70000'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def camera(tmp_path_factory):
    """A film of the portrait, which Chromium's fake camera shows."""
    film = tmp_path_factory.mktemp("camera") / "portrait.y4m"
    photo = cv2.resize(read_image(PORTRAIT), (320, 320))
    canvas = np.zeros((480, 640, 3), np.uint8)
    canvas[80:400, 160:480] = photo
    frame = b"FRAME\n" + cv2.cvtColor(canvas, cv2.COLOR_RGB2YUV_I420).tobytes()
    film.write_bytes(b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\n" + 5 * frame)
    return film


@pytest.mark.skipif(find_browser() is None, reason="needs Chromium")
def test_the_page_draws_landmarks_on_the_camera_and_on_a_photo(server, camera, tmp_path):
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with Browser(*flags, f"--use-file-for-fake-video-capture={camera}") as page:
        page.open(server.url)
        page.click("#camera")
        page.wait("Number(document.documentElement.dataset.frames) >= 2")
        assert page.run("document.querySelectorAll('circle').length") == 68
        assert page.run("document.querySelector('#status').textContent").startswith("1 face, score 0.")
        places = page.run("[...document.querySelectorAll('circle')].map((dot) => dot.cx.baseVal.value)")
        left, right = min(places), max(places)
        assert 160 < left < right < 480  # where the portrait is
        page.screenshot(tmp_path / "camera.png")
        page.click("#camera")
        page.wait("document.querySelector('#status').textContent === 'Stopped.'")
        node = page.call(
            "DOM.querySelector", nodeId=page.call("DOM.getDocument")["root"]["nodeId"], selector="#photo"
        )
        page.call("DOM.setFileInputFiles", files=[str(PORTRAIT)], nodeId=node["nodeId"])
        page.wait("document.querySelector('#status').textContent.endsWith('ms a photo')")
        assert page.run("document.querySelectorAll('circle').length") == 68
        page.screenshot(tmp_path / "photo.png")
        assert page.complaints() == []


@pytest.mark.skipif(find_browser() is None, reason="needs Chromium")
def test_a_camera_started_anew_sends_one_picture_at_a_time(server, camera, aligner, monkeypatch):
    def slowly(pixels):
        time.sleep(0.3)
        return aligner.align(pixels)

    monkeypatch.setattr(server, "aligner", SimpleNamespace(align=slowly))
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with Browser(*flags, f"--use-file-for-fake-video-capture={camera}") as page:
        page.open(server.url)
        page.run(
            "const real = fetch; window.now = window.most = 0; window.fetch = (...all) => {"
            "most = Math.max(most, ++now); return real(...all).finally(() => --now); }; 0"
        )
        page.click("#camera")
        page.wait("now === 1")
        page.click("#camera")  # stopped while an answer is awaited
        page.click("#camera")
        page.wait("Number(document.documentElement.dataset.frames) >= 2")
        page.run("most = 0")
        page.wait("Number(document.documentElement.dataset.frames) >= 5")
        assert page.run("most") == 1
        page.run("window.fetch = () => Promise.reject(new TypeError()); 0")  # as for a server that has ended
        page.wait("document.querySelector('#status').textContent.startsWith('The program does not answer')")
