"""Ctrl-C for a command in a process of its own."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence


def _as_from_a_terminal() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell in the background has its children ignore it


def interrupt(words: Sequence[object], started: Callable[[], object]) -> tuple[int, str]:
    """Run `face-landmarks`, stop it when it has started its work, and return exit code and stderr."""
    command = [sys.executable, "-m", "face_landmarks", *map(str, words)]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_as_from_a_terminal,
    ) as process:
        while process.poll() is None and not started():
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=300)
        return process.returncode, error
