"""`face-landmarks align` with photos, folders and patterns, boxes from a file, and drawings of them all."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest

from face_landmarks import FaceAligner, read_image
from face_landmarks.cli import main
from face_landmarks.cli.boxes import read_boxes
from face_landmarks.cli.commands import align
from face_landmarks.cli.options import make_aligner, model_options
from face_landmarks.cli.photos import Photo, find_all
from face_landmarks.cli.targets import LineFile, prepare_file, prepare_folder
from face_landmarks.errors import InputError, WriteError

ASTRONAUT = Path(__file__).parents[2] / "examples" / "data" / "astronaut.jpg"
BOX = [178.0, 59.0, 267.0, 175.0]
BOXES = {"one.jpg": [BOX], "photos/b.png": [BOX, BOX], "photos/deep/c.jpg": []}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A photo, and a folder with two photos and a file that is none."""
    monkeypatch.chdir(tmp_path)
    Path("photos/deep").mkdir(parents=True)
    shutil.copy(ASTRONAUT, "one.jpg")
    cv2.imwrite("photos/b.png", cv2.imread(str(ASTRONAUT)))
    shutil.copy(ASTRONAUT, "photos/deep/c.jpg")
    Path("photos/notes.txt").touch()
    Path("boxes.json").write_text(json.dumps(BOXES))
    return tmp_path


def run(*words):
    """The command with the small model."""
    return main(["align", *map(str, words), "--model", "shr-fan-68-fast", "--device", "cpu"])


def names(words):
    photos, empty, locked = find_all(words)
    assert not locked
    return [(photo.path, str(photo.name)) for photo in photos], empty


def test_photos_folders_and_patterns_are_taken_in_any_mix(workplace):
    Path("a[1].jpg").touch()
    Path("empty").mkdir()
    b, c = ("photos/b.png", "b.png"), ("photos/deep/c.jpg", "deep/c.jpg")
    assert names(["photos", "one.jpg"]) == ([b, c, ("one.jpg", "one.jpg")], [])
    assert names(["photos/**"]) == ([("photos/b.png", "b.png"), ("photos/deep/c.jpg", "c.jpg")], [])
    assert names(["photos/*"]) == ([("photos/b.png", "b.png"), ("photos/deep/c.jpg", "c.jpg")], [])
    assert names(["photos/*.png", "photos"]) == ([b, c], [])  # each once
    assert names(["photos/*.txt"])[0] == [("photos/notes.txt", "notes.txt")]  # by its suffix
    assert names(["one.jpg", "one.jpg"])[0] == 2 * [("one.jpg", "one.jpg")]  # twice by name is twice
    assert names(["a[1].jpg", "none.jpg"])[0] == [("a[1].jpg", "a[1].jpg"), ("none.jpg", "none.jpg")]
    assert names(["empty", "none/*.jpg", "-"]) == ([("-", "stdin")], ["empty", "none/*.jpg"])


def test_an_empty_word_is_not_the_current_folder(workplace, capsys):
    assert run("") == 2
    assert "expected files, folders or patterns, got ''" in capsys.readouterr().err
    assert len(names(["."])[0]) == 3


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["photos"], "photos"),
        (["photos"], "photos/drawn"),
        (["one.jpg", "."], "drawn"),
        (["link"], "photos/a"),
    ],
)
def test_drawings_do_not_become_photos_of_the_next_run(workplace, capsys, words, folder):
    Path("link").symlink_to("photos")
    files = sorted(Path().rglob("*"))
    assert run(*words, "--draw", folder) == 2
    assert f"expected a folder outside of {words[-1]!r}, which is read" in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == files


def test_drawings_may_lie_in_a_hidden_folder_and_beside_a_photo(workplace):
    for _ in range(2):  # hidden folders hold no photos
        assert (
            run("photos/b.png", "photos/deep", "--boxes", "boxes.json", "--draw", "photos/deep/.drawn") == 0
        )
        assert run("one.jpg", "photos/b.png", "--boxes", "boxes.json", "--draw", "beside") == 0
    assert sorted(path.name for path in Path("photos/deep/.drawn").iterdir()) == ["b.png", "c.png"]


def test_all_are_aligned_into_one_file_and_drawn(workplace, capsys):
    words = ("photos", "one.jpg", "--boxes", "boxes.json", "--draw", "drawn")
    assert run(*words, "--out", "out.jsonl", "--labels", "--scores", "--weight", "2") == 0
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == ["photos/b.png", "photos/deep/c.jpg", "one.jpg"]
    assert [len(row["boxes"]) for row in rows] == [2, 0, 1] and rows[0]["detector"] == "given boxes"
    drawn = sorted(path.relative_to("drawn").as_posix() for path in Path("drawn").rglob("*.png"))
    assert drawn == ["b.png", "deep/c.png", "one.png"]
    assert np.array_equal(read_image("drawn/deep/c.png"), read_image(ASTRONAUT))
    assert not np.array_equal(read_image("drawn/b.png"), read_image("photos/b.png"))
    assert "in all: 3 faces in 3 photos, 0 unreadable" in capsys.readouterr().err
    shutil.rmtree("drawn")
    assert run(*words, "--out", "out.jsonl") == 0  # of earlier runs, too
    assert len(list(Path("drawn").rglob("*.png"))) == 3


def test_files_of_one_folder_are_named_in_it_and_pts_files_are_never_outside(workplace):
    Path("boxes.json").write_text(json.dumps({"b.png": [BOX], "c.jpg": [], "one.jpg": [BOX]}))
    assert run("photos", "--boxes", "boxes.json", "--out", "list.JSON") == 0
    assert [row["image"] for row in json.loads(Path("list.JSON").read_text())] == ["b.png", "deep/c.jpg"]
    assert (
        run(workplace / "photos", "../" + workplace.name + "/one.jpg", "--boxes", "boxes.json", "--out", "p")
        == 0
    )
    assert sorted(path.as_posix() for path in Path("p").rglob("*")) == ["p/b.pts", "p/one.pts"]


def test_a_link_that_leads_nowhere_costs_the_other_photos_nothing(workplace, capsys):
    Path("photos/a.jpg").symlink_to("gone.jpg")
    Path("boxes.json").write_text(json.dumps({**BOXES, "a.jpg": []}))
    words = ("photos", "--boxes", "boxes.json", "--out", "out.jsonl")
    assert run(*words) == 1
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [(row["image"], row.get("retry", False)) for row in rows] == [
        ("a.jpg", True),
        ("b.png", False),
        ("deep/c.jpg", False),
    ]
    assert "2 photos, 0 unreadable, 1 failed" in capsys.readouterr().err
    Path("photos/a.jpg").unlink()
    shutil.copy("one.jpg", "photos/a.jpg")
    assert run(*words) == 0  # the missing one alone is done
    assert "in 3 photos, 2 photos done earlier, 0 unreadable" in capsys.readouterr().err


def test_a_list_holds_them_in_order_and_a_missing_one_as_an_error(workplace, capsys):
    Path("empty").mkdir()
    Path("boxes.json").write_text(json.dumps({**BOXES, "none.jpg": []}))
    words = ("one.jpg", "none.jpg", "photos", "empty", "--boxes", "boxes.json")
    assert run(*words, "--json", "out.json", "--draw", "drawn") == 1
    rows = json.loads(Path("out.json").read_text())
    assert [row["image"] for row in rows] == ["one.jpg", "none.jpg", "photos/b.png", "photos/deep/c.jpg"]
    assert ["error" in row for row in rows] == [False, True, False, False]
    assert len(list(Path("drawn").rglob("*.png"))) == 3
    assert "empty: expected photos, got none" in capsys.readouterr().err


@pytest.mark.parametrize("out", [[], ["--out", "out.jsonl"]])
@pytest.mark.parametrize("word", ["empty", "*.gif"])
def test_where_there_is_no_photo_the_code_is_three(workplace, capsys, word, out):
    Path("empty").mkdir()
    assert run(word, *out) == 3
    assert capsys.readouterr().err == f"face-landmarks: error: {word}: expected photos, got none\n"


def test_a_photo_comes_from_standard_input(workplace, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ASTRONAUT.read_bytes())))
    Path("boxes.json").write_text(json.dumps({"-": [BOX]}))
    assert run("-", "--boxes", "boxes.json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["image"] == "-" and len(row["landmarks"]) == 1
    assert run("-", "--boxes", "boxes.json") == 1  # the input has been read
    assert "expected a photo on standard input, got nothing" in capsys.readouterr().out


def test_drawings_of_photos_that_differ_in_the_suffix_keep_it(workplace):
    shutil.copy("one.jpg", "photos/b.jpg")
    Path("boxes.json").write_text(json.dumps({"b.jpg": [BOX], "b.png": [BOX], "c.jpg": []}))
    assert run("photos", "--boxes", "boxes.json", "--draw", "drawn") == 0
    drawn = sorted(path.name for path in Path("drawn").rglob("*.png"))
    assert drawn == ["b.jpg.png", "b.png.png", "c.png"]


PHOTOS = [Photo("x/a.jpg", PurePosixPath("a.jpg")), Photo("x/y/b.jpg", PurePosixPath("y/b.jpg"))]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("b.csv", "image,x0,y0,x1,y1\na.jpg,1,2,3.5,4\na.jpg,5,6,7,8\ny/b.jpg,,,,\n"),
        ("b.CSV", "\ufeffface,y1,x1,y0,x0,image\n0,4,3.5,2,1,x/a.jpg\n1,8,7,6,5,x/a.jpg\n,,,,,b.jpg\n"),
        ("b.json", '{"a.jpg": [[1, 2, 3.5, 4], [5, 6, 7, 8]], "b.jpg": []}'),
        ("b.json", '[{"image": "a.jpg", "boxes": [[1, 2, 3.5, 4], [5, 6, 7, 8]]}, '
         '{"image": "c", "error": "damaged"}, {"image": "b.jpg", "boxes": []}]'),
        ("b.jsonl", '{"image": "a.jpg", "boxes": [[1, 2, 3.5, 4], [5, 6, 7, 8]]}\n'
         '{"image": "b.jpg", "boxes": []}\n'),
    ],
)  # fmt: skip
def test_boxes_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    boxes = read_boxes(str(tmp_path / name), PHOTOS)
    assert boxes["x/a.jpg"].tolist() == [[1, 2, 3.5, 4], [5, 6, 7, 8]]
    assert boxes["x/y/b.jpg"].shape == (0, 4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.csv", b"image,x0\n", "a table without the columns x1, y0, y1"),
        ("b.csv", b"image,x0,y0,x1,y1\na.jpg,1,2,3,\n", "'' in line 2 instead of a number"),
        ("b.csv", b"image,x0,y0,x1,y1\na.jpg,1,2,3,4\n", "none of x/y/b.jpg; a photo without a face has"),
        (
            "b.csv",
            b"image,x0,y0,x1,y1\na.jpg,3,2,1,4\nb.jpg,,,,\n",
            "a.jpg: boxes: boxes are x0 y0 x1 y1 with x0 < x1",
        ),
        ("b.csv", b"\xff\xfe", "bytes that are not text"),
        ("b.json", b"[1]", "expected boxes of photos"),
        ("b.json", b"{", "expected boxes of photos"),
        ("b.json", b"{}", "none of x/a.jpg and 1 more"),
        ("b.json", b'{"a.jpg": 3}', "something else than an object"),
        ("b.txt", b"", "expected a .csv, .json or .jsonl file, got 'b.txt'"),
    ],
)
def test_boxes_that_cannot_be_used_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_boxes(str(tmp_path / name), PHOTOS)
    assert message in str(raised.value)


def test_the_least_face_reaches_the_detector():
    options = model_options().parse_args(
        ["--min-face-size", "17", "--rotations", "fallback", "--device", "cpu"]
    )
    detector = make_aligner(options).detector
    assert detector.min_face_size == 17 and detector.rotations == "fallback"


@pytest.mark.parametrize("size", [[], ["--min-face-size", "40"]])
def test_the_detector_runs_beside_the_backend(size):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    for backend, runtime in (("torch", "torch"), ("onnxruntime", "onnxruntime"), ("auto", "onnxruntime")):
        device = [] if backend == "onnxruntime" else ["--device", "cpu"]
        given = ["--model", "shr-fan-68-tiny", "--backend", backend, *size, *device]
        assert make_aligner(model_options().parse_args(given)).detector.runtime == runtime


def test_a_place_is_tried_before_the_work(tmp_path):
    (tmp_path / "file").write_text("kept")
    assert prepare_file(tmp_path / "file").read_text() == "kept"
    assert prepare_folder(tmp_path / "deep" / "folder").is_dir()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "file", "folder"]
    prepare_file("/dev/null")
    for bad in (tmp_path / "file" / "below", "/proc/none/out"):
        for prepare in (prepare_file, prepare_folder):
            with pytest.raises(WriteError, match="expected a place to write to"):
                prepare(bad)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_write_error():
    with pytest.raises(WriteError, match="/dev/full: expected a place to write to, got No space left"):
        prepare_file("/dev/full")
    with pytest.raises(WriteError, match="No space left"), LineFile(Path("/dev/full")) as lines:
        lines.write("short")


def test_the_work_does_not_begin_where_its_result_could_not_be_written(workplace, monkeypatch):
    def work(options):
        pytest.fail("the model was loaded")

    monkeypatch.setattr(align, "make_aligner", work)
    Path("taken").touch()
    for words in (["--out", "taken"], ["--json", "/proc/none.json"], ["--draw", "taken/drawn"]):
        assert run("one.jpg", *words) == 2


def test_given_boxes_need_no_detector(workplace, monkeypatch):
    made = []
    monkeypatch.setattr(align, "make_aligner", lambda options: made.append(make_aligner(options)) or made[0])
    assert run("one.jpg", "--boxes", "boxes.json", "--detector", "yunet", "--rotations", "always") == 0
    assert isinstance(made[0], FaceAligner) and made[0].detector is None


def test_columns_of_a_table_may_be_named(workplace, capsys):
    assert run("one.jpg", "--boxes", "boxes.json", "--out", "named.CSV", "--point-names") == 0
    header, _ = (workplace / "named.CSV").read_text().splitlines()
    assert header.startswith("image,face,x0,y0,x1,y1,score,jaw_right_1_x,") and "mouth_left_error" in header
    for words in ([], ["--out", "a.jsonl"], ["--json", "a.csv"], ["--out", "pts"]):
        assert run("one.jpg", *words, "--point-names") == 2
        assert "--point-names: expected --out with a .csv or .parquet file" in capsys.readouterr().err
