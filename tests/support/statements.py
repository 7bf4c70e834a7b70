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

TESTS = Path(__file__).parents[1]
SPECIFICATIONS = {
    "item": (TESTS.parent / "docs/spec/direct-line-3.0.md", "## 14."),
    "bot_item": (TESTS.parent / "docs/spec/bot-side.md", "## 8."),
}
"""By marker: the specification, and its section with the numbered statements."""


_NOT_RUN = {"skip", "xfail"}


@cache
def statements(marker: str) -> dict[int, str]:
    """What the specification states, by number."""
    path, section = SPECIFICATIONS[marker]
    _, _, rest = path.read_text("utf-8").partition(f"\n{section}")
    body = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return {int(number): text for number, text in re.findall(r"^(\d+)\. (.*)$", body, re.MULTILINE)}


def stated(marker: str) -> frozenset[int]:
    """The numbers that it has."""
    return frozenset(statements(marker))


@cache
def carried(marker: str) -> dict[int, list[str]]:
    """The tests by the numbers that they carry."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        if "node_modules" in path.parts:
            continue
        tree = ast.parse(path.read_text("utf-8"), str(path))
        for name, marks in marked_tests(tree.body, module_marks(tree)):
            for number in carried_by(marks, marker):
                found.setdefault(number, []).append(f"{path.relative_to(TESTS)}::{name}")
    return found


def module_marks(tree: ast.Module) -> list[ast.expr]:
    return [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)
    ]


def marked_tests(body: Iterable[ast.stmt], above: list[ast.expr]) -> Iterator[tuple[str, list[ast.expr]]]:
    """Every test in `body` with the marks that hold for it."""
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            for name, marks in marked_tests(node.body, [*above, *node.decorator_list]):
                yield f"{node.name}::{name}", marks
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield node.name, [*above, *node.decorator_list]


def carried_by(marks: list[ast.expr], marker: str) -> Iterator[int]:
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
