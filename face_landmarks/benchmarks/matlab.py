"""MATLAB files of both kinds: up to v7, read by SciPy, and v7.3, which is HDF5 and read by h5py.

Convention:
    MATLAB stores columns first. SciPy gives arrays as MATLAB shows them; in a v7.3 file every axis
    comes reversed, and is put back here and nowhere else:

        MATLAB                      in the HDF5 file
        phisT   507 x 87            (87, 507)
        IsT     507 x 1 cell        (1, 507) references
        IsT{1}  H x W x 3           (3, W, H)
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.extras import import_extra
from face_landmarks.errors import AnnotationError, FaceLandmarksError

if TYPE_CHECKING:
    from collections.abc import Iterator

_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_mat(path: Path, *names: str) -> list[NDArray[Any]]:
    """Read variables of a .mat file of either kind.

    Args:
        path: the file.
        names: of the variables; numbers of any type, and in files up to v7 also cells.

    Returns:
        One array for each name, its axes as MATLAB shows them.

    Raises:
        AnnotationError: the file is missing or damaged, or has no such variable.
        MissingDependencyError: SciPy or h5py is not installed.
    """
    if _is_hdf5(path):
        with _hdf5(path) as file:
            return [_variable(file, path, name)[()].T for name in names]
    load = import_extra("scipy.io", "benchmarks", "MATLAB files").loadmat
    try:
        found = load(path, variable_names=names)
    except Exception as error:  # SciPy raises whatever a damaged file makes it
        raise AnnotationError(f"{path}: expected a MATLAB file, got {error}") from error
    if missing := [name for name in names if name not in found]:
        raise AnnotationError(f"{path}: expected the variables {', '.join(names)}; {missing[0]} is missing")
    return [found[name] for name in names]


@dataclass(frozen=True)
class CellPhoto:
    """A photo in a cell array of a v7.3 file, e.g. IsT{7} of COFW; nothing is read before `read`.

    Attributes:
        path: the file.
        name: of the cell array.
        index: of the cell, from 0.
    """

    path: Path
    name: str
    index: int

    def __str__(self) -> str:
        return f"{self.path}:{self.name}{{{self.index + 1}}}"

    def read(self) -> NDArray[np.uint8]:
        """Decode this photo alone: (H, W, 3) RGB or (H, W) gray.

        Raises:
            AnnotationError: the file or this cell cannot be read.
        """
        with _hdf5(self.path) as file:
            pixels = file[_references(file, self.path, self.name)[self.index]][()].T
        if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or pixels.shape[2:] == (3,)):
            got = f"{pixels.dtype} of shape {pixels.shape}"
            raise AnnotationError(f"{self}: expected a uint8 photo, H x W or H x W x 3, got {got}")
        return np.ascontiguousarray(pixels)


def cell_photos(path: Path, name: str) -> list[CellPhoto]:
    """The photos of a cell array in a v7.3 file, none of them decoded yet.

    Raises:
        AnnotationError: the file is missing or damaged, or has no such cell array.
        MissingDependencyError: h5py is not installed.
    """
    with _hdf5(path) as file:
        return [CellPhoto(path, name, index) for index in range(len(_references(file, path, name)))]


def _is_hdf5(path: Path) -> bool:
    """Whether the HDF5 signature follows MATLAB's own header of 512 bytes, or stands in its place."""
    try:
        with path.open("rb") as file:
            start = file.read(520)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise AnnotationError(f"{path}: expected a MATLAB file, got {reason}") from error
    return start.startswith(_HDF5) or start[512:] == _HDF5


@contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    h5py = import_extra("h5py", "benchmarks", "MATLAB files")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FaceLandmarksError:
        raise
    except Exception as error:  # h5py raises whatever a damaged file, or a variable of another kind, makes it
        raise AnnotationError(f"{path}: expected a MATLAB v7.3 file, got {error}") from error


def _variable(file: Any, path: Path, name: str) -> Any:
    if name not in file:
        raise AnnotationError(
            f"{path}: expected the variable {name}, got {', '.join(sorted(file)) or 'none'}"
        )
    return file[name]


def _references(file: Any, path: Path, name: str) -> NDArray[Any]:
    """(N,) references to the cells."""
    cells: NDArray[Any] = _variable(file, path, name)[()].ravel()
    if cells.dtype.kind != "O":
        raise AnnotationError(f"{path}: expected {name} to be a cell array, got {cells.dtype}")
    return cells
