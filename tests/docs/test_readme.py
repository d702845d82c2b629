"""The code of the README and of docs/ does what it says, and the public names are those they promise."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import face_landmarks
from face_landmarks.pts import write_pts

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"export.md", "inputs.md"}  # pages that have a test file of their own
PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
    if path.name not in ELSEWHERE
}
README = PAGES["README.md"]
SITE = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


CODE = {code: name for name, text in PAGES.items() for code in blocks("python", text)}  # each once
PYTHON = [
    pytest.param(code, id=f"{name}: {code.strip().splitlines()[-1][:40]}") for code, name in CODE.items()
]


def commands():
    """The face-landmarks commands of the README, without those that need more than this repository."""
    code = [block for text in PAGES.values() for block in blocks("bash", text)]
    lines = "\n".join(code).replace("\\\n", " ").splitlines()
    words = [shlex.split(line) for line in lines if line.startswith("face-landmarks ")]
    words = [list(w) for w in dict.fromkeys(map(tuple, words))]
    return [w for w in words if not {"train", "evaluate", "download", "demo"} & set(w)]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with what the pages speak of: photo.jpg, clip.mp4, and folders, one with .pts files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "photos").mkdir()
    (tmp_path / "annotated").mkdir()
    for name in ("photo.jpg", "photos/a.jpg", "annotated/a.jpg"):
        (tmp_path / name).write_bytes((ROOT / "examples/data/astronaut.jpg").read_bytes())
    write_pts("annotated/a.pts", np.random.default_rng(0).uniform((180, 60), (265, 175), (68, 2)))
    with face_landmarks.VideoWriter("clip.mp4") as writer:
        for _ in range(3):
            writer.write(face_landmarks.read_image("photo.jpg"))
    return tmp_path


@pytest.mark.parametrize("code", PYTHON)
def test_every_python_block_runs(code, workplace):
    if "to_pandas" in code:
        pytest.importorskip("pandas")
    exec(compile(code, "page", "exec"), {})


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_runs(words, workplace):
    done = subprocess.run(
        [sys.executable, "-m", "face_landmarks", *words[1:]], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for drawn in (w for w in words if w.endswith(".png")):
        assert (workplace / drawn).stat().st_size > 10_000


def test_the_readme_has_commands_and_code_to_run():
    assert len(blocks("python")) >= 2 and len(commands()) >= 2


def test_the_test_command_is_the_one_ci_runs():
    assert any("pytest" in block for block in blocks("bash"))
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("pytest")


def test_every_file_the_readme_points_to_exists():
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)|src=\"(?!https?://)([^\"]+)\"", README)
    assert links
    for link in (a or b for a, b in links):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("page", [name for name in PAGES if name != "README.md"])
def test_every_page_points_to_files_that_exist_and_the_site_to_it(page):
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", PAGES[page]):
        assert (ROOT / "docs" / link).exists(), link
    assert re.search(rf": {page}$", SITE, flags=re.MULTILINE)


PUBLIC_NAMES = [
    "MTCNN",
    "AnnotationError",
    "CacheError",
    "ChecksumError",
    "Detections",
    "Detector",
    "DetectorError",
    "DownloadError",
    "ExportError",
    "Face",
    "FaceAligner",
    "FaceHeatmaps",
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
    "TrainingError",
    "UnknownModelError",
    "Video",
    "VideoWriter",
    "WeightsError",
    "WeightsFormatError",
    "WorkerError",
    "WriteError",
    "YuNet",
    "__version__",
    "align_faces",
    "align_folder",
    "align_list",
    "draw_faces",
    "eye_openness",
    "five_points",
    "get_layout",
    "head_pose",
    "list_models",
    "load_model",
    "merge_results",
    "mouth_openness",
    "plot_faces",
    "plot_heatmaps",
    "read_image",
    "write_report",
]


def test_the_public_names_are_these():
    assert face_landmarks.__all__ == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(face_landmarks, name) is not None


@pytest.mark.parametrize("name", [n for n in PUBLIC_NAMES if n != "__version__"])
def test_every_public_name_is_documented(name):
    assert getattr(face_landmarks, name).__doc__
