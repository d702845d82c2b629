"""The HTTP server of the examples: no wrong answer and no crash, whatever its clients do."""

import asyncio
import importlib.util
import json
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="needs /proc, to measure the server's memory"
)
def test_many_clients_good_and_bad_get_their_own_answers_and_the_server_stays_small():
    words = ["--clients", "16", "--requests", "48", "--bad", "50", "--photos", "12", "--queue", "4"]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "lab" / "speed" / "load_server.py"), *words],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "48 of 48 photos answered right" in done.stdout
    times_full, in_a_batch = (
        float(re.search(pattern, done.stdout)[1]) for pattern in (r"(\d+) times full", r"([\d.]+) in a batch")
    )
    assert times_full > 0 and in_a_batch > 1  # so that both were put to the test


@pytest.fixture
def serve(monkeypatch):
    spec = importlib.util.spec_from_file_location("serve", EXAMPLES / "serve.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "serve", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.1)
    return module


class Aligner:
    """One whose answer to a photo is the photo, which is a number."""

    def align_batch(self, photos, on_error):
        return [Result(photo) for photo in photos]


class Result:
    def __init__(self, photo):
        self.photo = photo

    def to_dict(self):
        return {"photo": self.photo}


def running(serve, scenario, *, decode=int, **limits):
    """The result of `scenario(server, port)`, and how many requests were cut off at the end."""

    async def run():
        server = serve.Server(Aligner(), serve.Limits(**limits))
        server.batcher.decode = decode
        listening = asyncio.get_running_loop().create_future()
        start = asyncio.start_server

        async def start_server(*args, **options):
            made = await start(*args, **options)
            listening.set_result(made.sockets[0].getsockname()[1])
            return made

        serve.asyncio.start_server = start_server
        try:
            ending = asyncio.create_task(server.run("127.0.0.1", 0))
            port = await listening
        finally:
            serve.asyncio.start_server = start
        try:
            result = await scenario(server, port)
        finally:
            server.stop.set()
            cut_off = await ending
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
        return result, cut_off

    return asyncio.run(run())


async def ask(port, *requests):
    """All that the server sends until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for request in requests:
            writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def post(body, more=b""):
    return b"POST /align HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (more, len(body), body)


CLOSE = b"Connection: close\r\n"
HEALTH = b"GET /health HTTP/1.1\r\n%b\r\n"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"GET /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"HEAD /health HTTP/1.0\r\ntransfer-encoding: identity\r\n\r\n", 501),
        (b"POST /align HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (HEALTH % b"X: a\nTransfer-Encoding: chunked\r\n", 400),
        (HEALTH % b"X: a\rY: b\r\n", 400),
        (HEALTH % b"X: a\x00b\r\n", 400),
        (HEALTH % b"X: a\r\r\n", 400),
        (HEALTH % b"Transfer-Encoding\x0b: chunked\r\n", 400),
        (HEALTH % b"Transfer Encoding: chunked\r\n", 400),
        (post(b"7", b"Content-Length: 0\r\n"), 400),
        (post(b"7").replace(b": 1", b": \xa01"), 400),
    ],
)
def test_a_request_that_others_may_read_in_another_way_ends_its_connection(serve, header, status):
    async def scenario(server, port):
        return await ask(port, header + HEALTH % CLOSE)

    answer, _ = running(serve, scenario)
    assert answer.count(b"HTTP/1.1 ") == 1 and answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in answer


def test_an_answer_to_head_has_no_body_and_close_is_found_among_others(serve):
    async def scenario(server, port):
        first = await ask(port, b"HEAD /health HTTP/1.1\r\nConnection: foo, Close\r\n\r\n")
        return first, await ask(port, b"HEAD /align HTTP/1.1\r\n\r\n")

    (right, wrong), _ = running(serve, scenario)
    assert right.startswith(b"HTTP/1.1 200 ") and right.endswith(b"\r\n\r\n")
    assert wrong.startswith(b"HTTP/1.1 405 ") and wrong.endswith(b"\r\n\r\n")


def test_the_connection_of_a_client_that_does_not_read_counts_until_it_is_closed_in_time(serve, monkeypatch):
    sockets = []

    async def scenario(server, port):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
            client.send(post(b"7", CLOSE))
            await asyncio.sleep(0.4)
            counted = len(server.tasks), sockets[0].fileno() >= 0
            await asyncio.sleep(0.6)
            return counted, (len(server.tasks), sockets[0].fileno() >= 0)

    async def connected(server, reader, writer):
        sockets.append(writer.get_extra_info("socket"))
        sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await original(server, reader, writer)

    original = serve.Server.connected
    monkeypatch.setattr(serve.Server, "connected", connected)
    monkeypatch.setattr(Result, "to_dict", lambda self: "a" * 50_000)  # less than what is buffered at once
    (before, after), _ = running(serve, scenario, send_seconds=0.5)
    assert before == (1, True) and after == (0, False)


def test_photos_whose_clients_left_are_not_aligned(serve):
    begun, go = threading.Event(), threading.Event()
    decoded = []

    def decode(data):
        decoded.append(data)
        begun.set()
        go.wait(10)
        return int(data)

    async def scenario(server, port):
        first = asyncio.create_task(ask(port, post(b"1", CLOSE)))
        await asyncio.to_thread(begun.wait, 10)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"2"))
        while not server.batcher.queue.qsize():
            await asyncio.sleep(0.01)
        linger = b"\1\0\0\0\0\0\0\0"  # so that closing resets the connection
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        await asyncio.sleep(0.1)
        go.set()
        return await first, await ask(port, post(b"3", CLOSE))

    (first, third), _ = running(serve, scenario, decode=decode)
    assert first.endswith(b'{"photo": 1}') and third.endswith(b'{"photo": 3}')
    assert decoded == [b"1", b"3"]


def test_a_batch_that_fails_costs_no_later_one_its_answers(serve, monkeypatch, capsys):
    async def scenario(server, port):
        align = server.batcher.align
        monkeypatch.setattr(server.batcher, "align", lambda batch: (_ for _ in ()).throw(MemoryError("none")))
        first = await ask(port, post(b"1", CLOSE))
        monkeypatch.setattr(server.batcher, "align", align)
        return first, await ask(port, post(b"2", CLOSE))

    (first, second), _ = running(serve, scenario)
    assert first.startswith(b"HTTP/1.1 500 ") and second.endswith(b'{"photo": 2}')
    assert "MemoryError: none" in capsys.readouterr().err


def test_an_answer_that_cannot_be_written_costs_only_its_own_photo(serve):
    batcher = serve.Batcher(Aligner(), serve.Limits())
    first, second = batcher.faces([object(), 2])
    assert first.answer.status == 500 and json.loads(second) == {"photo": 2}


def test_health_tells_of_a_batch_without_end_and_the_server_ends_all_the_same(serve):
    go = threading.Event()

    async def scenario(server, port):
        asking = asyncio.create_task(ask(port, post(b"1", CLOSE)))
        await asyncio.sleep(0.1)
        healthy = await ask(port, HEALTH % CLOSE)
        answer = await asking
        await asyncio.sleep(0.1)
        return healthy, answer, await ask(port, HEALTH % CLOSE)

    start = time.monotonic()
    timer = threading.Timer(5, go.set)
    timer.start()
    try:
        (before, answer, after), _ = running(
            serve, scenario, decode=lambda data: go.wait(10), align_seconds=0.3, end_seconds=0.3
        )
        assert time.monotonic() - start < 4
    finally:
        timer.cancel()
        go.set()
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert before.startswith(b"HTTP/1.1 200 ") and after.startswith(b"HTTP/1.1 503 ")


def test_requests_that_are_cut_off_at_the_end_are_counted(serve):
    go = threading.Event()

    async def scenario(server, port):
        asking = asyncio.create_task(ask(port, post(b"1")))
        while not server.batcher.started:
            await asyncio.sleep(0.01)
        return asking

    try:
        asking, cut_off = running(serve, scenario, decode=lambda data: go.wait(10), end_seconds=0.2)
    finally:
        go.set()
    assert cut_off == 1 and (asking.exception() or asking.result() == b"")


def test_the_process_ends_though_a_photo_is_being_decoded(tmp_path):
    """Its threads would keep it alive."""
    program = tmp_path / "program.py"
    program.write_text(
        "import runpy, sys, threading, face_landmarks\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def run(coroutine):\n"
        "    coroutine.close()\n"
        "    ThreadPoolExecutor(1).submit(threading.Event().wait)\n"
        "    return 2\n"
        "import asyncio\n"
        "asyncio.run = run\n"
        "class Aligner:\n"
        "    def __init__(self, *args, **options): pass\n"
        "    def align(self, photo): pass\n"
        "face_landmarks.FaceAligner = Aligner\n"
        f"sys.argv = ['serve.py']; runpy.run_path({str(EXAMPLES / 'serve.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "serve: 2 requests were cut off\n")


def test_a_request_that_is_answered_after_the_signal_is_the_last_of_its_connection(serve):
    begun, go = threading.Event(), threading.Event()

    def decode(data):
        begun.set()
        go.wait(10)
        return int(data)

    async def scenario(server, port):
        asking = asyncio.create_task(ask(port, post(b"1") + post(b"2")))
        await asyncio.to_thread(begun.wait, 10)
        server.stop.set()
        await asyncio.sleep(0.05)
        go.set()
        return await asking

    answer, cut_off = running(serve, scenario, decode=decode)
    assert answer.count(b"HTTP/1.1 ") == 1 and b"Connection: close" in answer and cut_off == 0


def test_a_photo_of_too_many_faces_is_refused_before_the_network_runs(serve):
    found = []

    def detector(image):
        found.append(len(found))
        return np.array([[5, 5, 40, 45]] * len(image), np.float32)

    class OfDetector(Aligner):
        def align_batch(self, photos, on_error):
            results = []
            for index, photo in enumerate(photos):
                try:
                    results.append(Result(len(few(photo).boxes)))
                except Exception as error:
                    on_error(index, error)
                    results.append(Result(0))
            return results

    few = serve.FewFaces(detector, 3)
    batcher = serve.Batcher(OfDetector(), serve.Limits(faces=3))
    right, wrong = batcher.faces([np.zeros((height, 7, 3), np.uint8) for height in (3, 4)])
    assert json.loads(right) == {"photo": 3} and len(found) == 2
    assert wrong.answer.status == 422 and "at most 3 faces in a photo, found 4" in str(wrong)


def test_the_answers_count_in_the_memory(serve):
    limits = serve.Limits()
    more = replace(limits, faces=2 * limits.faces)
    assert more.memory > limits.memory

    async def scenario(server, port):
        server.bodies = server.limits.waiting_bytes - server.limits.answer_bytes
        return await ask(port, post(b"1", CLOSE))

    assert running(serve, scenario)[0].startswith(b"HTTP/1.1 503 ")


def test_a_full_server_asks_clients_to_come_again_before_their_connections_end(serve, monkeypatch):
    async def scenario(server, port):
        server.batcher.pace = 1000.0
        monkeypatch.setattr(server.batcher.queue, "full", lambda: True)
        return await ask(port, post(b"1", CLOSE))

    answer, _ = running(serve, scenario, idle_seconds=20.0)
    assert b"Retry-After: 19\r\n" in answer


@pytest.mark.parametrize(
    "words",
    [
        *("--queue 0", "--connections 0", "--batch 0", "--threads 0", "--faces 0", "--header-bytes 0"),
        *("--wait -1", "--align-seconds nan", "--end-seconds -1", "--idle-seconds inf", "--send-seconds 0"),
        *(
            "--port 65536",
            "--port -1",
            "--port x",
            "--waiting-bytes 1",
            "--model nothing",
            "--device nothing",
        ),
    ],
)
def test_an_option_that_cannot_be_used_is_named_in_one_line(serve, monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["serve.py", *words.split()])
    with pytest.raises(SystemExit) as ended:
        serve.main()
    line = capsys.readouterr().err
    assert ended.value.code == 2 and line.startswith("serve: ") and line.count("\n") == 1
    assert words.split()[0].strip("-") in line and words.split()[1] in line


@pytest.mark.parametrize("host", ["127.0.0.1", "host..invalid"])
def test_an_address_that_cannot_be_used_is_named(serve, host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(serve.OptionError, match=f"--host {host} --port {port}: "):
            asyncio.run(serve.Server(Aligner(), serve.Limits()).run(host, port))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of open files")
def test_the_limit_of_open_files_is_raised_or_said(serve, monkeypatch):
    resource = pytest.importorskip("resource")
    made = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 4096))

    def setrlimit(kind, limits):
        if limits[0] > 4096:
            raise ValueError("current limit exceeds maximum limit")
        made.append(limits)

    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    serve.allow_files(100)
    assert made == []
    serve.allow_files(1000)
    assert made == [(2000 + serve.SPARE_FILES, 4096)]
    with pytest.raises(serve.OptionError, match="--connections 4096: .* got 4096"):
        serve.allow_files(4096)


def test_a_photo_whose_decoding_fails_costs_only_its_own_answer(serve, monkeypatch, capsys):
    batcher = serve.Batcher(None, serve.Limits())

    def read_image(data, max_pixels):
        if data == b"large":
            raise MemoryError("no memory left")
        return data

    monkeypatch.setattr(serve, "read_image", read_image)
    monkeypatch.setattr(batcher, "faces", lambda photos: [b"faces of " + photo for photo in photos])
    first, second = batcher.align([b"large", b"small"])
    assert first.answer.status == 500 and second == b"faces of small"
    assert "no memory left" in capsys.readouterr().err
