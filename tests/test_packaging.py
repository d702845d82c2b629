"""The distribution: its name, its description on PyPI, its extras, its lowest versions, its workflows."""

import configparser
import re
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import face_landmarks

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
EXTRAS = dict(SETUP["options.extras_require"])
FOR_DEVELOPERS = {"dev", "docs"}  # tools, of which the newest will do


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    """The metadata that setuptools builds from a copy of what it reads."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    shutil.copytree(
        ROOT / "face_landmarks",
        place / "face_landmarks",
        ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"),
    )
    out = place / "out"
    out.mkdir()
    code = "from setuptools.build_meta import *; prepare_metadata_for_build_wheel(__import__('sys').argv[1])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, out],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.dist-info/METADATA")
    return Parser().parsestr(built.read_text(encoding="utf-8"))


def test_the_distribution_is_shr_fan_of_this_version(metadata):
    assert metadata["Name"] == "shr-fan"
    assert metadata["Version"] == face_landmarks.__version__
    assert set(metadata.get_all("Provides-Extra")) == set(EXTRAS)


def test_the_description_on_pypi_has_no_link_or_picture_of_the_repository(metadata):
    text = metadata.get_payload()
    assert text.startswith("# face_landmarks\n") and len(text) > 2000
    assert re.findall(r"\]\((?!https://)[^)]*\)", text) == []
    assert "![" not in text and "<" not in text.replace("<br>", "")
    assert re.search(r"^#+ .*\n+#", text, flags=re.MULTILINE) is None, "a section that lost its text"


def test_the_description_says_how_to_install_and_what_the_weights_may_be_used_for(metadata):
    first_screen = "\n".join(metadata.get_payload().splitlines()[:30])
    assert "\npip install shr-fan\n" in first_screen
    assert "research only" in first_screen


def test_the_lowest_versions_tested_are_the_lowest_that_setup_allows():
    lines = SETUP["options"]["install_requires"].splitlines()
    lines += [
        line for extra, text in EXTRAS.items() if extra not in FOR_DEVELOPERS for line in text.splitlines()
    ]
    lowest = {}
    for requirement in map(Requirement, filter(None, lines)):
        (bound,) = [part.version for part in requirement.specifier if part.operator == ">="]
        assert lowest.setdefault(requirement.name, Version(bound)) == Version(bound), requirement.name

    pins = [line for line in (ROOT / ".github/lowest.txt").read_text().splitlines() if line[:1] != "#"]
    tested = {}
    for pin in map(Requirement, pins):
        (exact,) = pin.specifier
        assert exact.operator == "=="
        tested[pin.name] = Version(exact.version)
    assert {name: tested.get(name) for name in lowest} == lowest
    assert tested.keys() - lowest.keys() == {"pyparsing"}  # the newest one warns at the lowest matplotlib


def test_the_source_distribution_has_every_file_of_the_repository():
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode or not found.stdout:
        pytest.skip("needs a checkout by git")
    chosen = {"setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in"}
    for line in (ROOT / "MANIFEST.in").read_text().splitlines():
        command, *words = line.split()
        if command == "include":
            chosen.update(words)
        elif command == "recursive-include":
            folder, *patterns = words
            chosen |= {
                path.relative_to(ROOT).as_posix()
                for pattern in patterns
                for path in (ROOT / folder).rglob(pattern)
            }
    tracked = set(found.stdout.splitlines())
    tracked -= {path for path in tracked if path.startswith("face_landmarks/") and path.endswith(".py")}
    assert sorted(tracked - chosen) == [".gitignore"]


PLACES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
PLACES += [path for folder in ("face_landmarks", "examples") for path in (ROOT / folder).rglob("*.py")]


def test_every_extra_that_a_message_or_a_page_names_exists():
    named = set()
    for path in PLACES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"face[-_]landmarks\[[a-z]|install face[-_]landmarks", text), path
        for names in re.findall(r"shr-fan\[([a-z,]+)\]", text):
            named |= set(names.split(","))
        named |= set(re.findall(r'import_extra\(\s*"[\w.]+",\s*"(\w+)"', text))
    assert len(named) >= 5
    assert named <= set(EXTRAS)


def test_the_workflow_tests_the_python_versions_that_setup_names():
    declared = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
    (matrix,) = re.findall(r"python: \[(.*)\]", (ROOT / ".github/workflows/test.yml").read_text())
    assert re.findall(r"3\.\d+", matrix) == declared
    assert SETUP["options"]["python_requires"] == f">={declared[0]}"


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {face_landmarks.__version__}\n" in text


def test_the_citation_has_a_date_and_that_of_the_changelog_once_released():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (date,) = re.findall(r"^date-released: (\d{4}-\d{2}-\d{2})$", text, re.MULTILINE)
    heading = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading is not None
    assert "unreleased" in heading[1] or date in heading[1]


def test_every_extra_is_installed_in_its_lowest_versions_by_a_job():
    def packages(extra):
        return {Requirement(line).name for line in EXTRAS[extra].splitlines() if line}

    workflow = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    jobs = re.findall(r"- extra: (\w+)\n +tests: (\S+)", workflow)
    assert all((ROOT / tests).exists() for _, tests in jobs)
    installed = packages("test").union(*(packages(extra) for extra, _ in jobs))
    for extra in EXTRAS.keys() - FOR_DEVELOPERS:
        assert packages(extra) <= installed, extra


def test_nothing_is_published_untested():
    workflow = (ROOT / ".github/workflows/publish.yml").read_text(encoding="utf-8")
    assert "uses: ./.github/workflows/test.yml\n" in workflow
    assert re.search(r"^  build:\n    needs: test\n", workflow, re.MULTILINE)
    assert re.search(r"^  publish:\n    needs: build\n", workflow, re.MULTILINE)
    tests = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    assert re.search(r"^  workflow_call:", tests, re.MULTILINE)
