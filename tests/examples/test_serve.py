"""The HTTP server of the examples: no wrong answer and no crash, whatever its clients do."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

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


def test_a_photo_whose_decoding_fails_costs_only_its_own_answer(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("serve", EXAMPLES / "serve.py")
    serve = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "serve", serve)
    spec.loader.exec_module(serve)
    batcher = serve.Batcher(None, serve.Limits())

    def read_image(data, max_pixels):
        if data == b"large":
            raise MemoryError("no memory left")
        return data

    monkeypatch.setattr(serve, "read_image", read_image)
    monkeypatch.setattr(batcher, "faces", lambda photos: [b"faces of " + photo for photo in photos])
    first, second = batcher.align([b"large", b"small"])
    assert first.status == 500 and second == b"faces of small"
    assert "no memory left" in capsys.readouterr().err
