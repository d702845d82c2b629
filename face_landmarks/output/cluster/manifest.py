"""The manifest of a data set: what made it, and its parts; read again to resume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from face_landmarks.errors import InputError
from face_landmarks.output.cluster.parts import Counts, Row, Stored, check_settings, is_part, read_part
from face_landmarks.output.cluster.places import Place, reading
from face_landmarks.output.cluster.worker import SUMMARY

MANIFEST: Final = "_manifest.json"  # readers of Parquet folders pass over names that begin like this
_READERS: Final = 16  # threads; stores answer slowly


@dataclass
class Manifest:
    """What a folder of results holds.

    Attributes:
        out: the folder.
        settings: of the aligner that made them.
        parts: file -> numbers of its images, faces, unreadable and failed photos.
    """

    out: Place
    settings: Row
    parts: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, part: str, counts: Counts) -> None:
        """Enter a part that is committed."""
        self.parts[part] = {
            "images": counts.images,
            "faces": counts.faces,
            "unreadable": len(counts.unreadable),
            "failed": len(counts.failed),
        }

    def write(self) -> None:
        """Write it, whole.

        Raises:
            WriteError: it cannot be written.
        """
        numbers = ("images", "faces", "unreadable", "failed")
        totals = {name: sum(part[name] for part in self.parts.values()) for name in numbers}
        content = {
            "format": 1,
            **totals,
            "settings": self.settings,
            "parts": dict(sorted(self.parts.items())),
        }
        (self.out / MANIFEST).write(json.dumps(content, indent=1).encode())


def begin(out: Place, settings: Row) -> Manifest:
    """The manifest of a new folder, or of one with results of these settings.

    Raises:
        InputError: the folder holds something else, or results of other settings.
        WriteError: it cannot be written.
    """
    place = out / MANIFEST
    if place.kind() == "file":
        with reading(place):
            content = json.loads(place.read())
            check_settings(out, content["settings"], settings)
        return Manifest(out, settings)
    if out.kind() == "file":
        raise InputError(f"out: expected a folder, got the file {out}")
    if found := out.files(recursive=False):
        raise InputError(
            f"out: expected a new folder or one of earlier results, got {out} with {found[0][0]}"
        )
    manifest = Manifest(out, settings)
    manifest.write()
    return manifest


def committed(manifest: Manifest) -> Iterator[tuple[str, Stored]]:
    """Each part in the folder with what it holds, of which the columns SUMMARY are read.

    The folder tells what is done, and not the manifest's list, which is written from time to time only.

    Raises:
        InputError: a part is damaged or holds results of other settings.
    """
    names = [name for name, _ in manifest.out.files(recursive=False) if is_part(name)]

    def content(name: str) -> Stored:
        return read_part(manifest.out / name, manifest.settings, SUMMARY)

    with ThreadPoolExecutor(_READERS) as pool:
        yield from zip(names, pool.map(content, names), strict=True)


def remove_late_parts(manifest: Manifest) -> None:
    """Remove the parts that are not in the manifest, at the end of a run that has committed all of its own.

    A worker of an earlier run committed them, after this one had read what there was; their photos are in
    other parts.
    """
    for name, _ in manifest.out.files(recursive=False):
        if is_part(name) and name not in manifest.parts:
            (manifest.out / name).remove()
