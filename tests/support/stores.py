"""Where the stores of the contract suite live. A new store is compared with the others by one more class here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import apsw
import pytest

from landline.core.conversation import Account, NewConversation
from landline.core.log import ConversationId
from landline.ports import Store
from landline.stores.directory import Directory
from landline.stores.memory import MemoryStore
from landline.stores.postgres import PostgresStore
from landline.stores.postgres.bounds import Bounds as PostgresBounds
from landline.stores.sqlite import FILE, SqliteStore
from landline.stores.sqlite.bounds import Bounds
from landline.stores.sqlite.layout import Connect, connect
from support import postgres
from support.clock import FakeClock

BOT = "bot"


class Home(Protocol):
    """A place where a store can be opened, closed, and opened again."""

    clock: FakeClock

    async def open(self) -> Store:
        """The store, open."""
        ...

    async def restart(self) -> Store:
        """The store as the next process finds it."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...

    async def set_head(self, conversation: ConversationId, head: int) -> None:
        """Let the empty log of `conversation` go on at `head`, as if everything before had been removed."""
        ...


class InMemory:
    """The model. It stands for what a restart must show, and so does not forget."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)

    async def open(self) -> Store:
        await self.store.open()
        return self.store

    async def restart(self) -> Store:
        return self.store

    async def close(self) -> None:
        await self.store.close()

    async def set_head(self, conversation: ConversationId, head: int) -> None:
        self.store.set_head(conversation, head)


class InSqlite:
    """A directory on a real disk. What `SqliteStore` is given may be changed before it is opened."""

    def __init__(self, path: Path, bounds: Bounds | None = None) -> None:
        self.clock = FakeClock()
        self.path = path / "data"
        self.bounds = bounds or Bounds()
        self.connect: Connect = connect
        self.store: SqliteStore | None = None

    async def open(self) -> SqliteStore:
        store = SqliteStore(Directory(self.path), self.clock, self.bounds, connect=self.connect)
        await store.open()
        self.store = store
        return store

    async def restart(self) -> SqliteStore:
        await self.close()
        return await self.open()

    async def close(self) -> None:
        if self.store is not None:
            await self.store.close()

    async def set_head(self, conversation: ConversationId, head: int) -> None:
        """Behind the store's back, so it must not have been asked for the conversation since it was opened."""
        connection = apsw.Connection(str(self.path / FILE))
        connection.execute("UPDATE conversations SET head = ? WHERE id = ?", (head, conversation))
        connection.close()


class InPostgres:
    """A database of its own in the cluster of this process."""

    def __init__(self, path: Path, bounds: PostgresBounds | None = None) -> None:
        if postgres.PROGRAMS is None:
            pytest.skip(postgres.MISSING)
        self.clock = FakeClock()
        self.cluster = postgres.cluster()
        self.database = self.cluster.take()
        self.bounds = bounds or PostgresBounds()
        self.store: PostgresStore | None = None

    async def open(self) -> PostgresStore:
        store = PostgresStore(self.cluster.url(self.database), self.clock, self.bounds)
        await store.open()
        self.store = store
        return store

    async def restart(self) -> PostgresStore:
        assert self.store is not None
        await self.store.close()
        return await self.open()

    async def close(self) -> None:
        if self.store is not None:
            await self.store.close()
        self.cluster.give_back(self.database)

    async def set_head(self, conversation: ConversationId, head: int) -> None:
        self.cluster.sql(f"UPDATE landline.conversations SET head = {head} WHERE id = '{conversation}'", self.database)


HOMES: dict[str, Any] = {"memory": InMemory, "sqlite": InSqlite, "postgres": InPostgres}


def a_conversation(name: str, user: str | None = None) -> NewConversation:
    """A conversation called `name`, short as it may be."""
    return NewConversation(ConversationId(name), BOT, Account(user, user.title()) if user else None, "en-US")
