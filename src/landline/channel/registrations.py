"""Bots, sites and secrets as they are kept, and how operators change them while the server runs (specification 4.5).

Theory of operation. What the settings name (`Configured`) is fixed until a restart; everything else is one small record
per thing in the store. A change replaces one record, and only if it is still the one that was looked at. Then all
records are read anew and the registry gets the whole picture: so it never holds a mixture, and another node learns of a
change in the same way. All of that happens before the caller has its answer, and happens although the caller may have
hung up: a revocation that was written but not heeded would be worse than none.
"""

from __future__ import annotations

import asyncio
import secrets as random
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec
import structlog

from landline.channel.registry import Registry
from landline.channel.streams import OpenStreams
from landline.core import origins, tokens
from landline.core.bot import SHORT_LIFE, SHORT_LIFE_S, Bot, Own, Profile, Site, check_profile, may_be_called
from landline.core.stream import FORBIDDEN
from landline.errors import (
    AlreadyThere,
    BadArgument,
    ReadOnly,
    StoreUnavailable,
    UnknownBot,
    UnknownKey,
    UnknownSite,
)
from landline.ports import Clock, Store

KEYS = (1, 2)
"""The secrets of a site, and of a bot's app id: both work, so that one can be exchanged while the other is in use (4.1,
bot-side 6.1)."""
_FORMER = 32
"""Rotated secrets whose `ski` is still shown, newest first: somebody may learn late that one had leaked."""
_PREFIX = "registered/"

_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger(__name__)
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


class ServiceKey(msgspec.Struct, frozen=True):
    """A key in the service URL of a bot. It is a secret, but bots have to be told it: so it is kept as it is."""

    key: str
    since_ms: int

    @property
    def mark(self) -> str:
        """Names it without giving it away."""
        return tokens.ski(self.key)


class RegisteredBot(msgspec.Struct, frozen=True):
    """A bot with everything that an operator can see of it. The first of `service_keys` is the one it is told.
    `settings` has the digests of app secrets in the settings."""

    profile: Profile
    service_keys: tuple[ServiceKey, ...]
    app_secrets: Mapping[int, Key]
    settings: tuple[bytes, ...]
    read_only: bool


class RegisteredSite(msgspec.Struct, frozen=True):
    """A site with everything that an operator can see of it. `settings` has the `ski` of secrets in the settings."""

    site: Site
    keys: SiteKeys
    settings: tuple[str, ...]
    read_only: bool


class Secret(msgspec.Struct, frozen=True):
    """A new secret, which nobody will be shown again."""

    number: int
    secret: str
    ski: str


class Registrations:
    """What is registered here, and the ways in which it changes."""

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
        self._store = store
        self._registry = registry
        self._streams = streams
        self._clock = clock
        self._configured = configured
        self._service_base = service_base
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bots: dict[str, RegisteredBot] = {}
        self._sites: dict[str, RegisteredSite] = {}

    # What there is

    async def load(self) -> None:
        """Learn what there is, and let go of streams whose credential is good no longer. May be repeated."""
        async with self._changing:
            await self._load()

    async def configure(self, configured: Configured) -> None:
        """Take over the secrets of what is configured already; nothing else of `configured`. Tokens that descend from a
        secret that is gone live on, as after a restart. Raises `StoreError`, with nothing changed."""
        sites = {site.id for site in self._configured.sites}
        bots = {profile.id for profile in self._configured.profiles}
        async with self._changing:
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

    async def _load(self) -> None:
        kept = await self._store.kept(_PREFIX)
        missing = [each.id for each in self._configured.profiles if _service_keys(each.id) not in kept]
        if missing:
            for bot_id in missing:
                await self._store.remember(_service_keys(bot_id), _encode((self._new_service_key(),)))
            kept = await self._store.kept(_PREFIX)
        self._bots = {each.profile.id: each for each in self._bots_in(kept)}
        self._sites = {each.site.id: each for each in self._sites_in(kept)}
        self._registry.replace(
            [self._bot(each) for each in self._bots.values()],
            [each.site for each in self._sites.values()],
            dict(self._configured.secrets)
            | {key.digest: each.site.id for each in self._sites.values() for key in each.keys.keys.values()},
            [(each.site.id, ski) for each in self._sites.values() for ski in each.keys.revoked],
        )
        self._streams.close_unless(self._registry.admits, FORBIDDEN)

    def _bots_in(self, kept: Mapping[str, bytes]) -> Iterator[RegisteredBot]:
        """What the settings name comes last, and so wins."""
        stored = [_decoded(value, Profile) for _, value in _under(_PREFIX + "bot/", kept)]
        for profiles, read_only in ((stored, False), (self._configured.profiles, True)):
            for profile in profiles:
                keys = _decoded(kept.get(_service_keys(profile.id)), tuple[ServiceKey, ...])
                app_secrets = _decoded(kept.get(_app_secrets(profile.id)), dict[int, Key])
                settings = self._configured.app_secrets.get(profile.id, ())
                yield RegisteredBot(profile, keys, app_secrets, settings if read_only else (), read_only)

    def _sites_in(self, kept: Mapping[str, bytes]) -> Iterator[RegisteredSite]:
        stored = {site.id: site for site in (_decoded(value, Site) for _, value in _under(_PREFIX + "site/", kept))}
        for site in stored.values():
            yield self._registered(site, kept, read_only=False)
        for site in self._configured.sites:
            switched = stored.get(site.id) if site.id == self._configured.default else None
            enabled = site.enabled if switched is None else switched.enabled
            yield self._registered(msgspec.structs.replace(site, enabled=enabled), kept, read_only=True)

    def _registered(self, site: Site, kept: Mapping[str, bytes], *, read_only: bool) -> RegisteredSite:
        keys = _decoded(kept.get(_secrets(site.id)), SiteKeys)
        settings = tuple(
            tokens.ski_of(digest) for digest, owner in self._configured.secrets.items() if owner == site.id
        )
        return RegisteredSite(site, keys, settings, read_only)

    def _bot(self, registered: RegisteredBot) -> Bot:
        current, *former = (each.key for each in registered.service_keys)
        said = msgspec.structs.asdict(registered.profile)
        if registered.profile.trusted_issuers is None:
            said["trusted_issuers"] = self._configured.trusted_issuers
        return Bot(
            **said,
            service_url=f"{self._service_base}/{current}/",
            service_key=current,
            former_keys=tuple(former),
            app_secrets=(*registered.settings, *(key.digest for key in registered.app_secrets.values())),
            reference_grammar_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"landline:{registered.profile.id}")),
        )

    def bots(self) -> Sequence[RegisteredBot]:
        """All bots."""
        return tuple(self._bots.values())

    def bot(self, bot_id: str) -> RegisteredBot:
        """One bot. Raises `UnknownBot`."""
        if bot_id not in self._bots:
            raise UnknownBot
        return self._bots[bot_id]

    def sites(self, bot_id: str | None = None) -> Sequence[RegisteredSite]:
        """All sites, or those of one bot. Raises `UnknownBot`."""
        if bot_id is not None:
            self.bot(bot_id)
        return tuple(each for each in self._sites.values() if bot_id in (None, each.site.bot_id))

    def site(self, site_id: str) -> RegisteredSite:
        """One site. Raises `UnknownSite`."""
        if site_id not in self._sites:
            raise UnknownSite
        return self._sites[site_id]

    def warn_of_short_lives(self) -> None:
        """Tell the log of bots and sites whose tokens live too short for clients (D-19). Whoever is changed later is
        looked at then."""
        for bot in self._bots.values():
            _warn_of_short_life(bot.profile, None, bot=bot.profile.id)
        for site in self._sites.values():
            _warn_of_short_life(site.site, None, site=site.site.id)

    # Bots

    async def add_bot(self, profile: Profile) -> RegisteredBot:
        """Register a bot; its service URL has a key of its own from the start. Raises `AlreadyThere`, `BadArgument`."""

        async def add() -> None:
            if profile.id in self._bots:
                raise AlreadyThere
            self._check(profile)
            # The key first: a bot without one could not be told where to answer.
            await self._put(_service_keys(profile.id), lambda kept: (self._new_service_key(),))
            await self._put(_bot(profile.id), lambda kept: profile)
            _warn_of_short_life(profile, None, bot=profile.id)

        await self._change(add)
        return self.bot(profile.id)

    async def change_bot(self, bot_id: str, change: Callable[[Profile], Profile]) -> RegisteredBot:
        """Say something else about a bot. Raises `UnknownBot`, `ReadOnly`, `BadArgument`, and what `change` raises."""

        async def put() -> None:
            old = self._changeable_bot(bot_id)
            new = change(old)
            if new.id != bot_id:
                raise BadArgument("'id' cannot be changed")
            self._check(new)
            await self._put(_bot(bot_id), lambda kept: new)
            _warn_of_short_life(new, old, bot=bot_id)

        await self._change(put)
        return self.bot(bot_id)

    async def remove_bot(self, bot_id: str) -> None:
        """Forget a bot, its sites and its keys. Its conversations stay, and nobody can open them (4.5).

        A bot that is registered under the same id later has them again; credentials of the old one stay refused.
        """

        async def remove() -> None:
            self._changeable_bot(bot_id)
            for each in self.sites(bot_id):
                await self._remove_site(each)
            await self._put(_bot(bot_id), lambda kept: None)
            await self._put(_service_keys(bot_id), lambda kept: None)
            await self._put(_app_secrets(bot_id), lambda kept: None)

        await self._change(remove)

    async def add_service_key(self, bot_id: str) -> RegisteredBot:
        """Tell the bot another service URL from now on. The former ones work until they are removed."""

        async def add() -> None:
            keys = self.bot(bot_id).service_keys
            await self._put(_service_keys(bot_id), lambda kept: (self._new_service_key(), *keys))

        await self._change(add)
        return self.bot(bot_id)

    async def remove_service_key(self, bot_id: str, mark: str) -> RegisteredBot:
        """Let a former key work no longer. Raises `UnknownKey`, and `BadArgument` for the one that the bot is told."""

        async def remove() -> None:
            keys = self.bot(bot_id).service_keys
            if mark not in (each.mark for each in keys):
                raise UnknownKey
            if mark == keys[0].mark:
                raise BadArgument("The bot is told this key: make a new one first")
            await self._put(_service_keys(bot_id), lambda kept: tuple(each for each in keys if each.mark != mark))

        await self._change(remove)
        return self.bot(bot_id)

    async def rotate_app_secret(self, bot_id: str, number: int) -> Secret:
        """A new secret of the bot's app id in place of key `number`, which gets no token any more; those that it got
        live on, for an hour at most (bot-side 6.1). Raises `UnknownBot`, `UnknownKey`, `BadArgument`."""
        if number not in KEYS:
            raise UnknownKey
        secret = random.token_urlsafe(32)
        new = Key(tokens.digest(secret), self._clock.now_ms())
        await self._change_app_secrets(bot_id, lambda keys: keys | {number: new})
        return Secret(number, secret, new.ski)

    async def remove_app_secret(self, bot_id: str, number: int) -> RegisteredBot:
        """Have no key `number` any more. Raises `UnknownBot`, `UnknownKey`, `BadArgument`."""

        def remove(keys: dict[int, Key]) -> dict[int, Key]:
            if number not in keys:
                raise UnknownKey
            return {each: key for each, key in keys.items() if each != number}

        return await self._change_app_secrets(bot_id, remove)

    async def _change_app_secrets(
        self, bot_id: str, change: Callable[[dict[int, Key]], dict[int, Key]]
    ) -> RegisteredBot:
        async def put() -> None:
            if self.bot(bot_id).profile.app_id is None:
                raise BadArgument("The bot has no app id")
            await self._put(_app_secrets(bot_id), lambda kept: change(_decoded(kept, dict[int, Key])))

        await self._change(put)
        return self.bot(bot_id)

    def _check(self, profile: Profile) -> None:
        check_profile(profile)
        if profile.endpoint is not None and not may_be_called(profile.endpoint, self._configured.bot_hosts):
            raise BadArgument("'endpoint' is on a host that is not one of bot_allowed_hosts")

    def _changeable_bot(self, bot_id: str) -> Profile:
        registered = self.bot(bot_id)
        if registered.read_only:
            raise ReadOnly
        return registered.profile

    def _new_service_key(self) -> ServiceKey:
        return ServiceKey(random.token_urlsafe(20), self._clock.now_ms())

    # Sites

    async def add_site(self, site: Site) -> RegisteredSite:
        """Register a site. It has no secret yet. Raises `AlreadyThere`, `UnknownBot`, `BadArgument`."""
        new = _normal(site)

        async def add() -> None:
            self.bot(new.bot_id)
            if new.id in self._sites:
                raise AlreadyThere
            await self._put(_site(new.id), lambda kept: new)
            _warn_of_short_life(new, None, site=new.id)

        await self._change(add)
        return self.site(new.id)

    async def change_site(self, site_id: str, change: Callable[[Site], Site]) -> RegisteredSite:
        """Say something else about a site. One that is disabled opens nothing, until it is enabled again (4.5).

        Raises `UnknownSite`, `ReadOnly`, `BadArgument`, and what `change` raises."""

        async def put() -> None:
            registered = self.site(site_id)
            new = _normal(change(registered.site))
            if (new.id, new.bot_id) != (site_id, registered.site.bot_id):
                raise BadArgument("'id' and 'bot_id' cannot be changed")
            if registered.read_only and not self._is_switched(registered.site, new):
                raise ReadOnly
            await self._put(_site(site_id), lambda kept: new)
            _warn_of_short_life(new, registered.site, site=site_id)

        await self._change(put)
        return self.site(site_id)

    def _is_switched(self, old: Site, new: Site) -> bool:
        """Whether nothing is changed but what may be changed of the default site."""
        return old.id == self._configured.default and msgspec.structs.replace(new, enabled=old.enabled) == old

    async def remove_site(self, site_id: str) -> None:
        """Forget a site. Its secrets and tokens are refused, also by a site that is given its id later (4.5)."""

        async def remove() -> None:
            registered = self.site(site_id)
            if registered.read_only:
                raise ReadOnly
            await self._remove_site(registered)

        await self._change(remove)

    async def _remove_site(self, registered: RegisteredSite) -> None:
        def refuse(keys: SiteKeys) -> SiteKeys:
            return keys.refusing([*(key.ski for key in keys.keys.values()), *(each.ski for each in keys.former)])

        await self._put_keys(registered.site.id, refuse)
        await self._put(_site(registered.site.id), lambda kept: None)

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

    async def first_secret(self, show: Callable[[str], None]) -> None:
        """Make key 1 of the first site of the settings, if it has no secret and never had one. `show` is called before
        it is kept: a secret that nobody has seen opens nothing, and is made anew at the next start."""
        site_id = self._configured.sites[0].id
        if self.site(site_id).settings or await self._store.recall(_secrets(site_id)) is not None:
            return
        secret = random.token_urlsafe(32)
        show(secret)
        await self._change_keys(site_id, lambda keys: self._with(keys, 1, secret))

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
            self.site(site_id)
            await self._put_keys(site_id, change)

        await self._change(put)
        return self.site(site_id)

    async def _put_keys(self, site_id: str, change: Callable[[SiteKeys], SiteKeys]) -> None:
        await self._put(_secrets(site_id), lambda kept: change(_decoded(kept, SiteKeys)))

    # How anything changes

    async def _put(self, name: str, change: Callable[[bytes | None], object]) -> None:
        """Put in the place of a record what `change` makes of it; None takes it away."""
        kept = await self._store.recall(name)
        new = change(kept)
        if not await self._store.replace(name, kept, None if new is None else _encode(new)):
            raise StoreUnavailable("Somebody else changed the same thing at the same time; nothing was stored")

    async def _change(self, change: Callable[[], Awaitable[None]]) -> None:
        """One change at a time, from what is true now, and to its end whoever waits for it."""

        async def run() -> None:
            async with self._changing:
                await self._load()
                try:
                    await change()
                finally:  # a change that failed half-way has changed something too
                    await self._load()

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)


def _warn_of_short_life(own: Own, before: Own | None, **whose: str) -> None:
    """`before`: of what was the same then, the log was told then."""
    life_s = own.token_ttl_s
    if life_s is not None and life_s < SHORT_LIFE_S and (before is None or before.token_ttl_s != life_s):
        _log.warning(SHORT_LIFE, token_ttl_s=life_s, **whose)


def _normal(site: Site) -> Site:
    """With its origins in the one spelling that is compared. Raises `BadArgument`."""
    return msgspec.structs.replace(site, trusted_origins=origins.trusted_origins(site.trusted_origins))


def _bot(bot_id: str) -> str:
    return f"{_PREFIX}bot/{bot_id}"


def _service_keys(bot_id: str) -> str:
    return f"{_PREFIX}service-keys/{bot_id}"


def _app_secrets(bot_id: str) -> str:
    return f"{_PREFIX}app-secrets/{bot_id}"


def _site(site_id: str) -> str:
    return f"{_PREFIX}site/{site_id}"


def _secrets(site_id: str) -> str:
    return f"{_PREFIX}secrets/{site_id}"


def _under(prefix: str, kept: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    return ((name, value) for name, value in kept.items() if name.startswith(prefix))


def _decoded(value: bytes | None, kind: type[T]) -> T:
    """What a record says; where there is none, nothing is kept."""
    return kind() if value is None else msgspec.json.decode(value, type=kind)
