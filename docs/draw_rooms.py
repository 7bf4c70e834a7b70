"""Draws the rooms of the code and the imports between them, with their sizes: `make rooms` writes docs/rooms.md.

A room is a package under `src/landline`, or one of the few modules beside them.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import grimp

PAGE = Path(__file__).with_name("rooms.md")
ROOT = Path(__file__).parents[1] / "src" / "landline"
FLOORS = (
    ("cli", "commands"),
    ("demo", "conformance", "client", "testing"),
    ("server",),
    ("channel", "stores", "blobs", "bots"),
    ("wire",),
    ("ports", "config", "observe", "durable"),
    ("core",),
    ("errors",),
)
"""From above, as pyproject.toml has them: an import points downward or stays on its floor."""
EVERYWHERE = frozenset({"core", "errors", "observe"})
"""What nearly every room imports; drawing those arrows would hide the others."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def rooms() -> dict[str, list[Path]]:
    """Each room with its files, floor by floor."""
    found: dict[str, list[Path]] = {}
    for name in (name for floor in FLOORS for name in floor):
        folder, file = ROOT / name, ROOT / f"{name}.py"
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else [file] if file.exists() else []
        if files:
            found[name] = files
    return found


def arrows() -> set[tuple[str, str]]:
    """Which room imports which other one."""
    graph = grimp.build_graph("landline", cache_dir=None)
    pairs = {
        (_room(module), _room(other))
        for module in graph.modules
        for other in graph.find_modules_directly_imported_by(module)
    }
    known = rooms().keys()
    return {(one, other) for one, other in pairs if one != other and {one, other} <= known}


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def drawing() -> str:
    """The rooms on their floors, as a Mermaid diagram."""
    known = rooms()
    lines = ["```mermaid", "flowchart TB"]
    for number, floor in enumerate(FLOORS):
        there = [name for name in floor if name in known]
        lines += [f"  subgraph floor{number} [ ]", "    direction LR", *(f"    {name}" for name in there), "  end"]
    lines += [f"  {one} --> {other}" for one, other in sorted(arrows()) if other not in EVERYWHERE]
    return "\n".join([*lines, "```"])


def _functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _methods(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name, sum(isinstance(each, Function) for each in node.body)


def _public(tree: ast.Module) -> int:
    names = (node.name for node in tree.body if isinstance(node, Function | ast.ClassDef))
    return sum(not name.startswith("_") for name in names)


def sizes() -> str:
    """A row for each room."""
    head = (
        "room", "files", "lines", "median file", "largest file", "median function", "longest function",
        "largest class", "public names",
    )  # fmt: skip
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for room, files in rooms().items():
        lines = {file: len(file.read_text().splitlines()) for file in files}
        trees = [ast.parse(file.read_text()) for file in files]
        functions = [(node.end_lineno or 0) - node.lineno + 1 for tree in trees for node in _functions(tree)]
        classes = sorted((count, name) for tree in trees for name, count in _methods(tree))
        largest = max(lines, key=lines.__getitem__)
        biggest = f"`{classes[-1][1]}`, {classes[-1][0]} methods" if classes and classes[-1][0] else ""
        rows.append(
            f"| `{room}` | {len(files)} | {sum(lines.values())} | {statistics.median(lines.values()):.0f} "
            f"| `{largest.relative_to(ROOT)}`, {lines[largest]} | {statistics.median(functions or [0]):.0f} "
            f"| {max(functions, default=0)} | {biggest} | {sum(map(_public, trees))} |"
        )
    return "\n".join(rows)


def page() -> str:
    everywhere = ", ".join(f"`{name}`" for name in sorted(EVERYWHERE))
    return f"""# The rooms, drawn from the code

`make rooms` writes this page. [Architecture](architecture.md) says what lives where.

## Who imports whom

An arrow is an import. Arrows to {everywhere} are left out, since nearly every room has them.

{drawing()}

## Sizes

Lines count everything that is in a file, docstrings too.

{sizes()}
"""


if __name__ == "__main__":
    PAGE.write_text(page())
