"""The page on models names the files as the cards do."""

from __future__ import annotations

from pathlib import Path

from face_landmarks.models.registry import known_files

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_files_to_bring_by_hand_are_those_of_the_cards() -> None:
    for name, file in known_files().items():
        if file.urls:
            assert f"| `{name}` | `{file.name}` | <{file.urls[0]}> | `{file.sha256}` |\n" in PAGE
