"""A store that nobody has open: looked through for damage, and put back from a copy.

The file is opened as a server would open it, so what a killed server left in the write-ahead log counts. The caller
holds the lock of the directory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import apsw

from landline.core.log import LAST_SEQUENCE, SEQUENCE_BITS
from landline.errors import DataDirectoryError
from landline.stores.directory import make, sync
from landline.stores.sqlite import layout
from landline.stores.sqlite.layout import connect

GAP = 100_000
"""Numbers that a declared restore leaves out in every conversation (8.1.6, D-44): more than anybody can have said
between the copy and the loss, so that no id is given twice."""

_LISTED = 20
"""Findings of one kind that are told one by one."""

# A gap of this size, or of several in a row, was declared; of what has expired, only the keys of sends may be left.
_HOLES = f"""
    SELECT c.id, before & {LAST_SEQUENCE}, place & {LAST_SEQUENCE} FROM (
        SELECT place, lag(place) OVER (ORDER BY place) AS before FROM entries
    ) JOIN conversations AS c ON c.number = place >> {SEQUENCE_BITS} AND c.number = before >> {SEQUENCE_BITS}
    WHERE c.purged_ms IS NULL AND before & {LAST_SEQUENCE} >= c.oldest AND (place - before - 1) % {GAP} != 0
"""  # noqa: S608  # integers of ours

_STEPS_BACK = f"""
    SELECT c.id, place & {LAST_SEQUENCE} FROM (
        SELECT place, time_ms, lag(place) OVER w AS before, lag(time_ms) OVER w AS before_ms FROM entries
        WINDOW w AS (ORDER BY place)
    ) JOIN conversations AS c ON c.number = place >> {SEQUENCE_BITS} AND c.number = before >> {SEQUENCE_BITS}
    WHERE c.purged_ms IS NULL AND time_ms <= before_ms
"""  # noqa: S608

_STRAYS = f"""
    SELECT e.arrival FROM entries AS e LEFT JOIN conversations AS c ON c.number = e.place >> {SEQUENCE_BITS}
    WHERE c.number IS NULL
"""  # noqa: S608

_WRONG_PLACES = "SELECT p.place FROM places AS p LEFT JOIN entries AS e USING (arrival) WHERE e.place IS NOT p.place"

# The newest may be missing: whoever opens the store learns of them (see `recent`).
_MISSING_PLACES = """
    SELECT e.arrival FROM entries AS e LEFT JOIN places AS p ON p.place = e.place
    WHERE p.place IS NULL AND e.arrival < (SELECT max(arrival) FROM places)
"""

# Of a conversation that never had an entry, the time of the restore stands for its last one's.
_LEAVE_GAP = f"""
    UPDATE conversations SET
        head = min({LAST_SEQUENCE}, {GAP} + max(head, coalesce(newest.place & {LAST_SEQUENCE}, -1) + 1)),
        last_ms = coalesce(max(last_ms, newest.time_ms), last_ms, newest.time_ms, ?)
    FROM (
        SELECT c.number, e.place, e.time_ms FROM conversations AS c LEFT JOIN entries AS e ON e.arrival = (
            SELECT arrival FROM places
            WHERE place >= c.number << {SEQUENCE_BITS} AND place < (c.number + 1) << {SEQUENCE_BITS}
            ORDER BY place DESC LIMIT 1
        )
    ) AS newest
    WHERE newest.number = conversations.number AND purged_ms IS NULL
"""  # noqa: S608


def examine(path: Path, now_ms: int) -> list[str]:
    """What is wrong with a store, a line each; nothing is changed. Reads all of it. Raises `DataDirectoryError` where
    it cannot even be opened."""
    connection = layout.open_writer(path, connect, now_ms)
    try:
        found = [f"the file is damaged: {line}" for line in _listed(_damage(connection))]
        return found or [*_listed(_gaps(connection)), *_listed(_disagreements(connection))]
    except apsw.Error as error:
        raise layout.unusable(path, error) from error
    finally:
        connection.close(True)


def leave_gap(path: Path, now_ms: int) -> int:
    """Declare that the store was put back from a copy: every conversation goes on `GAP` numbers later, so that no id is
    given twice (8.1.6). All of them or none, and durable; answers how many. Raises `DataDirectoryError`."""
    connection = layout.open_writer(path, connect, now_ms)
    try:
        recent = layout.unindexed(connection, path)
        with connection:
            connection.executemany("INSERT INTO places (place, arrival) VALUES (?, ?)", recent.items())
            connection.execute(_LEAVE_GAP, (now_ms,))
        return connection.changes()
    except apsw.Error as error:
        raise layout.unusable(path, error) from error
    finally:
        connection.close(True)


def put_back(copy: Path, data: Path, name: str, now_ms: int, without: Sequence[str]) -> int:
    """Make `data` out of a copy of it, and leave the gap; answers for how many conversations. `name` is the store's
    file, `without` what belongs to the process that made the copy.

    It is whole and durable when it appears under its name, or it does not appear; and it is private (0700, files 0600),
    whatever the modes of the copy are. No link in the copy is followed, since it could lead out of it. Raises
    `DataDirectoryError`; nothing is replaced that is there."""
    aside = data.with_name(f"{data.name}.restoring")
    if data.exists() and any(data.iterdir()):
        raise DataDirectoryError(f"{data} is not empty: move it away first")
    if not (copy / name).is_file():
        raise DataDirectoryError(f"{copy} is no copy of a data directory: there is no {name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        make(aside)
        _copy_privately(copy, aside, without)
        if found := examine(aside / name, now_ms):
            raise DataDirectoryError(f"{copy} is damaged: {found[0]}")
        conversations = leave_gap(aside / name, now_ms)
        for path in (aside, *aside.rglob("*")):
            sync(path)
        if data.exists():
            data.rmdir()
        aside.rename(data)
        sync(data.parent)
        return conversations
    except OSError as error:
        raise DataDirectoryError(f"{data} cannot be made of {copy}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _copy_privately(copy: Path, aside: Path, without: Sequence[str]) -> None:
    """What stands in one directory, into another one: as private from the first byte on as what a server makes."""
    for each in copy.iterdir():
        place = aside / each.name
        if each.name in without:
            continue
        if each.is_symlink() or not (each.is_dir() or each.is_file()):
            raise DataDirectoryError(f"{each} is neither a file nor a directory; cp -aL copies what a link leads to")
        if each.is_dir():
            place.mkdir(mode=0o700)
            _copy_privately(each, place, without)
        else:
            place.touch(mode=0o600, exist_ok=False)
            shutil.copyfile(each, place)
            found = each.stat()
            os.utime(place, ns=(found.st_atime_ns, found.st_mtime_ns))  # by which uploads expire


def _listed(findings: Iterator[str]) -> list[str]:
    """The first of them, and that there are more."""
    listed = list(islice(findings, _LISTED))
    return [*listed, "and more of this kind"] if next(findings, None) is not None else listed


def _damage(connection: apsw.Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield str(line)


def _gaps(connection: apsw.Connection) -> Iterator[str]:
    for conversation, before, after in connection.execute(_HOLES):
        yield f"conversation {conversation}: nothing stands between the numbers {before} and {after}"
    for conversation, sequence in connection.execute(_STEPS_BACK):
        yield f"conversation {conversation}: number {sequence} is not later than the one before it"


def _disagreements(connection: apsw.Connection) -> Iterator[str]:
    for query, what in (
        (_STRAYS, "entry {} belongs to no conversation"),
        (_WRONG_PLACES, "place {} leads to no entry"),
        (_MISSING_PLACES, "entry {} is not in the index of places"),
    ):
        for (number,) in connection.execute(query):
            yield what.format(number)
