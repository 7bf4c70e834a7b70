"""What is kept by name."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping

from landline import ports
from landline.stores.postgres.connections import Connection
from landline.stores.postgres.doorbells import RECORDS
from landline.stores.postgres.engine import Engine

_GET = "SELECT value FROM landline.records WHERE name = $1"
_ADD = "INSERT INTO landline.records (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING RETURNING true"


class Records(Engine, ports.Records):
    """As `landline.ports.Records` says."""

    @functools.cached_property
    def _turn(self) -> asyncio.Lock:
        """Changes of one node take place in the order of the calls."""
        return asyncio.Lock()

    async def put_if_absent(self, name: str, value: bytes) -> bytes:
        async def remember(connection: Connection) -> bytes:
            while True:
                if await connection.fetchval(_ADD, name, value):
                    return value
                kept: bytes | None = await connection.fetchval(_GET, name)
                if kept is not None:
                    return kept

        async with self._turn:
            kept = await self.change(remember)
        self._doorbells.ring(RECORDS, 0)
        return kept

    async def get(self, name: str) -> bytes | None:
        async def read(connection: Connection) -> bytes | None:
            value: bytes | None = await connection.fetchval(_GET, name)
            return value

        return await self.read(read)

    async def list(self, prefix: str) -> Mapping[str, bytes]:
        async def read(connection: Connection) -> Mapping[str, bytes]:
            rows = await connection.fetch(
                "SELECT name, value FROM landline.records WHERE name >= $1 AND starts_with(name, $1)", prefix
            )
            return dict(map(tuple, rows))

        return await self.read(read)

    def watch(self, changed: Callable[[], None]) -> None:
        self._records_changed = changed

    async def compare_and_set(self, name: str, old: bytes | None, new: bytes | None) -> bool:
        async with self._turn:
            done = await self.change(lambda connection: _replace(connection, name, old, new))
        self._doorbells.ring(RECORDS, 0)
        return done


async def _replace(connection: Connection, name: str, old: bytes | None, new: bytes | None) -> bool:
    if old is None and new is None:
        return await connection.fetchval(_GET, name) is None
    if old is None:
        done = await connection.fetchval(_ADD, name, new)
    elif new is None:
        done = await connection.fetchval(
            "DELETE FROM landline.records WHERE name = $1 AND value = $2 RETURNING true", name, old
        )
    else:
        done = await connection.fetchval(
            "UPDATE landline.records SET value = $3 WHERE name = $1 AND value = $2 RETURNING true", name, old, new
        )
    return bool(done)
