"""What is registered, on a store, without a server."""

from __future__ import annotations

from dataclasses import dataclass

from landline.channel.records import Configured
from landline.channel.registrations import Registrations
from landline.channel.registry import Registry
from landline.channel.streams import OpenStreams
from landline.core.bot import Profile, Site
from landline.core.tokens import digest
from landline.errors import Forbidden
from landline.stores.memory import MemoryStore
from support.channel import SECRET, TestClock

CONFIGURED = Configured((Profile(id="bot"),), (Site("default", "bot"),), {digest(SECRET): "default"}, "default")
WEB = Site("web", "bot")


@dataclass
class Node:
    """What is registered, as one process knows it."""

    store: MemoryStore
    configured: Configured = CONFIGURED

    def __post_init__(self) -> None:
        self.registry = Registry()
        self.registrations = Registrations(
            self.store, self.registry, OpenStreams(), TestClock(), self.configured, "http://here/b"
        )

    async def loaded(self) -> Node:
        await self.registrations.load()
        return self

    def opens(self, secret: str) -> bool:
        """Whether a secret is good."""
        try:
            return self.registry.site_of_secret(secret) is not None
        except Forbidden:
            return False
