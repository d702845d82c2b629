"""`examples/serve.py` under load on the loopback: many clients, good and bad, and every answer checked.

    python examples/lab/speed/load_server.py [--clients 200] [--requests 2000] [--bad 400] [--threads 1]

Good clients send photos that all differ, keep their connections, and try again where the server is full.
Each answer must have the landmarks that this process finds in the same photo. Bad clients send truncated and
huge photos, broken and endless headers, bodies that never come; each must get its own error. Prints a line of
counts, times and memory; exit code 1 if an answer is wrong, the server fails, or it takes more memory than it
says. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from face_landmarks import FaceAligner, read_image

EXAMPLES = Path(__file__).parents[2]
MODEL = "shr-fan-68-fast"
SECONDS = 2.0  # of the server's time-outs for headers and bodies


@dataclass
class Count:
    """What the clients saw.

    Attributes:
        right: answers that were their photo's.
        full: answers 503, after which a client tried again.
        seconds: from a request to its answer.
        errors: status of each error that was expected.
        wrong: everything else.
    """

    right: int = 0
    full: int = 0
    seconds: list[float] = field(default_factory=list)
    errors: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def make_photos(count: int) -> list[bytes]:
    """JPEG files of one face at places and sizes that all differ."""
    face = read_image(EXAMPLES / "data" / "astronaut.jpg")[20:220, 120:320]
    face = np.ascontiguousarray(face[:, :, ::-1])  # OpenCV writes BGR
    photos = []
    for number in range(count):
        side = 160 + 4 * (number % 20)
        photo = np.full((side + 40, side + 60, 3), 90, np.uint8)
        x, y = 2 * (number % 29), 2 * (number % 19)
        photo[y : y + side, x : x + side] = cv2.resize(face, (side, side))
        photos.append(cv2.imencode(".jpg", photo)[1].tobytes())
    return photos


def find_answers(photos: list[bytes]) -> list[np.ndarray]:
    """The landmarks of each photo, (N, 68, 2); raise unless they can be told apart."""
    aligner = FaceAligner(MODEL, device="cpu")
    answers = [aligner.get_landmarks(photo) for photo in photos]
    assert all(answer.shape == (1, 68, 2) for answer in answers)
    for i, answer in enumerate(answers):
        assert all(np.abs(answer - other).max() > 1 for other in answers[:i]), "two photos have one answer"
    return answers


@contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[str], int, float]]:
    """The server in a process of its own, its port, and the megabytes it says it takes."""
    words = [sys.executable, str(EXAMPLES / "serve.py"), "--port", "0", "--model", MODEL, *options]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"serve: http://127.0.0.1:(\d+), requests take (\d+) MB", line)
        assert found, f"the server did not start: {line!r}"
        yield process, int(found[1]), float(found[2])
    finally:
        process.kill()
        process.wait()


def resident(process: subprocess.Popen[str], name: str = "VmRSS") -> float:
    """Megabytes of memory; VmHWM: the most so far."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    assert found
    return int(found[1]) / 1024


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


def post(body: bytes, length: int | None = None, more: str = "") -> bytes:
    size = len(body) if length is None else length
    return f"POST /align HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {size}\r\n\r\n".encode() + body


async def good_client(
    port: int, photos: list[bytes], answers: list[np.ndarray], mine: list[int], count: Count
) -> None:
    """Send photos over one connection, each until it is answered."""
    reader = writer = None
    for index in mine:
        while True:
            if reader is None or writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            start = time.perf_counter()
            writer.write(post(photos[index]))
            try:
                status, headers, body = await read_answer(reader)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                count.wrong.append(f"a good client lost its connection: {error}")
                writer = None
                break
            if headers["connection"] == "close":
                writer.close()
                writer = None
            if status == 503:
                count.full += 1
                await asyncio.sleep(float(headers["retry-after"]) * random.uniform(0.5, 1.5))
                continue
            found = np.array(json.loads(body).get("landmarks", []))
            if status == 200 and found.shape == (1, 68, 2) and np.abs(found - answers[index]).max() < 0.1:
                count.right += 1
                count.seconds.append(time.perf_counter() - start)
            else:
                count.wrong.append(f"photo {index}: status {status}, {body[:80]!r}")
            break
    if writer is not None:
        writer.close()


def bomb() -> bytes:
    """A PNG of 60000 x 60000 pixels in 100 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(10**8), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bad_requests(photo: bytes) -> list[tuple[bytes, set[int]]]:
    """What bad clients send at once, and the answers it must have, beside 503 from a full server."""
    png = cv2.imencode(".png", np.ascontiguousarray(read_image(photo)[:, :, ::-1]))[1].tobytes()
    return [
        (post(photo[: len(photo) // 2]), {422}),
        (post(png[: len(png) // 3]), {422}),
        (post(bomb()), {422}),
        (post(b"not a photo"), {422}),
        (post(b""), {422}),
        (post(b"", length=2**40), {413}),
        (post(b"", length=10**30), {413}),
        (post(b"", length=-1), {400}),
        (post(photo, more="Content-Length: 5\r\n"), {400}),
        (b"POST /align HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", {501}),
        (b"POST /align HTTP/1.1\r\nHost: localhost\r\n\r\n", {411}),
        (b"GET /align HTTP/1.1\r\n\r\n", {405}),
        (b"DELETE /health HTTP/1.1\r\n\r\n", {405}),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", {404}),
        (b"GET /health HTTP/9.9\r\n\r\n", {505}),
        (b"GET /health HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", {431}),
        (b"GET /health HTTP/1.1\r\n" + b"X: a\r\n" * 20_000 + b"\r\n", {431}),
        (b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", {400}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50) + b"\r\n\r\n", {400}),
        (b"GET /health HTTP/1.1\r\n\r\n", {200}),
    ]


async def bad_client(
    port: int, kind: int, requests: list[tuple[bytes, set[int]]], photo: bytes, count: Count
) -> None:
    """One bad request of one of many kinds; the last few kinds are slow or leave early."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    kind %= len(requests) + 5
    data = b""
    try:
        if kind < len(requests):
            data, expected = requests[kind]
            writer.write(data)
        elif kind == len(requests):  # a header that never ends
            expected = {408}
            writer.write(b"POST /align HTTP/1.1\r\n")
        elif kind == len(requests) + 1:  # a body that comes byte by byte
            expected = {408, 503}
            writer.write(post(b"", length=10_000))
            for byte in photo[:8]:
                writer.write(bytes([byte]))
                await asyncio.sleep(SECONDS / 10)
        elif kind == len(requests) + 2:  # less than was promised
            expected = {400, 503}
            writer.write(post(photo[:100], length=5000))
            writer.write_eof()
        else:  # a client that leaves in the body, or before the answer
            writer.write(post(photo[:100], length=5000) if kind == len(requests) + 3 else post(photo))
            await writer.drain()
            writer.transport.abort()
            count.errors[0] += 1
            return
        status, headers, body = await read_answer(reader)
        while status == 503 and expected == {422}:  # until there is room for the photo
            count.full += 1
            await asyncio.sleep(float(headers["retry-after"]) * random.uniform(0.5, 1.5))
            writer.write(data)
            status, headers, body = await read_answer(reader)
        if status not in expected:
            count.wrong.append(f"bad request {kind}: expected one of {expected}, got {status}, {body[:80]!r}")
        count.errors[status] += 1
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        count.wrong.append(f"bad request {kind}: expected an answer, got {type(error).__name__}")
    finally:
        writer.close()


async def load(
    port: int, photos: list[bytes], answers: list[np.ndarray], clients: int, requests: int, bad: int
) -> Count:
    """All clients at once."""
    count, kinds = Count(), bad_requests(photos[0])
    order = [index % len(photos) for index in range(requests)]
    random.Random(0).shuffle(order)
    good = [good_client(port, photos, answers, order[first::clients], count) for first in range(clients)]

    async def one_after_the_other(first: int, together: int) -> None:
        for kind in range(first, bad, together):
            await bad_client(port, kind, kinds, photos[0], count)

    together = min(bad, 64)
    await asyncio.gather(*good, *(one_after_the_other(first, together) for first in range(together)))
    return count


async def ask_health(port: int) -> dict[str, int]:
    """What the server says of itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
    status, _, body = await read_answer(reader)
    writer.close()
    assert status == 200
    content: dict[str, int] = json.loads(body)
    return content


async def end(process: subprocess.Popen[str], port: int, photo: bytes, answer: np.ndarray) -> str | None:
    """SIGTERM while a photo is being aligned and a connection idles; what was wrong."""
    _, idle = await asyncio.open_connection("127.0.0.1", port)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(post(photo))
    await asyncio.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        status, _, body = await read_answer(reader)
        if status == 200 and np.abs(np.array(json.loads(body)["landmarks"]) - answer).max() < 0.1:
            code = await asyncio.to_thread(process.wait, 60)
            idle.close()
            return f"expected exit code 0, got {code}" if code else None
    return "a request in work was not answered at the end"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=200, help="good ones, each with a connection")
    parser.add_argument("--requests", type=int, default=2000, help="good ones, of all clients")
    parser.add_argument("--bad", type=int, default=400, help="bad requests")
    parser.add_argument("--photos", type=int, default=48, help="that differ")
    parser.add_argument("--queue", type=int, default=64, help="of the server")
    parser.add_argument("--threads", type=int, default=1, help="of the server's network")
    options = parser.parse_args()

    torch.set_num_threads(1)
    photos = make_photos(options.photos)
    answers = find_answers(photos)
    words = ["--queue", str(options.queue), "--threads", str(options.threads)]
    words += ["--header-seconds", str(SECONDS), "--body-seconds", str(SECONDS)]
    with serving(*words) as (process, port, allowed):
        before = peak = resident(process)
        together = 0.0
        start = time.perf_counter()
        count = asyncio.run(load(port, photos, answers, options.clients, options.requests, options.bad))
        seconds = time.perf_counter() - start
        if process.poll() is not None:
            count.wrong.append(f"the server ended with {process.returncode}")
        else:
            peak = resident(process, "VmHWM")
            health = asyncio.run(ask_health(port))
            together = health["photos"] / health["batches"]
            if peak > before + allowed:
                count.wrong.append(f"the server took {peak - before:.0f} MB, more than {allowed:.0f} MB")
            if problem := asyncio.run(end(process, port, photos[0], answers[0])):
                count.wrong.append(problem)
    times = [1e3 * value for value in statistics.quantiles(count.seconds, n=100)]
    bad = ", ".join(f"{number} x {status or 'left'}" for status, number in sorted(count.errors.items()))
    print(
        f"{count.right} of {options.requests} photos answered right, {options.clients} clients, "
        f"{seconds:.1f} s, {count.right / seconds:.1f} a second, {together:.1f} in a batch\n"
        f"{times[49]:.0f} ms median, {times[98]:.0f} ms 99 %; {count.full} times full\n"
        f"bad requests: {bad}\n"
        f"memory {before:.0f} MB before, {peak:.0f} MB at most, {allowed:.0f} MB allowed for requests"
    )
    for problem, number in Counter(count.wrong).most_common(20):
        print(f"{number} x {problem}")
    return int(bool(count.wrong) or count.right < options.requests)


if __name__ == "__main__":
    sys.exit(main())
