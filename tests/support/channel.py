"""A `Channel` with rules that tests like, and what they ask of it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from landline.channel import channel
from landline.channel.activities import PageBounds
from landline.channel.attachments import UploadBounds
from landline.channel.channel import Rules
from landline.channel.conversations import Admitted, Opened
from landline.channel.registry import Registry
from landline.channel.retention import RetentionPolicy
from landline.channel.streams import OpenStreams
from landline.channel.tokens import Grant, Lifetimes
from landline.core import tokens
from landline.core.bot import Bot, Site
from landline.core.conversation import Account, Conversation
from landline.core.tokens import Keys, TokenParameters
from landline.ports import Blobs, BotTransport, Clock, Store

SECRET = "secret-of-the-default-site-0123456789"
OTHER_SECRET = "secret-of-another-bots-site-012345678"
BOT = Bot(
    id="bot",
    name="Bot",
    endpoint="http://bot.example/api/messages",
    service_url="http://127.0.0.1:3000/b/key-1/",
    service_key="key-1",
    reference_grammar_id="00000000-0000-4000-8000-000000000001",
)
OTHER_BOT = Bot(
    id="other",
    name="Other",
    endpoint="http://other.example/api/messages",
    service_url="http://127.0.0.1:3000/b/key-2/",
    service_key="key-2",
    reference_grammar_id="00000000-0000-4000-8000-000000000002",
)
LIFETIMES = Lifetimes(token_s=3600, chain_s=14 * 86400, stream_url_s=60, leeway_s=5)
RULES = Rules(
    lifetimes=LIFETIMES,
    pages=PageBounds(activities=100, bytes=1 << 20),
    uploads=UploadBounds(files=20, activity_bytes=256 * 1024),
    retention=RetentionPolicy(idle_s=None, activity_s=None, keys_s=86_400, tombstone_s=30 * 86_400),
    join_wait_s=5,
    store_wait_s=5,
    members=1000,
)
SITE, OTHER_SITE = Site("default", BOT.id), Site("other-site", OTHER_BOT.id)


def two_bots(*, bot: Bot = BOT, site: Site = SITE) -> Registry:
    """Two bots with a site and a secret each."""
    return Registry(
        (bot, OTHER_BOT),
        (site, OTHER_SITE),
        {tokens.digest(SECRET): site.id, tokens.digest(OTHER_SECRET): OTHER_SITE.id},
    )


@dataclass
class TestClock:
    """The system's clock, and a wall clock that a test can set forward and back."""

    __test__ = False
    offset_ms: int = 0

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.offset_ms

    def monotonic(self) -> float:
        return time.monotonic()


class Channel(channel.Channel):
    """One node without sweeps: give two of them the same store, one after the other, and it is a restart."""

    def __init__(
        self,
        store: Store,
        transport: BotTransport,
        clock: Clock | None = None,
        registry: Registry | None = None,
        blobs: Blobs | None = None,
        **more: Any,
    ) -> None:
        """`more` are `Rules`."""
        clock, bots_and_sites = clock or TestClock(), registry or two_bots()
        keys, streams = Keys.derive(b"k" * 32), OpenStreams()
        rules = msgspec.structs.replace(RULES, **more)
        blobs = blobs or cast(Blobs, None)  # where no test sends a file
        super().__init__(store, blobs, transport, bots_and_sites, streams, keys, clock, rules)

    @property
    def secret(self) -> Grant:
        """What the secret opens."""
        return self.tokens.grant(SECRET)

    def token(self, user: str | None = None, name: str | None = None) -> Grant:
        """What a fresh token for a new conversation opens."""
        account = Account(user, name) if user else None
        return self.tokens.grant(self.tokens.generate(self.secret, TokenParameters(user=account)).token)

    async def start(
        self, user: str | None = None, *, grant: Grant | None = None, locale: str | None = None, within: float = 5
    ) -> Conversation:
        """A started conversation; by default with the secret."""
        return (await self.open(user, grant=grant, locale=locale, within=within)).conversation

    async def open(
        self, user: str | None = None, *, grant: Grant | None = None, locale: str | None = None, within: float = 5
    ) -> Opened:
        """The same, with everything that a start answers."""
        parameters = TokenParameters(user=Account(user) if user else None, locale=locale)
        return await self.conversations.start(grant or self.secret, parameters, time.monotonic() + within)

    async def admit(self, conversation: str, t: str, watermark: str | None) -> Admitted:
        """Let a stream in. What memory knows of it, the store must know as well."""
        ticket = self.tokens.admit(t, conversation)
        known = self.conversations.admit_known(ticket, watermark)
        admitted = await self.conversations.admit(ticket, watermark)
        assert known in (None, admitted)
        return admitted

    async def send(
        self, conversation: Conversation, text: str, user: str = "u1", *, within: float = 5, **more: Any
    ) -> str:
        """Send a message, or whatever `more` makes of it, with the secret."""
        body = json.dumps({"type": "message", "from": {"id": user}, "text": text} | more).encode()
        return await self.activities.send(self.secret, conversation, body, time.monotonic() + within)

    def sending(
        self, conversation: Conversation, text: str, user: str = "u1", *, within: float = 5, **more: Any
    ) -> asyncio.Task[str]:
        """The same in the background."""
        return asyncio.create_task(self.send(conversation, text, user, within=within, **more))

    async def speak(self, conversation: Conversation, text: str, *, within: float = 5, **more: Any) -> str:
        """Send a message of the bot."""
        body = json.dumps({"type": "message", "text": text} | more).encode()
        return await self.bots.send(BOT, conversation, body, time.monotonic() + within)

    async def texts(self, conversation: Conversation) -> list[str | None]:
        """What Get Activities shows, all pages."""
        found: list[str | None] = []
        watermark: str | None = None
        while True:
            fresh = await self.conversations.find(self.secret, conversation.id)
            page = json.loads((await self.activities.read(fresh, watermark)).activity_set)
            if not page["activities"]:
                return found
            found += [each.get("text") for each in page["activities"]]
            watermark = page["watermark"]
