"""Landmarks over HTTP: photos in, JSON out, with batches across requests. Only the standard library serves.

    python examples/serve.py --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/align

POST /align takes the bytes of a photo and answers `Faces.to_dict()` as JSON. GET /health answers 200, or 503
while the server ends. Errors are {"error": ...}: 4xx where the request is at fault; 503 with Retry-After
where the server is full; 504 where a photo waited too long. SIGTERM and Ctrl-C end it: requests that are
being answered are finished.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from face_landmarks import FaceAligner, ImageError, read_image

REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    411: "Length Required", 413: "Content Too Large", 422: "Unprocessable Content",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip
PATHS = {"/align": "POST", "/health": "GET"}
DECODERS = 2  # threads


@dataclass(frozen=True)
class Limits:
    """What the server takes; `memory` says what follows from it.

    Attributes:
        queue: photos that wait for a batch.
        batch: photos aligned together.
        wait: seconds that the first photo of a batch waits for others.
        photo_bytes: of one request's body.
        waiting_bytes: of all bodies that are read or wait.
        photo_pixels: of one photo.
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
    header_bytes: int = 16 * 2**10
    connections: int = 512
    idle_seconds: float = 30.0
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    align_seconds: float = 30.0
    send_seconds: float = 10.0
    end_seconds: float = 30.0

    @property
    def memory(self) -> int:
        """Bytes that requests can take at most, beside the network's own.

        That is: bodies that are read or wait, one of them twice while it is copied, and those of a batch;
        headers with their buffers; a batch of photos at 3 bytes a pixel, and those that are being decoded,
        at 16.
        """
        bodies = self.waiting_bytes + (1 + self.batch) * self.photo_bytes
        headers = 8 * self.header_bytes * self.connections
        return bodies + headers + (3 * self.batch + 16 * DECODERS) * self.photo_pixels


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
        self.status, self.close = status, close
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Waiting:
    """A photo in the queue, and where its answer goes."""

    data: bytes
    answer: asyncio.Future[bytes]


class Batcher:
    """One thread that aligns photos of many requests together; others decode them."""

    def __init__(self, aligner: FaceAligner, limits: Limits) -> None:
        self.aligner, self.limits = aligner, limits
        self.queue: asyncio.Queue[Waiting] = asyncio.Queue(limits.queue)
        self.photos = self.batches = 0  # so far
        self.pace = 0.1  # seconds a photo, of late
        self.decoders = ThreadPoolExecutor(DECODERS, "decode")
        self.worker = ThreadPoolExecutor(1, "align")

    async def answer(self, data: bytes) -> bytes:
        """The JSON of a photo's faces.

        Raises:
            Refused: the queue is full, the photo cannot be read, or it waited too long.
        """
        waiting = Waiting(data, asyncio.get_running_loop().create_future())
        try:
            self.queue.put_nowait(waiting)
            return await asyncio.wait_for(waiting.answer, self.limits.align_seconds)
        except asyncio.QueueFull:
            raise full(math.ceil(self.queue.maxsize * self.pace), close=False) from None
        except asyncio.TimeoutError:
            raise Refused(504, f"no answer in {self.limits.align_seconds:g} s", close=False) from None
        finally:
            waiting.data = b""  # where it still stands in the queue, it takes no memory

    async def run(self) -> None:
        """Align batch after batch, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self.queue.get()]
            if self.queue.empty():
                await asyncio.sleep(self.limits.wait)
            while len(batch) < self.limits.batch and not self.queue.empty():
                batch.append(self.queue.get_nowait())
            batch = [one for one in batch if not one.answer.done()]  # without clients that gave up
            self.photos, self.batches = self.photos + len(batch), self.batches + 1
            start = time.perf_counter()
            answers = await loop.run_in_executor(self.worker, self.align, [one.data for one in batch])
            self.pace += 0.1 * ((time.perf_counter() - start) / max(1, len(batch)) - self.pace)
            for one, answer in zip(batch, answers, strict=True):
                if one.answer.done():
                    continue
                if isinstance(answer, Refused):
                    one.answer.set_exception(answer)
                else:
                    one.answer.set_result(answer)

    def align(self, batch: list[bytes]) -> list[bytes | Refused]:
        """The answer to each photo, in order."""
        photos = list(self.decoders.map(self.decode, batch))
        found = iter(self.faces([photo for photo in photos if not isinstance(photo, Refused)]))
        return [photo if isinstance(photo, Refused) else next(found) for photo in photos]

    def faces(self, photos: list[NDArray[np.uint8]]) -> list[bytes | Refused]:
        """The answer to each photo that could be read."""
        failed: dict[int, Exception] = {}
        try:
            results = self.aligner.align_batch(photos, on_error=failed.__setitem__)
        except Exception as problem:
            if len(photos) > 1:  # one photo must not cost the others their answers
                return [answer for photo in photos for answer in self.faces([photo])]
            results, failed = [], {0: problem}
        answers: list[bytes | Refused] = [json.dumps(faces.to_dict()).encode() for faces in results]
        for index, error in failed.items():
            print(f"serve: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            answers[index : index + 1] = [Refused(500, "the detector or the network failed", close=False)]
        return answers

    def decode(self, data: bytes) -> NDArray[np.uint8] | Refused:
        try:
            return read_image(data, max_pixels=self.limits.photo_pixels)
        except ImageError as error:
            return Refused(422, str(error), close=False)
        except Exception as error:  # such as a lack of memory: the thread must not end, nor others wait
            print(f"serve: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return Refused(500, "the photo could not be decoded", close=False)


def full(seconds: int = 1, *, close: bool = True) -> Refused:
    """An answer that asks the client to come again."""
    return Refused(503, "the server is full", close=close, Retry_After=str(seconds))


@dataclass(frozen=True)
class Request:
    """The header of a request, and whether the connection stays open after it."""

    method: str
    path: str
    headers: dict[str, str]
    keep: bool


class Server:
    """HTTP/1.1 over asyncio: a request is read within the limits, answered, and the next one may follow."""

    def __init__(self, aligner: FaceAligner, limits: Limits) -> None:
        self.limits, self.batcher = limits, Batcher(aligner, limits)
        self.bodies = 0  # bytes that are promised to bodies
        self.tasks: dict[asyncio.Task[None], bool] = {}  # each connection, and whether it has a request
        self.ending = False

    async def run(self, host: str, port: int, started: Callable[[int], object]) -> None:
        """Serve until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError):  # on Windows, where Ctrl-C raises KeyboardInterrupt
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        batches = asyncio.create_task(self.batcher.run())
        server = await asyncio.start_server(
            self.connected, host, port, limit=self.limits.header_bytes, backlog=self.limits.connections
        )
        started(server.sockets[0].getsockname()[1])
        await stop.wait()
        self.ending = True
        server.close()
        for task, busy in self.tasks.items():
            if not busy:
                task.cancel()
        if self.tasks:
            _, late = await asyncio.wait(list(self.tasks), timeout=self.limits.end_seconds)
            for task in late:
                task.cancel()
        batches.cancel()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection, one after the other."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks[task] = False
        try:
            if len(self.tasks) > 2 * self.limits.connections:
                raise ConnectionAbortedError  # a flood, which gets no answer
            if len(self.tasks) > self.limits.connections:
                await self.send_error(writer, full())
            else:
                while await self.one_request(reader, writer, task):
                    self.tasks[task] = False
                    if self.ending:
                        break
            await self.close(reader, writer)
        except (ConnectionError, asyncio.TimeoutError, asyncio.CancelledError):
            writer.transport.abort()  # the client left, does not read, or the server ends
        finally:
            del self.tasks[task]

    async def one_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> bool:
        """Whether another request may follow."""
        keep = False
        try:
            request = await self.read_header(reader)
            if request is None:
                return False
            self.tasks[task], keep = True, request.keep and not self.ending
            if request.path == "/health":
                status = 503 if self.ending else 200
                batcher = self.batcher
                content = {
                    "ok": not self.ending,
                    "waiting": batcher.queue.qsize(),
                    "photos": batcher.photos,
                    "batches": batcher.batches,
                }
                await self.send(writer, status, json.dumps(content).encode(), keep)
            else:
                async with self.body(reader, writer, request) as data:
                    answer = await self.batcher.answer(data)
                await self.send(writer, 200, answer, keep)
        except Refused as refused:
            keep = keep and not refused.close
            await self.send_error(writer, refused, keep)
        return keep

    async def read_header(self, reader: asyncio.StreamReader) -> Request | None:
        """The next request, which is checked; None if the client has no more, or takes its time."""
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
        first, *lines = text.decode("latin-1").strip("\r\n").split("\r\n")
        method, _, rest = first.partition(" ")
        path, _, version = rest.partition(" ")
        if not (method.isalpha() and path.startswith("/") and version.startswith("HTTP/")):
            raise Refused(400, "expected METHOD /PATH HTTP/1.1")
        if version not in ("HTTP/1.0", "HTTP/1.1"):
            raise Refused(505, f"expected HTTP/1.1, got {version}")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            name = name.lower()
            twice = name == "content-length" and name in headers
            if not colon or not name or name != name.strip() or twice:
                raise Refused(400, f"expected NAME: VALUE, got {line[:40]!r}")
            headers[name] = value.strip()
        path = path.partition("?")[0]
        if path not in PATHS:
            raise Refused(404, f"expected one of {', '.join(PATHS)}")
        if method != PATHS[path]:
            raise Refused(405, f"expected {PATHS[path]}", Allow=PATHS[path])
        if method == "GET" and headers.get("content-length", "0") != "0":
            raise Refused(400, "expected no body")
        close = version == "HTTP/1.0" or headers.get("connection", "").lower() == "close"
        return Request(method, path, headers, not close)

    @asynccontextmanager
    async def body(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request
    ) -> AsyncIterator[bytes]:
        """The body of a request, whose bytes count as waiting until the block ends."""
        length = self.length_of(request)
        if self.ending or self.bodies + length > self.limits.waiting_bytes:
            raise full()
        self.bodies += length
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
            self.bodies -= length

    def length_of(self, request: Request) -> int:
        """The bytes of a request's body, as its header tells."""
        if "transfer-encoding" in request.headers:
            raise Refused(501, "expected Content-Length, got Transfer-Encoding")
        text = request.headers.get("content-length")
        if text is None:
            raise Refused(411, "expected Content-Length")
        if not (text.isascii() and text.isdecimal()):
            raise Refused(400, f"expected a Content-Length, got {text[:20]!r}")
        if len(text) > 18 or int(text) > self.limits.photo_bytes:
            raise Refused(413, f"expected at most {self.limits.photo_bytes} bytes, got {text[:20]}")
        return int(text)

    async def send_error(self, writer: asyncio.StreamWriter, error: Refused, keep: bool = False) -> None:
        content = json.dumps({"error": str(error)}).encode()
        await self.send(writer, error.status, content, keep, error.headers)

    async def send(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        content: bytes,
        keep: bool,
        more: dict[str, str] | None = None,
    ) -> None:
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            "Connection": "keep-alive" if keep else "close",
            **(more or {}),
        }
        lines = [
            f"HTTP/1.1 {status} {REASONS[status]}",
            *(f"{name}: {text}" for name, text in headers.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + content)
        await asyncio.wait_for(writer.drain(), self.limits.send_seconds)

    async def close(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Close a connection so that its client gets the last answer, also while it still sends a body."""
        with suppress(OSError):
            writer.write_eof()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.pass_over(reader), 2)
        writer.close()

    async def pass_over(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(2**16):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--model", default="shr-fan-68")
    parser.add_argument("--detector", default="mtcnn", choices=("mtcnn", "yunet"))
    parser.add_argument("--device", help="cpu, cuda, ...")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the network")
    for field in fields(Limits):
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=type(field.default), default=field.default, help="(%(default)s)")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    limits = Limits(**{field.name: getattr(options, field.name) for field in fields(Limits)})
    aligner = FaceAligner(options.model, detector=options.detector, device=options.device)
    aligner.align(np.zeros((64, 64, 3), np.uint8))  # loads the detector before the first request

    def started(port: int) -> None:
        megabytes = limits.memory / 1e6
        print(f"serve: http://{options.host}:{port}, requests take {megabytes:.0f} MB at most", flush=True)

    asyncio.run(Server(aligner, limits).run(options.host, options.port, started))


if __name__ == "__main__":
    main()
