"""How much a test that draws at random does, and what it draws from.

`make test` does little and draws the same every time. `make soak` does much, from a seed that the head of the run
prints: `LANDLINE_SEED=4711 make soak` draws the same again.
"""

from __future__ import annotations

import os

SOAK = os.environ.get("LANDLINE_SOAK") == "1"
SEED = int(os.environ.get("LANDLINE_SEED", "1"))


def rounds(few: int, many: int) -> int:
    """`few` in `make test`, `many` in `make soak`."""
    return many if SOAK else few
