"""The results: faces, with their landmarks, boxes and scores; and the heatmaps they were read from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from face_landmarks._system.extras import import_extra
from face_landmarks.errors import InputError
from face_landmarks.layouts import IBUG_68, Layout, get_layout

# The arrays of a result and their axes: N faces, K landmarks. Everything below runs over this table.
_SHAPES: Final[Mapping[str, tuple[str | int, ...]]] = MappingProxyType(
    {
        "landmarks": ("N", "K", 2),
        "landmark_scores": ("N", "K"),
        "boxes": ("N", 4),
        "box_scores": ("N",),
        "landmark_errors": ("N", "K"),
    }
)
_MAY_BE_UNKNOWN: Final = frozenset({"landmark_errors"})  # NaN, and None in JSON, where nothing tells
_SHOWN: Final = 3  # faces that a repr describes
_PREVIEWED: Final = 10  # faces that a notebook shows
_SKETCH: Final = 240.0  # longer side, in pixels, of the sketch beside them


@dataclass(frozen=True, eq=False, repr=False)
class Faces:
    """The faces found in one image; no face is `len(faces) == 0`, every axis still there.

    The arrays are float32, owned by the result and read-only. Indexing, by an integer, a slice, a mask or
    an array of integers, and iterating give `Faces` again: the axis of faces is never lost.

    Convention:
        Pixel centres are integers: the image spans -0.5 to W - 0.5, and `image[y, x]` is the pixel
        at (x, y). A box is x1 - x0 wide.

    Attributes:
        landmarks: (N, K, 2) x, y in pixels of the image.
        landmark_scores: (N, K) in [0, 1], the height of each heatmap's peak; higher is surer.
        boxes: (N, 4) x0, y0, x1, y1 in pixels, the boxes the landmarks were sought in.
        box_scores: (N,) the detector's; 1 for boxes that were given.
        layout: what each landmark is.
        landmark_errors: (N, K) the expected distance of each landmark from where an annotator would
            put it, in pixels of the image, as calibrated on held-out faces: 68 % of the landmarks
            lie within 1.20 times theirs, 95 % within 1.95 times. NaN where it is not known.

    Raises:
        InputError: an array of the wrong shape or type, or with a value that is not finite.
    """

    landmarks: NDArray[np.float32]
    landmark_scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    box_scores: NDArray[np.float32]
    layout: Layout = IBUG_68
    landmark_errors: NDArray[np.float32] = None  # type: ignore[assignment]  # NaN for all if left out

    def __post_init__(self) -> None:
        if self.landmark_errors is None:
            object.__setattr__(self, "landmark_errors", np.full(np.shape(self.landmark_scores), np.nan))
        arrays = {name: _numbers(name, getattr(self, name)) for name in _SHAPES}
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
        return cls(**{name: np.empty(_shape(name, 0, layout), np.float32) for name in _SHAPES}, layout=layout)

    @classmethod
    def concatenate(cls, parts: Iterable[Faces]) -> Faces:
        """The faces of several results, in order.

        Raises:
            InputError: no parts, whose layout would be unknown, or parts of several layouts.
        """
        parts = list(parts)
        layouts = {part.layout.name: part.layout for part in parts}
        if len(layouts) != 1:
            got = ", ".join(sorted(layouts)) or "nothing"
            raise InputError(f"Faces.concatenate: expected results of one layout, got {got}")
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _SHAPES}
        return cls(**arrays, layout=parts[0].layout)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int | slice | Sequence[int] | Sequence[bool] | NDArray[Any]) -> Faces:
        """The chosen faces: by integer (one face), slice, mask (N,), or integers in any order.

        Raises:
            IndexError: out of range, or an index over more than the axis of faces.
        """
        rows = np.atleast_1d(np.arange(len(self))[index])
        if rows.ndim != 1:
            raise IndexError(f"Faces: expected one index over the faces, got {index!r}")
        return Faces(**{name: getattr(self, name)[rows] for name in _SHAPES}, layout=self.layout)

    def __iter__(self) -> Iterator[Faces]:
        """Each face in turn, as `Faces` of length 1."""
        return (self[index] for index in range(len(self)))

    def group(self, name: str) -> NDArray[np.float32]:
        """The landmarks of one facial part, such as "left_eye": (N, G, 2), in drawing order.

        Raises:
            InputError: the layout has no such part.
        """
        if name not in self.layout.groups:
            raise InputError(f"group: expected one of {', '.join(self.layout.groups)}, got {name!r}")
        return self.landmarks[:, self.layout.groups[name]]

    def to_dict(self) -> dict[str, Any]:
        """The layout's name, and every array as nested lists under its own name, ready for JSON."""
        return {"layout": self.layout.name, **{name: _decimals(getattr(self, name)) for name in _SHAPES}}

    def to_json(self) -> str:
        """`to_dict` as JSON on one line; `Faces.from_dict(json.loads(...))` gives the same faces."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Faces:
        """The faces of a `to_dict`; what else is in it is left alone.

        Raises:
            InputError: something is missing, or not as `Faces` has it.
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
        arrays = {name: _numbers(name, values[name]) for name in needed[1:]}
        for name in _MAY_BE_UNKNOWN & values.keys():
            arrays[name] = _numbers(name, values[name], unknown=True)
        if not any(array.size for array in arrays.values()):
            return cls.empty(layout)  # nested lists do not say how long the other axes are
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
                "name": list(names) * count,
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
        faces = [
            f"{x1 - x0:.0f} x {y1 - y0:.0f} at ({x0:.0f}, {y0:.0f}), score {score:.2f}"
            for (x0, y0, x1, y1), score in zip(self.boxes[:_SHOWN], self.box_scores, strict=False)
        ]
        if len(self) > _SHOWN:
            faces.append("...")
        noun = "face" if len(self) == 1 else "faces"
        return f"<{'; '.join([f'Faces: {len(self)} {noun}, {self.layout.name}', *faces])}>"

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:  # so that a copy is read-only too
        return Faces, tuple(getattr(self, field.name) for field in fields(self))

    def _repr_html_(self) -> str:
        """What a notebook shows: a sketch of the faces, and a table."""
        faces = self[:_PREVIEWED]
        return (
            '<div style="display: flex; gap: 2em; align-items: center; flex-wrap: wrap">'
            f"{faces._sketch() if len(faces) else ''}{faces._table(more=len(self) - len(faces))}</div>"
        )

    def _table(self, more: int) -> str:
        """A row per face, in HTML; `more` faces are mentioned."""
        scores, errors = self.landmark_scores.mean(axis=1), self.landmark_errors.mean(axis=1)
        rows = [
            f"<tr><td>{face}</td><td>({x0:.0f}, {y0:.0f}) to ({x1:.0f}, {y1:.0f})</td>"
            f"<td>{box_score:.2f}</td><td>{score:.2f}</td>"
            f"<td>{'unknown' if np.isnan(error) else f'{error:.1f}'}</td></tr>"
            for face, ((x0, y0, x1, y1), box_score, score, error) in enumerate(
                zip(self.boxes, self.box_scores, scores, errors, strict=True)
            )
        ]
        if more:
            rows.append(f'<tr><td colspan="5">and {more} more</td></tr>')
        count = len(self) + more
        return (
            f"<table><caption>{count} face{'s' * (count != 1)}, {escape(self.layout.name)}</caption>"
            "<tr><th>face</th><th>box</th><th>box score</th>"
            "<th>landmark score</th><th>expected error, px</th></tr>"
            f"{''.join(rows)}</table>"
        )

    def _sketch(self) -> str:
        """The contours and boxes of the faces as SVG, without the photo, which is not known here."""
        corners = self.boxes.reshape(-1, 2, 2).astype(np.float64)  # (N, 2, 2)
        everything = np.concatenate([self.landmarks, corners], axis=1)  # (N, K + 2, 2)
        low, high = everything.min(axis=(0, 1)), everything.max(axis=(0, 1))
        scale = _SKETCH / max(*(high - low), 1e-6)
        width, height = (high - low) * scale
        shapes = []
        for face, points in enumerate((everything - low) * scale):
            (x0, y0), (x1, y1) = points[-2:]
            shapes.append(
                f'<g><rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" '
                f'opacity="0.3"/><text x="{x0 + 4:.1f}" y="{y0 + 14:.1f}" fill="currentColor" stroke="none">'
                f"{face}</text>"
            )
            for name, indices in self.layout.groups.items():
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points[list(indices)])
                shapes.append(f'<poly{"gon" if name in self.layout.closed else "line"} points="{path}"/>')
            shapes.append("</g>")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 4:.0f}" height="{height + 4:.0f}" '
            f'viewBox="-2 -2 {width + 4:.1f} {height + 4:.1f}" fill="none" stroke="currentColor" '
            'font-family="sans-serif" font-size="12">'
            f"{''.join(shapes)}</svg>"
        )


@dataclass(frozen=True, eq=False)
class FaceHeatmaps:
    """What the network saw of each face of a photo, and what it answered.

    Attributes:
        crops: (N, S, S, 3) uint8 RGB, what the network saw.
        heatmaps: (N, K, H, W) float32, what it answered.
        points: (N, K, 2) float32, x y in cells of the heatmaps, as decoded.
        heatmap_to_crop: (3, 3) float64.
        heatmap_to_image: (N, 3, 3) float64.
    """

    crops: NDArray[np.uint8]
    heatmaps: NDArray[np.float32]
    points: NDArray[np.float32]
    heatmap_to_crop: NDArray[np.float64]
    heatmap_to_image: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.crops)


def _shape(name: str, faces: int, layout: Layout) -> tuple[int, ...]:
    axes = {"N": faces, "K": len(layout)}
    return tuple(axes[axis] if isinstance(axis, str) else axis for axis in _SHAPES[name])


def _decimals(array: NDArray[np.float32]) -> Any:
    """Nested lists of the shortest numbers that read back as these: 0.1, not 0.10000000149011612.

    JSON has no NaN; it becomes None.
    """
    numbers = array.astype("U16").astype(np.float64).astype(object)
    numbers[np.isnan(array)] = None
    return numbers.tolist()


def _numbers(name: str, values: object, unknown: bool = False) -> NDArray[np.float32]:
    """Real numbers as a new float32 array; if they may be unknown, None becomes NaN."""
    try:
        array = np.asarray(values)
        if unknown and array.dtype == object:
            array = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # ragged, or not on the CPU
        raise InputError(f"Faces.{name}: expected an array, got {type(values).__name__}: {error}") from error
    if array.dtype.kind not in "iuf":
        raise InputError(f"Faces.{name}: expected numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):
        return np.array(array, np.float32, order="C")
