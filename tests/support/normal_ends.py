"""Processes that fork, whose children must come to a normal end."""

import os
import subprocess
import sys

WAIT = """
import os, time
def exit_code(child):
    end = time.monotonic() + 60
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.05)
    if not done[0]:
        os.kill(child, 9)
    assert done[0], "the child has not ended"
    return os.waitstatus_to_exitcode(done[1])
"""


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code, which may call `exit_code`, as a new user does: with no word on ONNX Runtime's telemetry."""
    command = [sys.executable, "-W", "ignore", "-c", WAIT + code, *words]
    env = without_telemetry_setting()
    return subprocess.run(command, capture_output=True, text=True, timeout=180, env=env)


def without_telemetry_setting() -> dict[str, str]:
    """The environment of this process, in which ONNX Runtime may have been imported, before that."""
    return {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
