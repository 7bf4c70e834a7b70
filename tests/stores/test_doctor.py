"""A store that is looked through, and one that was put back from a copy."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import apsw
import pytest

from landline.core.log import ConversationId, Entry, NewEntry, Original, SendKey
from landline.errors import DataDirectoryError
from landline.stores import doctor
from landline.stores.doctor import GAP
from landline.stores.sqlite import FILE, SqliteStore
from landline.stores.sqlite.bounds import Bounds
from support.stores import InSqlite, a_conversation

A, B, EMPTY = ConversationId("A"), ConversationId("B"), ConversationId("empty")


async def say(store: SqliteStore, name: ConversationId, text: str) -> int:
    return (await store.append(name, NewEntry(text.encode()), math.inf)).sequence


async def log_of(store: SqliteStore, name: ConversationId, position: int = 0) -> list[tuple[int, bytes]]:
    page = await store.read_after(name, position, 1000, 1 << 20, for_stream=True)
    return [(each.sequence, each.body) for each in page.records if isinstance(each, Entry)]


@pytest.fixture
async def file(embedded: InSqlite) -> Path:
    """The file of a closed store: entries that the index knows and some that it does not, an update, a deletion."""
    embedded.bounds = Bounds(index_after=5)
    store = await embedded.open()
    for name in (A, B, EMPTY):
        await store.start(a_conversation(name))
    for number in range(4):
        await say(store, A, f"a{number}")
        await say(store, B, f"b{number}")
    await store.append(A, NewEntry(b"a1, better", original=Original(1, 1)), math.inf)
    await store.delete(A, 2, NewEntry(b""), math.inf)
    await embedded.close()
    return embedded.path / FILE


def spoil(file: Path, statement: str) -> None:
    connection = apsw.Connection(str(file))
    connection.execute(statement)
    connection.close()


def now_ms(embedded: InSqlite) -> int:
    return embedded.clock.now_ms()


async def test_nothing_is_wrong_with_a_sound_store(file: Path, embedded: InSqlite) -> None:
    assert doctor.examine(file, now_ms(embedded)) == []


async def test_nothing_is_wrong_with_a_store_in_which_something_has_expired(file: Path, embedded: InSqlite) -> None:
    """Of what has expired, keys of sends stay known for a while, and nothing stands between them."""
    store = await embedded.open()
    for number in range(4):
        key = SendKey("ann", str(number), b"digest") if number % 2 else None
        await store.append(A, NewEntry(b"{}", key=key), math.inf)
    embedded.clock.move(by_ms=60_000)
    await say(store, A, "later")
    await store.expire(now_ms(embedded), 0, 0)
    await embedded.close()
    assert doctor.examine(file, now_ms(embedded)) == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM entries WHERE body = 'b2'", "conversation B: nothing stands between the numbers 1 and 3"),
        (
            "UPDATE entries SET time_ms = 1 WHERE body = 'b2'",
            "conversation B: number 2 is not later than the one before it",
        ),
        ("DELETE FROM conversations WHERE id = 'B'", "entry 2 belongs to no conversation"),
        ("UPDATE places SET arrival = 1 WHERE arrival = 2", "leads to no entry"),
        ("DELETE FROM places WHERE arrival = 2", "entry 2 is not in the index of places"),
    ],
)
async def test_what_is_wrong_is_said(statement: str, says: str, file: Path, embedded: InSqlite) -> None:
    spoil(file, statement.replace("'b2'", "CAST('b2' AS BLOB)"))
    found = doctor.examine(file, now_ms(embedded))
    assert any(says in line for line in found), found


async def test_a_damaged_file_is_said_to_be(file: Path, embedded: InSqlite) -> None:
    spoil(file, "VACUUM")
    size = file.stat().st_size
    with file.open("r+b") as pages:
        pages.seek(size // 2 // 4096 * 4096)
        pages.write(b"\xff" * 4096)
    try:
        found = doctor.examine(file, now_ms(embedded))
    except DataDirectoryError as error:
        found = [error.message]
    assert any("damaged" in line for line in found), found


async def test_many_findings_are_not_all_told(file: Path, embedded: InSqlite) -> None:
    spoil(file, "DELETE FROM conversations")
    spoil(
        file,
        "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 200)"
        " INSERT INTO entries (arrival, place, time_ms, audience, body) SELECT i, i << 28, 1, 0, x'' FROM n",
    )
    found = doctor.examine(file, now_ms(embedded))
    assert found.count("and more of this kind") == 1
    assert len(found) < 60


async def test_after_a_restore_each_log_goes_on_behind_one_gap(file: Path, embedded: InSqlite) -> None:
    before = {}
    store = await embedded.open()
    for name in (A, B):
        before[name] = await log_of(store, name)
    await embedded.close()
    assert doctor.leave_gap(file, now_ms(embedded)) == 3
    assert doctor.examine(file, now_ms(embedded)) == []
    for _ in range(2):  # and after one more restart
        store = await embedded.open()
        for name, head in ((A, 6), (B, 4), (EMPTY, 0)):
            found = await store.conversation(name)
            assert found is not None
            assert found.head >= head + GAP
            assert await log_of(store, name) == before.get(name, []), "what is there stays"
            assert await log_of(store, name, head + 17) == []
        await embedded.close()
    store = await embedded.open()
    assert [await say(store, name, "on") for name in (A, B, EMPTY)] == [6 + GAP, 4 + GAP, GAP]
    assert await log_of(store, B) == [*before[B], (4 + GAP, b"on")]
    assert await log_of(store, B, 4) == [(4 + GAP, b"on")]
    await embedded.close()
    assert doctor.examine(file, now_ms(embedded)) == []


async def test_the_last_entry_before_the_gap_proves_the_position_behind_it(file: Path, embedded: InSqlite) -> None:
    """It is what the watermark of the head was made of before anything was said after the restore."""
    doctor.leave_gap(file, now_ms(embedded))
    store = await embedded.open()
    found = await store.conversation(B)
    assert found is not None
    last_ms = await store.accepted_at(B, 3)
    assert (found.head, found.last_ms) == (4 + GAP, last_ms)
    await say(store, B, "on")
    assert await store.accepted_at(B, 3 + GAP) == last_ms
    store = await embedded.restart()
    assert await store.accepted_at(B, 3 + GAP) == last_ms
    assert [await store.accepted_at(B, sequence) for sequence in (4, 50, 2 + GAP)] == [None, None, None]


async def test_two_restores_leave_two_gaps(file: Path, embedded: InSqlite) -> None:
    doctor.leave_gap(file, now_ms(embedded))
    doctor.leave_gap(file, now_ms(embedded))
    store = await embedded.open()
    assert await say(store, B, "on") == 4 + 2 * GAP
    await embedded.close()
    assert doctor.examine(file, now_ms(embedded)) == []


async def test_a_copy_is_put_back_whole_or_not_at_all(file: Path, embedded: InSqlite, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(embedded.path, copy)
    (copy / "blobs").mkdir(exist_ok=True)
    (copy / "blobs" / "picture").write_bytes(b"bytes")
    os.utime(copy / "blobs" / "picture", (1_000_000_000, 1_000_000_000))
    for path in (copy, *copy.rglob("*")):  # as a copy over a network, or out of an archive, may be
        path.chmod(0o777 if path.is_dir() else 0o666)
    with pytest.raises(DataDirectoryError, match="not empty"):
        doctor.put_back(copy, embedded.path, FILE, now_ms(embedded), ["lock"])
    fresh = tmp_path / "fresh"
    for nothing in (tmp_path / "blobs", tmp_path):
        nothing.mkdir(exist_ok=True)
        with pytest.raises(DataDirectoryError, match="no copy of a data directory"):
            doctor.put_back(nothing, fresh, FILE, now_ms(embedded), ["lock"])
    damaged = tmp_path / "damaged"
    shutil.copytree(copy, damaged)
    spoil(damaged / FILE, "DELETE FROM entries WHERE arrival = 2")
    with pytest.raises(DataDirectoryError, match="damaged"):
        doctor.put_back(damaged, fresh, FILE, now_ms(embedded), ["lock"])
    assert not fresh.exists()
    for odd, make in (("link", lambda path: path.symlink_to("/etc/hostname")), ("pipe", os.mkfifo)):
        spoilt = tmp_path / f"with a {odd}"
        shutil.copytree(copy, spoilt)
        make(spoilt / "blobs" / odd)
        with pytest.raises(DataDirectoryError, match=f"{odd} is neither a file nor a directory"):
            doctor.put_back(spoilt, fresh, FILE, now_ms(embedded), ["lock"])
    assert not fresh.exists()
    fresh.mkdir()
    fresh.chmod(0o777)
    assert doctor.put_back(copy, fresh, FILE, now_ms(embedded), ["lock"]) == 3
    assert (fresh / "blobs" / "picture").read_bytes() == b"bytes"
    assert int((fresh / "blobs" / "picture").stat().st_mtime) == 1_000_000_000, "by which uploads expire"
    for path in (fresh, *fresh.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert not (fresh / "lock").exists()
    assert {path.name for path in tmp_path.iterdir() if "restoring" in path.name} == set()
