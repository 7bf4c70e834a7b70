"""How what is registered is kept, and how anything of it changes (specification 4.5).

Theory of operation. What the settings name (`Configured`) is fixed until a restart; everything else is one small record
per thing in the store. A change replaces one record, and only if it is still the one that was looked at. Then all
records are read anew. All of that happens before the caller has its answer, and happens although the caller may have
hung up: a revocation that was written but not heeded would be worse than none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeVar

import msgspec

from landline.core import tokens
from landline.core.bot import Profile, Site
from landline.errors import StoreUnavailable
from landline.ports import Store

KEYS = (1, 2)
"""The secrets of a site, and of a bot's app id: both work, so that one can be exchanged while the other is in use (4.1,
bot-side 6.1)."""
_PREFIX = "registered/"

_encode = msgspec.json.Encoder().encode
T = TypeVar("T")


class Configured(msgspec.Struct, frozen=True):
    """What the settings name. `secrets` maps digests of secrets that are never stored to the ids of their sites.

    `default` is the site that exists because nothing else was said: it can be disabled, though not changed otherwise.
    `app_secrets` has the digests of more secrets that are never stored, by the id of the bot. `bot_hosts` says where
    bots may be; nothing there means anywhere. `trusted_issuers` are those of bots that name none of their own.
    """

    profiles: tuple[Profile, ...]
    sites: tuple[Site, ...]
    secrets: Mapping[bytes, str]
    default: str | None = None
    app_secrets: Mapping[str, tuple[bytes, ...]] = {}
    bot_hosts: tuple[str, ...] = ()
    trusted_issuers: tuple[str, ...] = ()


class Key(msgspec.Struct, frozen=True):
    """One secret of a site or of a bot's app id, as far as it is kept."""

    digest: bytes
    since_ms: int

    @property
    def ski(self) -> str:
        """What its tokens carry (4.2)."""
        return tokens.ski_of(self.digest)


class Secret(msgspec.Struct, frozen=True):
    """A new secret, which nobody will be shown again."""

    number: int
    secret: str
    ski: str


class RegistrationRecords:
    """The records of what is registered, and the one way in which they change."""

    def __init__(self, store: Store, learn: Callable[[], Awaitable[None]]) -> None:
        """`learn` reads all records anew; it is awaited before each change and behind it."""
        self._store = store
        self._learn = learn
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def all(self) -> Mapping[str, bytes]:
        """Every record, by its name."""
        return await self._store.list(_PREFIX)

    def watch(self, changed: Callable[[], None]) -> None:
        """As `Records.watch`."""
        self._store.watch(changed)

    async def get(self, name: str) -> bytes | None:
        """One record, or None."""
        return await self._store.get(name)

    async def put_if_absent(self, name: str, value: object) -> bool:
        """Make a record unless there is one. True if this value is what is kept now."""
        return await self.compare_and_set(name, None, value) or await self.get(name) == _encode(value)

    async def compare_and_set(self, name: str, old: bytes | None, new: object) -> bool:
        """Keep `new` in place of `old` (None: of nothing). False, with nothing changed, where `old` is not there; of
        concurrent calls, on any node, exactly one succeeds."""
        return await self._store.compare_and_set(name, old, _encode(new))

    async def put(self, name: str, change: Callable[[bytes | None], object]) -> None:
        """Put in the place of a record what `change` makes of it; None takes it away."""
        kept = await self._store.get(name)
        new = change(kept)
        if not await self._store.compare_and_set(name, kept, None if new is None else _encode(new)):
            raise StoreUnavailable("Somebody else changed the same thing at the same time; nothing was stored")

    async def alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Await `work` while nothing else here changes a record or learns of one."""
        async with self._changing:
            await work()

    async def change(self, change: Callable[[], Awaitable[None]]) -> None:
        """One change at a time, from what is true now, and to its end whoever waits for it."""

        async def run() -> None:
            async with self._changing:
                await self._learn()
                try:
                    await change()
                finally:  # a change that failed half-way has changed something too
                    await self._learn()

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)


def name_of(kind: str, thing_id: str) -> str:
    """The name of the record of that kind about the bot or site with that id."""
    return f"{_PREFIX}{kind}/{thing_id}"


def of_kind(kind: str, kept: Mapping[str, bytes]) -> Iterator[bytes]:
    """The records of that kind among these."""
    return (value for name, value in kept.items() if name.startswith(f"{_PREFIX}{kind}/"))


def decoded(value: bytes | None, kind: type[T]) -> T:
    """What a record says; where there is none, nothing is kept."""
    return kind() if value is None else msgspec.json.decode(value, type=kind)
