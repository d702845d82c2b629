"""The official files of the six benchmarks: read as their authors wrote them, refused when damaged."""

import dataclasses
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_photo
from official_files import (
    WRITERS,
    write_300w,
    write_300w_lp,
    write_300w_private,
    write_aflw,
    write_benchmark,
    write_cofw,
    write_cofw68,
    write_wflw,
)

from face_landmarks import read_image
from face_landmarks.benchmarks.annotations import AnnotatedImage, face_boxes
from face_landmarks.benchmarks.matlab import CellPhoto, cell_photos, read_mat
from face_landmarks.benchmarks.protocols import BENCHMARKS, TRAINING_SETS, get_benchmark, hold_out
from face_landmarks.benchmarks.readers import (
    AFLW,
    CBSR_300W_LP,
    COFW,
    COFW_68,
    IBUG_300W,
    IBUG_300W_PRIVATE,
    WFLW,
    WFLW_SUBSETS,
)
from face_landmarks.errors import AnnotationError, InputError, MissingDependencyError
from face_landmarks.geometry import boxes_from_landmarks

pytest.importorskip("scipy")
pytest.importorskip("h5py")

# What each writer's training and test parts are read as.
PARTS = [
    (write_300w, "300w", "300w"),
    (write_300w_private, None, "300w-split2"),
    (write_300w_lp, "300w-lp", None),
    (write_aflw, "aflw19", "aflw19"),
    (write_cofw, "cofw", "cofw"),
    (write_cofw68, None, "cofw68"),
    (write_wflw, "wflw", "wflw"),
]


def landmarks_of(samples):
    return np.concatenate([sample.landmarks for sample in samples])


@pytest.mark.parametrize(("write", "train", "test"), PARTS)
def test_landmarks_are_read_zero_based_and_in_the_order_of_the_protocol(tmp_path, write, train, test):
    train_truth, test_truth = write(tmp_path)
    if train:
        samples = TRAINING_SETS[train].read(tmp_path)
        np.testing.assert_allclose(landmarks_of(samples), train_truth, atol=1e-4)
    if test:
        found = BENCHMARKS[test].read(str(tmp_path))
        np.testing.assert_allclose(landmarks_of(found.samples), test_truth, atol=1e-4)
        assert next(iter(found.subsets.values())).all()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_photos_and_landmarks_fit_each_other(tmp_path, name):
    write_benchmark(name, tmp_path)
    for sample in (*BENCHMARKS[name].read(tmp_path).samples, *TRAINING_SETS[name].read(tmp_path)):
        pixels = read_image(sample.source)
        assert pixels.shape == (96, 104, 3)  # a transposed picture would be 96 wide
        layout = BENCHMARKS[name].layout
        pupils = sample.landmarks[0][[list(eye) for eye in layout.eyes]].mean(axis=1)  # (2, 2)
        for x, y in pupils.round().astype(int):
            assert pixels[y, x].max() < 90  # they are drawn dark
        x, y = sample.landmarks[0][layout.chin].round().astype(int)
        assert pixels[y - 3, x].mean() - pixels[min(y + 3, 95), x].mean() > 40  # above the chin is skin


@pytest.mark.parametrize("name", BENCHMARKS)
def test_face_boxes_reach_from_forehead_to_chin(tmp_path, name):
    write_benchmark(name, tmp_path)
    for sample in BENCHMARKS[name].read(tmp_path).samples:
        ((x0, y0, x1, y1),) = face_boxes(sample)
        low, high = sample.landmarks[0].min(axis=0), sample.landmarks[0].max(axis=0)
        height = high[1] - low[1]
        assert x0 < low[0] + 2 and x1 > high[0] - 2 and abs(y1 - high[1]) < 0.15 * height
        assert 0.15 * height < low[1] - y0 < 0.45 * height
        if BENCHMARKS[name].layout.name == "ibug-68":
            np.testing.assert_array_equal(face_boxes(sample), boxes_from_landmarks(sample.landmarks))


def test_300w_has_a_common_and_a_challenging_part(tmp_path):
    write_300w(tmp_path, faces=2)
    found = BENCHMARKS["300w"].read(tmp_path)
    assert [(name, mask.tolist()) for name, mask in found.subsets.items()] == [
        ("Full", [True] * 6),
        ("Common", [True] * 4 + [False] * 2),
        ("Challenge", [False] * 4 + [True] * 2),
    ]
    assert [sample.image.parent.name for sample in found.samples[3:5]] == ["testset", "ibug"]
    assert len(TRAINING_SETS["300w"].read(tmp_path)) == 6
    assert len(TRAINING_SETS["300w-split2"].read(tmp_path)) == 12  # all public photos


def test_the_case_of_folders_and_their_nesting_do_not_matter(tmp_path):
    write_300w(tmp_path / "data")
    expected = landmarks_of(TRAINING_SETS["300w"].read(tmp_path / "data"))
    (tmp_path / "data" / "afw").rename(tmp_path / "data" / "afw_")
    (tmp_path / "data" / "AFW").mkdir()
    (tmp_path / "data" / "afw_").rename(tmp_path / "data" / "AFW" / "afw")
    (tmp_path / "data" / "helen").rename(tmp_path / "data" / "HELEN")
    np.testing.assert_array_equal(landmarks_of(TRAINING_SETS["300w"].read(tmp_path / "data")), expected)


def test_frontal_aflw_faces_are_those_that_hide_nothing(tmp_path):
    write_aflw(tmp_path, faces=34)
    found = BENCHMARKS["aflw19"].read(tmp_path)
    numbers = [int(sample.image.stem.removeprefix("image")) for sample in found.samples]
    frontal = [number % 2 == 1 for number in numbers]
    assert len(numbers) == 7  # a shuffle decides; 27 of 34 train
    # so that neither another order, nor the faces that train, nor the last ones, give the same mask
    others = [[n % 2 == 1 for n in order] for order in (sorted(numbers), range(27, 34), numbers[::-1])]
    assert frontal not in others and 0 < sum(frontal) < 7
    assert found.subsets["Frontal"].tolist() == frontal
    for sample in found.samples:
        ((x0, y0, x1, y1),) = sample.boxes
        assert x1 - x0 == y1 - y0 and abs(x0 + x1 - 103) < 12 and y0 < 28


def test_wflw_subsets_follow_the_attributes(tmp_path):
    write_wflw(tmp_path, faces=7)
    subsets = BENCHMARKS["wflw"].read(tmp_path).subsets
    assert list(subsets) == ["Full", *WFLW_SUBSETS]
    assert [int(mask.sum()) for mask in subsets.values()] == [7, 6, 5, 4, 3, 2, 1]


def test_stored_photos_are_decoded_one_by_one_and_only_when_asked_for(tmp_path, monkeypatch):
    write_cofw(tmp_path)
    decoded = []
    read = CellPhoto.read
    monkeypatch.setattr(CellPhoto, "read", lambda photo: decoded.append(photo.index) or read(photo))
    first, last = BENCHMARKS["cofw"].read(tmp_path).samples
    assert decoded == []
    assert first.source.shape == (96, 104, 3) and last.source.shape == (96, 104)
    assert decoded == [0, 1]
    assert str(last.image).endswith("COFW_test_color.mat:IsT{2}")
    np.testing.assert_array_equal(first.source, draw_photo(90, BENCHMARKS["cofw"].layout)[0])


def test_the_protocols_sizes_add_up():
    faces = BENCHMARKS["300w"].faces
    assert faces["Full"] == faces["Common"] + faces["Challenge"]
    assert TRAINING_SETS["300w-split2"].faces == TRAINING_SETS["300w"].faces + faces["Full"]
    for name, benchmark in BENCHMARKS.items():
        assert TRAINING_SETS[name].layout is benchmark.layout
        assert {column.subset for column in benchmark.columns} >= set(benchmark.faces)


def published(name):
    return {(c.subset, str(c)): c.published for c in BENCHMARKS[name].columns if c.published is not None}


def test_the_papers_values_are_these():
    assert {name: list(published(name).values()) for name in BENCHMARKS} == {
        "300w": [2.94, 2.61, 4.13],
        "300w-split2": [2.04, 71.1, 2.94],
        "aflw19": [1.31, 1.12, 2.14, 70.0],
        "cofw": [3.02],
        "cofw68": [2.47, 64.9],
        "wflw": [3.72, 1.55, 63.1],
    }
    assert published("wflw") == {
        ("Full", "NME inter-ocular"): 3.72,
        ("Full", "FR@10 inter-ocular"): 1.55,
        ("Full", "AUC@10 inter-ocular"): 63.1,
    }


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_empty_folder_is_answered_with_the_site_and_the_tree(tmp_path, name):
    for read in (BENCHMARKS[name].read, TRAINING_SETS[name].read):
        with pytest.raises(AnnotationError, match=r"is missing\nExpected below .*, from https?://") as caught:
            read(tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert len(str(caught.value).splitlines()) > 3


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


WFLW_TEST = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt"
POINTS_68 = "COFW68_Data/test_annotations/2_points.mat"


def ibug(root, pattern):
    return next((root / "ibug").glob(pattern))


def rewrite(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def save(path, **variables):
    from scipy.io import savemat

    savemat(path, variables)


def drop_a_name(path):
    from scipy.io import loadmat

    found = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    save(path, **found | {"nameList": found["nameList"][1:]})


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (
            "300w",
            lambda root: ibug(root, "*.pts").write_text("1 1\n2 2\n"),
            "expected 68 points",
        ),
        ("300w", lambda root: ibug(root, "*.pts").write_text("nonsense"), "two numbers"),
        ("300w", lambda root: ibug(root, "*.jpg").unlink(), "expected one photo named"),
        ("300w-split2", lambda root: (root / "300W/02_Outdoor").rename(root / "x"), "02_Outdoor is missing"),
        ("aflw19", lambda root: cut(root / "AFLWinfo_release.mat"), "expected a MATLAB file"),
        ("aflw19", lambda root: drop_a_name(root / "AFLWinfo_release.mat"), "names of 6 photos, got 5"),
        ("aflw19", lambda root: save(root / "AFLWinfo_release.mat", ra=[1]), "nameList is missing"),
        ("aflw19", lambda root: (root / "data/flickr").rename(root / "flickr_"), "data/flickr is missing"),
        ("aflw19", lambda root: shutil.rmtree(root / "data/flickr/0"), "photos are missing, the first"),
        ("aflw19", lambda root: shutil.rmtree(root / "data/flickr/2"), "photos are missing, the first"),
        ("cofw", lambda root: cut(root / "COFW_test_color.mat"), "expected a MATLAB v7.3 file"),
        ("cofw", lambda root: (root / "COFW_test_color.mat").write_bytes(b"x" * 999), "v7.3 file"),
        ("cofw", lambda root: (root / "COFW_test_color.mat").unlink(), "COFW_test_color.mat is missing"),
        ("cofw68", lambda root: (root / POINTS_68).unlink(), "2_points.mat: expected a MATLAB file"),
        ("cofw68", lambda root: save(root / POINTS_68, Points=np.zeros((29, 2))), r"shape \(68, 2\)"),
        ("cofw68", lambda root: save(root / POINTS_68, Occ=[1]), "Points is missing"),
        ("wflw", lambda root: rewrite(root / WFLW_TEST, "0--Parade", "9--Parade"), "3 photos are missing"),
        ("wflw", lambda root: (root / WFLW_TEST).write_text("1 2 3 a.jpg\n"), "txt:1: expected 206 numbers"),
        ("wflw", lambda root: (root / WFLW_TEST).write_text("\n"), "txt:1: expected 206 numbers"),
        ("wflw", lambda root: (root / WFLW_TEST).write_text(""), "got an empty file"),
        ("wflw", lambda root: rewrite(root / WFLW_TEST, ".", "x"), "txt:1: expected 206 numbers"),
        ("wflw", lambda root: (root / WFLW_TEST).write_bytes(b"\xff\xfe\xff"), "expected a list of faces"),
    ],
)
def test_damaged_files_are_named_with_the_site_they_come_from(tmp_path, name, damage, message):
    write_benchmark(name, tmp_path)
    BENCHMARKS[name].read(tmp_path)
    damage(tmp_path)
    with pytest.raises(AnnotationError, match=message) as caught:
        BENCHMARKS[name].read(tmp_path)
    assert "Expected below" in str(caught.value) and "http" in str(caught.value)


def test_a_wflw_box_without_area_is_refused_by_photo(tmp_path):
    write_wflw(tmp_path)
    path = tmp_path / WFLW_TEST
    line = path.read_text().splitlines()[0].split()
    line[198] = line[196]
    path.write_text(" ".join(line))
    with pytest.raises(AnnotationError, match=r"0_Parade_test_1_0\.jpg: boxes: expected x0 < x1"):
        BENCHMARKS["wflw"].read(tmp_path)


def test_landmarks_of_300w_lp_are_moved_back_by_what_they_lie_too_far_right(tmp_path):
    write_300w_lp(tmp_path, poses=1)
    for path in (tmp_path / "300W_LP/landmarks").glob("*/*.mat"):
        save(path, pts_2d=np.full((68, 2), 100.0))
    for sample in TRAINING_SETS["300w-lp"].read(tmp_path):
        np.testing.assert_array_equal(sample.landmarks, np.broadcast_to([98.5, 100], (1, 68, 2)))


def test_300w_lp_needs_the_landmarks_of_every_photo(tmp_path):
    write_300w_lp(tmp_path)
    (tmp_path / "300W_LP/landmarks/IBUG/IBUG_134212_1_1_pts.mat").unlink()
    with pytest.raises(AnnotationError, match=r"IBUG_134212_1_1_pts\.mat"):
        TRAINING_SETS["300w-lp"].read(tmp_path)


def test_missing_readers_name_the_extra(tmp_path, monkeypatch):
    write_cofw(tmp_path)
    write_cofw68(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r'h5py, pip install "shr-fan\[benchmarks\]"'):
        BENCHMARKS["cofw"].read(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingDependencyError, match="scipy"):
        read_mat(tmp_path / POINTS_68, "Points")


def test_both_kinds_of_matlab_files_are_read_as_matlab_shows_them(tmp_path):
    import h5py

    matrix = np.arange(6.0).reshape(2, 3)
    save(tmp_path / "v5.mat", matrix=matrix)
    with h5py.File(tmp_path / "v73.mat", "w") as file:
        file["matrix"] = matrix.T
    for path in (tmp_path / "v5.mat", tmp_path / "v73.mat"):
        np.testing.assert_array_equal(read_mat(path, "matrix")[0], matrix)
    with pytest.raises(AnnotationError, match="expected the variable other, got matrix"):
        read_mat(tmp_path / "v73.mat", "other")
    with pytest.raises(AnnotationError, match="expected matrix to be a cell array"):
        cell_photos(tmp_path / "v73.mat", "matrix")
    with pytest.raises(AnnotationError, match=r"gone\.mat: expected a MATLAB file"):
        read_mat(tmp_path / "gone.mat", "matrix")


@pytest.mark.parametrize("kind", ["group", "text", "empty"])
def test_a_matlab_variable_without_numbers_or_cells_is_refused(tmp_path, kind):
    import h5py

    path = tmp_path / "odd.mat"
    with h5py.File(path, "w") as file:
        if kind == "group":
            file.create_group("x")
        else:
            file["x"] = "words" if kind == "text" else h5py.Empty("f")
    for read in (read_mat, cell_photos):
        with pytest.raises(AnnotationError, match=r"odd\.mat: expected"):
            read(path, "x")
    with pytest.raises(AnnotationError, match="expected a MATLAB file, got embedded null byte"):
        read_mat(tmp_path / "a\0b.mat", "x")


def test_a_cell_that_is_no_photo_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "odd.mat", "w") as file:
        file["cell"] = np.zeros((4, 5, 7), np.uint8)
        file["Is"] = np.array([[file["cell"].ref]], dtype=h5py.ref_dtype)
    (photo,) = cell_photos(tmp_path / "odd.mat", "Is")
    with pytest.raises(AnnotationError, match=r"Is\{1\}: expected a uint8 photo, .* shape \(7, 5, 4\)"):
        photo.read()


def test_poses_of_one_photo_are_held_out_together(tmp_path):
    write_300w_lp(tmp_path)
    kept, aside = hold_out(TRAINING_SETS["300w-lp"].read(tmp_path), every=4)
    assert len(kept) == 12 and [sample.image.stem for sample in aside] == [
        f"{name}_234212_1_{pose}" for name in ("HELEN", "LFPW") for pose in (0, 1)
    ]


@pytest.mark.parametrize(
    ("names", "photos"),
    [
        ("afw/134212_1 afw/134212_2 afw/815038_1", "aab"),  # faces of one photo, in files of their own
        ("AFW/AFW_134212_1_0 AFW/AFW_134212_2_7 AFW/AFW_815038_1_0 AFW/AFW_815038_1_12", "aabb"),
        ("helen/trainset/100032540_1 HELEN/HELEN_100032540_1_0 HELEN/HELEN_100032540_1_3", "abb"),
        ("ibug/image_003_1 ibug/image_004_1 IBUG/IBUG_image_003_1_0 IBUG/IBUG_image_003_2_5", "abcc"),
        ("LFPW/LFPW_image_train_0001_0 LFPW/LFPW_image_train_0001_9 LFPW/LFPW_image_train_0002_0", "aab"),
        ("LFPW/LFPW_image_train_0001_0 LFPW/LFPW_image_test_0001_0", "ab"),
        ("lfpw/image_0001 lfpw/image_0002 01_Indoor/indoor_001 01_Indoor/indoor_002", "abcd"),
    ],
)
def test_faces_of_one_photo_are_held_out_together(names, photos):
    places = [*names.split(), "last"]
    _, aside = hold_out(
        [AnnotatedImage(Path(f"{place}.jpg"), np.ones((1, 2, 2))) for place in places], every=2
    )
    letters = [*photos, "last"]
    every_second = list(dict.fromkeys(letters))[1::2]
    assert [str(sample.image.with_suffix("")) for sample in aside] == [
        place for place, letter in zip(places, letters, strict=True) if letter in every_second
    ]


def test_every_nth_photo_is_held_out_with_all_its_faces():
    samples = [AnnotatedImage(Path(f"{name}.jpg"), np.ones((1, 2, 2))) for name in "aabccd"]
    kept, aside = hold_out(samples, every=3)
    assert [sample.image.stem for sample in kept] == ["a", "a", "b", "d"]
    assert [sample.image.stem for sample in aside] == ["c", "c"]
    assert hold_out(samples, every=0) == (samples, samples)
    with pytest.raises(InputError, match="expected at least 20 photos to set every 20th aside, got 4"):
        hold_out(samples, every=20)
    for every in (1, -3):
        with pytest.raises(InputError, match=f"hold_out: expected 0, or every 2nd photo .*, got {every}"):
            hold_out(samples, every=every)


def test_an_unknown_benchmark_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="one of 300w, 300w-split2, aflw19, cofw, cofw68, wflw, got 'lfw'"):
        get_benchmark("lfw")
    with pytest.raises(InputError, match=r"benchmark: expected one of .*, got \['wflw'\]"):
        get_benchmark(["wflw"])
    assert get_benchmark("wflw") is BENCHMARKS["wflw"]
    assert set(BENCHMARKS) == set(WRITERS)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 1, 1]] * 2, r"boxes: expected shape \(1, 4\), got \(2, 4\)"),
        ([[0, 0, 0, 1]], "expected x0 < x1 and y0 < y1"),
        ([[0, 0, 1, np.nan]], "expected x0 < x1 and y0 < y1"),
        ([[0, 0, 1, np.inf]], "expected x0 < x1 and y0 < y1"),
    ],
)
def test_boxes_that_come_with_photos_have_an_area(boxes, message):
    with pytest.raises(InputError, match=message):
        AnnotatedImage(Path("a.jpg"), np.ones((1, 2, 2)), boxes)
    assert dataclasses.replace(AnnotatedImage(Path("a.jpg"), np.ones((1, 2, 2)))).boxes is None


def test_the_page_has_every_value_command_and_place():
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    table = re.search(r"\| benchmark \| score \| paper \|.*?\n\n", page, flags=re.DOTALL)[0]
    cells = [row.split("|")[3] for row in table.splitlines()[2:] if row]
    values = [float(value) for cell in cells for value in cell.split(";")]
    assert values == [value for name in BENCHMARKS for value in published(name).values()]
    for name in BENCHMARKS:
        assert f"| `{name}` |" in page and f"`shr-fan-{name}`" in page
    for source in (IBUG_300W, IBUG_300W_PRIVATE, CBSR_300W_LP, AFLW, COFW, COFW_68, WFLW):
        for site in re.findall(r"https?://[^ ,]+", source.site):
            assert site in page
