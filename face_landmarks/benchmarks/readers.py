"""The official files of the paper's six benchmarks, as they are distributed.

Photos are not decoded before they are needed, and those inside a larger file one at a time.

Convention:
    In memory, pixels count from zero. What the files count from, and how we know:

        300-W      one   .pts files; their authors say so
        300W-LP    zero  measured against the hand-drawn points of AFW's 337 faces; besides, `pts_2d` lies
                         1.5 px too far right in the 450 px photos, which is taken back here
        COFW       one   its authors' MATLAB code uses the coordinates as array indices
        COFW-68    one   its authors' MATLAB code plots them over `imshow`
        AFLW-19    zero  assumed: the sources leave it open
        WFLW       zero  assumed: the sources leave it open

    A wrong assumption moves training and test labels by the same, so it does not change a score on the same
    data; it shows as a disagreement of half a pixel between a face and its mirror image.

    Every face has a face box, forehead to chin, by which it is cropped in training and in evaluation
    (`face_boxes`). With 68 landmarks it is made from them; WFLW and AFLW-19 come with such boxes;
    COFW's boxes reach from brows to chin and are raised to the forehead in the proportion of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from face_landmarks.benchmarks.annotations import AnnotatedImage, read_folder
from face_landmarks.benchmarks.matlab import CellPhoto, cell_photos, read_mat
from face_landmarks.errors import AnnotationError, InputError
from face_landmarks.geometry import boxes_from_landmarks
from face_landmarks.layouts import IBUG_68

Masks = Mapping[str, NDArray[np.bool_]]

_LP_RIGHT = 1.5  # pixels that the landmarks of 300W-LP lie too far right


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
    """A source below the folder the user named; every error shows its site and the expected tree."""

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
        """Raise unless all photos exist."""
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
        """Raise what is raised inside as an error that shows the source's site and tree."""
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


def read_300w_train(root: Path) -> list[AnnotatedImage]:
    """The training part of 300-W."""
    return _300w(root, "afw", "helen/trainset", "lfpw/trainset")


def read_300w_public(root: Path) -> list[AnnotatedImage]:
    """Everything public, for the second split, whose test set is the private one."""
    return read_300w_train(root) + _300w(root, "helen/testset", "lfpw/testset", "ibug")


def read_300w_test(root: Path) -> LabelledSet:
    """The public test set of 300-W: common and challenging photos."""
    common, challenge = _300w(root, "helen/testset", "lfpw/testset"), _300w(root, "ibug")
    sizes = [sum(len(sample.landmarks) for sample in part) for part in (common, challenge)]
    hard = np.repeat([False, True], sizes)
    masks = {"Full": np.full_like(hard, True), "Common": ~hard, "Challenge": hard}
    return LabelledSet((*common, *challenge), masks)


def read_300w_private(root: Path) -> LabelledSet:
    """The private test set of 300-W: photos taken indoors and outdoors."""
    files, samples = _Files(IBUG_300W_PRIVATE, root), []
    for name in ("01_Indoor", "02_Outdoor"):
        samples += files.pts_folder(files.find(name, f"300W/{name}"))
    return _whole(samples)


def read_300w_lp(root: Path) -> list[AnnotatedImage]:
    """300W-LP: photos of 300-W, rendered in large poses."""
    files, samples = _Files(CBSR_300W_LP, root), []
    for name in ("AFW", "HELEN", "IBUG", "LFPW"):
        labels = files.find(f"300W_LP/landmarks/{name}", f"landmarks/{name}")
        folder = labels.parents[1] / name
        photos = sorted(folder.glob("*.jpg"))
        if not photos:
            raise files.failure(f"no photos in {folder}")
        for photo in photos:
            (points,) = files.mat(labels / f"{photo.stem}_pts.mat", "pts_2d")
            samples.append(files.face(photo, files.shaped(points, 68, 2) - (_LP_RIGHT, 0)))
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
    names = np.ravel(names)
    if len(names) != count:
        raise files.failure(f"{path}: expected the names of {count} photos, got {len(names)}")
    photos = [folder / str(names[index].item()) for index in chosen]
    files.require(photos)
    samples = [
        files.face(photo, landmarks[index], boxes[index]) for photo, index in zip(photos, chosen, strict=True)
    ]
    return samples, visible[chosen]


def read_aflw_train(root: Path) -> list[AnnotatedImage]:
    """The training part of AFLW-19."""
    return _read_aflw(root, train=True)[0]


def read_aflw_test(root: Path) -> LabelledSet:
    """The test part of AFLW-19; a frontal face shows all its landmarks."""
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


def read_cofw_train(root: Path) -> list[AnnotatedImage]:
    """The training part of COFW."""
    return _read_cofw(root, "train", "Tr")


def read_cofw_test(root: Path) -> LabelledSet:
    """The test part of COFW."""
    return _whole(_read_cofw(root, "test", "T"))


def read_cofw68(root: Path) -> LabelledSet:
    """The test part of COFW, with 68 landmarks."""
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


def read_wflw_train(root: Path) -> list[AnnotatedImage]:
    """The training part of WFLW."""
    return _read_wflw(root, "train")[0]


def read_wflw_test(root: Path) -> LabelledSet:
    """The test part of WFLW, with a subset for each of its six attributes."""
    samples, attributes = _read_wflw(root, "test")
    subsets = {name: attributes[:, index] for index, name in enumerate(WFLW_SUBSETS)}
    return LabelledSet(tuple(samples), {"Full": np.full(len(samples), True), **subsets})


def _whole(samples: Sequence[AnnotatedImage]) -> LabelledSet:
    return LabelledSet(tuple(samples), {"Full": np.full(sum(len(s.landmarks) for s in samples), True)})
