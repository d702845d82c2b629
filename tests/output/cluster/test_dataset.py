"""Sets of photos without a cluster: parts run in this process, one after the other, as Ray would run them."""

import json
import os
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import fsspec
import numpy as np
import pyarrow
import pytest
from pyarrow import dataset as arrow
from pyarrow import parquet

from face_landmarks import FaceAligner, Faces
from face_landmarks.cli import main
from face_landmarks.errors import InputError, MissingDependencyError, WriteError
from face_landmarks.output.cluster import align_dataset, dataset, ray_cluster, worker
from face_landmarks.output.cluster.attempts import Attempt
from face_landmarks.output.cluster.places import Place, Stamp, place_of
from face_landmarks.output.folders.reading_ahead import Read

BOX = [[8.0, 6.0, 40.0, 42.0]]


class Death(BaseException):
    """Stands for the end of a worker process: nothing after it runs."""


class Detector:
    """One face in each photo; what photos of some grey levels do is told by `rules`."""

    def __init__(self, rules=None):
        self.rules, self.seen = rules or {}, []

    def __repr__(self):
        return "Detector"

    def __call__(self, image):
        level = int(image[0, 0, 0])
        self.seen.append(level)
        if level in self.rules:
            raise self.rules[level]
        return np.array(BOX)


@pytest.fixture
def here(monkeypatch):
    """Ray's part, in this process: an actor takes each part in turn, and a new one follows one that dies."""

    @contextmanager
    def connect(address, share):
        yield 1

    def run_actors(workers, share, actor, arguments, parts):
        mine = None
        for part in parts:
            while True:
                mine = mine or actor(*arguments)
                try:
                    counts = mine({"part": np.array([part], object)})
                    break
                except Death:
                    mine = None
            yield json.loads(counts["counts"][0])

    monkeypatch.setattr(dataset, "connect", connect)
    monkeypatch.setattr(dataset, "run_once", lambda share, function, *words: function(*words))
    monkeypatch.setattr(dataset, "run_actors", run_actors)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for level in range(10):
        cv2.imwrite(str(folder / f"{level}.png"), np.full((48, 56, 3), level, np.uint8))
    return folder


def aligner(detector=None):
    return FaceAligner("shr-fan-68-fast", detector=detector or Detector(), device="cpu", search=False)


def rows_of(out):
    rows = arrow.dataset(out).to_table().to_pylist()
    assert len({row["image"] for row in rows}) == len(rows), "a photo is there twice"
    return {row["image"]: row for row in rows}


def parts_of(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}


def test_every_photo_is_a_row_with_its_faces_or_its_error(here, photos, tmp_path):
    (photos / "broken.jpg").write_text("not a photo")
    report = align_dataset(aligner, photos, tmp_path / "out", part_size=4)
    assert (report.images, report.faces, report.resumed) == (10, 10, 0)
    assert list(report.unreadable) == ["broken.jpg"] and not report.failed
    rows = rows_of(tmp_path / "out")
    assert rows.keys() == {path.name for path in photos.iterdir()}
    assert "whose format is not known" in rows["broken.jpg"]["error"] and not rows["broken.jpg"]["retry"]
    for name, row in rows.items():
        assert row["bytes"] == (photos / name).stat().st_size
        if name != "broken.jpg":
            expected = aligner().align(photos / name)
            found = Faces.from_dict(row)
            np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=1e-3)
            np.testing.assert_array_equal(found.boxes, expected.boxes)
            assert found.landmark_errors.shape == (1, 68)

    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["parts"].keys() == parts_of(tmp_path / "out").keys() and len(manifest["parts"]) == 3
    counts = [manifest[name] for name in ("images", "faces", "unreadable", "failed")]
    assert counts == [10, 10, 1, 0]
    assert manifest["settings"]["model"] == "shr-fan-68-fast"


def test_a_second_run_aligns_only_new_photos(here, photos, tmp_path):
    align_dataset(aligner, photos, tmp_path / "out", part_size=4)
    before = parts_of(tmp_path / "out")
    cv2.imwrite(str(photos / "new.png"), np.full((48, 56, 3), 77, np.uint8))
    detector = Detector()
    report = align_dataset(partial(aligner, detector), photos, tmp_path / "out", part_size=3)
    assert detector.seen == [77] and (report.images, report.resumed) == (11, 10)
    assert before.items() < parts_of(tmp_path / "out").items()  # which were not written again
    assert len(rows_of(tmp_path / "out")) == 11


def test_a_run_that_is_killed_loses_only_the_part_in_work(here, photos, tmp_path):
    stopped = Detector({6: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt, match="4 of 10 photos done; run it again"):
        align_dataset(partial(aligner, stopped), photos, tmp_path / "out", part_size=4)
    (tmp_path / "out" / "_manifest.json").write_text(  # as it was when the run began
        json.dumps({"settings": json.loads((tmp_path / "out" / "_manifest.json").read_text())["settings"]})
    )
    again = Detector()
    report = align_dataset(partial(aligner, again), photos, tmp_path / "out", part_size=4)
    assert again.seen == [4, 5, 6, 7, 8, 9] and report.resumed == 4
    assert len(rows_of(tmp_path / "out")) == 10


def test_failed_and_missing_photos_are_tried_again_in_their_part(here, photos, tmp_path):
    failing = Detector({3: RuntimeError("out of luck")})
    listed = [str(photos / f"{level}.png") for level in range(5)] + [str(photos / "later.png")]
    report = align_dataset(partial(aligner, failing), listed, tmp_path / "out", part_size=4)
    assert report.images == 4 and report.failed.keys() == {listed[3], listed[5]}
    assert report.failed[listed[3]] == "RuntimeError: out of luck"
    assert "cannot read" in report.failed[listed[5]]
    before = parts_of(tmp_path / "out")

    (photos / "later.png").write_bytes((photos / "9.png").read_bytes())
    detector = Detector()
    report = align_dataset(partial(aligner, detector), listed, tmp_path / "out", part_size=4)
    assert sorted(detector.seen) == [3, 9]
    assert report.images == 6 and report.resumed == 4 and not report.failed
    assert parts_of(tmp_path / "out").keys() == before.keys() and len(rows_of(tmp_path / "out")) == 6


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_links_to_nothing_and_pipes_are_rows_with_an_error(here, photos, tmp_path):
    os.mkfifo(photos / "pipe.jpg")
    os.symlink("gone.jpg", photos / "broken.jpg")
    os.symlink("..", photos / "loop")
    for resumed in (0, 11):  # the link is tried again
        report = align_dataset(aligner, photos, tmp_path / "out", part_size=5)
        assert (report.images, report.resumed) == (10, resumed)
        assert list(report.unreadable) == ["pipe.jpg"] and list(report.failed) == ["broken.jpg"]
        assert "which is a pipe" in report.unreadable["pipe.jpg"]
        assert rows_of(tmp_path / "out").keys() == {path.name for path in photos.iterdir()} - {"loop"}


@pytest.fixture(params=["here", "store"])
def listed(request, photos):
    """Photos as a list, how to write one of them and how to remove it."""
    if request.param == "here":
        names = [str(path) for path in sorted(photos.iterdir())]
        return names, lambda name, data: Path(name).write_bytes(data), os.remove
    store, names = fsspec.filesystem("memory"), []
    for path in sorted(photos.iterdir()):
        names.append(f"memory://listed/{path.name}")
        store.pipe(names[-1], path.read_bytes())
    return names, store.pipe, store.rm


def test_results_of_other_photos_of_a_list_are_refused(here, photos, listed, tmp_path):
    names, write, remove = listed
    data = (photos / "3.png").read_bytes()
    align_dataset(aligner, names, tmp_path / "out", part_size=4)
    write(names[3], data + b"longer")
    with pytest.raises(InputError, match=r"expected results of these photos, got those of another .*3\.png"):
        align_dataset(aligner, names, tmp_path / "out", part_size=4)
    remove(names[3])  # its result is kept
    assert align_dataset(aligner, names, tmp_path / "out", part_size=4).resumed == 10
    write(names[3], data)
    assert align_dataset(aligner, names, tmp_path / "out", part_size=4).resumed == 10


def test_results_of_a_table_that_was_written_again_are_refused(here, photos, tmp_path):
    first, second, third = [(photos / f"{level}.png").read_bytes() for level in range(3)]
    tables, out = tmp_path / "tables", tmp_path / "out"
    tables.mkdir()

    def write(name, *rows):
        parquet.write_table(pyarrow.table({"photo": pyarrow.array(rows, pyarrow.binary())}), name)

    def run(detector=None, **arguments):
        return align_dataset(partial(aligner, detector), tables, out, column="photo", **arguments)

    write(tables / "a.parquet", first, None, b"")
    failing = Detector({0: RuntimeError("no luck")})
    assert (run(failing).images, len(run(failing).unreadable)) == (0, 2)
    write(tables / "b.parquet", third)
    assert (run().images, run().resumed) == (2, 4)  # the photo that failed, and the new table
    before = (tables / "a.parquet").read_bytes()
    write(tables / "a.parquet", second, first, None)
    with pytest.raises(
        InputError,
        match=r"out: expected results of the table a.parquet with \d+ bytes of .* UTC, got those of one with "
        r"\d+ bytes of .* UTC; choose another folder",
    ):
        run()
    (tables / "a.parquet").write_bytes(before)  # as large as it was
    os.utime(tables / "a.parquet", (1, 1))
    with pytest.raises(InputError, match="bytes of 1970-01-01 00:00:01.000000 UTC, got those of one with"):
        run()
    found = {image for image, row in rows_of(out).items() if row["error"] is None}
    assert found == {"a.parquet#0", "b.parquet#0"}


def test_results_of_a_table_with_the_names_of_another_are_refused(here, photos, tmp_path):
    data = [(photos / f"{level}.png").read_bytes() for level in range(3)]
    for table, some, ids in (("a", data[:2], [1, 2]), ("b", data[1:], [2, 3]), ("c", data[2:], [3])):
        parquet.write_table(pyarrow.table({"photo": some, "id": ids}), tmp_path / f"{table}.parquet")

    def run(table):
        source = tmp_path / f"{table}.parquet"
        return align_dataset(aligner, source, tmp_path / "out", column="photo", names="id")

    assert (run("a").images, run("c").images) == (2, 3)
    with pytest.raises(InputError, match=r"the table b.parquet with .*, got those of other photos; choose"):
        run("b")
    assert run("a").resumed == 3


def test_tables_of_a_store_without_times_are_told_by_their_sizes():
    first, same = Stamp(10, None), Stamp(10, 5)
    assert first.is_of(same) and same.is_of(first) and same.is_of(Stamp(10, 5))
    assert not first.is_of(Stamp(11, None)) and not same.is_of(Stamp(10, 6))
    assert str(first) == "10 bytes"


def test_a_photo_that_kills_its_worker_is_left_out_and_the_others_are_done(here, photos, tmp_path):
    deadly = Detector({5: Death(), 8: Death()})
    report = align_dataset(partial(aligner, deadly), photos, tmp_path / "out", part_size=10)
    assert report.images == 8
    assert report.failed == {f"{level}.png": "the worker process died at this photo" for level in (5, 8)}
    assert deadly.seen.count(5) == 3 and len(rows_of(tmp_path / "out")) == 10
    assert not (tmp_path / "out" / "_attempts").exists()


def test_an_aligner_that_fails_at_every_photo_ends_the_run(here, photos, tmp_path):
    failing = Detector({level: RuntimeError("no luck at all") for level in range(10)})
    with pytest.raises(RuntimeError, match="no luck at all"):
        align_dataset(partial(aligner, failing), photos, tmp_path / "out", part_size=10)


def test_a_part_that_is_committed_is_not_aligned_again(here, photos, tmp_path, monkeypatch):
    """As where its worker died after the commit, before Ray had its answer."""
    run = dataset.run_actors

    def twice(workers, share, actor, arguments, parts):
        yield from run(workers, share, actor, arguments, [*parts, parts[0]])

    monkeypatch.setattr(dataset, "run_actors", twice)
    detector = Detector()
    report = align_dataset(partial(aligner, detector), photos, tmp_path / "out", part_size=4)
    assert sorted(detector.seen) == list(range(10)) and report.images == 10


class Killed(BaseException):
    """Stands for the kill of the first process of a run: it does nothing any more, its workers go on."""


def worker_of_a_killed_run(photos, out, monkeypatch, **arguments):
    """A worker of a run that is over, with the parts that it had still to do."""
    left = []

    def run_actors(workers, share, actor, arguments, parts):
        left.append((actor(*arguments), parts))
        raise Killed
        yield

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "run_actors", run_actors)
        patch.setattr(Place, "remove", lambda place: None)  # the killed process does not tidy up
        with pytest.raises(Killed):
            align_dataset(aligner, photos, out, **arguments)
    return left[0]


def test_a_worker_of_a_killed_run_commits_nothing_once_another_run_has_begun(
    here, photos, tmp_path, monkeypatch
):
    old, parts = worker_of_a_killed_run(photos, tmp_path / "out", monkeypatch, part_size=4)
    old({"part": np.array(parts[:1], object)})  # while no other run has begun, its work is welcome
    assert len(parts_of(tmp_path / "out")) == 1
    run, refused = dataset.run_actors, []

    def with_the_old_one(workers, share, actor, arguments, parts_now):
        for done in run(workers, share, actor, arguments, parts_now):
            with pytest.raises(WriteError, match="expected no other run to write it, got one that began"):
                old({"part": np.array(parts[1:2], object)})
            refused.append(1)
            yield done

    monkeypatch.setattr(dataset, "run_actors", with_the_old_one)
    report = align_dataset(aligner, photos, tmp_path / "out", part_size=3)  # so that parts are other ones
    assert (report.images, report.resumed, len(refused)) == (10, 4, 2)
    assert len(rows_of(tmp_path / "out")) == 10
    with pytest.raises(WriteError, match="expected no other run"):  # nor once that run is over
        old({"part": np.array(parts[2:], object)})
    assert len(rows_of(tmp_path / "out")) == 10


def test_a_commit_that_was_under_way_as_another_run_began_doubles_no_photo(
    here, photos, tmp_path, monkeypatch
):
    old, parts = worker_of_a_killed_run(photos, tmp_path / "out", monkeypatch, part_size=4)
    monkeypatch.setattr(old, "_claim", SimpleNamespace(out=old._claim.out, check=lambda: None))
    run = dataset.run_actors

    def with_a_late_commit(*arguments):
        for number, done in enumerate(run(*arguments)):
            if number == 1:  # it had asked whose the folder is before this run began
                old({"part": np.array(parts[1:2], object)})
                assert len(parts_of(tmp_path / "out")) == 3
            yield done

    monkeypatch.setattr(dataset, "run_actors", with_a_late_commit)
    report = align_dataset(aligner, photos, tmp_path / "out", part_size=5)
    assert report.images == 10 and len(rows_of(tmp_path / "out")) == 10
    assert len(parts_of(tmp_path / "out")) == 2


def test_of_two_runs_in_a_store_without_locks_the_later_one_has_it(here, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_only_run", lambda out: nullcontext())
    run = dataset.run_actors

    def first(*arguments):
        for done in run(*arguments):
            monkeypatch.setattr(dataset, "run_actors", run)
            align_dataset(aligner, photos, tmp_path / "out", part_size=3)
            yield done

    monkeypatch.setattr(dataset, "run_actors", first)
    with pytest.raises(WriteError, match="expected no other run to write it, got one that began later"):
        align_dataset(aligner, photos, tmp_path / "out", part_size=4)
    assert len(rows_of(tmp_path / "out")) == 10
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["images"] == 10 and manifest["parts"].keys() == parts_of(tmp_path / "out").keys()


def test_other_results_are_left_as_they_are(here, photos, tmp_path):
    out = tmp_path / "out"
    align_dataset(aligner, photos, out)
    before = parts_of(out)
    with pytest.raises(InputError, match="expected results of refine True, got False; choose another"):
        align_dataset(
            lambda: FaceAligner("shr-fan-68-fast", detector=Detector(), refine=True, search=False),
            photos,
            out,
        )
    photo = (photos / "3.png").read_bytes()
    (photos / "3.png").write_bytes(photo + b"longer")
    with pytest.raises(InputError, match=r"got those of another 3\.png"):
        align_dataset(aligner, photos, out)
    (photos / "3.png").write_bytes(photo)
    (out / "part-copy.parquet").write_bytes((out / min(before)).read_bytes())
    with pytest.raises(InputError, match=r"expected each photo once, got 0\.png again"):
        align_dataset(aligner, photos, out)
    (out / "part-copy.parquet").write_bytes((out / min(before)).read_bytes()[:-20])
    with pytest.raises(InputError, match=r"part-copy.parquet: expected a place to read from"):
        align_dataset(aligner, photos, out)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "precious").touch()
    with pytest.raises(
        InputError, match="expected a new folder or one of earlier results, got .* with precious"
    ):
        align_dataset(aligner, photos, tmp_path / "else")
    with pytest.raises(WriteError):
        align_dataset(aligner, photos, photos / "0.png")


def test_arguments_are_checked(here, photos, tmp_path):
    for name, value in (("part_size", 0), ("workers", 0), ("num_cpus", 0), ("num_gpus", -1)):
        with pytest.raises(InputError, match=rf"^{name}: expected at least"):
            align_dataset(aligner, photos, tmp_path / "out", **{name: value})
    with pytest.raises(InputError, match="expected a FaceAligner or what makes one, got int"):
        align_dataset(lambda: 3, photos, tmp_path / "out")
    with pytest.raises(InputError, match="expected one with a detector"):
        align_dataset(FaceAligner("shr-fan-68-fast", detector=None, device="cpu"), photos, tmp_path / "out")


def test_a_cluster_has_as_many_workers_as_fit():
    for workers, cpus, gpus, expected in ((None, 2, 0, 4), (3, 2, 0, 3), (None, 1, 0.5, 4), (None, 4, 0, 2)):
        share = ray_cluster.Share(workers, cpus, gpus)
        assert ray_cluster._count({"CPU": 8.0, "GPU": 2.0}, share) == expected
    with pytest.raises(
        InputError, match="expected a cluster with room for a worker of 1 CPUs and 1 GPUs, got 8"
    ):
        ray_cluster._count({"CPU": 8.0}, ray_cluster.Share(None, 1, 1))


def test_large_photos_are_aligned_in_small_groups():
    small, large = np.zeros((100, 100, 3), np.uint8), np.zeros((9500, 9500, 3), np.uint8)
    pixels = [small, small, small, large, large, small, ValueError()]
    photos = [(str(number), Read(1, image)) for number, image in enumerate(pixels)]
    groups = [[int(name) for name, _ in group] for group in worker.together(photos, 3)]
    assert groups == [[0, 1, 2], [3], [4], [5, 6]]


def test_an_attempt_becomes_careful_and_remembers_where_it_ended(tmp_path):
    out = place_of(tmp_path)
    assert [Attempt(out, "part").careful for _ in range(3)] == [False, False, True]
    Attempt(out, "part").begin("a.png")
    last = Attempt(out, "part")
    assert last.deadly == ["a.png"] and Attempt(out, "other").deadly == []
    last.end()
    assert not Attempt(out, "part").careful


def test_the_command_hands_its_arguments_over(here, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("face_landmarks.cli.datasets.make_aligner", lambda options: aligner())
    out = tmp_path / "out.parquet"
    words = ["align", str(photos), "--out", str(out), "--part-size", "4"]
    assert main([*words, "--ray"]) == 0
    assert "10 faces in 10 photos, 0 unreadable" in capsys.readouterr().err
    assert len(rows_of(out)) == 10 and len(parts_of(out)) == 3
    (tmp_path / "list.txt").write_text("3.png\n5.png\n")
    listed = ["align", "--list", str(tmp_path / "list.txt"), "--root", str(photos)]
    assert main([*listed, "--out", str(tmp_path / "two"), "--ray", "--workers", "2"]) == 0
    assert rows_of(tmp_path / "two").keys() == {"3.png", "5.png"}
    (photos / "broken.jpg").touch()
    assert main([*words, "--ray", "auto"]) == 1
    assert "10 photos done earlier, 1 unreadable" in capsys.readouterr().err
    for more, message in (
        (["--ray", "--json", "x.json"], "--json: expected no --ray beside it"),
        (["--ray", "--shard", "1/2"], "--shard: expected no --ray beside it"),
        (["--ray", "--list", "x.txt"], "--ray: expected either photos or --list FILE with it"),
        (["--column", "photo"], "--column: expected --ray with it"),
        (["--gpus", "-1", "--ray"], "expected a number from 0 up"),
    ):
        try:
            code = main([*words, *more])
        except SystemExit as stop:
            code = stop.code
        assert code == 2 and message in capsys.readouterr().err
    assert main(["align", str(photos), "--ray"]) == 2
    assert main(["align", "", "--out", str(out), "--ray"]) == 2
    assert "source: expected a path, got ''" in capsys.readouterr().err
    os.mkdir(tmp_path / "empty")
    assert main(["align", str(tmp_path / "empty"), "--out", str(tmp_path / "none"), "--ray"]) == 3


def test_without_ray_the_error_names_the_extra(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"shr-fan\[ray\]"):
        align_dataset(aligner, photos, tmp_path / "out")
