"""A server for one browser on this machine: its page sends pictures, the answer is their landmarks.

It listens on 127.0.0.1 alone. Its address has a token that opens the page once; from then on the browser is
known by a cookie. Requests under another host's name are refused, so that no other page reaches it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from face_landmarks.aligner import FaceAligner
from face_landmarks.errors import FaceLandmarksError, WriteError
from face_landmarks.images import read_image

_ADDRESS: Final = "127.0.0.1"
_MOST_BYTES: Final = 16_000_000  # of a picture
_MOST_DIGITS: Final = 20  # of a length; int() refuses thousands
_MOST_PIXELS: Final = 40_000_000
_SECONDS: Final = 20  # without data from the browser until a connection is closed
_POLICY: Final = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'unsafe-inline'; img-src blob: data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class DemoServer(ThreadingHTTPServer):
    """The server; `serve_forever` runs it, `url` opens its page.

    Args:
        aligner: with a detector.
        port: to listen on; 0 for a free one.

    Raises:
        WriteError: the port is taken.
    """

    daemon_threads = True
    aligner: FaceAligner

    def __init__(self, aligner: FaceAligner, port: int = 0) -> None:
        self.aligner = aligner
        self.lock = threading.Lock()  # one picture at a time
        self.session = secrets.token_urlsafe(32)
        self._token: str | None = secrets.token_urlsafe(32)
        self._page, self.policy = _page(aligner)
        try:
            super().__init__((_ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise WriteError(f"port {port}: expected a free one on {_ADDRESS}, got {reason}") from error
        self.hosts = {f"{name}:{self.server_port}" for name in (_ADDRESS, "localhost")}

    @property
    def url(self) -> str:
        """The address of the page; it serves once."""
        return f"http://{_ADDRESS}:{self.server_port}/?token={self._token}"

    @property
    def page(self) -> bytes:
        """The page."""
        return self._page

    def take_token(self, token: str) -> bool:
        """Whether this is the token; it serves once."""
        with self.lock:
            right = self._token is not None and hmac.compare_digest(token.encode(), self._token.encode())
            if right:
                self._token = None
            return right

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing when a browser closes its connection."""


def _page(aligner: FaceAligner) -> tuple[bytes, str]:
    """The page and its policy, by which only its own script runs."""
    html = (files("face_landmarks.demo") / "assets" / "demo.html").read_text("utf-8")
    lines = [
        [*indices, *indices[: name in aligner.layout.closed]]
        for name, indices in aligner.layout.groups.items()
    ]
    html = html.replace("@lines@", json.dumps(lines)).replace("@names@", json.dumps(aligner.layout.names))
    script = html.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return html.encode(), _POLICY.format(script=digest)


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    protocol_version = "HTTP/1.1"
    timeout = _SECONDS

    def do_GET(self) -> None:
        if not self._is_local():
            return self._refuse(403, "expected a request to this machine's own address")
        url = urlsplit(self.path)
        token = parse_qs(url.query).get("token", [""])[0]
        if url.path != "/":
            return self._refuse(404, "expected the page /")
        if token and self.server.take_token(token):
            cookie = f"session={self.server.session}; HttpOnly; SameSite=Strict; Path=/"
            return self._send(303, b"", "text/plain", {"Location": "/", "Set-Cookie": cookie})
        if not self._is_known():
            return self._refuse(
                403, "expected the address that the command printed, which opens the page once"
            )
        self._send(200, self.server.page, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        self.close_connection = True  # what is refused is not read
        if not self._is_local() or not self._is_known():
            return self._refuse(403, "expected a request of the page")
        if self.path != "/align":
            return self._refuse(404, "expected /align")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            return self._refuse(411, "expected a picture and its length")
        if len(length) > _MOST_DIGITS or int(length) > _MOST_BYTES:
            return self._refuse(413, f"expected at most {_MOST_BYTES} bytes, got {length[:_MOST_DIGITS]}")
        body = self.rfile.read(int(length))
        try:
            pixels = read_image(body, max_pixels=_MOST_PIXELS)
            with self.server.lock:
                faces = self.server.aligner.align(pixels)
        except FaceLandmarksError as error:
            return self._refuse(400, str(error))
        except Exception as error:  # the page tells it; the next picture may be fine
            return self._refuse(500, f"the program failed: {type(error).__name__}: {error}")
        self.close_connection = False
        answer = {"width": pixels.shape[1], "height": pixels.shape[0], **faces.to_dict()}
        self._send(200, json.dumps(answer).encode(), "application/json")

    def _is_local(self) -> bool:
        """Whether the browser asked this server by its own name, from its own page or from none."""
        origin = self.headers.get("Origin")
        host = self.headers.get("Host", "")
        return host in self.server.hosts and origin in (None, f"http://{host}")

    def _is_known(self) -> bool:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self.server.session.encode())

    def _refuse(self, code: int, reason: str) -> None:
        self.close_connection = True
        self._send(code, json.dumps({"error": reason}).encode(), "application/json")

    def _send(self, code: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(code)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self.server.policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            **(more or {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print no line per request: the terminal shows the command's own messages."""
