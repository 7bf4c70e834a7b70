"""Bots, sites and secrets as a whole, as operators change them while the server runs (specification 4.5).

What can be changed is in `registered_bots.py` and `registered_sites.py`, how anything changes in `records.py`. After
each change the registry gets the whole picture: so it never holds a mixture. Where several nodes share a store, each
follows the changes of the others in the same way (`follow`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import msgspec

from landline.channel.records import Configured, RegistrationRecords
from landline.channel.registered_bots import RegisteredBots
from landline.channel.registered_sites import RegisteredSites
from landline.channel.registry import Registry
from landline.channel.streams import OpenStreams
from landline.core.stream import FORBIDDEN
from landline.errors import StoreError
from landline.ports import Clock, Store


class Registrations:
    """What is registered here: `bots` and `sites`."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        streams: OpenStreams,
        clock: Clock,
        configured: Configured,
        service_base: str,
    ) -> None:
        """`service_base` is what the service URL of a bot begins with; its key follows."""
        self._registry = registry
        self._streams = streams
        self._configured = configured
        self._records = RegistrationRecords(store, self._load)
        self._kept: Mapping[str, bytes] = {}
        self.bots = RegisteredBots(self._records, clock, configured, service_base)
        self.sites = RegisteredSites(self._records, self.bots, clock, configured)

    async def load(self) -> None:
        """Learn what there is, and let go of streams whose credential is good no longer. May be repeated."""
        await self._records.alone(self._load)

    async def follow(self, refresh_s: float) -> None:
        """Learn of what other nodes change: when the store says so, and after `refresh_s` at the latest (spec 4.5).
        Until cancelled."""
        changed = asyncio.Event()
        self._records.watch(changed.set)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(refresh_s):
                    await changed.wait()
            changed.clear()
            with contextlib.suppress(StoreError):  # the store says so itself, and is asked again
                await self._records.alone(self._load_changes)

    async def _load_changes(self) -> None:
        if await self._records.all() != self._kept:
            await self._load()

    async def configure(self, configured: Configured) -> None:
        """Take over the secrets of what is configured already; nothing else of `configured`. Tokens that descend from a
        secret that is gone live on, as after a restart. Raises `StoreError`, with nothing changed."""
        sites = {site.id for site in self._configured.sites}
        bots = {profile.id for profile in self._configured.profiles}

        async def take_over() -> None:
            former = self._configured
            self._configured = msgspec.structs.replace(
                former,
                secrets={secret: site for secret, site in configured.secrets.items() if site in sites},
                app_secrets={bot: secrets for bot, secrets in configured.app_secrets.items() if bot in bots},
            )
            try:
                await self._load()
            except BaseException:
                self._configured = former
                raise

        await self._records.alone(take_over)

    async def _load(self) -> None:
        kept = await self._records.all()
        if await self.bots.give_missing_keys(kept, self._configured):
            kept = await self._records.all()
        self._kept = kept
        self.bots.learn(kept, self._configured)
        self.sites.learn(kept, self._configured)
        sites = [each.site for each in self.sites.all()]
        self._registry.replace(self.bots.in_use(), sites, self.sites.secrets(), self.sites.revoked())
        self._streams.close_unless(self._registry.admits, FORBIDDEN)

    async def remove_bot(self, bot_id: str) -> None:
        """Forget a bot, its sites and its keys. Its conversations stay, and nobody can open them (4.5).

        A bot that is registered under the same id later has them again; credentials of the old one stay refused.
        """

        async def remove() -> None:
            self.bots.changeable(bot_id)
            for each in self.sites.all(bot_id):
                await self.sites.erase(each)
            await self.bots.erase(bot_id)

        await self._records.change(remove)

    def warn_of_short_lives(self) -> None:
        """Tell the log of bots and sites whose tokens live too short for clients (D-19). Whoever is changed later is
        looked at then."""
        self.bots.warn_of_short_lives()
        self.sites.warn_of_short_lives()
