"""Which photo killed a worker process: known to the next worker, so that a part is not tried for ever."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Final

from face_landmarks.output.cluster.places import Place

FOLDER: Final = "_attempts"  # beside the parts
_QUICK: Final = 2  # attempts at a part before its photos are aligned one at a time


class Attempt:
    """One attempt at a part, recorded beside the results until the part is committed.

    A process that was killed leaves its record. The third attempt names each photo in it before it begins
    with it; a photo that a later attempt finds there was the last of its worker, and is left out.

    Attributes:
        careful: whether to call `begin` for every photo, and to align each one by itself.
        deadly: photos at which a worker died.
    """

    def __init__(self, out: Place, part: str) -> None:
        self._place = out / f"{FOLDER}/{part}.json"
        count, last = 0, ""
        self.deadly: list[str] = []
        with suppress(OSError, ValueError, KeyError):
            count, last, self.deadly = json.loads(self._place.read())
        if last:
            self.deadly.append(last)
        self._count = count + 1
        self.careful = self._count > _QUICK
        self._write("")

    def begin(self, photo: str) -> None:
        """Record that the next photo is this one."""
        self._write(photo)

    def end(self) -> None:
        """Forget the part, which is committed."""
        self._place.remove()

    def _write(self, photo: str) -> None:
        self._place.write(json.dumps([self._count, photo, self.deadly]).encode())
