"""The paper's six benchmarks: what each one trains on, is tested on, and how it is scored.

    test = BENCHMARKS["wflw"].read("data/wflw")
    test.subsets["Large pose"]  # (2500,) which faces are in it

Reference:
    Bulat, Sanchez, Tzimiropoulos. Subpixel Heatmap Regression for Facial Landmark Localization.
    BMVC 2021. https://arxiv.org/abs/2111.02360  (section 5 and its tables)
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from face_landmarks._system.arguments import shown
from face_landmarks.benchmarks.annotations import AnnotatedImage
from face_landmarks.benchmarks.metrics import Normaliser
from face_landmarks.benchmarks.readers import (
    WFLW_SUBSETS,
    LabelledSet,
    read_300w_lp,
    read_300w_private,
    read_300w_public,
    read_300w_test,
    read_300w_train,
    read_aflw_test,
    read_aflw_train,
    read_cofw68,
    read_cofw_test,
    read_cofw_train,
    read_wflw_test,
    read_wflw_train,
)
from face_landmarks.errors import InputError
from face_landmarks.layouts import AFLW_19, COFW_29, IBUG_68, WFLW_98, Layout

Score = Literal["NME", "FR", "AUC"]


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
        given_boxes: the normalisers box and diagonal are measured on the boxes of the data, not tight ones.
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
                read_300w_test,
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
                read_300w_private,
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
                read_aflw_test,
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
                read_cofw_test,
                (Column("Full", "NME", "inter-ocular", published=3.02),),
                {"Full": 507},
            ),
            Benchmark(
                "cofw68",
                "COFW-68",
                IBUG_68,
                read_cofw68,
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
                read_wflw_test,
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
    if not isinstance(name, str) or name not in BENCHMARKS:
        raise InputError(f"benchmark: expected one of {', '.join(BENCHMARKS)}, got {shown(name)}")
    return BENCHMARKS[name]


@dataclass(frozen=True)
class TrainingSet:
    """The faces a protocol trains on.

    Attributes:
        name: in a model's card.
        layout: of its landmarks.
        reader: reads them below a folder.
        faces: how many the protocol has.
        normaliser: of the error by which a checkpoint is chosen; the tight box for data with profile faces,
            whose eye corners are very close to each other.
    """

    name: str
    layout: Layout
    reader: Callable[[Path], list[AnnotatedImage]]
    faces: int
    normaliser: Normaliser

    def read(self, root: str | os.PathLike[str]) -> list[AnnotatedImage]:
        """The training set of the official files below a folder; raises what `Benchmark.read` does."""
        return self.reader(Path(root))


_LP: Final = TrainingSet("300W-LP", IBUG_68, read_300w_lp, 61225, "box")
TRAINING_SETS: Final[Mapping[str, TrainingSet]] = MappingProxyType(
    {
        "300w": TrainingSet("300-W, training part", IBUG_68, read_300w_train, 3148, "inter-ocular"),
        "300w-lp": _LP,
        "300w-split2": TrainingSet("300-W, public", IBUG_68, read_300w_public, 3837, "inter-ocular"),
        "aflw19": TrainingSet("AFLW-19, training part", AFLW_19, read_aflw_train, 20000, "box"),
        "cofw": TrainingSet("COFW, training part", COFW_29, read_cofw_train, 1345, "inter-ocular"),
        "cofw68": _LP,
        "wflw": TrainingSet("WFLW, training part", WFLW_98, read_wflw_train, 7500, "inter-ocular"),
    }
)


def hold_out(
    samples: Sequence[AnnotatedImage], every: int
) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Set every n-th photo aside, to choose a checkpoint by; with 0, all are in both parts.

    Faces of one photo stay together, also where each is a file of its own, as in AFW, and where 300W-LP
    rendered them in several poses.

    Returns:
        (for training, set aside).

    Raises:
        InputError: too few photos to set any aside, or none would be left to train on.
    """
    if every == 0:
        return list(samples), list(samples)
    if every < 2:
        raise InputError(f"hold_out: expected 0, or every 2nd photo or a later one, got {every}")
    photos: dict[str, int] = {}
    places = [photos.setdefault(_photo(sample), len(photos)) for sample in samples]
    aside = [place % every == every - 1 for place in places]
    if not any(aside) or all(aside):
        raise InputError(f"expected at least {every} photos to set every {every}th aside, got {len(photos)}")
    return (
        [sample for sample, out in zip(samples, aside, strict=True) if not out],
        [sample for sample, out in zip(samples, aside, strict=True) if out],
    )


# 300W-LP names a rendering after its set, the name of the face in 300-W, and the pose: AFW_134212_1_0,
# HELEN_100032540_1_0, IBUG_image_003_1_0, LFPW_image_train_0001_0. Most names in 300-W end in the face's
# number in the photo: 134212_1, image_003_1.
_RENDERING = re.compile(r"(AFW|HELEN|IBUG|LFPW)_(?P<face>.+)_\d+")
_FACE = re.compile(r"(?P<photo>(image_)?\d+)_\d+")


def _photo(sample: AnnotatedImage) -> str:
    """What all samples of one photo have in common."""
    image = sample.image
    if not isinstance(image, Path):
        return str(image)
    rendering = _RENDERING.fullmatch(image.stem)
    name = rendering["face"] if rendering else image.stem
    numbered = _FACE.fullmatch(name)
    photo = numbered["photo"] if numbered else name
    return str(image.with_name(photo)) if rendering or numbered else str(image)
