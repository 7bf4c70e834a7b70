"""A restore that is killed: the data directory is there whole, with its gap, or it is not there."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import time
from pathlib import Path

import apsw
import pytest

from landline.core.conversation import NewConversation
from landline.core.log import ConversationId, NewEntry
from landline.stores import doctor
from landline.stores.directory import Directory
from landline.stores.doctor import GAP
from landline.stores.sqlite import FILE, SqliteStore
from support.clock import FakeClock
from support.rounds import SEED, rounds

FILES, FILE_BYTES = 300, 64 << 10
KILLS = rounds(5, 500)
SPREAD_S = 0.4
ENTRIES = 5
NAME = ConversationId("A")


@pytest.fixture
async def copy(tmp_path: Path) -> Path:
    """A copy of a data directory, with files enough that a restore takes a moment."""
    clock, path = FakeClock(), tmp_path / "copy"
    store = SqliteStore(Directory(path), clock)
    await store.open()
    await store.start(NewConversation(NAME, "bot"))
    for number in range(ENTRIES):
        await store.append(NAME, NewEntry(b"%d" % number), float("inf"))
    await store.close()
    blobs = path / "blobs"
    blobs.mkdir(exist_ok=True)
    for number in range(FILES):
        (blobs / str(number)).write_bytes(bytes([number % 256]) * FILE_BYTES)
    return path


async def restoring(copy: Path, data: Path) -> asyncio.subprocess.Process:
    words = ("-m", "landline", "restore", str(copy), "--data", str(data))
    return await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.DEVNULL)


def check_whole(data: Path) -> None:
    """Everything is there, and one gap."""
    assert doctor.examine(data / FILE, time.time_ns() // 1_000_000) == []
    connection = apsw.Connection(str(data / FILE))
    assert connection.execute("SELECT head FROM conversations").get == ENTRIES + GAP
    connection.close()
    assert {path.stat().st_size for path in (data / "blobs").iterdir()} == {FILE_BYTES}
    assert len(list((data / "blobs").iterdir())) == FILES


async def test_a_restore_that_is_killed_leaves_all_or_nothing(copy: Path, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    data = tmp_path / "data"
    aside = data.with_name("data.restoring")
    unfinished = 0
    for _ in range(KILLS):
        process = await restoring(copy, data)
        while process.returncode is None and not aside.exists() and not data.exists():
            await asyncio.sleep(0.001)
        await asyncio.sleep(chance.uniform(0, SPREAD_S))
        if process.returncode is None:
            process.kill()
        await asyncio.wait_for(process.wait(), 20)
        if data.exists():
            check_whole(data)
            shutil.rmtree(data)
        else:
            unfinished += 1
    assert unfinished, "none was killed in time"
    process = await restoring(copy, data)  # what was left aside is in nobody's way
    assert await asyncio.wait_for(process.wait(), 60) == 0
    check_whole(data)
    assert not aside.exists()
