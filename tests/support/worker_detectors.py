"""Detectors that worker processes can unpickle, some of which end their process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np


def whole(image):
    """One face: most of the photo."""
    height, width = image.shape[:2]
    return np.array([[0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height]])


class Kills:
    """Kills its process at photos of a width, a number of times; a folder keeps count of them."""

    def __init__(self, width, times, folder):
        self.width, self.times, self.folder = width, times, str(folder)

    def __call__(self, image):
        if image.shape[1] == self.width and len(os.listdir(self.folder)) < self.times:
            (Path(self.folder) / str(time.monotonic_ns())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(image)

    def __repr__(self):
        return "Kills"


class Raises:
    """Raises an error that cannot be pickled, at every photo or at those of a width."""

    class Wrong(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    def __init__(self, width=None):
        self.width = width

    def __call__(self, image):
        if self.width in (None, image.shape[1]):
            raise Raises.Wrong("no", "luck")
        return whole(image)


class Slow:
    """Takes its time, and leaves the id of its process in a folder."""

    def __init__(self, folder, seconds=0.3):
        self.folder, self.seconds = str(folder), seconds

    def __call__(self, image):
        (Path(self.folder) / str(os.getpid())).touch()
        time.sleep(self.seconds)
        return whole(image)


class NotThere:
    """Can be unpickled in this process only."""

    def __init__(self):
        self.process = os.getpid()

    def __call__(self, image):
        return whole(image)

    def __setstate__(self, state):
        if state["process"] != os.getpid():
            raise FileNotFoundError("no such model on this side")
        self.__dict__.update(state)
