"""The faces of a photo, with their landmarks, boxes and scores."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.arguments import check_flag, check_kind, shown
from face_landmarks._system.extras import import_extra
from face_landmarks.errors import InputError
from face_landmarks.layouts import IBUG_68, Layout, get_layout
from face_landmarks.results.preview import preview
from face_landmarks.results.single import Face
from face_landmarks.results.values import decimals, equal, format_json, numbers

# The arrays of a result and their axes: N faces, K landmarks. The methods below go through this table.
_SHAPES: Final[Mapping[str, tuple[str | int, ...]]] = MappingProxyType(
    {
        "landmarks": ("N", "K", 2),
        "landmark_scores": ("N", "K"),
        "boxes": ("N", 4),
        "box_scores": ("N",),
        "landmark_errors": ("N", "K"),
    }
)
_MAY_BE_UNKNOWN: Final = frozenset({"landmark_errors"})  # NaN if unknown, null in JSON
_SHOWN: Final = 3  # faces that `repr` describes


@dataclass(frozen=True, eq=False, repr=False)
class Faces:
    """The faces found in one image.

    Without a face, `len(faces) == 0` and the arrays keep their other axes. The arrays are float32, copied
    and read-only. Indexing (by an integer, a slice, a mask or an array of integers) and iterating give
    `Faces` again, so the axis of faces is always there. Two results are equal if their layouts and all
    their values are; unknown errors count as equal.

    Convention:
        Pixel centres are integers: the image spans -0.5 to W - 0.5, and `image[y, x]` is the pixel
        at (x, y). A box is x1 - x0 wide.

    Attributes:
        landmarks: (N, K, 2) x, y in pixels of the image.
        landmark_scores: (N, K) in [0, 1], the height of each heatmap's peak; higher is surer.
        boxes: (N, 4) x0, y0, x1, y1 in pixels, the face boxes given to the landmark network.
        box_scores: (N,) the detector's scores; 1 for boxes given by the caller.
        layout: the meaning of each landmark.
        landmark_errors: (N, K) the expected distance of each landmark from an annotator's, in pixels of
            the image, calibrated on held-out faces. For other shares of the landmarks than that mean,
            multiply it by `models.confidence.coverage_radius`. NaN where it is unknown.

    Raises:
        InputError: an array has the wrong shape or type, or a value that is not finite.
    """

    landmarks: NDArray[np.float32]
    landmark_scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    box_scores: NDArray[np.float32]
    layout: Layout = IBUG_68
    landmark_errors: NDArray[np.float32] = None  # type: ignore[assignment]  # NaN for all if left out

    def __post_init__(self) -> None:
        check_kind("Faces.layout", self.layout, Layout)
        if self.landmark_errors is None:
            object.__setattr__(self, "landmark_errors", np.full(np.shape(self.landmark_scores), np.nan))
        arrays = {name: numbers(name, getattr(self, name)) for name in _SHAPES}
        faces = arrays["landmarks"].shape[0] if arrays["landmarks"].ndim else 0
        for name, array in arrays.items():
            expected = _shape(name, faces, self.layout)
            if array.shape != expected:
                raise InputError(
                    f"Faces.{name}: expected shape {expected} for {faces} faces of layout "
                    f"{self.layout.name}, got {array.shape}"
                )
            finite = np.isfinite(array)
            if name in _MAY_BE_UNKNOWN:
                finite |= np.isnan(array)
            if not finite.all():
                index = tuple(map(int, np.argwhere(~finite)[0]))
                raise InputError(f"Faces.{name}: expected finite values, got {array[index]} at {index}")
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def empty(cls, layout: Layout = IBUG_68) -> Faces:
        """No face of this layout."""
        check_kind("layout", layout, Layout)
        return cls(**{name: np.empty(_shape(name, 0, layout), np.float32) for name in _SHAPES}, layout=layout)

    @classmethod
    def concatenate(cls, parts: Iterable[Faces]) -> Faces:
        """The faces of several results, in order.

        Raises:
            InputError: there are no parts, so the layout is unknown; parts of several layouts; or something
                else than results.
        """
        if not isinstance(parts, Iterable):
            raise InputError(f"Faces.concatenate: expected results, got {shown(parts)}")
        parts = [check_faces(part) for part in parts]
        layouts = {part.layout.name: part.layout for part in parts}
        if len(layouts) != 1:
            got = ", ".join(sorted(layouts)) or "nothing"
            raise InputError(f"Faces.concatenate: expected results of one layout, got {got}")
        if len(parts) == 1:
            return parts[0]
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _SHAPES}
        return cls(**arrays, layout=parts[0].layout)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int | slice | Sequence[int] | Sequence[bool] | NDArray[Any]) -> Faces:
        """The chosen faces: by integer (one face), slice, mask (N,), or integers in any order.

        Raises:
            IndexError: out of range, an index over more than the axis of faces, or none of any kind.
        """
        known = isinstance(index, (int, slice, list, range, type(...)))
        if hasattr(index, "__array__"):
            index = np.asarray(index)  # NumPy takes a mask of one value, if it is a tensor, for a number
            known = index.dtype.kind in "iub"
        if not known:
            raise IndexError(f"Faces: expected an index or a mask of faces, got {shown(index)}")
        rows = np.atleast_1d(np.arange(len(self))[index])
        if rows.ndim != 1:
            raise IndexError(f"Faces: expected one index over the faces, got {index!r}")
        return with_arrays(self, **{name: getattr(self, name)[rows] for name in _SHAPES})

    def __iter__(self) -> Iterator[Faces]:
        """Each face in turn, as `Faces` of length 1."""
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Faces):
            return NotImplemented
        return self.layout.name == other.layout.name and equal(self, other, _SHAPES)

    def __hash__(self) -> int:
        return hash((self.layout.name, (self.landmarks + 0).tobytes()))  # + 0: -0 equals 0

    def group(self, name: str) -> NDArray[np.float32]:
        """The G landmarks of a facial part, such as "left_eye", in drawing order: (N, G, 2).

        Args:
            name: of `layout.groups`, or of `layout.regions`: "eyes", "eyebrows", "nose", "mouth".

        Raises:
            InputError: the layout has no such part.
        """
        return self.landmarks[:, self.layout.group(name)]

    def point(self, name: str) -> NDArray[np.float32]:
        """The landmark of this name, such as "right_eye_outer", of every face: (N, 2).

        Raises:
            InputError: the layout has no such landmark.
        """
        return self.landmarks[:, self.layout.index(name)]

    def face(self, index: int = 0) -> Face:
        """One face, with arrays that have no axis of faces: landmarks (K, 2).

        Raises:
            IndexError: there are not that many faces.
            InputError: not a whole number.
        """
        try:
            number = operator.index(index)
        except TypeError:
            raise InputError(f"index: expected the number of a face, got {index!r}") from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"index: expected one of {len(self)} faces, from 0, got {number}")
        return Face(
            self.landmarks[number],
            self.landmark_scores[number],
            self.boxes[number],
            float(self.box_scores[number]),
            self.layout,
            self.landmark_errors[number],
        )

    def to_list(self) -> list[Face]:
        """Every face by itself, as `face` gives it."""
        return [self.face(number) for number in range(len(self))]

    def to_dict(self) -> dict[str, Any]:
        """The name of the layout, and each array as nested lists, ready for JSON; NaN becomes None."""
        arrays = [getattr(self, name) for name in _SHAPES]
        flat = decimals(np.concatenate([array.ravel() for array in arrays]))
        values: dict[str, Any] = {"layout": self.layout.name}
        for name, array in zip(_SHAPES, arrays, strict=True):
            mine: NDArray[Any] = flat[: array.size].reshape(array.shape)
            flat = flat[array.size :]
            if (unknown := np.isnan(mine)).any():
                mine = mine.astype(object)
                mine[unknown] = None
            values[name] = mine.tolist()
        return values

    def to_json(self, *, lines: bool = False) -> str:
        """`to_dict` as JSON; `Faces.from_dict(json.loads(...))` gives the same faces.

        Args:
            lines: begin a new line for each array and for each face in it; by default all is on one line.
        """
        return format_json(self.to_dict()) if check_flag("lines", lines) else json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Faces:
        """The faces that `to_dict` gave; other keys are ignored.

        Raises:
            InputError: a key is missing, or a value does not fit `Faces`.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"Faces.from_dict: expected a dict, got {type(values).__name__}")
        needed = [name for name in ("layout", *_SHAPES) if name not in _MAY_BE_UNKNOWN]
        missing = [name for name in needed if name not in values]
        if missing:
            raise InputError(
                f"Faces.from_dict: expected {', '.join(missing)}, got {', '.join(map(str, values))}"
            )
        layout = get_layout(values["layout"])
        arrays = {name: numbers(name, values[name]) for name in needed[1:]}
        for name in _MAY_BE_UNKNOWN & values.keys():
            arrays[name] = numbers(name, values[name], unknown=True)
        if not any(array.size for array in arrays.values()):
            return cls.empty(layout)  # empty lists do not tell the other axes
        return cls(**arrays, layout=layout)

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with a row per landmark: face, landmark, name, x, y, score, error.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        pandas = import_extra("pandas", "tables", "tables")
        count, names = len(self), self.layout.names
        return pandas.DataFrame(
            {
                "face": np.repeat(np.arange(count), len(names)),
                "landmark": np.tile(np.arange(len(names)), count),
                "name": pandas.Series(list(names) * count, dtype=str),  # also where there is no face
                "x": self.landmarks[..., 0].ravel(),
                "y": self.landmarks[..., 1].ravel(),
                "score": self.landmark_scores.ravel(),
                "error": self.landmark_errors.ravel(),
            }
        )

    def to_supervision(self) -> tuple[Any, Any]:
        """supervision.KeyPoints and supervision.Detections of these faces.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        supervision = import_extra("supervision", "supervision", "its types")
        return (
            supervision.KeyPoints(xy=self.landmarks.copy(), confidence=self.landmark_scores.copy()),
            supervision.Detections(xyxy=self.boxes.copy(), confidence=self.box_scores.copy()),
        )

    def __repr__(self) -> str:
        """Size and place of the first boxes, and the mean score and expected error of their landmarks."""
        parts = [f"Faces: {len(self)} face{'s' * (len(self) != 1)}, {self.layout.name}"]
        for face in self[:_SHOWN]:
            x0, y0, x1, y1 = face.boxes[0]
            score, error = face.landmark_scores.mean(), face.landmark_errors.mean()
            known = "" if np.isnan(error) else f", expected error {error:.1f} px"
            parts.append(f"{x1 - x0:.0f} x {y1 - y0:.0f} at ({x0:.0f}, {y0:.0f}), score {score:.2f}{known}")
        if len(self) > _SHOWN:
            parts.append("...")
        return f"<{'; '.join(parts)}>"

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:  # a copy is made by Faces, so it is read-only
        return Faces, tuple(getattr(self, field.name) for field in fields(self))

    def _repr_html_(self) -> str:
        """For notebooks: a sketch of the faces, and a table."""
        return preview(self.to_list(), self.layout)


def check_faces(faces: object) -> Faces:
    """Return the faces, or raise unless they are a result.

    Raises:
        InputError: something else, such as an array of landmarks.
    """
    if isinstance(faces, Faces):
        return faces
    hint = "; pass its attribute faces" if isinstance(getattr(faces, "faces", None), Faces) else ""
    got = f"{type(faces).__name__}{hint}"
    raise InputError(f"faces: expected Faces, as FaceAligner.align returns them, got {got}")


def with_arrays(faces: Faces, **arrays: NDArray[np.float32]) -> Faces:
    """These faces with some arrays replaced by new ones, which are known to be good: nothing is checked."""
    made = object.__new__(Faces)
    object.__setattr__(made, "layout", faces.layout)
    for name in _SHAPES:
        array = arrays.get(name, getattr(faces, name))
        array.setflags(write=False)
        object.__setattr__(made, name, array)
    return made


def _shape(name: str, faces: int, layout: Layout) -> tuple[int, ...]:
    axes = {"N": faces, "K": len(layout)}
    return tuple(axes[axis] if isinstance(axis, str) else axis for axis in _SHAPES[name])
