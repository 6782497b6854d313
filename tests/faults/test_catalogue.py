"""The table of the thirty trials: each has tests, which exist, and one of them runs by default."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"
ROW = re.compile(r"\| (\d+) \| (.+) \| (.+) \| (.+) \|")
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")

ROWS = [match for line in PAGE.read_text().splitlines() if (match := ROW.fullmatch(line))]


@cache
def is_slow_by_test(file: str) -> dict[str, bool]:
    """The tests of a file by name, and whether each is left to `make test-all` as a whole."""
    functions = [
        node for node in ast.parse((TESTS / file).read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    return {
        function.name: any(ast.unparse(mark) == "pytest.mark.slow" for mark in function.decorator_list)
        for function in functions
        if function.name.startswith("test_")
    }


def test_the_page_holds_thirty_trials_in_order():
    assert [int(row[1]) for row in ROWS] == list(range(1, 31))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_each_trial_is_shown_by_tests_that_exist(row):
    named = TEST.findall(row[4])
    assert len(named) == row[4].count("`") / 2 > 0
    missing = [f"{file}::{name}" for file, name in named if name not in is_slow_by_test(file)]
    assert missing == []
    assert not all(is_slow_by_test(file)[name] for file, name in named)


def test_each_file_of_trials_is_named():
    files = {f"faults/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert files - {file for file, _ in TEST.findall(PAGE.read_text())} == {"faults/test_catalogue.py"}
