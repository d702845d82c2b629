"""Which run a folder of results belongs to: workers ask, so that none of an older run writes there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from face_landmarks.errors import WriteError
from face_landmarks.output.cluster.places import Place

_FILE: Final = "_run.json"  # readers of Parquet folders pass over names that begin like this


@dataclass(frozen=True)
class Claim:
    """The claim of a run to a folder; the last run that made one has it.

    The workers of a run whose first process was killed may live on for a while. They find another's claim,
    or none, and commit nothing.

    Attributes:
        out: the folder, where a file has the token of the run.
        token: of the run, unique.
    """

    out: Place
    token: str

    def is_current(self) -> bool:
        """Whether the folder is still that of this run.

        Raises:
            WriteError: the file cannot be read.
        """
        try:
            content = (self.out / _FILE).read()
        except FileNotFoundError:
            return False
        except Exception as error:  # stores raise what they like
            raise WriteError(f"{self.out / _FILE}: expected the claim of a run, got {error}") from error
        return content == self.content

    @property
    def content(self) -> bytes:
        """What the file of this run holds."""
        return json.dumps({"run": self.token}).encode()

    def check(self) -> None:
        """Raise unless the folder is still that of this run.

        Raises:
            WriteError: it is not, or the file cannot be read.
        """
        if not self.is_current():
            raise WriteError(f"{self.out}: expected no other run to write it, got one that began later")


@contextmanager
def claimed(out: Place) -> Iterator[Claim]:
    """Claim a folder, also one that another run has, until the end of the block.

    Raises:
        WriteError: the folder cannot be written.
    """
    claim = Claim(out, uuid4().hex)
    (out / _FILE).write(claim.content)
    try:
        yield claim
    finally:
        with suppress(Exception):
            if claim.is_current():
                (out / _FILE).remove()
