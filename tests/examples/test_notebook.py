"""What a notebook shows: the preview of faces, and the quickstart as it is in the repository."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from face_landmarks import Faces, get_layout
from face_landmarks.geometry import boxes_from_landmarks

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"
SVG = "{http://www.w3.org/2000/svg}"


def some_faces(count, layout=None):
    layout = layout or get_layout("ibug-68")
    points = np.random.default_rng(0).uniform(0, 50, (count, len(layout), 2))
    points += 100 * np.arange(1, count + 1)[:, None, None]
    return Faces(
        points, np.full((count, len(layout)), 0.5), boxes_from_landmarks(points), np.ones(count), layout
    )


def parsed(faces):
    """The preview, which is XML as well."""
    return ElementTree.fromstring(faces._repr_html_())


def test_the_preview_has_a_row_for_each_face():
    faces = some_faces(3)
    rows = [[cell.text for cell in row] for row in parsed(faces).iter("tr")]
    assert rows[0] == ["face", "box", "box score", "landmark score", "expected error, px"] and len(rows) == 4
    x0, y0, x1, y1 = faces.boxes[2]
    assert rows[3] == ["2", f"({x0:.0f}, {y0:.0f}) to ({x1:.0f}, {y1:.0f})", "1.00", "0.50", "unknown"]
    known = replace(faces, landmark_errors=np.full((3, 68), 1.25))
    assert [row[-1].text for row in parsed(known).iter("tr")][1:] == ["1.2"] * 3


def test_the_sketch_draws_every_part_of_every_face_to_scale():
    faces = some_faces(2)
    (sketch,) = parsed(faces).iter(f"{SVG}svg")
    first, second = sketch.iter(f"{SVG}g")
    closed = faces.layout.closed
    assert len(list(first.iter(f"{SVG}polygon"))) == len(closed)
    assert len(list(first.iter(f"{SVG}polyline"))) == len(faces.layout.groups) - len(closed)
    jaw, other = (next(g.iter(f"{SVG}polyline")).get("points") for g in (first, second))
    drawn = np.array([pair.split(",") for pair in f"{jaw} {other}".split()], float)
    true = faces.group("jaw").reshape(-1, 2)
    scale = np.ptp(drawn, axis=0) / np.ptp(true, axis=0)
    assert scale[0] == pytest.approx(scale[1], rel=0.01)
    np.testing.assert_allclose(drawn - drawn[0], (true - true[0]) * scale, atol=0.3)


def test_the_preview_of_a_crowd_is_short_and_of_nobody_has_no_sketch():
    assert "and 90 more" in some_faces(100)._repr_html_()
    assert len(some_faces(100)._repr_html_()) < 20_000
    html = some_faces(0)._repr_html_()
    assert "0 faces" in html and "<svg" not in html


@pytest.mark.parametrize("size", [0, 1e30])
def test_the_preview_stands_faces_of_any_size(size):
    landmarks = size * np.ones((1, 68, 2)) * np.linspace(0, 1, 68)[:, None]
    parsed(Faces(landmarks, np.ones((1, 68)), [[0, 0, size, size]], [1]))


def test_the_preview_escapes_names():
    faces = some_faces(1, replace(get_layout("ibug-68"), name="<script>"))
    assert "<script>" not in faces._repr_html_() and "&lt;script&gt;" in faces._repr_html_()


def test_the_quickstart_runs_and_shows_what_it_has_shown(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # pictures go into the notebook
    monkeypatch.setenv("FACE_LANDMARKS_OFFLINE", "1")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    committed = nbformat.read(QUICKSTART, as_version=4)
    executed = nbclient.NotebookClient(
        nbformat.from_dict(committed), timeout=120, resources={"metadata": {"path": str(QUICKSTART.parent)}}
    ).execute()
    for before, after in zip(committed.cells, executed.cells, strict=True):
        kinds = [sorted(output.get("data", ())) for output in before.get("outputs", ())]
        assert kinds == [sorted(output.get("data", ())) for output in after.get("outputs", ())]
        assert not [o for o in after.get("outputs", ()) if o.get("name") == "stderr"], after.source


def test_the_quickstart_is_small_and_points_to_files_that_exist():
    assert QUICKSTART.stat().st_size < 600_000
    text = QUICKSTART.read_text(encoding="utf-8")
    links = re.findall(r"\]\((\.\./[^)]+)\)", text)
    assert len(links) > 3 and all((QUICKSTART.parent / link).exists() for link in links)
