"""The description on PyPI: README.md without what works in the repository only. All else is in setup.cfg."""

import re
from pathlib import Path

from setuptools import setup


def for_pypi(readme: str) -> str:
    """The README without its marked parts, its pictures, and links to files of the repository."""
    text = re.sub(r"<!-- repository only -->\n.*?<!-- end -->\n", "", readme, flags=re.DOTALL)
    text = re.sub(r"^!\[[^\]]*\]\((?!https://)[^)]*\)\n+", "", text, flags=re.MULTILINE)
    text = re.sub(r"\s*\(\[[^\]]*\]\((?!https://)[^)]*\)\)", "", text)  # (a link alone in parentheses)
    return re.sub(r"\[([^\]]*)\]\((?!https://)[^)]*\)", r"\1", text)


setup(long_description=for_pypi(Path(__file__).with_name("README.md").read_text(encoding="utf-8")))
