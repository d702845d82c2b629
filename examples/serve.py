"""Landmarks over HTTP: photos in, JSON out, with batches across requests. Only the standard library serves.

    python examples/serve.py --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/align

POST /align takes the bytes of a photo and answers `Faces.to_dict()` as JSON. GET /health answers 200, or 503
while the server ends or a batch takes too long. Errors are {"error": ...}: 4xx where the request is at fault;
503 with Retry-After where the server is full; 504 where a photo waited too long. SIGTERM and Ctrl-C end it:
requests in work are finished, if --end-seconds suffice.

Exit codes: 0 after SIGTERM or Ctrl-C; 1 if requests were cut off; 2 if the server cannot start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, fields
from typing import Literal, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks import (
    MTCNN,
    Detections,
    Detector,
    FaceAligner,
    FaceLandmarksError,
    ImageError,
    YuNet,
    read_image,
)
from face_landmarks.detection import run_detector

REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    411: "Length Required", 413: "Content Too Large", 422: "Unprocessable Content",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip
PATHS = {"/align": ("POST",), "/health": ("GET", "HEAD")}
DECODERS = 2  # threads
FACE_BYTES = 8192  # of JSON at most, for up to 125 landmarks
LINGER_SECONDS = 2.0  # in which a client may end its request after an answer that closes the connection
SPARE_FILES = 512  # that are open beside those of connections, or for a moment in a flood


class OptionError(ValueError):
    """The server cannot start with these options."""


@dataclass(frozen=True)
class Limits:
    """What the server takes; `memory` says what follows from it.

    Attributes:
        queue: photos that wait for a batch.
        batch: photos aligned together.
        wait: seconds that the first photo of a batch waits for others.
        photo_bytes: of one request's body.
        waiting_bytes: of all bodies that are read or wait, and of their answers.
        photo_pixels: of one photo.
        faces: in one photo.
        header_bytes: of one request.
        connections: open at once.
        idle_seconds: for the next request of an open connection to begin.
        header_seconds: from a header's first byte to its end.
        body_seconds: for the whole body.
        align_seconds: from the end of the body to the answer.
        send_seconds: for the client to take the answer.
        end_seconds: for the requests in work when the server ends.
    """

    queue: int = 64
    batch: int = 8
    wait: float = 0.005
    photo_bytes: int = 16 * 2**20
    waiting_bytes: int = 256 * 2**20
    photo_pixels: int = 25_000_000
    faces: int = 32
    header_bytes: int = 16 * 2**10
    connections: int = 512
    idle_seconds: float = 30.0
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    align_seconds: float = 30.0
    send_seconds: float = 10.0
    end_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, int) and value < 1:
                raise OptionError(f"{option}: expected 1 or more, got {value}")
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise OptionError(f"{option}: expected seconds, got {value}")
            if name.endswith("_seconds") and value == 0:
                raise OptionError(f"{option}: expected more than 0 seconds, got {value}")
        if self.waiting_bytes < self.photo_bytes + self.answer_bytes:
            raise OptionError(
                f"--waiting-bytes: expected {self.photo_bytes + self.answer_bytes} or more, "
                f"for one photo and its answer, got {self.waiting_bytes}"
            )

    @property
    def answer_bytes(self) -> int:
        """Of one answer at most, with its copy in the buffer of the connection."""
        return 2 * self.faces * FACE_BYTES

    @property
    def memory(self) -> int:
        """Bytes that requests can take at most, beside the network's own.

        That is: bodies that are read or wait and their answers, one body twice while it is copied, and those
        of a batch; headers with their buffers; a batch of photos at 3 bytes a pixel, and those that are being
        decoded, at 16; and an answer while it is made.
        """
        bodies = self.waiting_bytes + (1 + self.batch) * self.photo_bytes + 2 * self.answer_bytes
        headers = 8 * self.header_bytes * self.connections
        return bodies + headers + (3 * self.batch + 16 * DECODERS) * self.photo_pixels


@dataclass(frozen=True)
class Answer:
    """What a client gets: a status of HTTP, JSON, and more headers."""

    status: int
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """An answer that is an error.

    Args:
        status: of HTTP.
        reason: for the client.
        close: whether the connection cannot be used for another request.
        headers: more of them.
    """

    def __init__(self, status: int, reason: str, *, close: bool = True, **headers: str) -> None:
        super().__init__(reason)
        self.close = close
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = Answer(status, json.dumps({"error": reason}).encode(), more)


def full(seconds: int = 1, *, close: bool = True) -> Refused:
    """An answer that asks the client to come again."""
    return Refused(503, "the server is full", close=close, Retry_After=str(seconds))


def failed(what: str, error: Exception) -> Refused:
    """An answer to a photo at which something failed; the log tells what."""
    print(f"serve: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return Refused(500, what, close=False)


class FewFaces:
    """A detector that refuses photos of too many faces, before the network runs on them."""

    def __init__(self, detector: Detector, faces: int) -> None:
        self.detector, self.faces = detector, faces

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        found = run_detector(self.detector, image)
        if len(found.boxes) > self.faces:
            reason = f"expected at most {self.faces} faces in a photo, found {len(found.boxes)}"
            raise Refused(422, reason, close=False)
        return found


@dataclass
class Waiting:
    """A photo in the queue, whether its client has left, and where its answer goes."""

    data: bytes
    left: Callable[[], bool]
    answer: asyncio.Future[bytes]


class Batcher:
    """One thread that aligns photos of many requests together; others decode them."""

    def __init__(self, aligner: FaceAligner, limits: Limits) -> None:
        self.aligner, self.limits = aligner, limits
        self.queue: asyncio.Queue[Waiting] = asyncio.Queue(limits.queue)
        self.photos = self.batches = 0  # so far
        self.pace = 0.1  # seconds a photo, of late
        self.started: float | None = None  # when the batch in work was, if there is one
        self.decoders = ThreadPoolExecutor(DECODERS, "decode")
        self.worker = ThreadPoolExecutor(1, "align")

    @property
    def seconds(self) -> float:
        """For how long the batch in work has run."""
        return 0.0 if self.started is None else time.perf_counter() - self.started

    async def answer(self, data: bytes, left: Callable[[], bool]) -> bytes:
        """The JSON of a photo's faces.

        Raises:
            Refused: the queue is full, the photo cannot be read, or it waited too long.
            ConnectionResetError: the client left.
        """
        waiting = Waiting(data, left, asyncio.get_running_loop().create_future())
        try:
            self.queue.put_nowait(waiting)
            return await asyncio.wait_for(waiting.answer, self.limits.align_seconds)
        except asyncio.QueueFull:
            seconds = min(math.ceil(self.limits.queue * self.pace), math.ceil(self.limits.idle_seconds) - 1)
            raise full(max(1, seconds), close=False) from None
        except asyncio.TimeoutError:
            raise Refused(504, f"no answer in {self.limits.align_seconds:g} s", close=False) from None
        finally:
            waiting.data = b""  # where it still stands in the queue, it takes no memory

    async def run(self) -> None:
        """Align batch after batch, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self.next_batch()
            self.photos, self.batches = self.photos + len(batch), self.batches + 1
            self.started = time.perf_counter()
            answers: list[bytes | Refused]
            try:
                answers = await loop.run_in_executor(self.worker, self.align, [one.data for one in batch])
            except Exception as error:  # such as a lack of memory: batches go on
                answers = [failed("the batch failed", error) for _ in batch]
            self.pace += 0.1 * (self.seconds / len(batch) - self.pace)
            self.started = None
            for one, answer in zip(batch, answers, strict=True):
                if one.answer.done():
                    continue
                if isinstance(answer, Refused):
                    one.answer.set_exception(answer)
                else:
                    one.answer.set_result(answer)

    async def next_batch(self) -> list[Waiting]:
        """At least one photo, without those whose clients left or gave up."""
        batch: list[Waiting] = []
        while not batch or (len(batch) < self.limits.batch and not self.queue.empty()):
            one = await self.queue.get()
            if not batch and self.queue.empty():
                await asyncio.sleep(self.limits.wait)
            if not one.answer.done() and one.left():
                one.answer.set_exception(ConnectionResetError("the client left"))
            if not one.answer.done():
                batch.append(one)
        return batch

    def align(self, batch: list[bytes]) -> list[bytes | Refused]:
        """The answer to each photo, in order."""
        photos = list(self.decoders.map(self.decode, batch))
        found = iter(self.faces([photo for photo in photos if not isinstance(photo, Refused)]))
        return [photo if isinstance(photo, Refused) else next(found) for photo in photos]

    def faces(self, photos: list[NDArray[np.uint8]]) -> list[bytes | Refused]:
        """The answer to each photo that could be read."""
        errors: dict[int, Exception] = {}
        answers: list[bytes | Refused]
        try:
            results = self.aligner.align_batch(photos, on_error=errors.__setitem__)
            answers = [json.dumps(faces.to_dict()).encode() for faces in results]
        except Exception as problem:
            if len(photos) > 1:  # one photo must not cost the others their answers
                return [answer for photo in photos for answer in self.faces([photo])]
            answers, errors = [b""], {0: problem}
        for index, error in errors.items():
            if not isinstance(error, Refused):
                error = failed("the detector or the network failed", error)
            answers[index] = error
        return answers

    def decode(self, data: bytes) -> NDArray[np.uint8] | Refused:
        try:
            return read_image(data, max_pixels=self.limits.photo_pixels)
        except ImageError as error:
            return Refused(422, str(error), close=False)
        except Exception as error:  # such as a lack of memory: the thread must not end, nor others wait
            return failed("the photo could not be decoded", error)


@dataclass(frozen=True)
class Request:
    """The header of a request, and whether the connection stays open after it."""

    path: str
    headers: dict[str, str]
    keep: bool


def parse_header(text: str) -> Request:
    """A request's header, which is checked.

    Raises:
        Refused: it is none that this server answers.
    """
    first, *lines = text.split("\r\n")
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", "".join([first, *lines])):  # others may end a line there
        raise Refused(400, "expected lines that end in CR LF, without control characters")
    method, _, rest = first.partition(" ")
    path, _, version = rest.partition(" ")
    if not (method.isalpha() and path.startswith("/") and version.startswith("HTTP/")):
        raise Refused(400, "expected METHOD /PATH HTTP/1.1")
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise Refused(505, f"expected HTTP/1.1, got {version}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
            raise Refused(400, f"expected NAME: VALUE, got {line[:40]!r}")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "transfer-encoding" in headers:
        raise Refused(501, "expected Content-Length, got Transfer-Encoding")
    path = path.partition("?")[0]
    if path not in PATHS:
        raise Refused(404, f"expected one of {', '.join(PATHS)}")
    if method not in PATHS[path]:
        methods = ", ".join(PATHS[path])
        raise Refused(405, f"expected {methods}", Allow=methods)
    if method != "POST" and headers.get("content-length", "0") != "0":
        raise Refused(400, "expected no body")
    connection = [word.strip(" \t") for word in headers.get("connection", "").lower().split(",")]
    return Request(path, headers, version == "HTTP/1.1" and "close" not in connection)


class Server:
    """HTTP/1.1 over asyncio: a request is read within the limits, answered, and the next one may follow."""

    def __init__(self, aligner: FaceAligner, limits: Limits) -> None:
        self.limits, self.batcher = limits, Batcher(aligner, limits)
        self.bodies = 0  # bytes that are promised to bodies and their answers
        self.tasks: dict[asyncio.Task[None], Literal["idle", "request", "closing"]] = {}  # of connections
        self.stop = asyncio.Event()

    async def run(self, host: str, port: int) -> int:
        """Serve until SIGTERM or SIGINT; how many requests were cut off then.

        Raises:
            OptionError: the server cannot listen there.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError):  # on Windows, where Ctrl-C raises KeyboardInterrupt
                asyncio.get_running_loop().add_signal_handler(number, self.stop.set)
        try:
            server = await asyncio.start_server(
                self.connected, host, port, limit=self.limits.header_bytes, backlog=128
            )
        except (OSError, ValueError) as error:
            raise OptionError(f"--host {host} --port {port}: {error}") from None
        batches = asyncio.create_task(self.batcher.run())
        port, megabytes = server.sockets[0].getsockname()[1], self.limits.memory / 1e6
        print(f"serve: http://{host}:{port}, requests take {megabytes:.0f} MB at most", flush=True)
        await self.stop.wait()
        server.close()
        for task, state in self.tasks.items():
            if state == "idle":
                task.cancel()
        late: set[asyncio.Task[None]] = set()
        if self.tasks:
            _, late = await asyncio.wait(list(self.tasks), timeout=self.limits.end_seconds)
        cut_off = sum(self.tasks[task] == "request" for task in late)
        for task in (batches, *late):
            task.cancel()
        return cut_off

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection, one after the other."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks[task] = "idle"
        try:
            if len(self.tasks) > 2 * self.limits.connections:
                return  # a flood, which gets no answer
            if len(self.tasks) > self.limits.connections:
                await self.send(writer, full().answer)
            else:
                while await self.one_request(reader, writer, task) and not self.stop.is_set():
                    self.tasks[task] = "idle"
            self.tasks[task] = "closing"
            await self.close(reader, writer)
        except (OSError, asyncio.TimeoutError, asyncio.CancelledError):
            pass  # the client left, does not read, or the server ends
        finally:
            writer.transport.abort()  # where it is not closed yet
            del self.tasks[task]

    async def one_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> bool:
        """Whether another request may follow."""
        keep, body = False, True
        try:
            text = await self.read_header(reader)
            if text is None:
                return False
            self.tasks[task], body = "request", not text.startswith("HEAD ")
            request = parse_header(text)
            keep = request.keep
            if request.path == "/health":
                await self.send(writer, self.health(), keep, body)
            else:
                async with self.body(reader, writer, request) as data:
                    content = await self.batcher.answer(data, writer.transport.is_closing)
                    await self.send(writer, Answer(200, content), keep)
        except Refused as refused:
            keep = keep and not refused.close
            await self.send(writer, refused.answer, keep, body)
        return keep

    def health(self) -> Answer:
        batcher = self.batcher
        ok = not self.stop.is_set() and batcher.seconds <= self.limits.align_seconds
        content = {
            "ok": ok,
            "waiting": batcher.queue.qsize(),
            "photos": batcher.photos,
            "batches": batcher.batches,
            "batch_seconds": round(batcher.seconds, 3),
        }
        return Answer(200 if ok else 503, json.dumps(content).encode())

    async def read_header(self, reader: asyncio.StreamReader) -> str | None:
        """The header of the next request; None if the client has no more, or takes its time."""
        try:
            text = await asyncio.wait_for(reader.readexactly(1), self.limits.idle_seconds)
        except (asyncio.IncompleteReadError, asyncio.TimeoutError):
            return None
        try:
            text += await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), self.limits.header_seconds)
        except asyncio.LimitOverrunError:
            raise Refused(431, f"expected a header of at most {self.limits.header_bytes} bytes") from None
        except asyncio.IncompleteReadError:
            raise Refused(400, "expected a whole header") from None
        except asyncio.TimeoutError:
            raise Refused(408, f"expected a header in {self.limits.header_seconds:g} s") from None
        return text.decode("latin-1").removeprefix("\r\n").removesuffix("\r\n\r\n")

    @asynccontextmanager
    async def body(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request
    ) -> AsyncIterator[bytes]:
        """The body of a request, whose bytes and answer count as waiting until the block ends."""
        length = self.length_of(request)
        size = length + self.limits.answer_bytes
        if self.stop.is_set() or self.bodies + size > self.limits.waiting_bytes:
            raise full()
        self.bodies += size
        try:
            if request.headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            try:
                yield await asyncio.wait_for(reader.readexactly(length), self.limits.body_seconds)
            except asyncio.TimeoutError:
                raise Refused(408, f"expected a body in {self.limits.body_seconds:g} s") from None
            except asyncio.IncompleteReadError as error:
                raise Refused(400, f"expected {length} bytes, got {len(error.partial)}") from None
        finally:
            self.bodies -= size

    def length_of(self, request: Request) -> int:
        """The bytes of a request's body, as its header tells."""
        text = request.headers.get("content-length")
        if text is None:
            raise Refused(411, "expected Content-Length")
        if not (text.isascii() and text.isdecimal()):
            raise Refused(400, f"expected a Content-Length, got {text[:20]!r}")
        if len(text) > 18 or int(text) > self.limits.photo_bytes:
            raise Refused(413, f"expected at most {self.limits.photo_bytes} bytes, got {text[:20]}")
        return int(text)

    async def send(
        self, writer: asyncio.StreamWriter, answer: Answer, keep: bool = False, body: bool = True
    ) -> None:
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(answer.content)),
            "Connection": "keep-alive" if keep and not self.stop.is_set() else "close",
            **answer.headers,
        }
        lines = [
            f"HTTP/1.1 {answer.status} {REASONS[answer.status]}",
            *(f"{name}: {text}" for name, text in headers.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (answer.content if body else b""))
        await asyncio.wait_for(writer.drain(), self.limits.send_seconds)

    async def close(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Close a connection so that its client gets the last answer, also while it still sends a body."""
        with suppress(OSError):
            writer.write_eof()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.pass_over(reader), LINGER_SECONDS)
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), self.limits.send_seconds)

    async def pass_over(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(2**16):
            pass


def allow_files(connections: int) -> None:
    """Raise unless this process may open so many connections, and as many that it turns away.

    The limit that the shell sets (`ulimit -n`) is raised where it is too low.

    Raises:
        OptionError: the system does not allow it.
    """
    if sys.platform == "win32":
        return  # there is no such limit
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= (files := 2 * connections + SPARE_FILES):
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    except (ValueError, OSError, OverflowError):
        allowed = soft if hard == resource.RLIM_INFINITY else hard
        raise OptionError(
            f"--connections {connections}: expected at least {files} open files to be allowed (ulimit -n), "
            f"got {allowed}"
        ) from None


class Parser(argparse.ArgumentParser):
    """One whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"serve: {message}\n")


def make_parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--model", default="shr-fan-68")
    parser.add_argument("--detector", default="mtcnn", choices=("mtcnn", "yunet"))
    parser.add_argument("--device", help="cpu, cuda, ...")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the network")
    for option in fields(Limits):
        name = f"--{option.name.replace('_', '-')}"
        parser.add_argument(name, type=type(option.default), default=option.default, help="(%(default)s)")
    return parser


def make_server(options: argparse.Namespace) -> Server:
    """A server whose network and detector are loaded.

    Raises:
        OptionError: an option is not usable.
        FaceLandmarksError: nor is a model or device.
    """
    limits = Limits(**{option.name: getattr(options, option.name) for option in fields(Limits)})
    if not 0 <= options.port < 2**16:
        raise OptionError(f"--port: expected 0 to {2**16 - 1}, got {options.port}")
    if not 1 <= options.threads <= 1024:
        raise OptionError(f"--threads: expected 1 to 1024, got {options.threads}")
    allow_files(limits.connections)
    torch.set_num_threads(options.threads)
    detector = YuNet() if options.detector == "yunet" else MTCNN(device=options.device)
    aligner = FaceAligner(options.model, detector=FewFaces(detector, limits.faces), device=options.device)
    aligner.align(np.zeros((64, 64, 3), np.uint8))  # loads what is loaded at the first photo
    return Server(aligner, limits)


def main() -> int:
    parser = make_parser()
    options = parser.parse_args()
    try:
        cut_off = asyncio.run(make_server(options).run(options.host, options.port))
    except (OptionError, FaceLandmarksError) as error:
        parser.error(str(error))
    if cut_off:
        print(f"serve: {cut_off} requests were cut off", file=sys.stderr, flush=True)
    return int(cut_off > 0)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # not sys.exit, which waits for threads, and one may be at a photo for which nobody waits
