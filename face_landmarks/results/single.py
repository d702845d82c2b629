"""One face of a result."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from face_landmarks.layouts import Layout
from face_landmarks.results.values import equal


@dataclass(frozen=True, eq=False, repr=False)
class Face:
    """One face; `Faces.face` and `Faces.to_list` give it. Equal if all values are.

    The arrays are float32 and read-only. Functions that take a result, such as `draw_faces`, take
    `Faces`; pass them `faces[index : index + 1]`.

    Attributes:
        landmarks: (K, 2) x, y in pixels of the image.
        landmark_scores: (K,) in [0, 1].
        box: (4,) x0, y0, x1, y1 in pixels.
        box_score: the detector's score.
        layout: the meaning of each landmark.
        landmark_errors: (K,) expected distance of each landmark from an annotator's, in pixels; NaN where it
            is unknown.
    """

    landmarks: NDArray[np.float32]
    landmark_scores: NDArray[np.float32]
    box: NDArray[np.float32]
    box_score: float
    layout: Layout
    landmark_errors: NDArray[np.float32]

    def point(self, name: str) -> NDArray[np.float32]:
        """The landmark of this name, such as "right_eye_outer": (2,).

        Raises:
            InputError: the layout has no such landmark.
        """
        place: NDArray[np.float32] = self.landmarks[self.layout.index(name)]
        return place

    def group(self, name: str) -> NDArray[np.float32]:
        """The G landmarks of a facial part, as `Faces.group` names it, in drawing order: (G, 2).

        Raises:
            InputError: the layout has no such part.
        """
        return self.landmarks[list(self.layout.group(name))]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Face):
            return NotImplemented
        names = [field.name for field in fields(self) if field.name != "layout"]
        return self.layout.name == other.layout.name and equal(self, other, names)

    def __hash__(self) -> int:
        return hash((self.layout.name, (self.landmarks + 0).tobytes()))  # + 0: -0 equals 0

    def __repr__(self) -> str:
        x0, y0, x1, y1 = self.box
        score, error = self.landmark_scores.mean(), self.landmark_errors.mean()
        known = "" if np.isnan(error) else f", expected error {error:.1f} px"
        return (
            f"<Face: {self.layout.name}, {x1 - x0:.0f} x {y1 - y0:.0f} at ({x0:.0f}, {y0:.0f}), "
            f"score {score:.2f}{known}>"
        )
