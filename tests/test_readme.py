"""The README's code does what it says, and the public names are those it promises."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import face_landmarks

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands():
    """The face-landmarks commands of the README, without those that need more than this repository."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line) for line in lines if line.startswith("face-landmarks ")]
    return [w for w in words if not {"train", "evaluate", "download"} & set(w)]


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.strip().splitlines()[-1][:40])
def test_every_python_block_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes((ROOT / "examples/data/astronaut.jpg").read_bytes())
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_runs(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "photo.jpg").write_bytes((ROOT / "examples/data/astronaut.jpg").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "face_landmarks.cli", *words[1:]], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for drawn in (w for w in words if w.endswith(".png")):
        assert (tmp_path / drawn).stat().st_size > 10_000


def test_the_readme_has_commands_and_code_to_run():
    assert len(blocks("python")) >= 2 and len(commands()) >= 2


def test_the_test_command_is_the_one_ci_runs():
    assert any("pytest" in block for block in blocks("bash"))
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("pytest")


def test_every_file_the_readme_points_to_exists():
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)|src=\"(?!https?://)([^\"]+)\"", README)
    assert links
    for link in (a or b for a, b in links):
        assert (ROOT / link).exists(), link


PUBLIC_NAMES = [
    "MTCNN",
    "AnnotationError",
    "CacheError",
    "ChecksumError",
    "Detector",
    "DetectorError",
    "DownloadError",
    "ExportError",
    "FaceAligner",
    "FaceLandmarksError",
    "FaceTracker",
    "Faces",
    "ImageError",
    "InputError",
    "LandmarkModel",
    "Layout",
    "MissingDependencyError",
    "ModelCard",
    "TrackedFaces",
    "UnknownModelError",
    "Video",
    "VideoWriter",
    "WeightsError",
    "WeightsFormatError",
    "__version__",
    "align_faces",
    "align_folder",
    "draw_faces",
    "five_points",
    "get_layout",
    "head_pose",
    "list_models",
    "load_model",
    "plot_faces",
    "read_image",
]


def test_the_public_names_are_these():
    assert face_landmarks.__all__ == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(face_landmarks, name) is not None


@pytest.mark.parametrize("name", [n for n in PUBLIC_NAMES if n != "__version__"])
def test_every_public_name_is_documented(name):
    assert getattr(face_landmarks, name).__doc__
