"""The command `face-landmarks`, and `python -m face_landmarks`."""

import os
import signal
import sys


def main() -> int:
    """Run the command and return its exit code, 130 where Ctrl-C comes before all is imported."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual:
        signal.signal(signal.SIGINT, _stop)
    from face_landmarks.cli import main as run

    if usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


def _stop(*_: object) -> None:
    """End the process: an exception would be a traceback, or an ImportError from within a C extension."""
    os.write(2, b"face-landmarks: stopped\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
