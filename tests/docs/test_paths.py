"""Scripts and pages that a text names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(path for folder in ("face_landmarks", "examples", "tests") for path in (ROOT / folder).rglob("*.py")),
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_that_is_named_is_there(text: Path) -> None:
    for script in re.findall(r"(?<![\w/])examples/[\w/]+\.(?:py|ipynb)\b", text.read_text(encoding="utf-8")):
        assert (ROOT / script).is_file(), script
