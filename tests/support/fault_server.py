"""A small HTTP server that fails on purpose."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


@dataclass(frozen=True)
class Reply:
    """How to answer one request; as it stands, correctly.

    Attributes:
        status: sent instead of the file, if not 200.
        location: where to redirect to.
        body: sent instead of the server's file.
        etag: of the file, or None to send none.
        last_modified: sent if not empty.
        honest_range: honour Range and If-Range.
        check_version: whether If-Range is compared with the etag.
        announce: send Content-Length.
        cut_after: close the connection after so many bytes of the body.
        stall_after: send nothing more after so many bytes, or no headers at all if -1.
        piece: bytes sent at a time...
        pause: ...with so many seconds before each.
    """

    status: int = 200
    location: str = ""
    body: bytes | None = None
    etag: str | None = '"one"'
    last_modified: str = ""
    honest_range: bool = True
    check_version: bool = True
    announce: bool = True
    cut_after: int | None = None
    stall_after: int | None = None
    piece: int = 1 << 16
    pause: float = 0.0


@dataclass
class Request:
    """What a client asked for.

    Attributes:
        path: with its query.
        headers: as sent.
        sent: bytes of the body sent so far.
    """

    path: str
    headers: dict[str, str]
    sent: int = 0


@dataclass
class FaultServer:
    """Serves one file on the loopback; a context manager.

    Attributes:
        content: the file.
        script: replies to the first requests, in order; later ones get `otherwise`.
        requests: all requests so far.
        tls: with its certificate, to speak https.
    """

    content: bytes
    script: list[Reply] = field(default_factory=list)
    otherwise: Reply = field(default_factory=Reply)
    requests: list[Request] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> FaultServer:
        self._lock, self._closing = threading.Lock(), threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if self.tls:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str = "/weights.bin") -> str:
        return f"http{'s' * bool(self.tls)}://127.0.0.1:{self._server.server_port}{path}"

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [request.headers.get("Range") for request in self.requests]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            reply = self.script.pop(0) if self.script else self.otherwise
            request = Request(handler.path, dict(handler.headers))
            self.requests.append(request)
        handler.close_connection = True
        with suppress(ConnectionError):  # the client left
            self._send(handler, reply, request)

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply, request: Request) -> None:
        if reply.stall_after == -1:
            self._closing.wait(10)
            return
        status, body = reply.status, self.content if reply.body is None else reply.body
        headers = {"ETag": reply.etag, "Last-Modified": reply.last_modified, "Location": reply.location}
        if status != 200:
            body = b"" if status < 400 else b"sorry"
        elif self._range_holds(reply, request):
            start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(body) else 416
            headers["Content-Range"] = (
                f"bytes {start}-{len(body) - 1}/{len(body)}" if status == 206 else f"bytes */{len(body)}"
            )
            body = body[start:]
        if reply.announce:
            headers["Content-Length"] = str(len(body))
        handler.send_response(status)
        for name, value in headers.items():
            if value:
                handler.send_header(name, value)
        handler.send_header("Connection", "close")
        handler.end_headers()
        end = min(n for n in (reply.cut_after, reply.stall_after, len(body)) if n is not None)
        for start in range(0, end, reply.piece):
            if reply.pause and self._closing.wait(reply.pause):
                return
            piece = body[start : min(start + reply.piece, end)]
            handler.wfile.write(piece)
            request.sent += len(piece)
        if reply.stall_after is not None:
            self._closing.wait(10)

    @staticmethod
    def _range_holds(reply: Reply, request: Request) -> bool:
        if not reply.honest_range or "Range" not in request.headers:
            return False
        version = request.headers.get("If-Range")
        current = reply.last_modified if reply.etag is None else reply.etag
        return version is None or not reply.check_version or version == current


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something another thread or process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)
