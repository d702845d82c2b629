"""Photos of folders, patterns, lists and tables, here and in stores."""

import io
import os
import socket

import fsspec
import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import fs, parquet

from face_landmarks.errors import ImageError, InputError, WriteError
from face_landmarks.output.cluster import align_dataset, places
from face_landmarks.output.cluster.places import place_of, split_pattern
from face_landmarks.output.cluster.sources import find_photos


def png(level):
    buffer = io.BytesIO()
    Image.fromarray(np.full((5, 7, 3), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for name in (
        "a.png",
        "b.JPG",
        "deep/c.png",
        "deep/er/d.png",
        ".hidden/e.png",
        "deep/.f.png",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def names(source):
    return [photo.name for photo in source.photos]


def contents(source):
    return {photo.name: load() for photo, load in source.load(source.photos)}


def test_a_folder_has_the_photos_below_it_in_order_without_hidden_ones(folder):
    source = find_photos(folder)
    assert names(source) == ["a.png", "b.JPG", "deep/c.png", "deep/er/d.png"]
    assert [photo.size for photo in source.photos] == [5, 5, 10, 13]
    assert contents(source)["deep/c.png"] == b"deep/c.png"
    assert names(find_photos(folder, recursive=False)) == ["a.png", "b.JPG"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png"]),
        ("**/*.png", ["a.png", "deep/c.png", "deep/er/d.png"]),
        ("*/[!x].png", ["deep/c.png"]),
        ("*/?.png", ["deep/c.png"]),
        ("**", ["a.png", "b.JPG", "deep/c.png", "deep/er/d.png"]),
        ("deep/**/[a-d].png", ["c.png", "er/d.png"]),
        ("[xyz].png", []),
    ],
)
def test_a_pattern_names_photos_from_its_first_wildcard_on(folder, pattern, expected):
    assert names(find_photos(f"{folder}/{pattern}")) == expected


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path):
    (tmp_path / "[a]").mkdir()
    (tmp_path / "[a]" / "x.png").write_bytes(b"")
    assert names(find_photos(tmp_path / "[a]")) == ["x.png"]


def test_dots_in_patterns_are_dots():
    assert not split_pattern("/p/*.png")[1].match("apng")
    assert split_pattern("/p/q/*.png")[0] == "/p/q"


def test_links_to_folders_are_not_followed_and_links_to_files_are(folder):
    os.symlink(folder, folder / "deep" / "loop")
    os.symlink(folder / "a.png", folder / "deep" / "link.png")
    expected = ["a.png", "b.JPG", "deep/c.png", "deep/er/d.png", "deep/link.png"]
    assert names(find_photos(folder)) == names(find_photos(f"{folder}/**")) == expected
    assert names(find_photos(f"{folder}/*/*.png")) == ["deep/c.png", "deep/link.png"]
    local = fs.LocalFileSystem()
    for filesystem, path in (
        (fsspec.filesystem("file"), str(folder)),
        (local, str(folder)),
        (fs.SubTreeFileSystem(str(folder.parent), local), folder.name),
    ):
        assert names(find_photos(path, filesystem=filesystem)) == expected
    assert find_photos(folder).photos[-1].size == 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_all_that_has_a_photos_name_is_a_photo_and_pipes_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets must be short
    os.mkfifo("pipe.jpg")
    os.symlink("gone", "broken.jpg")
    os.symlink("loop.jpg", "loop.jpg")
    os.mkdir("folder.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        for source in (".", "*.jpg", ["broken.jpg", "loop.jpg", "pipe.jpg", "socket.jpg"]):
            found = find_photos(source)
            assert [(photo.name, photo.size) for photo in found.photos] == [
                (f"{name}.jpg", -1) for name in ("broken", "loop", "pipe", "socket")
            ]
            loads = [load for _, load in found.load(found.photos)]
            for load in loads[:2]:
                with pytest.raises(OSError):
                    load()
            for load, kind in zip(loads[2:], ("pipe", "socket"), strict=True):
                with pytest.raises(ImageError, match=rf"expected an image file, got .*, which is a {kind}$"):
                    load()
        ((_, load),) = (listed := find_photos(["folder.jpg"])).load(listed.photos)
        with pytest.raises(ImageError, match="which is a folder"):
            load()
        assert listed.sizes(listed.photos) == [-1]
    with pytest.raises(InputError, match=r"expected a folder, a file or a pattern, got .*, which is a pipe"):
        find_photos("pipe.jpg")
    os.mkfifo("pipe.parquet")
    with pytest.raises(InputError, match="expected a Parquet file, got a pipe"):
        find_photos(".", column="photo")


def test_sizes_of_a_list_are_looked_up_when_they_are_asked_for(folder):
    listed = find_photos([str(folder / "a.png"), str(folder / "none.png")])
    assert [photo.size for photo in listed.photos] == [-1, -1]
    assert listed.sizes(listed.photos) == [5, -1]
    store = fsspec.filesystem("memory")
    store.pipe("/sizes/x.png", b"abc")
    stored = find_photos(["memory://sizes/none.png", "memory://sizes/x.png"])
    assert stored.sizes(stored.photos) == [-1, 3]


def test_an_empty_path_is_refused_as_it_would_be_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for source, root, argument in (
        ("", None, "source"),
        (["a.png", ""], None, "source: entry 1"),
        ([b"a.png"], None, "source: entry 0"),
        (["a.png"], "", "root"),
    ):
        with pytest.raises(InputError, match=rf"^{argument}: expected a path, got "):
            find_photos(source, root=root)
    with pytest.raises(InputError, match=r"^out: expected a path, got ''$"):
        align_dataset(lambda: None, folder, "")


def test_a_list_keeps_its_names(folder, monkeypatch):
    monkeypatch.chdir(folder)
    paths = ["deep/c.png", str(folder / "a.png")]
    assert contents(find_photos(paths)) == {"deep/c.png": b"deep/c.png", str(folder / "a.png"): b"a.png"}
    uris = [f"file://{folder}/a.png", f"file://{folder}/deep/c.png"]
    assert list(contents(find_photos(uris)).items()) == [(uris[0], b"a.png"), (uris[1], b"deep/c.png")]
    with pytest.raises(InputError, match=r"different names, got 'a.png' more than once"):
        find_photos(["a.png", "b.png", "a.png"])
    assert contents(find_photos(["c.png"], root="deep")) == {"c.png": b"deep/c.png"}
    assert contents(find_photos(["c.png"], root=f"file://{folder}/deep")) == {"c.png": b"deep/c.png"}
    with pytest.raises(InputError, match="that a root may be put before"):
        find_photos(uris, root="deep")
    with pytest.raises(InputError, match="root: expected it with a list"):
        find_photos("deep", root="deep")
    with pytest.raises(InputError, match="one filesystem"):
        find_photos(["a.png", "s3://bucket/b.png"])


def test_names_that_are_not_utf_8_are_refused_before_the_work_as_tables_cannot_hold_them(tmp_path):
    name = os.fsdecode(b"bad\xff.png")
    with pytest.raises(InputError, match=r"source: expected names in UTF-8, got 'bad\\udcff.png'"):
        find_photos(["good.png", name])
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("the file system has no such names")
    with pytest.raises(InputError, match=r"expected names in UTF-8, got b'.*bad\\xff.png'"):
        find_photos(tmp_path)


def test_stores_are_reached_by_uri_or_by_a_filesystem_of_fsspec_or_pyarrow(folder):
    store = fsspec.filesystem("memory")
    store.pipe("/photos/deep/x.png", b"x")
    assert contents(find_photos("memory://photos")) == {"deep/x.png": b"x"}
    assert contents(find_photos("memory://photos/*/*.png")) == {"deep/x.png": b"x"}
    assert contents(find_photos("/photos", filesystem=store)) == {"deep/x.png": b"x"}
    assert contents(find_photos(["memory://photos/deep/x.png"])) == {"memory://photos/deep/x.png": b"x"}
    inner = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    assert contents(find_photos("deep", filesystem=inner))["c.png"] == b"deep/c.png"
    with pytest.raises(InputError, match="expected one of pyarrow or fsspec, got int"):
        find_photos("photos", filesystem=3)
    with pytest.raises(InputError, match="nowhere://photos: expected a path or a URI"):
        find_photos("nowhere://photos")


def test_tables_give_bytes_of_a_column_or_of_structs(tmp_path):
    photos = [bytes([i]) * 10 for i in range(9)]
    (tmp_path / "tables").mkdir()
    columns = {"id": range(9), "photo": photos, "text": list("abcdefghi")}
    parquet.write_table(pyarrow.table(columns), tmp_path / "tables" / "one.parquet", row_group_size=4)
    structs = pyarrow.table({"photo": [{"bytes": photo, "path": "x"} for photo in photos[:2]]})
    parquet.write_table(structs, tmp_path / "tables" / "two.parquet")

    source = find_photos(tmp_path / "tables", column="photo")
    expected = {f"one.parquet#{i}": photo for i, photo in enumerate(photos)}
    expected |= {f"two.parquet#{i}": photo for i, photo in enumerate(photos[:2])}
    assert contents(source) == expected
    some = [source.photos[i] for i in (1, 3, 6, 10)]  # of three row groups
    assert [load()[0] for _, load in source.load(some)] == [1, 3, 6, 1]

    one = f"{tmp_path}/tables/one.par*"
    assert contents(find_photos(one, column="photo", names="id"))["7"] == photos[7]
    assert (
        contents(find_photos(f"{tmp_path}/tables/one.parquet", column="photo"))["one.parquet#8"] == photos[8]
    )
    with pytest.raises(InputError, match="expected a column 'image', got id, photo, text"):
        find_photos(one, column="image")
    with pytest.raises(InputError, match="expected bytes in column 'text', got string"):
        find_photos(one, column="text")
    with pytest.raises(InputError, match="names: expected it with column"):
        find_photos(one, names="id")
    parquet.write_table(pyarrow.table({"id": [1, 1], "photo": photos[:2]}), tmp_path / "same.parquet")
    with pytest.raises(InputError, match="different names, got '1' more than once"):
        find_photos(tmp_path / "same.parquet", column="photo", names="id")


@pytest.mark.parametrize(
    "values", [["a", None], [1, None], [1.0, float("nan")], [b"a", b"b"], [True, False], ["a", ""]]
)
def test_names_in_tables_are_text_or_whole_numbers(tmp_path, values):
    columns = {"photo": [b"a", b"b", b"c", b"d"], "name": [*values, *values]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "one.parquet", row_group_size=1)
    row = 0 if type(values[0]) not in (str, int) else 1
    with pytest.raises(
        InputError,
        match="one.parquet: expected text or whole numbers in column 'name', "
        f"got {values[row]!r} in row {row}",
    ):
        find_photos(tmp_path, column="photo", names="name")


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"expected a folder, a file or a pattern, got .*/none"):
        find_photos(tmp_path / "none")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    place = place_of(tmp_path / "deep" / "file")
    place.write(b"old")
    monkeypatch.setattr(places, "uuid4", lambda: pytest.fail("no name"))
    with pytest.raises(BaseException, match="no name"):
        place.write(b"new")
    monkeypatch.undo()

    class Full(fs.LocalFileSystem):
        def move(self, source, target):
            raise OSError("no space left")

    with pytest.raises(WriteError, match=r"deep/file: expected a place to write to, got no space left"):
        places.Place(Full(), place.path).write(b"new")
    assert place.read() == b"old"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_an_object_store_gets_each_file_in_one_piece():
    class Store(fsspec.get_filesystem_class("memory")):
        protocol = ("s3", "s3a")
        store, pseudo_dirs = {}, [""]

        def mv(self, *_, **__):
            pytest.fail("a store copies what it moves")

    store = Store(skip_instance_cache=True)
    place_of("s3://bucket/part", store).write(b"whole")
    assert next(iter(store.store.values())).getvalue() == b"whole" and len(store.store) == 1
