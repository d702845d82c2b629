"""What a report holds, whatever shows it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_landmarks import FaceAligner, Faces, align_folder, read_image, write_report
from face_landmarks.benchmarks import AnnotatedImage, evaluate
from face_landmarks.cli import main
from face_landmarks.errors import InputError, WriteError
from face_landmarks.pts import write_pts
from face_landmarks.reports.evaluation import write_evaluation_report
from face_landmarks.reports.pictures import view_of

ASTRONAUT = Path(__file__).parents[2] / "examples" / "data" / "astronaut.jpg"
BOX = [178.0, 59.0, 267.0, 175.0]


@pytest.fixture(scope="module")
def face():
    return FaceAligner("shr-fan-68-fast", detector=None, device="cpu").align(ASTRONAUT, [BOX])


def with_score(face, score):
    return Faces(face.landmarks, np.full((1, 68), score), face.boxes, face.box_scores, face.layout)


def read(path):
    """The data of a page, and the page without it."""
    text = path.read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    return json.loads(data[1]), text.replace(data[1], "")


def picture(source):
    return cv2.imdecode(np.frombuffer(base64.b64decode(source.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)


def test_a_face_is_there_with_its_numbers_and_its_pictures(tmp_path, face):
    photo = read_image(ASTRONAUT)
    page = write_report([(ASTRONAUT, face), (photo, face)], tmp_path / "deep" / "report.html")
    assert page == tmp_path / "deep" / "report.html" and sorted(page.parent.iterdir()) == [page]
    data, _ = read(page)
    assert [entry["name"] for entry in data["photos"]] == [str(ASTRONAUT), "photo 1"]
    first, second = data["faces"]
    assert (first["photo"], first["face"], second["photo"]) == (0, 0, 1) and first["layout"] == "ibug-68"
    np.testing.assert_allclose(np.reshape(first["points"], (68, 2)), face.landmarks[0], atol=0.006)
    np.testing.assert_allclose(first["scores"], face.landmark_scores[0], atol=0.006)
    np.testing.assert_allclose(first["errors"], face.landmark_errors[0], atol=0.006)
    assert first["score"] == pytest.approx(face.landmark_scores.mean(), abs=1e-4)
    assert first["error"] == pytest.approx(face.landmark_errors.mean(), abs=0.006)
    assert first["size"] == 116 and first["box"] == BOX
    x, y, width, height = first["crop"]
    assert width == height and (x + 0.5) % 1 == 0  # whole pixels
    crop = picture(first["src"])[:, :, ::-1]
    assert crop.shape == (height, width, 3)
    expected = photo[round(y + 0.5) :, round(x + 0.5) :][: crop.shape[0], : crop.shape[1]]
    assert np.abs(crop.astype(int) - expected).mean() < 3
    assert picture(data["photos"][0]["src"]).shape == photo.shape
    names = data["layouts"]["ibug-68"]["names"]
    assert len(names) == 68 and names[36] == face.layout.names[36].replace("_", " ")


def test_a_view_is_a_square_of_whole_pixels_around_the_points():
    view = view_of(np.array([[10.0, 20.0], [50.0, 30.0]], np.float32))
    assert view.width == view.height == 60
    assert view.x == -0.5 and view.y == -5.5  # half a pixel before a pixel's centre


@pytest.mark.parametrize("size", [(-300, -300), (40, 40)])
def test_a_face_at_the_edge_has_the_part_of_the_crop_that_is_there(tmp_path, face, size):
    shift = np.array(size, np.float32) - face.landmarks[0].min(axis=0)
    moved = Faces(
        face.landmarks + shift, face.landmark_scores, face.boxes + np.tile(shift, 2), face.box_scores
    )
    data, _ = read(write_report([(np.zeros((60, 50, 3), np.uint8), moved)], tmp_path / "r.html"))
    (entry,) = data["faces"]
    if size[0] < 0:
        assert entry["src"] is None and "crop" not in entry
    else:
        x, y, width, height = entry["crop"]
        assert (x + width, y + height) == (49.5, 59.5) and picture(entry["src"]).shape[1] == width


def test_hostile_names_are_only_text(tmp_path, face):
    name = '</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>"&\u2028.jpg'
    results = [(ASTRONAUT, face), (f"{tmp_path}/{name}", "image: cannot open </script><b>")]
    page = write_report(results, tmp_path / "r.html", title=f"{name} @style@ @data@")
    data, rest = read(page)
    assert data["errors"] == [[f"{tmp_path}/{name}", "image: cannot open </script><b>"]]
    assert "alert(1)</script>" not in page.read_text() and "<img" not in rest
    assert rest.count("<script") == rest.count("</script>") == 2
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in rest and "@style@" in rest


def test_only_the_pages_own_script_may_run_and_nothing_is_loaded(tmp_path, face):
    _, rest = read(write_report([(ASTRONAUT, face)], tmp_path / "r.html"))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', rest)[1]
    script = re.search(r"<script>(.*?)</script>", rest, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and policy.startswith("default-src 'none'")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", rest)


def test_a_file_of_results_is_read_again(tmp_path, face):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(ASTRONAUT, photos / "a.jpg")
    (photos / "b.jpg").write_text("not a photo")
    blind = FaceAligner("shr-fan-68-fast", detector=None, device="cpu")
    for name in ("out.jsonl", "out.json"):
        align_folder(blind, photos, tmp_path / name, boxes={"a.jpg": [BOX], "b.jpg": []})
        data, _ = read(write_report(tmp_path / name, tmp_path / "r.html", folder=photos))
        assert [entry["name"] for entry in data["photos"]] == ["a.jpg"] and len(data["faces"]) == 1
        assert data["errors"][0][0] == "b.jpg" and "format is not known" in data["errors"][0][1]
        assert data["faces"][0]["src"].startswith("data:image/jpeg;base64,")
        assert data["summary"] == "1 face in 1 photo"
    shutil.rmtree(photos)
    data, _ = read(write_report(tmp_path / "out.jsonl", tmp_path / "r.html", folder=photos))
    assert len(data["faces"]) == 1 and data["faces"][0]["src"] is None
    assert [name for name, _ in data["errors"]] == ["b.jpg", "a.jpg"]


def test_the_least_sure_are_kept_where_there_are_too_many(tmp_path, face):
    results = [(ASTRONAUT, with_score(face, score)) for score in (0.9, 0.2, 0.5)]
    data, _ = read(write_report(results, tmp_path / "r.html", most=2))
    assert sorted(entry["score"] for entry in data["faces"]) == [0.2, 0.5]
    assert data["summary"] == "3 faces in 3 photos; the 2 least sure are shown"
    assert data["faces"][0]["error"] is None and data["faces"][0]["errors"] is None  # unknown


def test_pictures_that_do_not_fit_are_shown_from_files(tmp_path, face):
    shutil.copy(ASTRONAUT, tmp_path / "a 100%.jpg")
    results = [(tmp_path / "a 100%.jpg", face), (read_image(ASTRONAUT), face)]
    page = tmp_path / "pages" / "r.html"
    data, _ = read(write_report(results, page, max_size=50_000))  # of crops, but not of photos
    assert [entry["src"] for entry in data["photos"]] == ["../a%20100%25.jpg", None]
    assert all(entry["src"].startswith("data:") for entry in data["faces"])
    data, _ = read(write_report(results, page, max_size=0))
    assert [entry["src"] for entry in data["faces"]] == ["r_files/0.jpg", "r_files/1.jpg"]
    assert sorted(path.name for path in page.parent.rglob("*")) == [
        *(".face-landmarks", "0.jpg", "1.jpg", "r.html", "r_files")
    ]
    write_report(results[:1], page, max_size=0)
    assert {path.name for path in (page.parent / "r_files").iterdir()} == {
        ".face-landmarks",
        "0.jpg",
    }  # replaced
    write_report(results[:1], page)
    assert sorted(page.parent.iterdir()) == [page]


@pytest.mark.parametrize("name", ["mine.txt", "0001.jpg"])
def test_a_folder_with_other_files_is_left_alone(tmp_path, face, name):
    (tmp_path / "r_files").mkdir()
    (tmp_path / "r_files" / name).write_text("kept")
    page = write_report([(ASTRONAUT, face)], tmp_path / "r.html")
    assert (tmp_path / "r_files" / name).read_text() == "kept"
    before = page.read_bytes()
    with pytest.raises(WriteError, match="r_files: expected a place to write to"):
        write_report([(ASTRONAUT, face)], page, max_size=0)
    assert page.read_bytes() == before and (tmp_path / "r_files" / name).read_text() == "kept"
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("results", "path", "options", "message"),
    [
        ([], "r.txt", {}, "path: expected the name of an .html file, got 'r.txt'"),
        ([], "r.html", {"most": 0}, "most: expected a whole number, at least 1, got 0"),
        ([], "r.html", {"max_size": 0.5}, "max_size: expected a whole number, at least 0, got 0.5"),
        ([], "r.html", {"title": None}, "title: expected str, got None"),
        (3, "r.html", {}, "results: expected pairs, got int"),
        (["a.jpg"], "r.html", {}, "expected pairs of a photo and its faces, got str"),
        ([("a.jpg", None)], "r.html", {}, "expected Faces or an error for each photo, got NoneType at 0"),
        ("none.jsonl", "r.html", {}, "none.jsonl: expected a file of results, got No such file"),
        (__file__, "r.html", {}, "expected a .jsonl or .json file of results"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path, monkeypatch, results, path, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        write_report(results, path, **options)
    assert message in str(raised.value) and not list(tmp_path.iterdir())


def test_lines_of_something_else_are_refused(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"image": 3}\n')
    with pytest.raises(InputError, match="expected results of align_folder, got something else"):
        write_report(tmp_path / "r.jsonl", tmp_path / "r.html")


def test_no_face_is_a_page_too(tmp_path):
    data, _ = read(write_report([(ASTRONAUT, Faces.empty())], tmp_path / "r.html"))
    assert data["faces"] == data["photos"] == [] and data["summary"] == "0 faces in 1 photo"


class Shifted:
    """An aligner that is wrong by as many pixels as the photo is high, and finds no face in black photos."""

    def __init__(self, face):
        self.face, self.layout = face, face.layout

    def align_batch(self, images, boxes=None):
        return [self._align(read_image(image)) for image in images]

    def _align(self, image):
        if not image.any():
            return Faces.empty()
        return Faces(
            self.face.landmarks + np.array([3.0, 4.0], np.float32),
            self.face.landmark_scores,
            self.face.boxes,
            self.face.box_scores,
        )


def test_an_evaluation_shows_true_points_beside_and_the_worst_first(tmp_path, face):
    class Black:
        def read(self):
            return np.zeros((512, 512, 3), np.uint8)

        def __str__(self):
            return "black"

    samples = [AnnotatedImage(ASTRONAUT, face.landmarks), AnnotatedImage(Black(), face.landmarks)]
    evaluation = evaluate(Shifted(face), samples, boxes="detector")
    data, _ = read(write_evaluation_report(evaluation, tmp_path / "r.html"))
    assert data["kind"] == "evaluation" and "2 faces, 50.0 % found" in data["summary"]
    found, missed = data["faces"]
    np.testing.assert_allclose(np.subtract(found["points"], found["truth"])[:2], [3, 4], atol=0.02)
    assert found["errors"] == pytest.approx([5.0] * 68, abs=0.01) and found["error"] == pytest.approx(
        5, abs=0.01
    )
    assert found["nme"] == pytest.approx(evaluation.errors[0], abs=1e-3)
    assert missed["points"] is None and missed["nme"] is None and len(missed["truth"]) == 136
    assert data["photos"][1]["name"] == "black" and data["photos"][1]["src"].startswith("data:")
    data, _ = read(write_evaluation_report(evaluation, tmp_path / "r.html", most=1))
    assert [entry["nme"] for entry in data["faces"]] == [None]  # the one that was not found
    assert data["summary"].endswith("; the 1 worst are shown")


@pytest.mark.parametrize("out", [[], ["--out", "out.csv"], ["--out", "pts"], ["--json", "out.json"]])
def test_the_command_writes_a_report_beside_every_format(tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    shutil.copy(ASTRONAUT, "photos/a.jpg")
    Path("photos/b.jpg").write_text("not a photo")
    Path("boxes.json").write_text(json.dumps({"a.jpg": [BOX], "b.jpg": []}))
    words = ["align", "photos", "--boxes", "boxes.json", "--report", "r.html", "--model", "shr-fan-68-fast"]
    assert main([*words, *out]) == 1
    data, _ = read(Path("r.html"))
    assert len(data["faces"]) == 1 and [name for name, _ in data["errors"]] == ["photos/b.jpg"]
    assert capsys.readouterr().out == ""


def test_the_command_writes_a_report_of_an_evaluation(tmp_path, face, capsys):
    (tmp_path / "photos").mkdir()
    shutil.copy(ASTRONAUT, tmp_path / "photos" / "a.jpg")
    write_pts(tmp_path / "photos" / "a.pts", face.landmarks[0])
    words = ["evaluate", str(tmp_path / "photos"), "--report", str(tmp_path / "r.html")]
    assert main([*words, "--model", "shr-fan-68-fast", "--device", "cpu"]) == 0
    data, _ = read(tmp_path / "r.html")
    assert data["kind"] == "evaluation" and data["faces"][0]["nme"] < 5
    with pytest.raises(SystemExit):
        main([*words[:-1], "r.txt"])
    assert "argument --report: expected the name of an .html file, got 'r.txt'" in capsys.readouterr().err
    assert main([*words[:-1], "/proc/none/r.html"]) == 2


def test_a_name_of_a_layout_does_not_end_the_data(tmp_path, face):
    name = "</script><script>alert(1)</script>"
    named = replace(face, layout=replace(face.layout, name=name))
    data, rest = read(write_report([(ASTRONAUT, named)], tmp_path / "r.html"))
    assert data["faces"][0]["layout"] == name and list(data["layouts"]) == [name] and "alert" not in rest
