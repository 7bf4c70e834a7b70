"""Connections to PostgreSQL: how one is opened, kept alive, given up and opened again, and what its errors mean."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

import asyncpg
import structlog

from landline.stores.postgres.bounds import Bounds

T = TypeVar("T")


class Connection(Protocol):
    """What is used of asyncpg's connection, which has no types of its own. Rows are sequences."""

    async def execute(self, query: str, *arguments: object) -> str:
        """Run it."""
        ...

    async def fetch(self, query: str, *arguments: object) -> Sequence[Any]:
        """Its rows."""
        ...

    async def fetchrow(self, query: str, *arguments: object) -> Any:
        """Its first row, or None."""
        ...

    async def fetchval(self, query: str, *arguments: object) -> Any:
        """The first value of its first row, or None."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A transaction around a block."""
        ...

    def is_closed(self) -> bool:
        """Whether it was lost or closed."""
        ...

    def terminate(self) -> None:
        """Let go of it at once."""
        ...

    async def close(self, *, timeout: float) -> None:
        """Let go of it in an orderly way."""
        ...

    def get_server_pid(self) -> int:
        """The number of the server's process, as it was said at the start."""
        ...

    def get_server_version(self) -> Any:
        """The server's version."""
        ...

    async def add_listener(self, channel: str, callback: Callable[[object, int, str, object], None]) -> None:
        """LISTEN."""
        ...

    def add_termination_listener(self, callback: Callable[[object], None]) -> None:
        """Be told when it is lost."""
        ...


LOST: tuple[type[BaseException], ...] = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
)
"""The connection is gone, or was given up: what was under way may have happened."""

_REFUSED: tuple[type[BaseException], ...] = (
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""This server does not do it now: another attempt, maybe on another server, may work."""

AGAIN: tuple[type[BaseException], ...] = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
)
"""Rolled back; the same statement may work at once."""

KEEP_WHAT_IS_PROMISED = """
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')
"""
"""For each session that writes: what the database, or the role, has by default may be less."""

_KEEPALIVE_S = 3
_KEEPALIVES = 3

_log = structlog.get_logger(__name__)


def is_away(error: BaseException) -> bool:
    """Whether the error says that the database is away, not that a statement is wrong."""
    return isinstance(error, (*LOST, *_REFUSED))


class Link:
    """One connection, opened when it is needed, and again when it was lost. One user at a time."""

    def __init__(
        self,
        dsn: str,
        name: str,
        bounds: Bounds,
        *,
        greet: Callable[[Connection], Awaitable[None]] | None = None,
        is_pooled: bool = True,
    ) -> None:
        """Connects to nothing yet. `name` is shown to the DBA. `greet` is awaited with each new connection. Where a
        pooler may stand in between (`is_pooled`), no statement is prepared: the next one may reach another server."""
        self._dsn = dsn
        self._name = name
        self._bounds = bounds
        self._greet = greet
        self._is_pooled = is_pooled
        self._connection: Connection | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None and not self._connection.is_closed()

    async def connection(self) -> Connection:
        """The connection; opened, if it is not. Raises one of `LOST`, or what the server refused it for."""
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self._connection = None
        async with asyncio.timeout(self._bounds.connect_s):
            connection = await _connect(self._dsn, self._name, self._bounds, is_pooled=self._is_pooled)
            try:
                if self._greet is not None:
                    await self._greet(connection)
            except BaseException:
                connection.terminate()
                raise
        self._connection = connection
        return connection

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """What `work` makes of the connection, within `silent_s`. A connection that fails is given up."""
        connection = await self.connection()
        try:
            async with asyncio.timeout(self._bounds.silent_s):
                return await work(connection)
        except BaseException as error:
            if not isinstance(error, asyncpg.PostgresError) or is_away(error):
                self.drop()  # a statement that is still under way must not meet the next one
            raise

    def drop(self) -> None:
        """Give the connection up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Close it, in an orderly way if that takes no time."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*LOST, asyncpg.PostgresError):
                await connection.close(timeout=1)


async def is_pooled(connection: Connection) -> bool:
    """Whether a pooler stands in between: it gives a process number of its own."""
    return bool(connection.get_server_pid() != await connection.fetchval("SELECT pg_backend_pid()"))


async def _connect(dsn: str, name: str, bounds: Bounds, *, is_pooled: bool) -> Connection:
    connection: Connection = await asyncpg.connect(
        dsn,
        timeout=bounds.connect_s,
        server_settings={"application_name": name},
        target_session_attrs="read-write",
        statement_cache_size=0 if is_pooled else 100,
        max_cached_statement_lifetime=0,
    )
    _keep_alive(connection, bounds)
    return connection


def _keep_alive(connection: Connection, bounds: Bounds) -> None:
    """Let the kernel notice a server that was cut off, also while nothing is asked of it."""
    transport = getattr(connection, "_transport", None)  # asyncpg gives no other way to its socket
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(bounds.silent_s * 1000))
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_S)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVES)
