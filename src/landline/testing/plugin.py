"""The pytest plugin. Every pytest run of the environment imports this, so it imports next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from landline.testing.channel import Landline


@pytest.fixture
def landline() -> Iterator[Landline]:
    """A Direct Line channel on a free port, with a temporary store."""
    from landline.testing.channel import Landline

    with Landline() as channel:
        yield channel
