"""Landmark layouts: what each index is, and which indices belong together."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final

from face_landmarks.errors import InputError

Edge = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Knowledge about one annotation scheme; indices are zero-based.

    Left and right are the subject's, as the 300-W papers have it: the subject's right eye is
    on the left of the picture.

    Attributes:
        name: short name, as stored in model cards and result files.
        names: (K,) one name per landmark.
        groups: facial part -> its indices, in drawing order; together they cover every landmark.
        closed: the groups whose last landmark is joined to their first.
        mirror: (K,) index of each landmark's mirror image; its own where it lies on the midline.
        eye_corners: outer corners of the two eyes, (subject's right, subject's left).
        eyes: the landmarks whose mean is the centre of each eye, (right, left).
    """

    name: str
    names: tuple[str, ...]
    groups: MappingProxyType[str, tuple[int, ...]]
    closed: frozenset[str]
    mirror: tuple[int, ...]
    eye_corners: tuple[int, int]
    eyes: tuple[tuple[int, ...], tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.names)

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
    def flip_pairs(self) -> tuple[Edge, ...]:
        """Pairs of landmarks that trade places in a mirror, the smaller index first."""
        return tuple((i, j) for i, j in enumerate(self.mirror) if i < j)

    def __hash__(self) -> int:  # a mapping has no hash, a name has
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
    except KeyError:
        raise InputError(f"layout: expected one of {', '.join(LAYOUTS)}, got {name!r}") from None


def _span(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


def _numbered(groups: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    names = {index: f"{name}_{n}" for name, indices in groups.items() for n, index in enumerate(indices)}
    return tuple(names[index] for index in sorted(names))


def _mirror(length: int, pairs: str) -> tuple[int, ...]:
    mirror = list(range(length))
    for pair in pairs.split():
        left, right = map(int, pair.split("-"))
        mirror[left], mirror[right] = right, left
    return tuple(mirror)


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

IBUG_68: Final = Layout(
    name="ibug-68",
    names=_numbered(_IBUG_68),
    groups=MappingProxyType(_IBUG_68),
    closed=frozenset({"right_eye", "left_eye", "outer_lips", "inner_lips"}),
    mirror=_mirror(
        68,
        "0-16 1-15 2-14 3-13 4-12 5-11 6-10 7-9 17-26 18-25 19-24 20-23 21-22 31-35 32-34 "
        "36-45 37-44 38-43 39-42 40-47 41-46 48-54 49-53 50-52 55-59 56-58 60-64 61-63 65-67",
    ),
    eye_corners=(36, 45),
    eyes=(_span(36, 41), _span(42, 47)),
)

LAYOUTS: Final = MappingProxyType({layout.name: layout for layout in (IBUG_68,)})
