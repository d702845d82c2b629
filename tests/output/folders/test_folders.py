"""Whole folders: nothing lost, nothing twice, also when the run is killed."""

import csv
import functools
import inspect
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from face_landmarks import MTCNN, FaceAligner, load_model, read_image
from face_landmarks.benchmarks.annotations import read_folder
from face_landmarks.cli import main
from face_landmarks.errors import InputError, MissingDependencyError, WriteError
from face_landmarks.output.folders import reading_ahead, tables
from face_landmarks.output.folders.journal import settings_of
from face_landmarks.output.folders.run import align_folder
from face_landmarks.pts import read_pts, write_pts

ASTRONAUT = Path(__file__).parents[3] / "examples" / "data" / "astronaut.jpg"
BOX = [[178.0, 59.0, 267.0, 175.0]]
SETTINGS = '"bytes": 9, "model": "b", "weights": null, "flip": false, "refine": false'


def detect(image):
    """A detector that needs no network: black pictures have no face, wide ones have two."""
    if not image.any():
        return np.empty((0, 4))
    return np.array(BOX * (2 if image.shape[1] > 512 else 1)) * min(1, image.shape[0] / 512)


@pytest.fixture(scope="module")
def aligner():
    return FaceAligner("shr-fan-68-fast", detector=detect, device="cpu")


@pytest.fixture
def photos(tmp_path):
    """Four photos, one in a subfolder; a damaged one, two hidden ones, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    photo = cv2.imread(str(ASTRONAUT))
    wide = cv2.copyMakeBorder(photo, 0, 0, 0, 100, cv2.BORDER_REPLICATE)
    pictures = {"a.jpg": photo, "b.PNG": wide, "deep/c.jpg": photo[:, ::-1], "d.jpg": photo * 0}
    for name, picture in pictures.items():
        cv2.imwrite(str(folder / name), picture)
    (folder / ".thumbnails").mkdir()
    for name in ("broken.jpg", ".hidden.jpg", ".thumbnails/a.jpg", "notes.txt"):
        (folder / name).write_text("not a photo")
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_photo_has_its_line_in_order(aligner, photos, tmp_path):
    out = tmp_path / "new" / "out.jsonl"
    report = align_folder(aligner, photos, out)
    rows = lines(out)
    assert [row["image"] for row in rows] == ["a.jpg", "b.PNG", "broken.jpg", "d.jpg", "deep/c.jpg"]
    assert [len(row.get("boxes", ())) for row in rows] == [1, 2, 0, 0, 1]
    assert "broken.jpg" in rows[2]["error"] and rows[0]["model"] == "shr-fan-68-fast"
    np.testing.assert_allclose(rows[0]["landmarks"], aligner.align(photos / "a.jpg").landmarks, atol=1e-3)
    assert (report.images, report.faces, report.resumed) == (4, 4, 0)
    assert list(report.unreadable) == ["broken.jpg"]
    align_folder(aligner, photos, tmp_path / "flat.jsonl", recursive=False)
    assert len(lines(tmp_path / "flat.jsonl")) == 4


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
@pytest.mark.parametrize("torn", [b"", b'{"image": "d.jpg", "mod'], ids=["clean", "torn"])
def test_a_stopped_run_goes_on_where_it_stopped(aligner, photos, tmp_path, kept, torn):
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    align_folder(aligner, photos, whole)
    part.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:kept]) + torn)
    assert align_folder(aligner, photos, part).resumed == kept
    for row, again in zip(lines(whole), lines(part), strict=True):
        assert row["image"] == again["image"]
        np.testing.assert_allclose(row.get("landmarks", 0), again.get("landmarks", 0), atol=1e-2)


def test_a_new_photo_is_added(aligner, photos, tmp_path):
    out = tmp_path / "out.jsonl"
    align_folder(aligner, photos, out)
    before = out.read_bytes()
    (photos / "aa.jpg").write_bytes(ASTRONAUT.read_bytes())
    report = align_folder(aligner, photos, out)
    assert out.read_bytes().startswith(before) and lines(out)[-1]["image"] == "aa.jpg"
    assert report.resumed == 5 and report.faces == 5


def test_a_killed_command_resumes_exactly(tmp_path):
    folder, out, whole = tmp_path / "photos", tmp_path / "out.csv", tmp_path / "whole.csv"
    folder.mkdir()
    face = cv2.imread(str(ASTRONAUT))[20:200, 120:320]
    names = [f"{i:02}.jpg" for i in range(28)]
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.roll(face, i, axis=1))
    words = ["align", str(folder), "--device", "cpu", "--out"]
    process = subprocess.Popen([sys.executable, "-m", "face_landmarks", *words, str(out)])
    journal, deadline = tmp_path / "out.csv.jsonl", time.monotonic() + 100
    while time.monotonic() < deadline and not (journal.exists() and journal.read_bytes().count(b"\n") >= 8):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not out.exists() and 8 <= len(lines(journal)) < len(names), "killed too late to show anything"

    assert main([*words, str(out)]) == 0 and main([*words, str(whole)]) == 0
    assert not journal.exists()
    ours, theirs = (list(csv.DictReader(path.read_text().splitlines())) for path in (out, whole))
    assert [row["image"] for row in ours] == [row["image"] for row in theirs] == names
    numbers = [[float(value) for key, value in row.items() if key != "image"] for row in ours + theirs]
    np.testing.assert_allclose(numbers[: len(ours)], numbers[len(ours) :], atol=1e-2)


def test_a_table_has_a_row_per_face(aligner, photos, tmp_path):
    align_folder(aligner, photos, tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [(row["image"], row["face"]) for row in rows] == [
        ("a.jpg", "0"),
        ("b.PNG", "0"),
        ("b.PNG", "1"),
        ("deep/c.jpg", "0"),
    ]
    expected = aligner.align(photos / "a.jpg")
    assert float(rows[0]["y_30"]) == pytest.approx(float(expected.landmarks[0, 30, 1]), abs=1e-3)
    assert float(rows[0]["x1"]) == pytest.approx(267) and len(rows[0]) == 2 + 5 + 4 * 68


def test_a_csv_file_may_name_its_landmarks(aligner, photos, tmp_path):
    align_folder(aligner, photos, tmp_path / "numbers.csv")
    align_folder(aligner, photos, tmp_path / "names.csv", point_names=True)
    numbers, names = (
        list(csv.DictReader((tmp_path / name).read_text().splitlines()))
        for name in ("numbers.csv", "names.csv")
    )
    assert len(names) == len(numbers) > 2
    assert names[0]["right_eye_outer_x"] == numbers[0]["x_36"] and "x_36" not in names[0]


def test_parquet_holds_the_same_table(aligner, photos, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    align_folder(aligner, photos, tmp_path / "out.csv")
    align_folder(aligner, photos, tmp_path / "out.parquet")
    table = pandas.read_parquet(tmp_path / "out.parquet")
    pandas.testing.assert_frame_equal(table, pandas.read_csv(tmp_path / "out.csv"), check_dtype=False)


def test_tables_without_pyarrow_say_what_is_missing_before_the_work(aligner, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependencyError, match="tables"):
        align_folder(aligner, photos, tmp_path / "out.parquet")
    assert not list(tmp_path.glob("out*"))


def test_pts_files_are_those_that_read_folder_reads(aligner, photos, tmp_path):
    align_folder(aligner, photos, tmp_path / "pts")
    files = sorted(path.relative_to(tmp_path / "pts").as_posix() for path in (tmp_path / "pts").rglob("*.*"))
    assert files == ["a.pts", "b.1.pts", "b.2.pts", "deep/c.pts"]
    expected = aligner.align(photos / "a.jpg").landmarks[0]
    np.testing.assert_allclose(read_pts(tmp_path / "pts" / "a.pts"), expected, atol=1e-3)
    (tmp_path / "pts" / "a.jpg").write_bytes(ASTRONAUT.read_bytes())
    (tmp_path / "pts" / "b.png").write_bytes((photos / "b.PNG").read_bytes())
    assert [len(sample.landmarks) for sample in read_folder(tmp_path / "pts")] == [1, 2]


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "pts"])
def test_an_empty_folder_is_no_error(aligner, tmp_path, out):
    (tmp_path / "empty").mkdir()
    assert align_folder(aligner, tmp_path / "empty", tmp_path / out).images == 0


def test_what_cannot_be_done_is_refused(aligner, photos, tmp_path):
    with pytest.raises(InputError, match="folder of photos"):
        align_folder(aligner, tmp_path / "none", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match=r"out: expected \.jsonl"):
        align_folder(aligner, photos, tmp_path / "out.xml")
    with pytest.raises(InputError, match="workers"):
        align_folder(aligner, photos, tmp_path / "out.jsonl", workers=0)
    with pytest.raises(WriteError, match="place to write to"):
        align_folder(aligner, photos, "/dev/null/out.jsonl")
    (photos / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="one photo named a"):
        align_folder(aligner, photos, tmp_path / "pts")
    (photos / "a.png").rename(photos / "a.1.png")
    with pytest.raises(InputError, match=r"no photo named a\.1\.\* beside a\.\*"):
        align_folder(aligner, photos, tmp_path / "pts")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": {1: "a.jpg"}}, "name of a photo: expected str, got 1"),
        ({"folder": {"a.jpg": None}}, "file of 'a.jpg': expected a path, got None"),
        ({"recursive": "no"}, "recursive: expected True or False"),
        ({"point_names": "no"}, "point_names: expected True or False"),
        ({"progress": 2}, "progress: expected True or False"),
        ({"boxes": [[[1, 2, 3, 4]]]}, "boxes: expected a mapping from the names of photos, got list"),
    ],
)
def test_arguments_of_other_kinds_are_refused(aligner, photos, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        align_folder(**{"aligner": aligner, "folder": photos, "out": tmp_path / "out.jsonl"} | options)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a note without an end of line", "earlier results"),
        ("[1, 2]\n", "earlier results"),
        ('{"image": "a"}\n', "earlier results"),
        ('{"image": "a", "error": "cannot decode"}\n', "expected bytes, image"),
        ('{"image": "a", "bytes": 9, "error": ""}\n', "results of model shr-fan-68-fast, got nothing"),
        (f'{{"image": ["a"], {SETTINGS}, "error": ""}}\n', "earlier results"),
        (f'{{"image": "a", {SETTINGS}}}\n', "expected layout, landmarks"),
        (f'{{"image": "a", {SETTINGS}, "error": ["cannot decode"]}}\n', "expected an error as text"),
        (f'{{"image": "a", {SETTINGS}, "error": {5000 * "["}\n', "earlier results"),
        (
            f'{{"image": "a", {SETTINGS}, "error": "cannot decode"}}\n',
            "results of model shr-fan-68-fast, got b",
        ),
    ],
)
def test_a_file_of_another_kind_or_model_is_left_alone(aligner, photos, tmp_path, line, message):
    out = tmp_path / "out.jsonl"
    out.write_text(line)
    with pytest.raises(InputError, match=message):
        align_folder(aligner, photos, out)
    assert out.read_text() == line


def test_results_of_other_photos_or_settings_are_not_mixed(aligner, photos, tmp_path):
    out, others = tmp_path / "out.jsonl", tmp_path / "others"
    align_folder(aligner, photos, out)
    before = out.read_bytes()
    others.mkdir()
    (others / "a.jpg").write_bytes((photos / "d.jpg").read_bytes())
    with pytest.raises(InputError, match=r"those of another a\.jpg"):
        align_folder(aligner, others, out)
    mirrored = FaceAligner("shr-fan-68-fast", detector=detect, device="cpu", flip=True)
    with pytest.raises(InputError, match="results of flip True, got False"):
        align_folder(mirrored, photos, out)
    assert out.read_bytes() == before


class Boxes:
    """A detector with a setting, of which its repr tells."""

    def __init__(self, shift):
        self.shift = shift

    def __call__(self, image):
        return np.array(BOX) + self.shift

    def __repr__(self):
        return f"Boxes({self.shift})"


class Unnamed(Boxes):
    __repr__ = object.__repr__


def other_weights():
    model = load_model("shr-fan-68-fast")
    with torch.no_grad():
        next(model.network.parameters())[0] *= 1.01
    return model


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"detector": Boxes(2)}, "detector"),
        ({"detector": lambda image: BOX}, "detector"),
        ({"dtype": torch.bfloat16}, "dtype"),
        ({"backend": "onnxruntime"}, "backend"),
        ({"flip": True}, "flip"),
        ({"refine": True}, "refine"),
        ({"model": "shr-fan-68"}, "model"),
    ],
    ids=["setting", "function", "type", "backend", "flip", "refine", "model"],
)
def test_whatever_changes_landmarks_is_told_apart(photos, tmp_path, options, name):
    if "backend" in options:
        pytest.importorskip("onnxruntime")
    known = {"model": "shr-fan-68-fast", "detector": Boxes(1), "device": "cpu"}
    out = tmp_path / "out.jsonl"
    align_folder(FaceAligner(**known), photos, out)
    before = out.read_bytes()
    assert align_folder(FaceAligner(**known), photos, out).resumed == 5
    with pytest.raises(InputError, match=f"expected results of {name} .*; choose another file"):
        align_folder(FaceAligner(**{**known, **options}), photos, out)
    assert out.read_bytes() == before


def test_weights_of_ones_own_are_told_apart():
    def network(model, **options):
        return settings_of(FaceAligner(model, detector=None, device="cpu", **options))["network"]

    own = other_weights()
    assert network(own) == network(own) != network("shr-fan-68-fast")
    assert network(load_model("shr-fan-68-fast")) == network("shr-fan-68-fast")
    pytest.importorskip("onnxruntime")
    assert network(own, backend="onnxruntime") != network("shr-fan-68-fast", backend="onnxruntime")
    again = network("shr-fan-68-fast", backend="onnxruntime")
    assert network("shr-fan-68-fast", backend="onnxruntime") == again


def test_settings_tell_every_option_that_may_change_a_landmark(aligner):
    settings = settings_of(aligner)
    same_landmarks = {"device", "batch_size", "sha256"}
    options = inspect.signature(FaceAligner).parameters.keys()
    assert settings.keys() - {"weights", "network"} == options - same_landmarks
    assert (settings["flip"], settings["dtype"], settings["backend"]) == (False, "torch.float32", "torch")
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("detector", "name"),
    [
        (detect, "detect"),
        (Boxes(3), "Boxes(3)"),
        (Unnamed(3), "Unnamed"),
        (functools.partial(detect), "functools.partial(<function detect>)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_detector_is_named_without_its_address(detector, name):
    aligner = FaceAligner("shr-fan-68-fast", detector=detector, device="cpu")
    assert settings_of(aligner)["detector"] == name


def test_detectors_of_other_settings_have_other_names():
    def name(**options):
        detector = MTCNN(device="cpu", **options)
        return settings_of(FaceAligner("shr-fan-68-fast", detector=detector, device="cpu"))["detector"]

    assert name() == name() and name().startswith("MTCNN(")
    assert len({name(), name(min_face_size=40), name(thresholds=(0.6, 0.7, 0.8)), name(max_size=640)}) == 4


class Threshold:
    """A detector whose method is given to the aligner."""

    def __init__(self, least):
        self.least = least

    def __repr__(self):
        return f"Threshold({self.least})"

    def find(self, image):
        return BOX


def test_methods_and_lambdas_have_names_that_tell_them_apart():
    def name(detector):
        return settings_of(FaceAligner("shr-fan-68-fast", detector=detector, device="cpu"))["detector"]

    assert name(Threshold(0.5).find) == "Threshold.find of Threshold(0.5)" != name(Threshold(0.9).find)
    one, two = (lambda image: image[:1]), (lambda image: image[:2])
    assert name(one) == name(lambda image: image[:1]) != name(two)


def test_two_runs_do_not_write_one_file(aligner, photos, tmp_path):
    out, begun, go_on = tmp_path / "out.jsonl", threading.Event(), threading.Event()

    def waits(image):
        begun.set()
        assert go_on.wait(60)
        return detect(image)

    first = FaceAligner("shr-fan-68-fast", detector=waits, device="cpu")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(align_folder, first, photos, out)
        try:
            assert begun.wait(60)
            before = out.read_bytes()
            with pytest.raises(WriteError, match=r"out\.jsonl: expected no other run to write it"):
                align_folder(aligner, photos, out)
            assert out.read_bytes() == before
        finally:
            go_on.set()
        assert running.result().images == 4
    assert [row["image"] for row in lines(out)] == ["a.jpg", "b.PNG", "broken.jpg", "d.jpg", "deep/c.jpg"]
    assert align_folder(first, photos, out).resumed == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "photos"]


def test_finished_lines_are_not_those_of_an_unfinished_folder_of_pts_files(aligner, photos, tmp_path):
    align_folder(aligner, photos, tmp_path / "out.jsonl")
    before = (tmp_path / "out.jsonl").read_bytes()
    align_folder(aligner, photos, tmp_path / "out")
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.jsonl", "photos"]


@pytest.mark.parametrize("name", ["a.pts", "b.1.pts", "b.7.pts", "deep/c.pts"])
def test_landmarks_that_are_there_are_not_written_over(aligner, photos, name, monkeypatch):
    monkeypatch.chdir(photos)
    Path(name).write_text("by hand")
    with pytest.raises(InputError, match=f"expected a folder without landmarks .* got .*{name}"):
        align_folder(aligner, ".", ".")
    assert Path(name).read_text() == "by hand"
    Path(name).unlink()
    assert align_folder(aligner, ".", ".").faces == 4
    assert Path("a.pts").exists() and Path("b.2.pts").exists()


def test_names_need_not_be_text(aligner, photos, tmp_path):
    try:
        (photos / "a.jpg").rename(photos / "a\udce9.jpg")
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    align_folder(aligner, photos, tmp_path / "out.csv")
    assert r"a\udce9.jpg,0," in (tmp_path / "out.csv").read_text()


class Fragile:
    """A detector that raises for a photo as wide as b.PNG, until it is mended."""

    __qualname__ = "Fragile"

    def __init__(self):
        self.mended = False

    def __call__(self, image):
        if image.shape[1] > 512 and not self.mended:
            raise RuntimeError("too wide")
        return detect(image)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ""])
def test_a_photo_at_which_the_detector_raises_costs_no_other_its_result(photos, tmp_path, suffix):
    fragile, out = Fragile(), tmp_path / f"out{suffix}"
    aligner = FaceAligner("shr-fan-68-fast", detector=fragile, device="cpu")
    report = align_folder(aligner, photos, out)
    assert report.failed == {"b.PNG": "RuntimeError: too wide"} and list(report.unreadable) == ["broken.jpg"]
    assert (report.images, report.faces) == (3, 2)
    if suffix != ".jsonl":
        return
    rows = lines(out)
    assert [len(row.get("boxes", ())) for row in rows] == [1, 0, 0, 0, 1]
    assert (rows[1]["error"], rows[1]["retry"]) == ("RuntimeError: too wide", True)
    assert "retry" not in rows[2]

    again = align_folder(aligner, photos, out)  # tried again, in vain
    assert (again.resumed, again.failed) == (4, report.failed) and len(lines(out)) == 5
    fragile.mended = True
    mended = align_folder(aligner, photos, out)
    assert (mended.resumed, mended.faces, mended.failed) == (4, 4, {})
    assert [row["image"] for row in lines(out)] == ["a.jpg", "broken.jpg", "d.jpg", "deep/c.jpg", "b.PNG"]


def test_a_reader_that_breaks_at_a_photo_costs_no_other_its_result(aligner, photos, tmp_path, monkeypatch):
    def read(path):
        if path.name == "a.jpg":
            raise MemoryError("too large")
        return read_image(path)

    monkeypatch.setattr(reading_ahead, "read_image", read)
    report = align_folder(aligner, photos, tmp_path / "out.jsonl")
    assert report.failed == {"a.jpg": "MemoryError: too large"} and report.images == 3


@pytest.mark.parametrize("done", [0, 1])
def test_a_detector_that_always_raises_ends_a_run_that_has_no_result_yet(tmp_path, done):
    folder, out = tmp_path / "photos", tmp_path / "out.jsonl"
    folder.mkdir()
    for name in "abcdefghi":
        cv2.imwrite(str(folder / f"{name}.png"), np.full((60, 80, 3), 90, np.uint8))

    class Down(Boxes):
        def __call__(self, image):
            raise ConnectionRefusedError("nobody there")

    down = FaceAligner("shr-fan-68-fast", detector=Down(0), device="cpu")
    if done:
        works = FaceAligner("shr-fan-68-fast", detector=Boxes(0), device="cpu")
        (tmp_path / "one").mkdir()
        (folder / "a.png").rename(tmp_path / "one" / "a.png")
        align_folder(works, tmp_path / "one", out)
        (tmp_path / "one" / "a.png").rename(folder / "a.png")
        report = align_folder(down, folder, out)
        assert len(report.failed) == 8 and report.images == 1
    else:
        with pytest.raises(ConnectionRefusedError, match="nobody there"):
            align_folder(down, folder, out)
        assert out.read_bytes() == b""


def test_a_group_that_fails_after_others_had_results_is_recorded(tmp_path):
    folder, calls = tmp_path / "photos", []
    folder.mkdir()
    for name in "abcdefghijklmnop":
        cv2.imwrite(str(folder / f"{name}.png"), np.full((60, 80, 3), 90, np.uint8))

    def tires(image):
        calls.append(image)
        if len(calls) > 8:
            raise RuntimeError("no more")
        return BOX

    aligner = FaceAligner("shr-fan-68-fast", detector=tires, device="cpu")
    report = align_folder(aligner, folder, tmp_path / "out.jsonl")
    assert (report.images, len(report.failed)) == (8, 8)


def test_an_aligner_without_a_detector_is_refused(photos, tmp_path):
    with pytest.raises(InputError, match="aligner: expected one with a detector"):
        align_folder(FaceAligner("shr-fan-68-fast", detector=None), photos, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_pts_files_are_all_written_or_none(aligner, photos, tmp_path, monkeypatch):
    written = []

    def disk_full(path, landmarks):
        if len(written) == 2:
            raise WriteError(f"{path}: expected a place to write to, got No space left on device")
        written.append(path)
        write_pts(path, landmarks)

    monkeypatch.setattr(tables, "write_pts", disk_full)
    with pytest.raises(WriteError, match="No space left"):
        align_folder(aligner, photos, tmp_path / "pts")
    assert len(written) == 2 and list((tmp_path / "pts").iterdir()) == []
    monkeypatch.undo()
    assert align_folder(aligner, photos, tmp_path / "pts").resumed == 5
    assert len(list((tmp_path / "pts").rglob("*"))) == 5  # four files and a folder
    assert not (tmp_path / "pts.pts.jsonl").exists()


def test_a_run_stopped_while_its_pts_files_move_is_completed_by_the_next(
    aligner, photos, tmp_path, monkeypatch
):
    moved, replace = [], os.replace

    def stopped(source, target):
        if Path(source).suffix == ".pts":  # and not a file that is being written
            if len(moved) == 2:
                raise KeyboardInterrupt
            moved.append(target)
        replace(source, target)

    monkeypatch.setattr(tables.os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        align_folder(aligner, photos, tmp_path / "pts")
    assert sorted(path.name for path in (tmp_path / "pts").iterdir()) == ["a.pts", "b.1.pts"]
    monkeypatch.undo()
    assert align_folder(aligner, photos, tmp_path / "pts").faces == 4
    assert len(list((tmp_path / "pts").rglob("*.pts"))) == 4


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_without_a_face_has_the_same_columns(aligner, photos, tmp_path, suffix):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    read = pandas.read_csv if suffix == ".csv" else pandas.read_parquet
    empty, blank = tmp_path / "empty", tmp_path / "blank"
    for folder in (empty, blank):
        folder.mkdir()
    (blank / "d.jpg").write_bytes((photos / "d.jpg").read_bytes())
    found = []
    for folder in (photos, empty, blank):
        align_folder(aligner, folder, tmp_path / f"{folder.name}{suffix}")
        found.append(read(tmp_path / f"{folder.name}{suffix}"))
    assert [len(table) for table in found] == [4, 0, 0]
    assert list(found[0]) == list(found[1]) == list(found[2]) and len(found[0].columns) == 7 + 4 * 68
    if suffix == ".parquet":
        assert (found[0].dtypes == found[1].dtypes).all()


def test_a_large_table_is_written_in_parts(aligner, photos, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(tables, "_AT_ONCE", 3)
    align_folder(aligner, photos, tmp_path / "out.parquet")
    file = parquet.ParquetFile(tmp_path / "out.parquet")
    assert file.num_row_groups == 2 and file.read().num_rows == 4


def test_the_command_lists_what_it_could_not_read(photos, tmp_path, capsys):
    assert main(["align", str(photos), "--out", str(tmp_path / "out.jsonl"), "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert "broken.jpg" in error and "in 4 photos, 1 unreadable" in error and "failed" not in error
    assert main(["align", str(photos), "--out", "x.jsonl", "--draw", "y.png"]) == 2
    assert read_image(photos / "a.jpg").shape == (512, 512, 3)


def test_photos_are_given_by_name_and_their_boxes_skip_the_detector(aligner, photos, tmp_path):
    files = {"first": photos / "d.jpg", "second": photos / "a.jpg"}
    boxes = {"first": [(170, 60, 270, 190)], "second": np.empty((0, 4))}
    blind = FaceAligner("shr-fan-68-fast", detector=None, device="cpu")
    report = align_folder(blind, files, tmp_path / "out.jsonl", boxes=boxes)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == ["first", "second"] and report.faces == 1
    assert rows[0]["boxes"] == [[170, 60, 270, 190]] and rows[1]["boxes"] == []
    assert {row["detector"] for row in rows} == {"given boxes"}
    assert align_folder(blind, files, tmp_path / "out.jsonl", boxes=boxes).resumed == 2
    boxes["first"] = [(170, 60, 270, 191)]
    with pytest.raises(InputError, match="expected results of the boxes given for first, got those of other"):
        align_folder(blind, files, tmp_path / "out.jsonl", boxes=boxes)
    with pytest.raises(InputError, match="expected results of detector .*, got given boxes; choose another"):
        align_folder(aligner, files, tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="expected those of every photo, got none of second"):
        align_folder(blind, files, tmp_path / "new.jsonl", boxes={"first": boxes["first"]})


def test_a_photo_that_fails_in_a_group_keeps_the_boxes_of_the_others(photos, tmp_path, monkeypatch):
    blind = FaceAligner("shr-fan-68-fast", detector=None, device="cpu")
    monkeypatch.setattr(blind, "align_batch", lambda *arguments: 1 / 0)
    files = {"first": photos / "d.jpg", "second": photos / "d.jpg"}
    boxes = {"first": [(170, 60, 270, 190)], "second": [(160, 60, 270, 190)]}
    align_folder(blind, files, tmp_path / "out.jsonl", boxes=boxes)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["boxes"][0][0] for row in rows] == [170, 160]


def test_a_list_of_json_holds_the_lines_and_suffixes_may_be_in_upper_case(aligner, photos, tmp_path):
    seen = []
    align_folder(aligner, photos, tmp_path / "out.JSON", use=lambda lines: seen.append(lines.read_text()))
    text = (tmp_path / "out.JSON").read_text()
    assert [json.dumps(row) for row in json.loads(text)] == seen[0].splitlines()
    assert text == "[\n" + seen[0].rstrip("\n").replace("\n", ",\n") + "\n]\n"
    (tmp_path / "empty").mkdir()
    align_folder(aligner, tmp_path / "empty", tmp_path / "none.json")
    assert (tmp_path / "none.json").read_text() == "[]\n"
    align_folder(aligner, tmp_path / "empty", tmp_path / "none.CSV")
    assert (tmp_path / "none.CSV").read_text().startswith("image,face,x0")


def test_another_backend_is_named_first(photos, tmp_path):
    pytest.importorskip("onnxruntime")
    aligner = FaceAligner("shr-fan-68-fast", device="cpu")
    align_folder(aligner, {"a": photos / "a.jpg"}, tmp_path / "out.jsonl")
    other = FaceAligner("shr-fan-68-fast", backend="onnxruntime")
    message = "expected results of backend onnxruntime, got torch; choose another file, or backend torch$"
    with pytest.raises(InputError, match=message):
        align_folder(other, {"a": photos / "a.jpg"}, tmp_path / "out.jsonl")
