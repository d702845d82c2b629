"""The rooms of the package: what may import what, how large a room is, and what an import costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "face_landmarks"

# A room is a folder, or a module beside the folders. It imports only rooms of the rows below its own.
ROWS = (
    "__main__",
    "__init__ cli compat",
    "reports demo",
    "output video benchmarks training",
    "aligner",
    "locating",
    "detection",
    "runtime",
    "models",
    "geometry heatmap images pts results",
    "layouts",
    "_system",
    "errors",
)
HEIGHT = {room: -row for row, rooms in enumerate(ROWS) for room in rooms.split()}
NEIGHBOURS = {("training", "benchmarks")}  # the photos it trains on, and the errors it validates by

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))
}
FOLDERS = sorted({path.parent for path in MODULES.values()})


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imports(source: str, module: str, known: dict[str, Path] = MODULES) -> Iterator[str]:
    """Modules of the package that a source imports, anywhere in it, named from the package down.

    The version, which the package's own `__init__` holds before it imports anything, is free to all.
    """
    package = f"face_landmarks.{module}".split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*parent, *filter(None, [node.module])])
            names = []
            for alias in node.names:
                inner = f"{origin}.{alias.name}".removeprefix("face_landmarks.")
                if inner in known or f"{inner}.__init__" in known:
                    names.append(f"face_landmarks.{inner}")
                elif (origin, alias.name) != ("face_landmarks", "__version__"):
                    names.append(origin)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
            "import_module",
            "__import__",
        ):
            names = [word.value for word in node.args if isinstance(word, ast.Constant)]
        else:
            continue
        for name in map(str, names):
            if name.split(".")[0] == "face_landmarks":
                inner = name.removeprefix("face_landmarks").lstrip(".")
                while inner and inner not in known and f"{inner}.__init__" not in known:
                    inner = inner.rpartition(".")[0]
                yield inner if inner in known else f"{inner}.__init__".lstrip(".")


IMPORTS = {
    name: set(imports(path.read_text(encoding="utf-8"), name)) - {name} for name, path in MODULES.items()
}


def test_imports_are_read_from_every_form() -> None:
    source = """
import os, face_landmarks.images
from importlib import import_module
from face_landmarks.training.losses import loss
from face_landmarks import aligner, errors, __version__
from face_landmarks import FaceAligner
from face_landmarks.models import card
from . import metrics
from .. import heatmap
from ..geometry import warp
def later():
    from face_landmarks.detection.mtcnn import MTCNN
    import_module("face_landmarks.video")
"""
    assert set(imports(source, "benchmarks.readers")) == {
        "images.__init__",
        "training.losses",
        "aligner",
        "errors",
        "__init__",
        "models.card",
        "benchmarks.metrics",
        "heatmap",
        "geometry",
        "detection.mtcnn",
        "video.__init__",
    }


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_rooms_below_it(module: str) -> None:
    room = room_of(module)
    assert room in HEIGHT, f"{room} stands in no row: give it a place in ROWS"
    for name in IMPORTS[module]:
        other = room_of(name)
        if other != room and (room, other) not in NEIGHBOURS:
            assert HEIGHT[other] < HEIGHT[room], f"{module} imports {name}, which is not below it"


def test_a_detector_needs_no_network_and_a_network_no_card() -> None:
    assert IMPORTS["detection.contract"] == IMPORTS["models.hourglass"] == {"errors"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = {name: set(others) for name, others in IMPORTS.items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"in or behind a circle: {sorted(left)}"


def test_no_room_imports_more_than_eight_others() -> None:
    """But for two doors: the package's own, which only gives names, and the command, which has them all."""
    for room in HEIGHT.keys() - {"__init__", "cli"}:
        mine = {
            room_of(name) for module, names in IMPORTS.items() if room_of(module) == room for name in names
        }
        assert len(mine - {room}) <= 8, f"{room} imports {sorted(mine)}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_folder_has_at_most_ten_modules(folder: Path) -> None:
    assert (folder / "__init__.py").exists()
    assert len(list(folder.glob("*.py"))) <= 10


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_fit_on_a_few_screens(module: str) -> None:
    source = MODULES[module].read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                assert first.end_lineno is not None
                lines -= first.end_lineno - first.lineno + 1
            assert lines <= 60, f"{module}.{node.name} has {lines} lines without its docstring"


IMPORT_REPORT = """
import sys, warnings
import cv2, numpy, torch
filters = list(warnings.filters)
import face_landmarks
from face_landmarks import *
assert warnings.filters == filters, "a warning filter was changed"
print(*sorted(sys.modules))
"""


def test_importing_the_package_imports_no_plots_no_detector_no_training_and_makes_no_folder(
    tmp_path: Path, temporary_home: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_REPORT],
        env={
            **os.environ,
            "PYTHONPATH": str(PACKAGE.parent),
            "HOME": str(tmp_path),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "face_landmarks" in loaded
    unwanted = {"matplotlib", "facenet_pytorch", "requests"}
    rooms = {f"face_landmarks.{room}" for room in ("training", "benchmarks", "cli", "compat")}
    assert not loaded & (unwanted | rooms)
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    assert list(temporary_home.iterdir()) == []
