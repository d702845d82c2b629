"""The house: a module imports only from lower floors, and importing the package costs nothing extra."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "face_landmarks"

FLOORS = {
    name: floor
    for floor, names in {
        6: "__init__ __main__",
        5: "cli compat",
        4: "crops evaluation folders plotting video",
        3: "aligner",
        2: "backends benchmarks confidence export hourglass mtcnn",
        1: "annotations detection geometry heatmap images matlab metrics results weights",
        0: "devices downloads extras forking layouts",
        -1: "_version errors",  # the bedrock: no imports at all
    }.items()
    for name in names.split()
}
MODULES = sorted(PACKAGE.glob("*.py"))
TRAINING = sorted((PACKAGE / "training").rglob("*.py"))


def imports(source: str, package: str = "face_landmarks") -> Iterator[str]:
    """First-party modules a source imports, anywhere in it, named from the package down."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*parent, *filter(None, [node.module])])
            # `from face_landmarks import weights` imports weights; any other name, the package's door.
            modules = {f"{origin}.{alias.name}" for alias in node.names if alias.name in FLOORS}
            names = sorted(modules) if origin == "face_landmarks" and modules else [origin]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "face_landmarks":
                yield name.removeprefix("face_landmarks").lstrip(".") or "__init__"


def test_imports_are_read_from_every_form() -> None:
    source = """
import os, face_landmarks.images
from face_landmarks.training.losses import loss
from face_landmarks import weights, errors
from face_landmarks import FaceAligner
from . import geometry
from .heatmap import decode_heatmaps
def later():
    from face_landmarks.mtcnn import MTCNN
"""
    expected = {
        "images",
        "training.losses",
        "weights",
        "errors",
        "__init__",
        "geometry",
        "heatmap",
        "mtcnn",
    }
    assert set(imports(source)) == expected


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_only_from_lower_floors(module: Path) -> None:
    assert module.stem in FLOORS, f"{module.name} stands on no floor: give it one in FLOORS"
    for name in imports(module.read_text(encoding="utf-8")):
        assert not name.startswith("training"), f"{module.name} imports {name}: the floors do not train"
        assert FLOORS[name] < FLOORS[module.stem], f"{module.name} imports {name}, which is not below it"


@pytest.mark.parametrize("module", TRAINING, ids=lambda path: path.stem)
def test_training_imports_only_floors_0_to_2_and_itself(module: Path) -> None:
    package = ".".join(["face_landmarks", *module.relative_to(PACKAGE).parent.parts])
    for name in imports(module.read_text(encoding="utf-8"), package):
        assert name.startswith("training") or FLOORS[name] <= 2, f"training/{module.name} imports {name}"


IMPORT_REPORT = """
import sys, warnings
import cv2, numpy, torch
filters = list(warnings.filters)
import face_landmarks
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
    assert not loaded & {"matplotlib", "facenet_pytorch", "face_landmarks.training", "requests"}
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    assert list(temporary_home.iterdir()) == []
