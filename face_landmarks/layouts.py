"""Landmark layouts: what each index is, and which indices belong together."""

from __future__ import annotations

import difflib
import itertools
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_landmarks._system.arguments import kind_of
from face_landmarks._system.frozen import FrozenMapping
from face_landmarks.errors import InputError

Edge = tuple[int, int]


@dataclass(frozen=True, repr=False)
class Layout:
    """One annotation scheme; indices are zero-based.

    Convention:
        Left and right are the subject's, as in the 300-W papers: the subject's right eye is on the
        left of the picture.

    Attributes:
        name: short name, as stored in model cards and result files.
        names: (K,) one name per landmark, such as "right_eye_outer".
        groups: facial part -> its indices, in drawing order; each landmark is in one group.
        closed: the groups whose last landmark is joined to their first.
        mirror: (K,) index of each landmark's mirror image; its own index on the midline.
        eye_corners: outer corners of the two eyes, (subject's right, subject's left).
        eyes: the landmarks whose mean is the centre of each eye, (right, left).
        nose_tip: the landmark on, or nearest to, the tip of the nose.
        mouth_corners: (right, left).
        chin: the lowest point of the face.
    """

    name: str
    names: tuple[str, ...]
    groups: FrozenMapping[str, tuple[int, ...]]
    closed: frozenset[str]
    mirror: tuple[int, ...]
    eye_corners: tuple[int, int]
    eyes: tuple[tuple[int, ...], tuple[int, ...]]
    nose_tip: int
    mouth_corners: tuple[int, int]
    chin: int

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_jaw(self) -> bool:
        """Whether the contour of the jaw is annotated; `geometry.boxes_from_landmarks` needs it."""
        return "jaw" in self.groups

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Pairs of landmarks joined by a line when drawn."""
        edges: list[Edge] = []
        for name, indices in self.groups.items():
            edges += itertools.pairwise(indices)
            if name in self.closed:
                edges.append((indices[-1], indices[0]))
        return tuple(edges)

    @cached_property
    def regions(self) -> MappingProxyType[str, tuple[int, ...]]:
        """The eyes, eyebrows, nose and mouth, each of which may have several groups -> its indices."""
        regions = {
            region: tuple(
                index
                for name, indices in self.groups.items()
                if name.removeprefix("right_").removeprefix("left_") in parts
                for index in indices
            )
            for region, parts in _REGIONS.items()
        }
        return MappingProxyType({region: indices for region, indices in regions.items() if indices})

    def group(self, name: str) -> tuple[int, ...]:
        """The indices of a facial part of `groups` or, if there is none of this name, of `regions`.

        Raises:
            InputError: neither has this name.
        """
        known = {**self.regions, **self.groups}
        if not isinstance(name, str) or name not in known:
            names = dict.fromkeys((*self.groups, *self.regions))
            raise InputError(f"group: expected one of {', '.join(names)}, got {name!r}")
        return known[name]

    def index(self, name: str) -> int:
        """The index of the landmark of this name.

        Raises:
            InputError: no landmark has this name.
        """
        if isinstance(name, str) and name in self.names:
            return self.names.index(name)
        near = difflib.get_close_matches(name, self.names) if isinstance(name, str) else []
        raise InputError(
            f"point: expected a name of layout {self.name}, such as {', '.join(near or self.names[:3])}, "
            f"got {name!r}"
        )

    @cached_property
    def flip_pairs(self) -> tuple[Edge, ...]:
        """Pairs of landmarks that a mirror exchanges, the smaller index first."""
        return tuple((i, j) for i, j in enumerate(self.mirror) if i < j)

    def __repr__(self) -> str:
        return f"<Layout {self.name!r}: {len(self)} landmarks>"

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return get_layout, (self.name,)


def get_layout(name: str) -> Layout:
    """The layout of this name.

    Raises:
        InputError: no layout has this name.
    """
    try:
        return LAYOUTS[name]
    except (KeyError, TypeError):
        raise InputError(f"layout: expected one of {', '.join(LAYOUTS)}, got {name!r}") from None


def _span(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


def _mirror(length: int, pairs: str) -> tuple[int, ...]:
    mirror = list(range(length))
    for pair in pairs.split():
        left, right = map(int, pair.split("-"))
        mirror[left], mirror[right] = right, left
    return tuple(mirror)


def _names(
    groups: dict[str, tuple[int, ...]], mirror: tuple[int, ...], words: dict[str, str]
) -> tuple[str, ...]:
    """A name per landmark: `words` has those of each group in order, "-" or nothing for the left side's."""
    names: dict[int, str] = {}
    for group, text in words.items():
        names |= {
            index: name for index, name in zip(groups[group], text.split(), strict=False) if name != "-"
        }
    return tuple(names.get(i) or names[mirror[i]].replace("right", "left") for i in range(len(mirror)))


_REGIONS: Final = {
    "eyes": ("eye", "pupil"),
    "eyebrows": ("eyebrow",),
    "nose": ("nose", "nose_bridge", "nose_base"),
    "mouth": ("lips", "outer_lips", "inner_lips"),
}
_NOSE_BRIDGE: Final = "nose_root nose_bridge_upper nose_bridge_lower nose_tip"
_NOSE_BASE: Final = "nose_right nostril_right nose_base"
_OUTER_LIPS: Final = (
    "mouth_right upper_lip_right upper_lip_middle_right upper_lip_middle - - - "
    "- - lower_lip_middle lower_lip_middle_right lower_lip_right"
)
_INNER_LIPS: Final = (
    "mouth_inner_right upper_lip_inner_right upper_lip_inner_middle - - - "
    "lower_lip_inner_middle lower_lip_inner_right"
)


def _prefixed(prefix: str, words: str) -> str:
    return " ".join(prefix + word for word in words.split())


_IBUG_68 = {
    "jaw": _span(0, 16),
    "right_eyebrow": _span(17, 21),
    "left_eyebrow": _span(22, 26),
    "nose_bridge": _span(27, 30),
    "nose_base": _span(31, 35),
    "right_eye": _span(36, 41),
    "left_eye": _span(42, 47),
    "outer_lips": _span(48, 59),
    "inner_lips": _span(60, 67),
}

_IBUG_68_MIRROR: Final = _mirror(
    68,
    "0-16 1-15 2-14 3-13 4-12 5-11 6-10 7-9 17-26 18-25 19-24 20-23 21-22 31-35 32-34 "
    "36-45 37-44 38-43 39-42 40-47 41-46 48-54 49-53 50-52 55-59 56-58 60-64 61-63 65-67",
)
_IBUG_68_NAMES: Final = {
    "jaw": " ".join(f"jaw_right_{n}" for n in range(1, 9)) + " chin",  # from the ear down
    "right_eyebrow": _prefixed("right_eyebrow_", "outer outer_middle middle inner_middle inner"),
    "nose_bridge": _NOSE_BRIDGE,
    "nose_base": _NOSE_BASE,
    "right_eye": _prefixed("right_eye_", "outer upper_outer upper_inner inner lower_inner lower_outer"),
    "outer_lips": _OUTER_LIPS,
    "inner_lips": _INNER_LIPS,
}

IBUG_68: Final = Layout(
    name="ibug-68",
    names=_names(_IBUG_68, _IBUG_68_MIRROR, _IBUG_68_NAMES),
    groups=FrozenMapping(_IBUG_68),
    closed=frozenset({"right_eye", "left_eye", "outer_lips", "inner_lips"}),
    mirror=_IBUG_68_MIRROR,
    eye_corners=(36, 45),
    eyes=(_span(36, 41), _span(42, 47)),
    nose_tip=30,
    mouth_corners=(48, 54),
    chin=8,
)

# Wu et al. Look at Boundary. CVPR 2018. Eyebrows are outlines: the upper edge, then the lower edge backwards.
_WFLW_98 = {
    "jaw": _span(0, 32),
    "right_eyebrow": _span(33, 41),
    "left_eyebrow": _span(42, 50),
    "nose_bridge": _span(51, 54),
    "nose_base": _span(55, 59),
    "right_eye": _span(60, 67),
    "left_eye": _span(68, 75),
    "outer_lips": _span(76, 87),
    "inner_lips": _span(88, 95),
    "right_pupil": (96,),
    "left_pupil": (97,),
}

_WFLW_98_MIRROR: Final = _mirror(
    98,
    "0-32 1-31 2-30 3-29 4-28 5-27 6-26 7-25 8-24 9-23 10-22 11-21 12-20 13-19 14-18 15-17 "
    "33-46 34-45 35-44 36-43 37-42 38-50 39-49 40-48 41-47 55-59 56-58 "
    "60-72 61-71 62-70 63-69 64-68 65-75 66-74 67-73 "
    "76-82 77-81 78-80 83-87 84-86 88-92 89-91 93-95 96-97",
)
_WFLW_98_NAMES: Final = {
    "jaw": " ".join(f"jaw_right_{n}" for n in range(1, 17)) + " chin",
    "right_eyebrow": _prefixed(
        "right_eyebrow_",
        "outer upper_outer upper_middle upper_inner inner_upper "
        "inner_lower lower_inner lower_middle lower_outer",
    ),
    "nose_bridge": _NOSE_BRIDGE,
    "nose_base": _NOSE_BASE,
    "right_eye": _prefixed(
        "right_eye_",
        "outer upper_outer upper_middle upper_inner inner lower_inner lower_middle lower_outer",
    ),
    "outer_lips": _OUTER_LIPS,
    "inner_lips": _INNER_LIPS,
    "right_pupil": "right_pupil",
}

WFLW_98: Final = Layout(
    name="wflw-98",
    names=_names(_WFLW_98, _WFLW_98_MIRROR, _WFLW_98_NAMES),
    groups=FrozenMapping(_WFLW_98),
    closed=frozenset({"right_eyebrow", "left_eyebrow", "right_eye", "left_eye", "outer_lips", "inner_lips"}),
    mirror=_WFLW_98_MIRROR,
    eye_corners=(60, 72),
    eyes=(_span(60, 67), _span(68, 75)),
    nose_tip=54,
    mouth_corners=(76, 82),
    chin=16,
)

# Burgos-Artizzu et al. Robust Face Landmark Estimation under Occlusion. ICCV 2013. The order is LFPW's: right
# and left alternate.
_COFW_29 = {
    "right_eyebrow": (0, 4, 2, 5),
    "left_eyebrow": (3, 6, 1, 7),
    "right_eye": (8, 12, 10, 13),
    "left_eye": (11, 14, 9, 15),
    "right_pupil": (16,),
    "left_pupil": (17,),
    "nose": (18, 20, 19, 21),
    "outer_lips": (22, 24, 23, 27),
    "inner_lips": (25, 26),
    "chin": (28,),
}

_COFW_29_MIRROR: Final = _mirror(29, "0-1 2-3 4-6 5-7 8-9 10-11 12-14 13-15 16-17 18-19 22-23")
_COFW_29_NAMES: Final = {
    "right_eyebrow": _prefixed("right_eyebrow_", "outer upper inner lower"),
    "right_eye": _prefixed("right_eye_", "outer upper inner lower"),
    "right_pupil": "right_pupil",
    "nose": "nose_right nose_tip - nose_base",
    "outer_lips": "mouth_right upper_lip_middle - lower_lip_middle",
    "inner_lips": "upper_lip_inner_middle lower_lip_inner_middle",
    "chin": "chin",
}

COFW_29: Final = Layout(
    name="cofw-29",
    names=_names(_COFW_29, _COFW_29_MIRROR, _COFW_29_NAMES),
    groups=FrozenMapping(_COFW_29),
    closed=frozenset({"right_eyebrow", "left_eyebrow", "right_eye", "left_eye", "nose", "outer_lips"}),
    mirror=_COFW_29_MIRROR,
    eye_corners=(8, 9),
    eyes=((16,), (17,)),
    nose_tip=20,
    mouth_corners=(22, 23),
    chin=28,
)

# Zhu et al. Unconstrained Face Alignment via Cascaded Compositional Learning. CVPR 2016: AFLW without the
# ears, with hidden landmarks added.
_AFLW_19 = {
    "right_eyebrow": _span(0, 2),
    "left_eyebrow": _span(3, 5),
    "right_eye": _span(6, 8),
    "left_eye": _span(9, 11),
    "nose": _span(12, 14),
    "lips": _span(15, 17),
    "chin": (18,),
}

_AFLW_19_MIRROR: Final = _mirror(19, "0-5 1-4 2-3 6-11 7-10 8-9 12-14 15-17")
_AFLW_19_NAMES: Final = {
    "right_eyebrow": _prefixed("right_eyebrow_", "outer middle inner"),
    "right_eye": _prefixed("right_eye_", "outer middle inner"),
    "nose": "nose_right nose_tip -",
    "lips": "mouth_right mouth_middle -",
    "chin": "chin",
}

AFLW_19: Final = Layout(
    name="aflw-19",
    names=_names(_AFLW_19, _AFLW_19_MIRROR, _AFLW_19_NAMES),
    groups=FrozenMapping(_AFLW_19),
    closed=frozenset(),
    mirror=_AFLW_19_MIRROR,
    eye_corners=(6, 11),
    eyes=((7,), (10,)),
    nose_tip=13,
    mouth_corners=(15, 17),
    chin=18,
)

LAYOUTS: Final = MappingProxyType({layout.name: layout for layout in (IBUG_68, WFLW_98, COFW_29, AFLW_19)})

# For each of the 68 landmarks, the closest of the 98 in meaning:
#
#     68       98                              of the 98, unused
#     0-16     0, 2 .. 32                      every other point of the jaw
#     17-21    33-37    22-26    42-46         the lower edge of the brows
#     27-35    51-59
#     36-41    60 61 63 64 65 67               the middle of each lid
#     42-47    68 69 71 72 73 75
#     48-59    76-87    60-67    88-95
#     -        96 97                           the pupils
#
# The table is that of WFLW's authors (https://github.com/wywu/LAB/issues/17). iBUG's eyebrows run between the
# two edges, and its eyelids are divided in three, not in four, so these points have no exact equal in the 98.
WFLW_98_FOR_IBUG_68: Final = (
    *range(0, 33, 2),
    *_span(33, 37),
    *_span(42, 46),
    *_span(51, 59),
    *(60, 61, 63, 64, 65, 67),
    *(68, 69, 71, 72, 73, 75),
    *_span(76, 95),
)


def wflw_to_ibug(landmarks: ArrayLike) -> NDArray[np.float32]:
    """The 68 landmarks of iBUG, selected from the 98 of WFLW by `WFLW_98_FOR_IBUG_68`.

    Args:
        landmarks: (..., 98, 2).

    Returns:
        (..., 68, 2) float32; eyebrows and eyelids are approximate, see the table.

    Raises:
        InputError: another shape.
    """
    try:
        points = np.asarray(landmarks, dtype=np.float32)
    except (TypeError, ValueError) as error:  # words, ragged lists
        raise InputError(f"landmarks: expected shape (..., 98, 2), got {kind_of(landmarks)}") from error
    if points.ndim < 2 or points.shape[-2:] != (98, 2):
        raise InputError(f"landmarks: expected shape (..., 98, 2), got {points.shape}")
    return points[..., WFLW_98_FOR_IBUG_68, :]
