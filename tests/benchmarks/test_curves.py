"""Cumulative error curves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from face_landmarks.benchmarks.curves import plot_ced
from face_landmarks.errors import InputError


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    yield
    plt.close("all")


def test_a_ced_is_a_staircase_that_ends_at_the_right_edge():
    axes = plot_ced({"some": [2.0, 6.0, 12.0, float("inf")], "other": [1.0]}, max_error=8)
    some, other = axes.lines
    np.testing.assert_allclose(some.get_xydata(), [(0, 0), (2, 25), (6, 50), (8, 50)])
    np.testing.assert_allclose(other.get_xydata(), [(0, 0), (1, 100), (8, 100)])
    assert some.get_drawstyle() == "steps-post"
    assert axes.get_xlim() == (0, 8) and axes.get_ylim() == (0, 100)
    # AUC: (6 + 2) / 8 / 4 of the faces; FR: two of four
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "some   AUC 25.0 %   FR 50.0 %",
        "other   AUC 87.5 %   FR 0.0 %",
    ]
    axes.figure.canvas.draw()


def test_a_ced_goes_into_the_axes_given_and_refuses_no_faces():
    axes = Figure().subplots()
    assert plot_ced({"a": [1.0]}, axes) is axes
    with pytest.raises(InputError, match="N > 0"):
        plot_ced({"a": []})
    assert not plt.get_fignums()
