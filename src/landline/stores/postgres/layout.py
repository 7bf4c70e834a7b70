"""The layout of the database: what makes it, how a node brings it up to date, and what it refuses to work with."""

from __future__ import annotations

from importlib import resources

import asyncpg
import structlog

from landline.errors import DataDirectoryError
from landline.stores.postgres.connections import Connection

_STEPS = ("schema.sql",)
"""What leads from each layout to the next. A step is never changed once it was released."""

VERSION = len(_STEPS)

_LOCK_TIMEOUT = "5s"
"""A step waits no longer than this for a table: whatever waits behind it would wait as well."""

_OLDEST = 14_00_00
"""PostgreSQL 14: what is asked of it is not tried with older ones."""

_log = structlog.get_logger(__name__)


def statements(since: int = 0) -> str:
    """What brings a database from layout `since` to the present one, for a DBA to run."""
    steps = []
    for number, step in enumerate(_STEPS[since:], since + 1):
        steps.append(f"BEGIN;\n\n{_text(step)}\nUPDATE landline.layout SET version = {number};\n\nCOMMIT;\n")
    return "\n".join(steps)


def _text(step: str) -> str:
    return resources.files(__package__).joinpath(step).read_text(encoding="utf-8")


async def prepare(connection: Connection) -> None:
    """Bring the database up to date, and check that it keeps what it is given. Raises `DataDirectoryError`."""
    try:
        await _check_settings(connection)
        await _migrate(connection)
    except asyncpg.InsufficientPrivilegeError as error:
        raise DataDirectoryError(
            f"This role may not do it ({error}). Let the owner of the database run what `landline store sql` prints, "
            "and grant the role USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its tables"
        ) from error


async def _version(connection: Connection) -> int | None:
    """The layout of the database, or None where there is none."""
    if await connection.fetchval("SELECT to_regclass('landline.layout')") is None:
        return None
    version: int | None = await connection.fetchval("SELECT version FROM landline.layout")
    return version


async def _migrate(connection: Connection) -> None:
    version = await _version(connection)
    if version is not None and version > VERSION:
        raise DataDirectoryError(
            f"The database was written by a newer version: its layout is {version}, this one knows {VERSION}"
        )
    while (version or 0) < VERSION:
        await _step(connection, version or 0)
        version = await _version(connection)


async def _step(connection: Connection, version: int) -> None:
    """One step, unless another node has taken it meanwhile. The row of `layout` is the lease: it is locked until the
    commit, which also works where a pooler hands sessions around."""
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            if version:
                there = await connection.fetchval("SELECT version FROM landline.layout FOR UPDATE")
                if there != version:
                    return
            await connection.execute(_text(_STEPS[version]))
            await connection.execute("UPDATE landline.layout SET version = $1", version + 1)
    except (asyncpg.DuplicateTableError, asyncpg.DuplicateSchemaError, asyncpg.UniqueViolationError):
        # Another node made the first layout at the same moment; its commit is what this one waited for.
        _log.info("another node has made the layout")


async def _check_settings(connection: Connection) -> None:
    if connection.get_server_version().major * 10_000 < _OLDEST:
        raise DataDirectoryError(f"PostgreSQL 14 or newer is needed; this is {connection.get_server_version().major}")
    rows = await connection.fetch(
        "SELECT name, setting FROM pg_settings WHERE name = ANY ($1)",
        ["fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names", "server_encoding"],
    )
    settings = {row["name"]: row["setting"] for row in rows}
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        if settings[name] == "off":
            raise DataDirectoryError(f"The database has {name} = off: it would lose what was acknowledged")
    if settings["server_encoding"] != "UTF8":
        raise DataDirectoryError(f"The database's encoding is {settings['server_encoding']}; UTF8 is needed")
    if not settings["synchronous_standby_names"]:
        _log.warning("the database has no synchronous standby: losing its disk loses what was acknowledged")
