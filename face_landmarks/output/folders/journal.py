"""The lines of JSON that a folder run keeps: one per photo, appended as they come, read again to resume."""

from __future__ import annotations

import hashlib
import inspect
import json
import pickle
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import nn

from face_landmarks._system.files import replacing, writing
from face_landmarks.aligner import FaceAligner
from face_landmarks.errors import InputError
from face_landmarks.output.folders.lists import Boxes, PathSet, PhotoList
from face_landmarks.results import Faces

Row: TypeAlias = "dict[str, Any]"

GIVEN_BOXES: Final = "given boxes"  # recorded as the detector of photos whose boxes were given
_HEAD: Final = b'{"image": "'  # of every line
_KEYS: Final = {"image", "bytes"}  # of every line, beside the settings and a result or an error

# Arguments of FaceAligner that are recorded under names of their own, or do not change results.
_NOT_RECORDED: Final = {"self", "model", "detector", "device", "batch_size", "sha256"}
_PLAIN: Final = (bool, int, float, str, type(None))
_LONGEST: Final = 200  # letters of a detector's description


@dataclass(frozen=True)
class FolderReport:
    """Counts of photos and faces.

    Attributes:
        images: photos that were aligned, those of earlier runs included.
        faces: faces found in them.
        resumed: photos that were done before this run.
        unreadable: photo -> why it could not be read.
        failed: photo -> what the detector or the aligner raised, or that the file is missing.
        folders: subfolder that could not be read -> why; the report and the results lack its photos.
    """

    images: int
    faces: int
    resumed: int
    unreadable: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)


class Tally:
    """Counts of the photos of a run, added up as they are done."""

    def __init__(self) -> None:
        self.photos = self.images = self.faces = 0
        self.unreadable: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def add(self, photo: str, faces: int, error: str | None = None, failed: bool = False) -> None:
        """Count a photo with its faces, or with its error."""
        self.photos += 1
        if error is None:
            self.images, self.faces = self.images + 1, self.faces + faces
        else:
            (self.failed if failed else self.unreadable)[photo] = error

    def report(self, resumed: int) -> FolderReport:
        """The counts, with the number of photos that were done before."""
        return FolderReport(self.images, self.faces, resumed, self.unreadable, self.failed)


def settings_of(aligner: FaceAligner) -> Row:
    """What a line says about the aligner that made it; a file holds lines of equal settings only.

    "model" and "weights" are the card's name and the SHA-256 of its file, "network" is a SHA-256 of the
    weights in use, "detector" names the detector, and every other argument of `FaceAligner` that may change a
    landmark has its own name. Detectors differ by their name or, if their class defines `__repr__`, by that;
    methods also by their object, and lambdas by their code.
    """
    card = aligner.card
    options = inspect.signature(FaceAligner.__init__).parameters.keys() - _NOT_RECORDED
    values = {name: getattr(aligner, name) for name in sorted(options)}
    return {
        "model": card.name,
        "weights": card.file.sha256 if card.file else None,
        "network": _fingerprint(aligner.network),
        "detector": _describe(aligner.detector),
        **{name: value if isinstance(value, _PLAIN) else str(value) for name, value in values.items()},
    }


def resume(lines: Path, photos: PhotoList, settings: Row) -> tuple[PathSet, Tally]:
    """The photos that are done, and the counts of their results.

    The rest of a line that an interrupted run left is cut off. Lines of photos that have failed are removed,
    so that these photos are tried again.

    Args:
        lines: the file.
        photos: of this run.
        settings: of this run.

    Raises:
        InputError: the file holds something else, or results of other settings, photos or boxes.
        WriteError: the file cannot be read or written.
    """
    with writing(lines):
        return _resume(lines, photos, settings) if lines.exists() else (PathSet(), Tally())


def _resume(lines: Path, photos: PhotoList, settings: Row) -> tuple[PathSet, Tally]:
    done, tally = PathSet(), Tally()
    whole, failed = 0, False
    with lines.open("rb+") as file:
        for line in file:
            if not line.startswith(_HEAD[: len(line)]):
                raise InputError(f"{lines}: expected lines of earlier results, got {line[:40]!r}")
            if not line.endswith(b"\n"):
                break
            row = read_row(lines, line)
            photo = photos.photo(row["image"])
            _check_row(lines, row, photo.file, settings)
            _check_boxes(lines, row, photo.boxes)
            if has_failed(row):
                failed = True
            else:
                done.add(row["image"])
                tally.add(row["image"], len(row.get("boxes", ())), row.get("error"))
            whole += len(line)
        file.truncate(whole)
    if failed:
        with replacing(lines) as temporary, temporary.open("wb") as kept, lines.open("rb") as file:
            kept.writelines(line for line in file if not has_failed(json.loads(line)))
    return done, tally


def append(lines: Path, texts: Iterable[str]) -> None:
    """Add lines, with their ends, to the file, which is made if it is missing.

    Raises:
        WriteError: the file cannot be written.
    """
    with writing(lines), lines.open("a", encoding="utf-8") as file:
        file.write("".join(texts))


def read_rows(lines: Path) -> Iterator[Row]:
    """Every line of the file."""
    with lines.open("rb") as file:  # in text mode a carriage return would end a line, too
        yield from map(json.loads, file)


def has_failed(row: Row) -> bool:
    """Whether a line is of a photo that the next run tries again."""
    return "error" in row and row.get("retry") is True


def size_of(photo: Path | None) -> int | None:
    """Bytes of a photo's file; None if they are unknown."""
    try:
        return photo.stat().st_size if photo else None
    except (OSError, ValueError):
        return None


def read_row(lines: Path, line: bytes) -> Row:
    """A whole line.

    Raises:
        InputError: it is not as a run writes it.
    """
    try:
        row: Row = json.loads(line.decode("utf-8"))  # from bytes it would also take other encodings
        size = row.get("bytes", "")
        if not isinstance(row.get("image"), str) or not (size is None or type(size) is int):
            raise TypeError(f"expected {', '.join(sorted(_KEYS))}")
        if "error" not in row:
            Faces.from_dict(row)
        elif not isinstance(row["error"], str):
            raise TypeError("expected an error as text")
    except (ValueError, TypeError, RecursionError, AttributeError) as error:
        raise InputError(f"{lines}: expected lines of earlier results, got {line[:40]!r}: {error}") from error
    return row


def _check_row(lines: Path, row: Row, photo: Path | None, settings: Row) -> None:
    """Raise unless a line has these settings and is of this photo."""
    # Another backend has another network and another MTCNN, too: the name that a user knows is told.
    for name in sorted(settings, key=("network", "detector").__contains__):
        value, got = settings[name], row.get(name, "nothing")
        if got != value:
            again = f", or {name} {got}" if name in row and name != "network" else ""
            raise InputError(
                f"{lines}: expected results of {name} {value}, got {got}; choose another file{again}"
            )
    if not has_failed(row) and size_of(photo) not in (row["bytes"], None):
        raise InputError(
            f"{lines}: expected results of the photo {photo}, got those of another {row['image']}; "
            "choose another file"
        )


def _check_boxes(lines: Path, row: Row, boxes: Boxes | None) -> None:
    """Raise if a line's faces are those of other boxes than the ones that are given now."""
    if boxes is None or "error" in row:
        return
    if not np.array_equal(np.asarray(row["boxes"], np.float32).reshape(-1, 4), boxes):
        raise InputError(
            f"{lines}: expected results of the boxes given for {row['image']}, got those of other boxes; "
            "choose another file"
        )


def _fingerprint(network: object) -> str:
    """SHA-256 of the network's weights, as the aligner uses them."""
    digest = hashlib.sha256()
    if isinstance(network, nn.Module):
        for name, tensor in network.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    else:
        digest.update(pickle.dumps(network))  # the graph that another runtime got
    return digest.hexdigest()


def _describe(detector: object) -> str:
    """The name of a function, the `repr` of an object that has one of its own, else the name of its class.

    A method has its object's description, too, and a lambda, whose name tells nothing, a hash of its code.
    """
    name = getattr(detector, "__qualname__", None)
    if isinstance(name, str):
        if inspect.ismethod(detector):
            return f"{name} of {_describe(detector.__self__)}"
        if inspect.isfunction(detector) and detector.__name__ == "<lambda>":
            code = detector.__code__
            parts = (code.co_code, code.co_names, [c for c in code.co_consts if isinstance(c, _PLAIN)])
            return f"{name} {hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}"
        return name
    kind = type(detector)
    described = re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(detector))
    own = kind.__repr__ is not object.__repr__ and len(described) <= _LONGEST
    return described if own else kind.__qualname__
