"""The numbered statements of the two specifications, and the tests that carry their numbers.

Nothing is run here: the sources of the tests are read. A number counts where a test that can run carries it, by itself,
by its class, by its module, or by one of its parameters.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SPECIFICATIONS = {
    "item": (TESTS.parent / "docs/spec/direct-line-3.0.md", "## 14."),
    "bot_item": (TESTS.parent / "docs/spec/bot-side.md", "## 8."),
}
"""By marker: the specification, and its section with the numbered statements."""


def _numbers(text: str) -> frozenset[int]:
    """`1-3, 5` are the numbers 1, 2, 3 and 5."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


REQUIRED = {
    "item": _numbers("1-151, 154-171, 173-180, 182-197"),
    "bot_item": _numbers("1-99"),
}
"""What the product does by now. The rest belongs to parts that do not exist yet; a number joins with its part."""

_NOT_RUN = {"skip", "xfail"}


@cache
def stated(marker: str) -> frozenset[int]:
    """The numbers that the specification has."""
    path, section = SPECIFICATIONS[marker]
    _, _, rest = path.read_text("utf-8").partition(f"\n{section}")
    body = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return frozenset(int(number) for number in re.findall(r"^(\d+)\. ", body, re.MULTILINE))


@cache
def carried(marker: str) -> dict[int, list[str]]:
    """The tests by the numbers that they carry."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        if "node_modules" in path.parts:
            continue
        tree = ast.parse(path.read_text("utf-8"), str(path))
        for name, marks in _tests(tree.body, _module_marks(tree)):
            for number in _carried_by(marks, marker):
                found.setdefault(number, []).append(f"{path.relative_to(TESTS)}::{name}")
    return found


def _module_marks(tree: ast.Module) -> list[ast.expr]:
    return [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)
    ]


def _tests(body: Iterable[ast.stmt], above: list[ast.expr]) -> Iterator[tuple[str, list[ast.expr]]]:
    """Every test in `body` with the marks that hold for it."""
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            for name, marks in _tests(node.body, [*above, *node.decorator_list]):
                yield f"{node.name}::{name}", marks
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield node.name, [*above, *node.decorator_list]


def _carried_by(marks: list[ast.expr], marker: str) -> Iterator[int]:
    """The numbers in `marks`: inside a `pytest.param` too, and none at all for a test that is not run or may fail."""
    nodes = [node for mark in marks for node in ast.walk(mark)]
    if any(_mark_name(node) in _NOT_RUN for node in nodes):
        return
    for node in nodes:
        if isinstance(node, ast.Call) and _mark_name(node.func) == marker:
            for argument in node.args:
                number = ast.literal_eval(argument)
                assert type(number) is int, f"{marker}({number!r})"
                yield number


def _mark_name(node: ast.AST) -> str | None:
    """`x` for `pytest.mark.x`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "mark":
        return node.attr
    return None


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
    counted = {name: set(_carried_by(marks, "item")) for name, marks in _tests(tree.body, _module_marks(tree))}
    assert counted == {"test_skipped": set(), "TestAll::test_one": {1, 5, 6}}
