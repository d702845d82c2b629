"""What a worker process may do instead of its work."""

import os
import signal


def exits(*_arguments):
    os._exit(3)


def dies(*_arguments):
    os.kill(os.getpid(), signal.SIGKILL)
