"""The drawing of the rooms is of this code."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "docs" / "draw_rooms.py"))


def test_the_page_shows_the_imports_as_they_are() -> None:
    assert SCRIPT["drawing"]() in (ROOT / "docs" / "rooms.md").read_text(), "make rooms"


def test_every_package_is_a_room() -> None:
    packages = {each.parent.name for each in (ROOT / "src" / "landline").glob("*/__init__.py")}
    assert packages <= SCRIPT["rooms"]().keys()


def test_no_import_points_upward() -> None:
    floor = {name: number for number, names in enumerate(SCRIPT["FLOORS"]) for name in names}
    assert not [(one, other) for one, other in SCRIPT["arrows"]() if floor[one] > floor[other]]
