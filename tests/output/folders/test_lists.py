"""Lists of photos: read as streams, split into shards that any machine makes alike, merged without loss."""

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest
from worker_detectors import whole

from face_landmarks import FaceAligner, align_folder, align_list, merge_results
from face_landmarks.cli import main
from face_landmarks.errors import InputError, WriteError
from face_landmarks.output.folders import lists, merge
from face_landmarks.output.folders.lists import PathSet, Shard, read_list

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


@pytest.fixture(scope="module")
def aligner():
    return FaceAligner("shr-fan-68-fast", detector=whole, device="cpu")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Twelve photos in two folders, and the current folder beside them."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    for i in range(12):
        place = tmp_path / "photos" / ("even" if i % 2 == 0 else "odd")
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{i:02}.png"), np.roll(noise, i, axis=1))
    return sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "photos").rglob("*.png"))


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_list_is_read_from_text_and_tables(tmp_path):
    names = ["a.jpg", "b c.jpg ", "#1.jpg", "dé/e.jpg"]
    (tmp_path / "l.txt").write_bytes(
        b"\xef\xbb\xbfa.jpg\r\nb c.jpg \n\n#1.jpg\n  \n \t\r\nd\xc3\xa9/e.jpg\n   "
    )
    (tmp_path / "l.csv").write_text(
        'size,image\n1,a.jpg\n\n2,"b c.jpg "\n4,#1.jpg\n3,dé/e.jpg\n', encoding="utf-8"
    )
    for source in (tmp_path / "l.txt", str(tmp_path / "l.csv"), names):
        listed = read_list(source)
        assert list(listed()) == list(listed()) == names
    assert list(read_list(tmp_path / "l.csv", "size")()) == ["1", "2", "4", "3"]


def test_a_list_is_read_from_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {"image": ["a.jpg", "b.jpg"], "path": ["c.jpg", None], "size": [1, 2]}
    parquet.write_table(pyarrow.table(table), tmp_path / "l.parquet")
    assert list(read_list(tmp_path / "l.parquet")()) == ["a.jpg", "b.jpg"]
    for column, message in (("path", "got None"), ("size", "got 1"), ("none", "expected a column 'none'")):
        with pytest.raises(InputError, match=message):
            list(read_list(tmp_path / "l.parquet", column)())
    (tmp_path / "l.parquet").write_text("no table")
    with pytest.raises(InputError, match="expected a Parquet table"):
        list(read_list(tmp_path / "l.parquet")())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "none.txt",
            None,
            r"none.txt': expected a file with a list of photos, got No such file or directory$",
        ),
        (
            "none.csv",
            None,
            r"none.csv': expected a file with a list of photos, got No such file or directory$",
        ),
        ("a\0b.txt", None, "expected a file with a list of photos, got embedded null"),
        ("n" * 300, None, "expected a file with a list of photos, got File name too long"),
        ("l.txt", b"a\0b", "expected a path on each line"),
        ("l.txt", b"a" * 70000, "expected a path on each line"),
        ("l.csv", b"", "expected a column 'image', got none"),
        ("l.csv", b"path\na\n", "expected a column 'image', got 'path'"),
        ("l.csv", b"size,image\n1\n", "expected a path in 'image'"),
        ("l.csv", b'image\n"' + b"a" * 200000 + b'"\n', "expected a CSV table"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_list(tmp_path / name)())


@pytest.mark.parametrize("source", [b"photos.txt", 3, None, iter(["a"]), {"a"}])
def test_what_is_no_sequence_of_paths_is_refused(aligner, tmp_path, source):
    with pytest.raises(InputError, match="photos: expected a file of paths, or a list or tuple"):
        align_list(aligner, source, tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="got 3 as entry 1"):
        align_list(aligner, ["a", 3], tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="only tables have columns"):
        align_list(aligner, "l.txt", tmp_path / "out.jsonl", column="path")


def test_a_path_that_is_remembered_takes_sixteen_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "_RECENT", 2048)  # paths that are kept in another form, which takes more
    (tmp_path / "l.txt").write_text("".join(f"folder/{i:07}.jpg\n" for i in range(100_000)))
    seen = PathSet()
    tracemalloc.start()
    for name in read_list(tmp_path / "l.txt")():
        seen.add(name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(seen) == 100_000 and peak < 6e6  # old and new while they are merged, and the recent ones
    assert not seen.add("folder/0000000.jpg") and "folder/0099999.jpg" in seen and "other" not in seen


def test_a_shard_follows_from_the_path_by_the_rule_that_is_written():
    assert [Shard.of(text).number for text in ("1/1", (2, 3))] == [1, 2]
    for path in ("a.jpg", "dé/e.jpg"):
        digest = hashlib.blake2b(path.encode(), digest_size=16).digest()
        assert path in Shard(1 + int.from_bytes(digest[:8], "big") % 7, 7)
    names = [f"{i}.jpg" for i in range(1600)]
    parts = [[name for name in names if name in Shard(i, 16)] for i in range(1, 17)]
    assert sorted(chain(*parts)) == sorted(names)  # each name once
    assert all(60 < len(part) < 140 for part in parts)
    assert "a.jpg" in Shard(8, 16)  # for ever


@pytest.mark.parametrize("shard", ["3", "0/4", "5/4", "a/b", "1/2/3", (1,), (1.5, 2), 3, "-1/2", ""])
def test_what_is_no_shard_is_refused(aligner, tmp_path, shard):
    with pytest.raises(InputError, match="shard: expected NUMBER/COUNT"):
        align_folder(aligner, tmp_path, tmp_path / "out.jsonl", shard=shard)


def test_shards_of_a_list_are_merged_into_what_one_run_gives(aligner, photos, tmp_path):
    (tmp_path / "all.txt").write_text("\n".join([*photos, photos[3]]))  # one of them twice
    whole_report = align_list(aligner, tmp_path / "all.txt", tmp_path / "all.jsonl")
    assert (whole_report.images, len(rows(tmp_path / "all.jsonl"))) == (12, 12)
    parts = []
    for i in (1, 2, 3):
        parts.append(tmp_path / f"part-{i}.jsonl")
        align_list(aligner, tmp_path / "all.txt", parts[-1], shard=f"{i}/3")
    report = merge_results(parts, tmp_path / "merged.jsonl", photos=tmp_path / "all.txt")
    assert (report.images, report.faces, report.duplicates) == (12, 12, 0)
    merged = {row["image"]: row for row in rows(tmp_path / "merged.jsonl")}
    assert len(rows(tmp_path / "merged.jsonl")) == 12
    for row in rows(tmp_path / "all.jsonl"):
        assert merged[row["image"]]["network"] == row["network"]
        np.testing.assert_allclose(merged[row["image"]]["landmarks"], row["landmarks"], atol=1e-2)
    assert align_list(aligner, tmp_path / "all.txt", tmp_path / "merged.jsonl").resumed == 12


def test_what_does_not_belong_together_is_not_merged(aligner, photos, tmp_path):
    one, two, out = tmp_path / "one.jsonl", tmp_path / "two.jsonl", tmp_path / "out.jsonl"
    align_list(aligner, photos[:6], one)
    align_list(FaceAligner("shr-fan-68-fast", detector=whole, flip=True, device="cpu"), photos[6:], two)
    with pytest.raises(InputError, match=r"two\.jsonl: expected results of flip False, as in .*, got True"):
        merge_results([one, two], out)
    two.unlink()
    align_list(aligner, photos[5:10], two)
    with pytest.raises(InputError, match=f"got none of {photos[10]} and 1 more"):
        merge_results([one, two], out, photos=photos)
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(one.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"torn\.jsonl: expected whole lines"):
        merge_results([torn], out)
    with pytest.raises(InputError, match="each file once"):
        merge_results([one, str(one)], out)
    with pytest.raises(InputError, match=r"expected \.jsonl files, got none"):
        merge_results(["none"], out)
    with pytest.raises(InputError, match="expected a new file"):
        merge_results([one], two)
    other = tmp_path / "other.jsonl"
    other.write_text(one.read_text().splitlines()[0].replace('"bytes": ', '"bytes": 1') + "\n")
    with pytest.raises(InputError, match=f"expected one photo of each name, got another {photos[0]}"):
        merge_results([one, other], out)
    assert not out.exists()
    report = merge_results([one, two], out)
    assert (report.images, report.duplicates, len(rows(out))) == (10, 1, 10)


def test_lines_that_no_run_writes_are_not_merged(aligner, photos, tmp_path):
    align_list(aligner, photos[:1], tmp_path / "one.jsonl")
    line = (tmp_path / "one.jsonl").read_bytes()
    size = str((tmp_path / photos[0]).stat().st_size).encode()
    for changed in (b"\xef\xbb\xbf" + line, *(line.replace(size, x, 1) for x in (b'"x"', b"[1]", b"true"))):
        assert changed != line
        (tmp_path / "two.jsonl").write_bytes(changed)
        with pytest.raises(InputError, match=r"two\.jsonl: expected lines of earlier results"):
            merge_results([tmp_path / "two.jsonl"], tmp_path / "out.jsonl")


def test_a_part_that_a_run_is_writing_is_not_merged(aligner, photos, tmp_path):
    filelock = pytest.importorskip("filelock")
    align_list(aligner, photos[:2], tmp_path / "one.jsonl")
    with filelock.FileLock(tmp_path / ".one.jsonl.lock"), pytest.raises(WriteError, match="no other run"):
        merge_results([tmp_path / "one.jsonl"], tmp_path / "out.jsonl")


def test_parts_in_a_folder_that_cannot_be_written_are_merged(aligner, photos, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    align_list(aligner, photos[:2], shared / "one.jsonl")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != shared and access(path, mode))
    shared.chmod(0o500)
    try:
        assert merge_results([shared / "one.jsonl"], tmp_path / "out.jsonl").images == 2
    finally:
        shared.chmod(0o700)
    assert [path.name for path in shared.iterdir()] == ["one.jsonl"]


def test_a_part_that_a_run_writes_between_two_readings_is_not_merged(aligner, photos, tmp_path, monkeypatch):
    align_list(aligner, photos[:2], tmp_path / "one.jsonl")
    check = merge._check

    def check_and_append(files):
        done = check(files)
        align_list(aligner, photos[:3], tmp_path / "one.jsonl")
        return done

    monkeypatch.setattr(merge, "_check", check_and_append)
    with pytest.raises(WriteError, match=r"one\.jsonl: expected no run to write it meanwhile"):
        merge_results([tmp_path / "one.jsonl"], tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    monkeypatch.undo()
    assert merge_results([tmp_path / "one.jsonl"], tmp_path / "out.jsonl").images == 3


MANY_PARTS = """
import resource, sys
from face_landmarks import merge_results
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for out in ("out.jsonl", "points"):
    print(merge_results([f"{number:03}.jsonl" for number in range(200)], out).images)
"""


def test_more_parts_than_a_process_may_open_are_merged(aligner, photos, tmp_path):
    pytest.importorskip("resource")
    align_list(aligner, photos[:1], tmp_path / "one.jsonl")
    line = (tmp_path / "one.jsonl").read_text()
    for number in range(200):
        (tmp_path / f"{number:03}.jsonl").write_text(line.replace(photos[0], f"{number}.png"))
    done = subprocess.run(
        [sys.executable, "-c", MANY_PARTS], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout.split() == ["200", "200"], done.stderr
    assert [row["image"] for row in rows(tmp_path / "out.jsonl")] == [
        f"{number}.png" for number in range(200)
    ]


def test_wrong_types_of_merge_are_named(tmp_path):
    (tmp_path / "one.jsonl").touch()
    good = {"parts": [tmp_path / "one.jsonl"], "out": tmp_path / "out.jsonl"}
    for changes, message in (
        ({"parts": None}, r"parts: expected a list of \.jsonl files, got None"),
        ({"parts": [5]}, "parts: expected a path, got 5"),
        ({"out": 5}, "out: expected a path, got 5"),
        ({"point_names": 1}, "point_names: expected True or False"),
        ({"photos": 5}, "photos: expected a file of paths"),
        ({"photos": "l.csv", "column": 5}, "column: expected str, got 5"),
    ):
        with pytest.raises(InputError, match=message):
            merge_results(**{**good, **changes})


def test_a_result_takes_the_place_of_a_failure(aligner, photos, tmp_path):
    align_list(aligner, [*photos, "late.png"], tmp_path / "one.jsonl")
    (failed,) = [row for row in rows(tmp_path / "one.jsonl") if "error" in row]
    assert (failed["image"], failed["bytes"], failed["retry"]) == ("late.png", None, True)
    (tmp_path / "late.png").write_bytes((tmp_path / photos[0]).read_bytes())
    align_list(aligner, ["late.png"], tmp_path / "two.jsonl")
    report = merge_results([tmp_path / "one.jsonl", tmp_path / "two.jsonl"], tmp_path / "out.csv")
    assert (report.images, report.failed, report.duplicates) == (13, {}, 1)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 14
    assert not (tmp_path / "out.csv.jsonl").exists()
    again = align_list(aligner, [*photos, "late.png"], tmp_path / "one.jsonl")
    assert (again.resumed, again.images, again.failed) == (12, 13, {})


def test_paths_of_a_list_are_relative_to_its_root(aligner, photos, tmp_path):
    names = [name.removeprefix("photos/") for name in photos]
    report = align_list(aligner, names, tmp_path / "out.jsonl", root=tmp_path / "photos")
    assert (report.images, report.failed) == (12, {})
    assert [row["image"] for row in rows(tmp_path / "out.jsonl")] == names
    align_list(aligner, names, tmp_path / "pts", root="photos")
    assert len(list((tmp_path / "pts").rglob("*.pts"))) == 12
    for outside in (str(tmp_path / photos[0]), "../a.png"):
        with pytest.raises(InputError, match=r"relative paths without \.\."):
            align_list(aligner, [outside], tmp_path / "more")


def test_failed_photos_are_tried_again_for_tables_and_points_too(aligner, photos, tmp_path):
    for out in ("out.csv", "points"):
        report = align_list(aligner, [*photos[:2], "late.png"], out)
        assert list(report.failed) == ["late.png"]
        if out == "points":
            (tmp_path / out / photos[0]).with_suffix(".pts").write_text("corrected by hand")
        (tmp_path / "late.png").write_bytes((tmp_path / photos[0]).read_bytes())
        again = align_list(aligner, [*photos[:2], "late.png"], out)
        assert (again.resumed, again.images, again.failed) == (2, 3, {})
        (tmp_path / "late.png").unlink()
        assert not (tmp_path / f"{out}.jsonl").exists() and not (tmp_path / f"{out}.pts.jsonl").exists()
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 4
    assert (tmp_path / "points" / photos[0]).with_suffix(".pts").read_text() == "corrected by hand"
    assert (tmp_path / "points" / "late.pts").exists()


def test_the_commands_align_a_list_in_shards_and_merge_them(photos, tmp_path, capsys):
    (tmp_path / "all.csv").write_text("path\n" + "\n".join([*photos, "missing.png"]) + "\n")
    words = ["align", "--model", "shr-fan-68-fast", "--device", "cpu", "--list", "all.csv"]
    for i in (1, 2):
        part = [f"--shard={i}/2", "--list-column=path", "--out", f"{i}.jsonl"]
        main([*words, *part])
    assert "missing.png: image: cannot open" in capsys.readouterr().err
    assert main(["merge", "1.jsonl", "2.jsonl", "--out", "all.jsonl"]) == 1
    assert "in 12 photos" in capsys.readouterr().err
    assert len(rows(tmp_path / "all.jsonl")) == 13
    assert main(["merge", "1.jsonl", "2.jsonl", "--out", "no.csv", "--photos", "all.csv"]) == 2
    assert "expected a column 'image'" in capsys.readouterr().err
    words = ["merge", "1.jsonl", "2.jsonl", "--out", "no.csv", "--photos", "all.csv", "--list-column=path"]
    assert main(words) == 2 and "got none of missing.png" in capsys.readouterr().err


def test_the_command_says_that_a_list_is_empty_and_a_shard_may_be(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.txt").write_text("\n")
    words = ["align", "--model", "shr-fan-68-fast", "--device", "cpu", "--list", "none.txt"]
    assert main([*words, "--out", "all.jsonl"]) == 3
    assert "none.txt: expected photos, got none" in capsys.readouterr().err
    assert main([*words, "--out", "part.jsonl", "--shard", "1/2"]) == 0


def test_wrong_types_are_named(aligner, tmp_path):
    good = {"aligner": aligner, "folder": tmp_path, "out": tmp_path / "out.jsonl"}
    for changes, message in (
        ({"workers": "4"}, "workers: expected a whole number, at least 1, got '4'"),
        ({"workers": 2.0}, "workers: expected a whole number"),
        ({"workers": True}, "workers: expected a whole number"),
        ({"workers": 0}, "workers: expected a whole number"),
        ({"aligner": "shr-fan-68"}, "aligner: expected a FaceAligner, got str"),
        ({"folder": 3}, "folder: expected a path, got 3"),
        ({"folder": None}, "folder: expected a path"),
        ({"out": None}, "out: expected a path"),
        ({"out": b"out.jsonl"}, "out: expected a path"),
        ({"folder": {"a": 3}}, "file of 'a': expected a path, got 3"),
        ({"use": 5}, "use: expected a function, got 5"),
        ({"use": "print"}, "use: expected a function, got 'print'"),
        ({"recursive": "no"}, "recursive: expected True or False"),
        ({"progress": 1}, "progress: expected True or False"),
        ({"point_names": None}, "point_names: expected True or False"),
        ({"shard": 3}, "shard: expected NUMBER/COUNT"),
        ({"shard": "x"}, "shard: expected NUMBER/COUNT"),
        ({"boxes": 5}, "boxes: expected a mapping"),
        ({"folder": {"a": "a.png"}, "boxes": {"a": "x"}}, "boxes: expected"),
        ({"folder": {"a": "a.png"}, "boxes": {1: []}}, "boxes: expected those of every photo"),
    ):
        with pytest.raises(InputError, match=message):
            align_folder(**{**good, **changes})
    with pytest.raises(InputError, match="root: expected a path"):
        align_list(aligner, ["a"], tmp_path / "out.jsonl", root=1)
    with pytest.raises(InputError, match="parts: expected a list"):
        merge_results("a.jsonl", tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())
