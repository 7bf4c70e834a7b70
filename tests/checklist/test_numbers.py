"""Every statement about what exists is shown by a test that carries its number."""

from __future__ import annotations

import ast

import pytest

from support.statements import SPECIFICATIONS, carried, carried_by, marked_tests, module_marks, stated


def _numbers(text: str) -> frozenset[int]:
    """`1-3, 5` are the numbers 1, 2, 3 and 5."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


REQUIRED = {
    "item": _numbers("1-151, 154-171, 173-180, 182-197, 203, 205-209, 214"),
    "bot_item": _numbers("1-99"),
}
"""What the product does by now. The rest belongs to parts that do not exist yet; a number joins with its part."""


@pytest.mark.parametrize("marker", SPECIFICATIONS)
def test_the_statements_are_numbered_without_gap(marker: str) -> None:
    """Which also shows that this file reads the specification at all."""
    assert len(stated(marker)) > 90
    assert stated(marker) == set(range(1, max(stated(marker)) + 1))


@pytest.mark.parametrize("marker", SPECIFICATIONS)
def test_every_statement_about_what_exists_is_shown_by_a_test(marker: str) -> None:
    missing = sorted(REQUIRED[marker] - carried(marker).keys())
    assert missing == [], f"no test carries {marker} {missing}"


@pytest.mark.parametrize("marker", SPECIFICATIONS)
def test_no_test_carries_a_number_that_nobody_stated(marker: str) -> None:
    invented = {number: tests for number, tests in carried(marker).items() if number not in stated(marker)}
    assert invented == {}
    assert stated(marker) >= REQUIRED[marker]


def test_a_mark_counts_only_on_a_test_that_runs() -> None:
    source = """
import pytest
pytestmark = [pytest.mark.item(1)]
@pytest.mark.item(2)
def helper(): ...
@pytest.mark.skip
@pytest.mark.item(3)
def test_skipped(): ...
class TestAll:
    number = pytest.mark.item(4)
    @pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.item(5, 6)), 2])
    @pytest.mark.bot_item(7)
    async def test_one(self, x): ...
@pytest.mark.item(8)
class TestEmpty: ...
"""
    tree = ast.parse(source)
    counted = {name: set(carried_by(marks, "item")) for name, marks in marked_tests(tree.body, module_marks(tree))}
    assert counted == {"test_skipped": set(), "TestAll::test_one": {1, 5, 6}}
