"""The tables of mutants fit the code, and the script tells what became of each."""

import runpy
from dataclasses import replace
from pathlib import Path

MUTATE = Path(__file__).parents[2] / "examples" / "lab" / "checks" / "mutate.py"
SCRIPT = runpy.run_path(str(MUTATE))
MUTANTS = SCRIPT["read_tables"](sorted(path.stem for path in SCRIPT["TABLES"].glob("*.py")))


def test_the_old_text_of_every_mutant_occurs_once_and_its_tests_exist():
    assert len(MUTANTS) > 100
    assert SCRIPT["mistakes"](MUTANTS) == []


def test_a_row_that_does_not_fit_is_named():
    good = MUTANTS[0]
    rows = {
        "expected the old text once in the file, got it 0 times": replace(good, old="no such text"),
        "expected the old text once in the file, got it 9 times": replace(
            good, file="pts.py", old="AnnotationError"
        ),
        "expected a new text that differs": replace(good, new=good.old),
        "expected the tests tests/nowhere.py, got none": replace(good, tests="tests/nowhere.py"),
        "expected the tests that must fail, got none": replace(good, tests=""),
    }
    for message, row in rows.items():
        (mistake,) = SCRIPT["mistakes"]([row])
        assert message in mistake and row.name in mistake


def test_every_mutant_has_a_name_of_its_own():
    names = [(mutant.file, mutant.name) for mutant in MUTANTS]
    assert len(set(names)) == len(names)
