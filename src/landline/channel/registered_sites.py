"""Sites as they are registered, with their secrets, and the ways in which those change (specification 4.5)."""

from __future__ import annotations

import asyncio
import secrets as random
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import structlog

from landline.channel.records import KEYS, Configured, Key, RegistrationRecords, Secret, decoded, name_of, of_kind
from landline.channel.registered_bots import RegisteredBots, warn_of_short_life
from landline.core import origins, tokens
from landline.core.bot import Site
from landline.errors import AlreadyThere, BadArgument, ReadOnly, UnknownKey, UnknownSite
from landline.ports import Clock

# The kinds of records, each under the id of its site.
_SITE, _SECRETS, _CLAIM = "site", "secrets", "first-secret"
_CLAIM_S, _LOOK_S = 5.0, 0.05
"""How long a node waits for another one that is showing the first secret, and how often it looks meanwhile."""
_FORMER = 32
"""Rotated secrets whose `ski` is still shown, newest first: somebody may learn late that one had leaked."""

_log = structlog.get_logger(__name__)


class FormerKey(msgspec.Struct, frozen=True):
    """A secret that was rotated: it opens nothing, but its tokens live on."""

    ski: str
    until_ms: int


class SiteKeys(msgspec.Struct, frozen=True):
    """The secrets of one site, and whose descendants it refuses."""

    keys: dict[int, Key] = {}
    former: tuple[FormerKey, ...] = ()
    revoked: tuple[str, ...] = ()

    def without(self, number: int, now_ms: int) -> SiteKeys:
        """Key `number` opens nothing any more, its descendants go on."""
        key = self.keys.get(number)
        if key is None:
            return self
        rest = {each: kept for each, kept in self.keys.items() if each != number}
        return SiteKeys(rest, (FormerKey(key.ski, now_ms), *self.former)[:_FORMER], self.revoked)

    def refusing(self, skis: Sequence[str]) -> SiteKeys:
        """These secrets, if there are such, and everything that descends from them are refused from now on."""
        return SiteKeys(
            {number: key for number, key in self.keys.items() if key.ski not in skis},
            tuple(former for former in self.former if former.ski not in skis),
            tuple(dict.fromkeys((*self.revoked, *skis))),
        )


class RegisteredSite(msgspec.Struct, frozen=True):
    """A site with everything that an operator can see of it. `settings` has the `ski` of secrets in the settings."""

    site: Site
    keys: SiteKeys
    settings: tuple[str, ...]
    read_only: bool


class RegisteredSites:
    """All sites, and the ways in which they change."""

    def __init__(
        self, records: RegistrationRecords, bots: RegisteredBots, clock: Clock, configured: Configured
    ) -> None:
        self._records = records
        self._bots = bots
        self._clock = clock
        self._configured = configured
        self._sites: dict[str, RegisteredSite] = {}

    def learn(self, kept: Mapping[str, bytes], configured: Configured) -> None:
        """These are the sites from now on."""
        self._configured = configured
        self._sites = {each.site.id: each for each in self._sites_in(kept)}

    def _sites_in(self, kept: Mapping[str, bytes]) -> Iterator[RegisteredSite]:
        stored = {site.id: site for site in (decoded(value, Site) for value in of_kind(_SITE, kept))}
        for site in stored.values():
            yield self._registered(site, kept, read_only=False)
        for site in self._configured.sites:
            switched = stored.get(site.id) if site.id == self._configured.default else None
            enabled = site.enabled if switched is None else switched.enabled
            yield self._registered(msgspec.structs.replace(site, enabled=enabled), kept, read_only=True)

    def _registered(self, site: Site, kept: Mapping[str, bytes], *, read_only: bool) -> RegisteredSite:
        keys = decoded(kept.get(name_of(_SECRETS, site.id)), SiteKeys)
        settings = tuple(tokens.ski_of(each) for each, owner in self._configured.secrets.items() if owner == site.id)
        return RegisteredSite(site, keys, settings, read_only)

    def secrets(self) -> Mapping[bytes, str]:
        """The digests of all secrets, with the ids of their sites."""
        return dict(self._configured.secrets) | {
            key.digest: each.site.id for each in self._sites.values() for key in each.keys.keys.values()
        }

    def revoked(self) -> Sequence[tuple[str, str]]:
        """Ids of sites, each with a `ski` whose descendants the site refuses."""
        return [(each.site.id, ski) for each in self._sites.values() for ski in each.keys.revoked]

    def all(self, bot_id: str | None = None) -> Sequence[RegisteredSite]:
        """All sites, or those of one bot. Raises `UnknownBot`."""
        if bot_id is not None:
            self._bots.get(bot_id)
        return tuple(each for each in self._sites.values() if bot_id in (None, each.site.bot_id))

    def get(self, site_id: str) -> RegisteredSite:
        """One site. Raises `UnknownSite`."""
        if site_id not in self._sites:
            raise UnknownSite
        return self._sites[site_id]

    def warn_of_short_lives(self) -> None:
        """Tell the log of sites whose tokens live too short for clients (D-19)."""
        for site in self._sites.values():
            warn_of_short_life(site.site, None, site=site.site.id)

    async def add(self, site: Site) -> RegisteredSite:
        """Register a site. It has no secret yet. Raises `AlreadyThere`, `UnknownBot`, `BadArgument`."""
        new = _normal(site)

        async def add() -> None:
            self._bots.get(new.bot_id)
            if new.id in self._sites:
                raise AlreadyThere
            await self._records.put(name_of(_SITE, new.id), lambda kept: new)
            warn_of_short_life(new, None, site=new.id)

        await self._records.change(add)
        return self.get(new.id)

    async def change(self, site_id: str, change: Callable[[Site], Site]) -> RegisteredSite:
        """Say something else about a site. One that is disabled opens nothing, until it is enabled again (4.5).

        Raises `UnknownSite`, `ReadOnly`, `BadArgument`, and what `change` raises."""

        async def put() -> None:
            registered = self.get(site_id)
            new = _normal(change(registered.site))
            if (new.id, new.bot_id) != (site_id, registered.site.bot_id):
                raise BadArgument("'id' and 'bot_id' cannot be changed")
            if registered.read_only and not self._is_switched(registered.site, new):
                raise ReadOnly
            await self._records.put(name_of(_SITE, site_id), lambda kept: new)
            warn_of_short_life(new, registered.site, site=site_id)

        await self._records.change(put)
        return self.get(site_id)

    def _is_switched(self, old: Site, new: Site) -> bool:
        """Whether nothing is changed but what may be changed of the default site."""
        return old.id == self._configured.default and msgspec.structs.replace(new, enabled=old.enabled) == old

    async def remove(self, site_id: str) -> None:
        """Forget a site. Its secrets and tokens are refused, also by a site that is given its id later (4.5)."""

        async def remove() -> None:
            registered = self.get(site_id)
            if registered.read_only:
                raise ReadOnly
            await self.erase(registered)

        await self._records.change(remove)

    async def erase(self, registered: RegisteredSite) -> None:
        """Refuse all secrets of a site, and take its record away. Part of a change."""

        def refuse(keys: SiteKeys) -> SiteKeys:
            return keys.refusing([*(key.ski for key in keys.keys.values()), *(each.ski for each in keys.former)])

        await self._put_keys(registered.site.id, refuse)
        await self._records.put(name_of(_SITE, registered.site.id), lambda kept: None)

    # Secrets

    async def rotate(self, site_id: str, number: int) -> Secret:
        """A new secret in place of key `number`, which is refused from now on; its descendants live on (4.5)."""
        return await self._renew(site_id, number, lambda keys: keys)

    async def revoke(self, site_id: str, number: int) -> Secret:
        """The same for a key that leaked: its descendants are refused too, and their streams closed. Raises
        `UnknownKey` where there is no such key."""

        def refuse(keys: SiteKeys) -> SiteKeys:
            if number not in keys.keys:
                raise UnknownKey
            return keys.refusing([keys.keys[number].ski])

        return await self._renew(site_id, number, refuse)

    async def revoke_ski(self, site_id: str, ski: str) -> RegisteredSite:
        """Refuse a secret, and its descendants, that was rotated before or stands in the settings."""
        if not tokens.is_ski(ski):
            raise BadArgument("'ski' is not one")
        return await self._change_keys(site_id, lambda keys: keys.refusing([ski]))

    async def remove_secret(self, site_id: str, number: int) -> RegisteredSite:
        """Have no key `number` any more; its descendants live on."""

        def remove(keys: SiteKeys) -> SiteKeys:
            if number not in keys.keys:
                raise UnknownKey
            return keys.without(number, self._clock.now_ms())

        return await self._change_keys(site_id, remove)

    async def first_secret(self, show: Callable[[str], None], *, claim_s: float = _CLAIM_S) -> None:
        """Make key 1 of the first site of the settings, if it has no secret and never had one. `show` is called before
        it is kept: a secret that nobody has seen opens nothing, and is made anew at the next start.

        Of several nodes that start at once, one shows a secret. Another one takes over where that node has not kept
        it `claim_s` after it was seen to begin. Raises `StoreError`."""
        site_id = self._configured.sites[0].id
        name = name_of(_SECRETS, site_id)
        if self.get(site_id).settings or not await self._claim_first_secret(site_id, claim_s):
            return
        secret = random.token_urlsafe(32)
        show(secret)

        async def keep() -> None:
            if not await self._records.put_if_absent(name, self._with(SiteKeys(), 1, secret)):
                _log.warning("the first secret that was shown here opens nothing: another node's is kept", site=site_id)

        await self._records.change(keep)

    async def _claim_first_secret(self, site_id: str, claim_s: float) -> bool:
        """Whether this node is the one that makes it. The claim stays: it does no harm beside what was kept."""
        name, claim_name = name_of(_SECRETS, site_id), name_of(_CLAIM, site_id)
        node, seen = random.token_urlsafe(16), None
        while await self._records.get(name) is None:
            claim = await self._records.get(claim_name)
            if claim == seen and await self._records.compare_and_set(claim_name, claim, node):
                # The node before may have kept its secret between the two looks.
                return await self._records.get(name) is None
            seen = claim
            await self._wait_for(name, claim_s)
        return False

    async def _wait_for(self, name: str, most_s: float) -> None:
        """Until there is a record of that name, at most this long."""
        until = self._clock.monotonic() + most_s
        # No event of this process says what another node keeps.
        while await self._records.get(name) is None and self._clock.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(min(_LOOK_S, most_s))

    async def _renew(self, site_id: str, number: int, before: Callable[[SiteKeys], SiteKeys]) -> Secret:
        if number not in KEYS:
            raise UnknownKey
        secret = random.token_urlsafe(32)
        await self._change_keys(site_id, lambda keys: self._with(before(keys), number, secret))
        return Secret(number, secret, tokens.ski(secret))

    def _with(self, keys: SiteKeys, number: int, secret: str) -> SiteKeys:
        now_ms = self._clock.now_ms()
        rest = keys.without(number, now_ms)
        return SiteKeys(rest.keys | {number: Key(tokens.digest(secret), now_ms)}, rest.former, rest.revoked)

    async def _change_keys(self, site_id: str, change: Callable[[SiteKeys], SiteKeys]) -> RegisteredSite:
        async def put() -> None:
            self.get(site_id)
            await self._put_keys(site_id, change)

        await self._records.change(put)
        return self.get(site_id)

    async def _put_keys(self, site_id: str, change: Callable[[SiteKeys], SiteKeys]) -> None:
        await self._records.put(name_of(_SECRETS, site_id), lambda kept: change(decoded(kept, SiteKeys)))


def _normal(site: Site) -> Site:
    """With its origins in the one spelling that is compared. Raises `BadArgument`."""
    return msgspec.structs.replace(site, trusted_origins=origins.trusted_origins(site.trusted_origins))
