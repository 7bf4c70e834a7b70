from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from landline.ports import Store
from landline.stores.sqlite import SqliteStore
from support.stores import HOMES, Home, InSqlite


@pytest.fixture(params=HOMES)
async def home(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Home]:
    """Each store once."""
    home: Home = HOMES[request.param](tmp_path)
    yield home
    await home.close()


@pytest.fixture
async def store(home: Home) -> Store:
    """Each store once, open and empty."""
    return await home.open()


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[InSqlite]:
    """Where a `SqliteStore` can live; its bounds may still be changed."""
    home = InSqlite(tmp_path)
    yield home
    await home.close()


@pytest.fixture
async def sqlite(embedded: InSqlite) -> SqliteStore:
    """A `SqliteStore`, open and empty."""
    return await embedded.open()
