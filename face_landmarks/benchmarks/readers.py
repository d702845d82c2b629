"""The paper's six benchmarks, read from the official files as they are distributed.

    test = BENCHMARKS["wflw"].read("data/wflw")
    test.subsets["Large pose"]  # (2500,) which faces are in it

Photos are not decoded before they are needed, and those inside a larger file one at a time.

Convention:
    In memory, pixels count from zero. What the files count from, and how we know:

        300-W      one   .pts files; their authors say so
        300W-LP    one   made in MATLAB from the .pts files; no source says so
        COFW       one   its authors' MATLAB code uses the coordinates as array indices
        COFW-68    one   its authors' MATLAB code plots them over `imshow`
        AFLW-19    zero  assumed: the sources leave it open
        WFLW       zero  assumed: the sources leave it open

    A wrong assumption moves training and test labels alike, so it does not show in a score on the same
    data; it shows as half a pixel of disagreement between a face and its mirror image.

    Every face has a face box, forehead to chin, from which it is cut out in training and in evaluation
    (`face_boxes`). With 68 landmarks it is made from them; WFLW and AFLW-19 come with such boxes;
    COFW's boxes reach from brows to chin and are raised to the forehead in the proportion of the others.

Reference:
    Bulat, Sanchez, Tzimiropoulos. Subpixel Heatmap Regression for Facial Landmark Localization.
    BMVC 2021. https://arxiv.org/abs/2111.02360  (section 5 and its tables)
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from face_landmarks.benchmarks.annotations import AnnotatedImage, read_folder
from face_landmarks.benchmarks.matlab import CellPhoto, cell_photos, read_mat
from face_landmarks.benchmarks.metrics import Normaliser
from face_landmarks.errors import AnnotationError, InputError
from face_landmarks.geometry import boxes_from_landmarks
from face_landmarks.layouts import AFLW_19, COFW_29, IBUG_68, WFLW_98, Layout

Score = Literal["NME", "FR", "AUC"]
Masks = Mapping[str, NDArray[np.bool_]]


def face_boxes(sample: AnnotatedImage) -> NDArray[np.float32]:
    """(N, 4) the boxes faces are cut out by: those that came with the data, or made from 68 landmarks."""
    return boxes_from_landmarks(sample.landmarks) if sample.boxes is None else sample.boxes


# --- What is where ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A data set as its authors distribute it.

    Attributes:
        name: what it is called.
        site: where to get it.
        tree: what it looks like on disk, below the folder the user names.
    """

    name: str
    site: str
    tree: str


@dataclass(frozen=True)
class _Files:
    """A source below the folder the user named; every failure shows the site and the expected tree."""

    source: Source
    root: Path

    def failure(self, problem: object) -> AnnotationError:
        source = self.source
        tree = "".join(f"\n    {line}" for line in source.tree.strip("\n").splitlines())
        return AnnotationError(
            f"{source.name}: {problem}\nExpected below {self.root}, from {source.site}:{tree}"
        )

    def find(self, *places: str) -> Path:
        """The first of these places that exists; the case of names does not matter."""
        for place in places:
            if (found := _below(self.root, place.split("/"))) is not None:
                return found
        raise self.failure(f"{' or '.join(places)} is missing")

    def require(self, photos: Iterable[Path]) -> None:
        """Make sure that photos exist."""
        if missing := [photo for photo in photos if not photo.is_file()]:
            raise self.failure(f"{len(missing)} photos are missing, the first {missing[0]}")

    def pts_folder(self, folder: Path) -> list[AnnotatedImage]:
        """Photos with .pts files of 68 points."""
        with self.named():
            samples = read_folder(folder)
        for sample in samples:
            if sample.landmarks.shape[1] != len(IBUG_68):
                raise self.failure(f"{sample.image}: expected 68 points, got {sample.landmarks.shape[1]}")
        return samples

    def mat(self, path: Path, *names: str) -> list[NDArray[Any]]:
        """Variables of a MATLAB file."""
        with self.named():
            return read_mat(path, *names)

    def cells(self, path: Path, name: str) -> list[CellPhoto]:
        """The photos in a cell array."""
        with self.named():
            return cell_photos(path, name)

    def shaped(self, values: NDArray[Any], *shape: int) -> NDArray[np.float64]:
        """Numbers of this shape, or as many in another."""
        try:
            return np.asarray(values, np.float64).reshape(shape)
        except (TypeError, ValueError) as error:
            raise self.failure(f"expected numbers of shape {shape}, got {np.shape(values)}") from error

    def face(
        self, image: Path | CellPhoto, landmarks: NDArray[Any], box: NDArray[Any] | None = None
    ) -> AnnotatedImage:
        """A photo with one face: landmarks (K, 2), box (4,)."""
        with self.named(f"{image}: "):
            return AnnotatedImage(image, landmarks[np.newaxis], None if box is None else box[np.newaxis])

    @contextmanager
    def named(self, before: str = "") -> Iterator[None]:
        """Let what goes wrong inside be said with the source's site and tree."""
        try:
            yield
        except InputError as error:
            raise self.failure(f"{before}{error}") from error


def _below(root: Path, names: Sequence[str]) -> Path | None:
    for name in names:
        place = root / name
        if not place.exists():
            same = [path for path in root.glob("*") if path.name.lower() == name.lower()]
            if not same:
                return None
            place = min(same)
        root = place
    return root


IBUG_300W: Final = Source(
    "300-W",
    "https://ibug.doc.ic.ac.uk/resources/facial-point-annotations/",
    """
afw/                             337 photos, each with its .pts file
helen/trainset/  helen/testset/  2000 and 330
lfpw/trainset/   lfpw/testset/   811 and 224
ibug/                            135
""",
)

IBUG_300W_PRIVATE: Final = Source(
    "300-W, the test set of the challenge",
    "https://ibug.doc.ic.ac.uk/resources/300-W/",
    """
01_Indoor/    indoor_001.png, indoor_001.pts ... 300 of each
02_Outdoor/   outdoor_001.png, outdoor_001.pts ... 300 of each
(both may stand in a folder 300W/)
""",
)

CBSR_300W_LP: Final = Source(
    "300W-LP",
    "http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm",
    """
300W_LP/AFW/AFW_134212_1_0.jpg ...                     also HELEN/, IBUG/, LFPW/; 61225 in all
300W_LP/landmarks/AFW/AFW_134212_1_0_pts.mat ...       one for each
(the mirrored photos, AFW_Flip/ and so on, are not read: training mirrors on its own)
""",
)

AFLW: Final = Source(
    "AFLW-19",
    "http://mmlab.ie.cuhk.edu.hk/projects/compositional.html (annotations), "
    "https://www.tugraz.at/institute/icg/research/team-bischof/lrs/downloads/aflw (photos)",
    """
AFLWinfo_release.mat
data/flickr/0/image00002.jpg ...   also 2/ and 3/; the folder may be called flickr/ or images/
""",
)

COFW: Final = Source(
    "COFW",
    "https://data.caltech.edu/records/20099 (COFW_color.zip)",
    """
COFW_train_color.mat   MATLAB v7.3, 1345 faces
COFW_test_color.mat    MATLAB v7.3, 507 faces
(both may stand in a folder COFW_color/)
""",
)

COFW_68: Final = Source(
    "COFW-68",
    "https://github.com/golnazghiasi/cofw68-benchmark (annotations), "
    "https://data.caltech.edu/records/20099 (photos, COFW_color.zip)",
    """
COFW_test_color.mat                       may stand in a folder COFW_color/
test_annotations/1_points.mat ... 507_points.mat   may stand in a folder COFW68_Data/
""",
)

WFLW: Final = Source(
    "WFLW",
    "https://wywu.github.io/projects/LAB/WFLW.html",
    """
WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt   7500 faces
WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt    2500 faces
WFLW_images/0--Parade/0_Parade_marchingband_1_116.jpg ...
""",
)


# --- Readers ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """Annotated photos, and which of their faces belong to which subset.

    Attributes:
        samples: the photos; one may hold several faces.
        subsets: name -> (M,) bool over all faces, in the order of the samples; the first holds all of them.
    """

    samples: tuple[AnnotatedImage, ...]
    subsets: Masks

    def __post_init__(self) -> None:
        faces = sum(len(sample.landmarks) for sample in self.samples)
        assert all(mask.shape == (faces,) for mask in self.subsets.values())


def _300w(root: Path, *folders: str) -> list[AnnotatedImage]:
    """The photos of some folders, e.g. "helen/testset"; a part may be nested in a folder of its name."""
    files, samples = _Files(IBUG_300W, root), []
    for folder in folders:
        samples += files.pts_folder(files.find(f"{folder.split('/')[0]}/{folder}", folder))
    return samples


def _read_300w_train(root: Path) -> list[AnnotatedImage]:
    return _300w(root, "afw", "helen/trainset", "lfpw/trainset")


def _read_300w_public(root: Path) -> list[AnnotatedImage]:
    """Everything public, for the second split, whose test set is the private one."""
    return _read_300w_train(root) + _300w(root, "helen/testset", "lfpw/testset", "ibug")


def _read_300w_test(root: Path) -> LabelledSet:
    common, challenge = _300w(root, "helen/testset", "lfpw/testset"), _300w(root, "ibug")
    sizes = [sum(len(sample.landmarks) for sample in part) for part in (common, challenge)]
    hard = np.repeat([False, True], sizes)
    masks = {"Full": np.full_like(hard, True), "Common": ~hard, "Challenge": hard}
    return LabelledSet((*common, *challenge), masks)


def _read_300w_private(root: Path) -> LabelledSet:
    files, samples = _Files(IBUG_300W_PRIVATE, root), []
    for name in ("01_Indoor", "02_Outdoor"):
        samples += files.pts_folder(files.find(name, f"300W/{name}"))
    return _whole(samples)


def _read_300w_lp(root: Path) -> list[AnnotatedImage]:
    files, samples = _Files(CBSR_300W_LP, root), []
    for name in ("AFW", "HELEN", "IBUG", "LFPW"):
        labels = files.find(f"300W_LP/landmarks/{name}", f"landmarks/{name}")
        folder = labels.parents[1] / name
        photos = sorted(folder.glob("*.jpg"))
        if not photos:
            raise files.failure(f"no photos in {folder}")
        for photo in photos:
            (points,) = files.mat(labels / f"{photo.stem}_pts.mat", "pts_2d")
            samples.append(files.face(photo, files.shaped(points, 68, 2) - 1))
    return samples


def _read_aflw(root: Path, *, train: bool) -> tuple[list[AnnotatedImage], NDArray[np.bool_]]:
    """One half of the split, and which of its faces show all their landmarks."""
    files = _Files(AFLW, root)
    path = files.find("AFLWinfo_release.mat")
    names, data, sides, mask, order = files.mat(path, "nameList", "data", "bbox", "mask_new", "ra")
    count = len(data)
    landmarks = files.shaped(data, count, 2, 19).transpose(0, 2, 1)  # x x ... y y ... -> (M, 19, 2)
    boxes = files.shaped(sides, count, 4)[:, [0, 2, 1, 3]]  # left right top bottom -> x0 y0 x1 y1
    visible = np.all(files.shaped(mask, count, 19) != 0, axis=1)
    order = files.shaped(order, count).astype(int) - 1  # the split's shuffle, in MATLAB's indices
    if sorted(order) != list(range(count)):
        raise files.failure(f"{path}: expected ra to be a permutation of 1 to {count}")
    first = count * 20000 // 24386  # 20000 of the whole
    chosen = order[:first] if train else order[first:]
    folder = files.find("data/flickr", "flickr", "images", "aflw/data/flickr")
    photos = [folder / str(np.ravel(names)[index].item()) for index in chosen]
    files.require(photos)
    samples = [
        files.face(photo, landmarks[index], boxes[index]) for photo, index in zip(photos, chosen, strict=True)
    ]
    return samples, visible[chosen]


def _read_aflw_train(root: Path) -> list[AnnotatedImage]:
    return _read_aflw(root, train=True)[0]


def _read_aflw_test(root: Path) -> LabelledSet:
    samples, frontal = _read_aflw(root, train=False)
    return LabelledSet(tuple(samples), {"Full": np.full_like(frontal, True), "Frontal": frontal})


def _read_cofw(root: Path, split: str, suffix: str) -> list[AnnotatedImage]:
    files = _Files(COFW, root)
    path = files.find(f"COFW_{split}_color.mat", f"COFW_color/COFW_{split}_color.mat")
    photos = files.cells(path, f"Is{suffix}")
    phis, bboxes = files.mat(path, f"phis{suffix}", f"bboxes{suffix}")
    columns = files.shaped(phis, len(photos), 3, 29)  # x x ... y y ... hidden ...
    landmarks = columns[:, :2].transpose(0, 2, 1) - 1  # (M, 29, 2)
    rectangles = files.shaped(bboxes, len(photos), 2, 2)  # x y, width height
    corners = np.stack([rectangles[:, 0], rectangles.sum(axis=1)], axis=1) - 1  # (M, 2, 2)
    boxes = boxes_from_landmarks(corners)  # brows to chin, as tight as landmarks -> forehead to chin
    return [files.face(*face) for face in zip(photos, landmarks, boxes, strict=True)]


def _read_cofw_train(root: Path) -> list[AnnotatedImage]:
    return _read_cofw(root, "train", "Tr")


def _read_cofw_test(root: Path) -> LabelledSet:
    return _whole(_read_cofw(root, "test", "T"))


def _read_cofw68(root: Path) -> LabelledSet:
    files, samples = _Files(COFW_68, root), []
    path = files.find("COFW_test_color.mat", "COFW_color/COFW_test_color.mat")
    folder = files.find("test_annotations", "COFW68_Data/test_annotations")
    for number, photo in enumerate(files.cells(path, "IsT"), 1):
        (points,) = files.mat(folder / f"{number}_points.mat", "Points")
        samples.append(files.face(photo, files.shaped(points, 68, 2) - 1))
    return _whole(samples)


WFLW_SUBSETS: Final = ("Large pose", "Expression", "Illumination", "Make-up", "Occlusion", "Blur")


def _read_wflw(root: Path, split: str) -> tuple[list[AnnotatedImage], NDArray[np.bool_]]:
    """One half of the split, and (M, 6) which of its faces have which attribute."""
    files = _Files(WFLW, root)
    path = files.find(f"WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{split}.txt")
    folder = files.find("WFLW_images")
    rows, photos = [], []
    for number, line in enumerate(_lines(files, path), 1):
        try:
            *words, name = line.split(maxsplit=206)
            rows.append(np.array(words, np.float64).reshape(206))
        except ValueError as error:
            raise files.failure(f"{path}:{number}: expected 206 numbers and a photo, got {error}") from error
        photos.append(folder / name.strip())
    files.require(photos)
    samples = [
        files.face(photo, row[:196].reshape(98, 2), row[196:200])
        for photo, row in zip(photos, rows, strict=True)
    ]
    return samples, np.array(rows)[:, 200:] == 1


def _lines(files: _Files, path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise files.failure(f"{path}: expected a list of faces, got {error}") from error
    if not lines:
        raise files.failure(f"{path}: expected a list of faces, got an empty file")
    return lines


def _read_wflw_train(root: Path) -> list[AnnotatedImage]:
    return _read_wflw(root, "train")[0]


def _read_wflw_test(root: Path) -> LabelledSet:
    samples, attributes = _read_wflw(root, "test")
    subsets = {name: attributes[:, index] for index, name in enumerate(WFLW_SUBSETS)}
    return LabelledSet(tuple(samples), {"Full": np.full(len(samples), True), **subsets})


def _whole(samples: Sequence[AnnotatedImage]) -> LabelledSet:
    return LabelledSet(tuple(samples), {"Full": np.full(sum(len(s.landmarks) for s in samples), True)})


# --- Protocols --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A number in the paper's table, or one of ours beside it.

    Attributes:
        subset: of the test faces.
        score: "NME", mean over the faces; "FR", failure rate; "AUC", area under the cumulative errors.
        normaliser: of the errors.
        threshold: of FR and AUC, in percent.
        published: the paper's value in percent; None if it gives none.
    """

    subset: str
    score: Score
    normaliser: Normaliser
    threshold: float | None = None
    published: float | None = None

    def __str__(self) -> str:
        at = "" if self.threshold is None else f"@{self.threshold:g}"
        return f"{self.score}{at} {self.normaliser}"


@dataclass(frozen=True)
class Benchmark:
    """A test set and how it is scored.

    Attributes:
        name: as the command has it.
        title: as the paper has it.
        layout: of its landmarks.
        reader: reads the test set below a folder.
        columns: the scores, with the paper's values; the normaliser of the first goes into plots.
        faces: subset -> how many faces the protocol has; subsets whose size the sources dispute are left out.
        given_boxes: box and diagonal are measured on the boxes that came with the data, not on tight ones.
    """

    name: str
    title: str
    layout: Layout
    reader: Callable[[Path], LabelledSet]
    columns: tuple[Column, ...]
    faces: Mapping[str, int]
    given_boxes: bool = False

    def read(self, root: str | os.PathLike[str]) -> LabelledSet:
        """The test set of the official files below a folder.

        Raises:
            AnnotationError: files are missing or damaged; the message shows the site and the expected tree.
            MissingDependencyError: SciPy or h5py is needed and not installed.
        """
        return self.reader(Path(root))


def _wflw_columns() -> tuple[Column, ...]:
    published = {"NME": 3.72, "FR": 1.55, "AUC": 63.1}
    scores: tuple[tuple[Score, float | None], ...] = (("NME", None), ("FR", 10), ("AUC", 10))
    return tuple(
        Column(subset, score, "inter-ocular", threshold, published[score] if subset == "Full" else None)
        for subset in ("Full", *WFLW_SUBSETS)
        for score, threshold in scores
    )


BENCHMARKS: Final[Mapping[str, Benchmark]] = MappingProxyType(
    {
        benchmark.name: benchmark
        for benchmark in (
            Benchmark(
                "300w",
                "300-W",
                IBUG_68,
                _read_300w_test,
                (
                    Column("Full", "NME", "inter-ocular", published=2.94),
                    Column("Common", "NME", "inter-ocular", published=2.61),
                    Column("Challenge", "NME", "inter-ocular", published=4.13),
                ),
                {"Full": 689, "Common": 554, "Challenge": 135},
            ),
            Benchmark(
                "300w-split2",
                "300-W split 2",
                IBUG_68,
                _read_300w_private,
                (
                    Column("Full", "NME", "box", published=2.04),
                    Column("Full", "AUC", "box", 7, published=71.1),
                    Column("Full", "NME", "inter-ocular", published=2.94),
                ),
                {"Full": 600},
            ),
            Benchmark(
                "aflw19",
                "AFLW-19",
                AFLW_19,
                _read_aflw_test,
                (
                    Column("Full", "NME", "diagonal", published=1.31),
                    Column("Frontal", "NME", "diagonal", published=1.12),
                    Column("Full", "NME", "box", published=2.14),
                    Column("Full", "AUC", "box", 7, published=70.0),
                ),
                {"Full": 4386},
                given_boxes=True,
            ),
            Benchmark(
                "cofw",
                "COFW",
                COFW_29,
                _read_cofw_test,
                (Column("Full", "NME", "inter-ocular", published=3.02),),
                {"Full": 507},
            ),
            Benchmark(
                "cofw68",
                "COFW-68",
                IBUG_68,
                _read_cofw68,
                (
                    Column("Full", "NME", "box", published=2.47),
                    Column("Full", "AUC", "box", 7, published=64.9),
                ),
                {"Full": 507},
            ),
            Benchmark(
                "wflw",
                "WFLW",
                WFLW_98,
                _read_wflw_test,
                _wflw_columns(),
                dict(zip(("Full", *WFLW_SUBSETS), (2500, 326, 314, 698, 206, 736, 773), strict=True)),
            ),
        )
    }
)


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        InputError: there is none.
    """
    if name not in BENCHMARKS:
        raise InputError(f"benchmark: expected one of {', '.join(BENCHMARKS)}, got {name!r}")
    return BENCHMARKS[name]


@dataclass(frozen=True)
class TrainingSet:
    """The faces a protocol trains on.

    Attributes:
        name: in a model's card.
        layout: of its landmarks.
        reader: reads them below a folder.
        faces: how many the protocol has.
        normaliser: of the error by which a checkpoint is chosen; on data with profile faces, whose eye
            corners all but meet, the tight box.
    """

    name: str
    layout: Layout
    reader: Callable[[Path], list[AnnotatedImage]]
    faces: int
    normaliser: Normaliser

    def read(self, root: str | os.PathLike[str]) -> list[AnnotatedImage]:
        """The training set of the official files below a folder; raises what `Benchmark.read` does."""
        return self.reader(Path(root))


_LP: Final = TrainingSet("300W-LP", IBUG_68, _read_300w_lp, 61225, "box")

TRAINING_SETS: Final[Mapping[str, TrainingSet]] = MappingProxyType(
    {
        "300w": TrainingSet("300-W, training part", IBUG_68, _read_300w_train, 3148, "inter-ocular"),
        "300w-lp": _LP,
        "300w-split2": TrainingSet("300-W, public", IBUG_68, _read_300w_public, 3837, "inter-ocular"),
        "aflw19": TrainingSet("AFLW-19, training part", AFLW_19, _read_aflw_train, 20000, "box"),
        "cofw": TrainingSet("COFW, training part", COFW_29, _read_cofw_train, 1345, "inter-ocular"),
        "cofw68": _LP,
        "wflw": TrainingSet("WFLW, training part", WFLW_98, _read_wflw_train, 7500, "inter-ocular"),
    }
)


def hold_out(
    samples: Sequence[AnnotatedImage], every: int
) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Set every n-th photo aside, to choose a checkpoint by; with 0, all are in both parts.

    Faces of one photo stay together, and so do the poses that 300W-LP made of one photo, which differ in
    the last number of their names.

    Returns:
        (for training, set aside).

    Raises:
        InputError: too few photos to set any aside.
    """
    if every == 0:
        return list(samples), list(samples)
    photos: dict[str, int] = {}
    places = [photos.setdefault(_photo(sample), len(photos)) for sample in samples]
    aside = [place % every == every - 1 for place in places]
    if not any(aside) or all(aside):
        raise InputError(f"expected at least {every} photos to set every {every}th aside, got {len(photos)}")
    return (
        [sample for sample, out in zip(samples, aside, strict=True) if not out],
        [sample for sample, out in zip(samples, aside, strict=True) if out],
    )


def _photo(sample: AnnotatedImage) -> str:
    """What several samples of one photo have in common."""
    image = sample.image
    if isinstance(image, Path) and re.match(r"(AFW|HELEN|IBUG|LFPW)_.+_\d+$", image.stem):
        return image.stem.rpartition("_")[0]
    return str(image)
