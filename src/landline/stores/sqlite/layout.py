"""The SQLite file of a store: what stands in it, how it is opened and checked, and what its errors mean.

Entries stand in the order in which they arrived, whatever their conversation: a group of appends to many conversations
fills a few pages. `place` is conversation number << 28 | sequence; the index of places, in which a log is one range,
would touch one page for each conversation, and so learns of many entries at once, and later (see `recent`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from operator import itemgetter
from pathlib import Path

import apsw

from landline.errors import DataDirectoryError

Connect = Callable[[Path], apsw.Connection]
"""How connections are made. Tests put a disk in between that breaks."""

_APPLICATION = 0x4C4E444C
"""`PRAGMA application_id`, so that no other program's database is taken for ours."""

BUSY_MS = 5000
"""How long another process that looks into the file is waited for."""

_A_DAY_MS = 86_400_000

_STEPS = (
    """
    CREATE TABLE conversations (
        number INTEGER PRIMARY KEY CHECK (number < 1 << 35),
        id TEXT NOT NULL UNIQUE,
        bot_id TEXT NOT NULL,
        user_id TEXT,
        user_name TEXT,
        locale TEXT,
        -- Where the log goes on, unless its last entry says more. Not touched by an append, which would be one more
        -- page to write: only for a log that lost its last entries, or is to leave a gap.
        head INTEGER NOT NULL DEFAULT 0,
        last_ms INTEGER,
        -- The first number that retention has left.
        oldest INTEGER NOT NULL DEFAULT 0,
        used_ms INTEGER NOT NULL,
        -- A conversation that is gone leaves its row behind as a tombstone. `cleared` when its entries are gone, too.
        purged_ms INTEGER,
        cleared INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX by_bot ON conversations (bot_id);
    CREATE INDEX by_use ON conversations (used_ms) WHERE purged_ms IS NULL;
    CREATE INDEX tombstones ON conversations (cleared, purged_ms) WHERE purged_ms IS NOT NULL;
    CREATE TABLE entries (
        arrival INTEGER PRIMARY KEY,
        place INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        audience INTEGER NOT NULL,
        original_place INTEGER,
        original_ms INTEGER,
        -- Conversation number and digest of who sent it under which key; what was sent; whether the bot took it.
        send_key BLOB,
        send_digest BLOB,
        taken INTEGER NOT NULL DEFAULT 0,
        body BLOB NOT NULL
    ) STRICT;
    -- The index of places: of every entry but the last that arrived.
    CREATE TABLE places (place INTEGER PRIMARY KEY, arrival INTEGER NOT NULL) STRICT;
    CREATE INDEX versions ON entries (original_place) WHERE original_place IS NOT NULL;
    CREATE UNIQUE INDEX keys ON entries (send_key) WHERE send_key IS NOT NULL;
    CREATE TABLE members (
        conversation INTEGER NOT NULL,
        account_id TEXT NOT NULL,
        name TEXT,
        is_bot INTEGER NOT NULL,
        announced INTEGER NOT NULL DEFAULT 0,
        rank INTEGER NOT NULL,
        -- Who has left took part all the same: that is how a person is found who is to be forgotten.
        has_left INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (conversation, account_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX memberships ON members (account_id) WHERE NOT is_bot;
    CREATE TABLE failures (
        arrival INTEGER PRIMARY KEY AUTOINCREMENT,
        bot_id TEXT NOT NULL,
        conversation TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        reason TEXT NOT NULL,
        status INTEGER,
        attempts INTEGER NOT NULL,
        UNIQUE (conversation, sequence)
    ) STRICT;
    CREATE TABLE kept (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    """,
)
"""What leads from each version of the file to the next. Steps that were released are never changed."""


def connect(path: Path, vfs: str | None = None) -> apsw.Connection:
    """Open a file that exists. A commit is durable when it returns, on macOS too."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    connection.set_busy_timeout(BUSY_MS)
    connection.pragma("synchronous", "full")
    connection.pragma("fullfsync", True)
    connection.pragma("trusted_schema", False)
    connection.pragma("secure_delete", True)  # what was deleted is not to be found in the file
    return connection


def open_writer(path: Path, connect: Connect, now_ms: int) -> apsw.Connection:
    """The one connection that writes, and moves the write-ahead log into the database. Raises `DataDirectoryError`.

    Nothing here reads more of the file than a few pages: a store with a million conversations opens at once.
    """
    _check_whole(path)
    try:
        connection = connect(path)
    except apsw.Error as error:
        raise unusable(path, error) from error
    try:
        _prepare(connection, path, now_ms)
    except BaseException as error:
        # What cannot be used is left as it was found.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.close(True)
        if isinstance(error, apsw.Error):
            raise unusable(path, error) from error
        raise
    return connection


def open_reader(path: Path, connect: Connect) -> apsw.Connection:
    """A connection that only reads, beside the one that writes. Raises `DataDirectoryError`."""
    try:
        connection = connect(path)
        connection.pragma("query_only", True)
    except apsw.Error as error:
        raise unusable(path, error) from error
    return connection


def unindexed(connection: apsw.Connection, path: Path) -> dict[int, int]:
    """The newest entries, those that the index of places does not have: place and arrival, the oldest first. Raises
    `DataDirectoryError`."""
    query = """
        SELECT e.place, e.arrival, p.place IS NULL FROM entries AS e LEFT JOIN places AS p ON p.place = e.place
        ORDER BY e.arrival DESC
    """
    try:
        newest = [(place, arrival) for place, arrival, _ in takewhile(itemgetter(2), connection.execute(query))]
    except apsw.Error as error:
        raise unusable(path, error) from error
    return dict(reversed(newest))


def trouble(error: Exception) -> str:
    """What an error means, for whoever can do something about it."""
    if isinstance(error, apsw.FullError):
        return "the disk is full"
    return "the disk fails" if isinstance(error, apsw.IOError) else "see the server's log"


def is_final(error: apsw.Error) -> bool:
    """Whether nothing may be written after this until a restart.

    After a failed sync the operating system takes the pages for clean, and the next sync succeeds without having
    written them. A corrupt page would be made worse.
    """
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return True
    return getattr(error, "extendedresult", 0) in (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC)


def _check_whole(path: Path) -> None:
    """SQLite deletes the write-ahead log of an empty database. If one of ours is empty, somebody took it away."""
    log = path.with_name(f"{path.name}-wal")
    if path.stat().st_size == 0 and log.exists() and log.stat().st_size > 0:
        raise DataDirectoryError(f"{path} is empty, but {log.name} beside it is not: the file was lost or replaced")


def _prepare(connection: apsw.Connection, path: Path, now_ms: int) -> None:
    version = _version(connection, path)
    connection.pragma("journal_mode", "wal")
    connection.wal_autocheckpoint(0)
    # Before anything is shown. What a killed process wrote but did not sync can be read already, and would still be
    # lost in a power cut; moved into the database it is durable.
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    for number, step in enumerate(_STEPS[version:], version + 1):
        with connection:
            connection.execute(step)
            connection.pragma("application_id", _APPLICATION)
            connection.pragma("user_version", number)
    newest = connection.execute("SELECT time_ms FROM entries ORDER BY arrival DESC LIMIT 1").get
    if newest is not None and newest > now_ms + _A_DAY_MS:
        ahead_h = (newest - now_ms) // 3_600_000
        raise DataDirectoryError(f"{path}: the newest entry is {ahead_h} h ahead of the clock; is the clock right?")


def _version(connection: apsw.Connection, path: Path) -> int:
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    if application != _APPLICATION and (
        application or version or connection.execute("SELECT 1 FROM sqlite_schema").get
    ):
        raise DataDirectoryError(f"{path} is not a store of this server")
    if version > len(_STEPS):
        raise DataDirectoryError(
            f"{path} was written by a newer version: its layout is {version}, this one knows {len(_STEPS)}"
        )
    return int(version)


def unusable(path: Path, error: apsw.Error) -> DataDirectoryError:
    """What to end with where the file cannot be used."""
    damaged = isinstance(error, (apsw.CorruptError, apsw.NotADBError))
    return DataDirectoryError(f"{path} is damaged: {error}" if damaged else f"{path} cannot be opened: {error}")
