"""Whether the tests notice faults: mutants of the code, each a small change that some test must catch.

    python examples/lab/checks/mutate.py                     every mutant
    python examples/lab/checks/mutate.py parts               those of examples/lab/checks/mutants/parts.py
    python examples/lab/checks/mutate.py parts -k roll       those of them whose name contains "roll"
    python examples/lab/checks/mutate.py parts --list

Each file in examples/lab/checks/mutants holds a list MUTANTS of tuples (name, file, old text, new text,
tests):

    ("the mirror is off by a pixel", "geometry.py", "width - 1.0]", "width]", "tests/test_geometry.py")

The file is a path in face_landmarks, the old text occurs in it exactly once, and the tests are words for
pytest, separated by spaces. Add a mutant by adding a tuple.

The checkout, with its uncommitted changes, is copied to a temporary folder. Its tests must pass there. Then
one mutant at a time replaces the old text by the new one, and its tests run. A mutant is

    caught      a test failed, as it should
    survived    every test passed, although the code is wrong: a test is missing
    timed out   the tests did not end in time; this counts as caught
    broken      the tests cannot be collected

Exits with 1 if a mutant survived or is broken, and before it tries any, if an old text is not in its file
exactly once.
"""

import argparse
import os
import queue
import runpy
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
TABLES = Path(__file__).with_name("mutants")
PASSED, FAILED = 0, 1  # pytest's exit codes


@dataclass(frozen=True)
class Mutant:
    """A change to one file of the package, and the tests that must fail with it."""

    name: str
    file: str
    old: str
    new: str
    tests: str


def main() -> int:
    """Try the chosen mutants, print what became of each, and return 1 unless all were caught."""
    options = parse()
    mutants = chosen(options)
    if options.list:
        print("\n".join(f"{mutant.file:32} {mutant.name}" for mutant in mutants))
        return 0
    if wrong := mistakes(mutants):
        print("\n".join(wrong), file=sys.stderr)
        return 1
    copies: queue.Queue[Path] = queue.Queue()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.jobs):
            copies.put(copy_checkout(Path(folder) / str(number)))
        if not options.no_baseline and not passes_unchanged(mutants, copies):
            return 1

        def attempt(mutant: Mutant) -> str:
            copy = copies.get()
            try:
                verdict = try_mutant(mutant, copy, options.timeout)
            finally:
                copies.put(copy)
            print(f"{verdict:10} {mutant.file}: {mutant.name}", flush=True)
            return verdict

        with ThreadPoolExecutor(options.jobs) as pool:
            verdicts = list(pool.map(attempt, mutants))
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "no mutants")
    return int(not {"survived", "broken"}.isdisjoint(verdicts))


def parse() -> argparse.Namespace:
    tables = sorted(path.stem for path in TABLES.glob("*.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(tables)}; all by default")
    parser.add_argument(
        "-k", default="", metavar="WORD", help="only mutants whose name or file contains this"
    )
    parser.add_argument("--list", action="store_true", help="print the mutants and try none")
    parser.add_argument(
        "--jobs", type=int, default=1, help="mutants tried at once, each in a copy of its own"
    )
    parser.add_argument("--timeout", type=float, default=600, help="seconds for the tests of one mutant")
    parser.add_argument("--no-baseline", action="store_true", help="do not run the tests unchanged first")
    options = parser.parse_args()
    options.tables = options.tables or tables
    if unknown := set(options.tables) - set(tables):
        parser.error(f"tables: expected some of {', '.join(tables)}, got {', '.join(sorted(unknown))}")
    return options


def chosen(options: argparse.Namespace) -> list[Mutant]:
    mutants = read_tables(options.tables)
    return [mutant for mutant in mutants if options.k in mutant.name or options.k in mutant.file]


def read_tables(names: list[str]) -> list[Mutant]:
    """The mutants of these tables."""
    return [Mutant(*row) for name in names for row in runpy.run_path(str(TABLES / f"{name}.py"))["MUTANTS"]]


def mistakes(mutants: list[Mutant]) -> list[str]:
    """What is wrong with rows of the tables, one line each; empty if they fit the code and the tests."""
    wrong = []
    for mutant in mutants:
        row = f"{mutant.file}: {mutant.name}:"
        path = ROOT / "face_landmarks" / mutant.file
        count = path.read_text(encoding="utf-8").count(mutant.old) if path.is_file() else 0
        if count != 1:
            wrong.append(f"{row} expected the old text once in the file, got it {count} times")
        if mutant.old == mutant.new:
            wrong.append(f"{row} expected a new text that differs from the old one, got the same")
        for word in mutant.tests.split():
            name, _, test = word.partition("::")
            place = ROOT / name
            if not place.exists() or (test and f"def {test}(" not in place.read_text(encoding="utf-8")):
                wrong.append(f"{row} expected the tests {word}, got none of this name")
        if not mutant.tests.split():
            wrong.append(f"{row} expected the tests that must fail, got none")
    return wrong


def copy_checkout(folder: Path) -> Path:
    """A copy of every file that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def passes_unchanged(mutants: list[Mutant], copies: "queue.Queue[Path]") -> bool:
    """Whether all tests pass in an unchanged copy: only then can a failure be a mutant's."""
    words = sorted({word for mutant in mutants for word in mutant.tests.split()})
    copy = copies.get()
    done = run_tests(words, copy, None)
    copies.put(copy)
    if done.returncode != PASSED:
        print(done.stdout[-3000:], "the tests fail without a mutant, too", sep="\n", file=sys.stderr)
    return done.returncode == PASSED


def try_mutant(mutant: Mutant, copy: Path, timeout: float) -> str:
    """What becomes of a mutant: caught, survived, timed out or broken."""
    path = copy / "face_landmarks" / mutant.file
    source = path.read_text(encoding="utf-8")
    path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        code = run_tests(mutant.tests.split(), copy, timeout).returncode
    except subprocess.TimeoutExpired:
        return "timed out"
    finally:
        path.write_text(source, encoding="utf-8")
    return {PASSED: "survived", FAILED: "caught"}.get(code, "broken")


def run_tests(words: list[str], copy: Path, timeout: float | None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *words],
        cwd=copy,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(copy)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


if __name__ == "__main__":
    raise SystemExit(main())
