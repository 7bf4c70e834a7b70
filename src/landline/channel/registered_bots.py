"""Bots as they are registered, with the keys of their service URLs and the secrets of their app ids, and the ways in
which those change (specification 4.5)."""

from __future__ import annotations

import secrets as random
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import structlog

from landline.channel.records import KEYS, Configured, Key, RegistrationRecords, Secret, decoded, name_of, of_kind
from landline.core import tokens
from landline.core.bot import SHORT_LIFE, SHORT_LIFE_S, Bot, Own, Profile, check_profile, may_be_called
from landline.errors import AlreadyThere, BadArgument, ReadOnly, UnknownBot, UnknownKey
from landline.ports import Clock

# The kinds of records, each under the id of its bot.
_BOT, _SERVICE_KEYS, _APP_SECRETS = "bot", "service-keys", "app-secrets"

_log = structlog.get_logger(__name__)


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


class RegisteredBots:
    """All bots, and the ways in which they change."""

    def __init__(self, records: RegistrationRecords, clock: Clock, configured: Configured, service_base: str) -> None:
        """`service_base` is what the service URL of a bot begins with; its key follows."""
        self._records = records
        self._clock = clock
        self._configured = configured
        self._service_base = service_base
        self._bots: dict[str, RegisteredBot] = {}

    async def give_missing_keys(self, kept: Mapping[str, bytes], configured: Configured) -> bool:
        """Make a first service key for each bot of the settings that has none; answer whether there was such a bot."""
        missing = [each.id for each in configured.profiles if name_of(_SERVICE_KEYS, each.id) not in kept]
        for bot_id in missing:
            await self._records.put_if_absent(name_of(_SERVICE_KEYS, bot_id), (self._new_service_key(),))
        return bool(missing)

    def learn(self, kept: Mapping[str, bytes], configured: Configured) -> None:
        """These are the bots from now on."""
        self._configured = configured
        self._bots = {each.profile.id: each for each in self._bots_in(kept)}

    def _bots_in(self, kept: Mapping[str, bytes]) -> Iterator[RegisteredBot]:
        """What the settings name comes last, and so wins."""
        stored = [decoded(value, Profile) for value in of_kind(_BOT, kept)]
        for profiles, read_only in ((stored, False), (self._configured.profiles, True)):
            for profile in profiles:
                keys = decoded(kept.get(name_of(_SERVICE_KEYS, profile.id)), tuple[ServiceKey, ...])
                app_secrets = decoded(kept.get(name_of(_APP_SECRETS, profile.id)), dict[int, Key])
                settings = self._configured.app_secrets.get(profile.id, ())
                yield RegisteredBot(profile, keys, app_secrets, settings if read_only else (), read_only)

    def in_use(self) -> Sequence[Bot]:
        """All bots as the registry knows them."""
        return [self._in_use(each) for each in self._bots.values()]

    def _in_use(self, registered: RegisteredBot) -> Bot:
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

    def all(self) -> Sequence[RegisteredBot]:
        """All bots."""
        return tuple(self._bots.values())

    def get(self, bot_id: str) -> RegisteredBot:
        """One bot. Raises `UnknownBot`."""
        if bot_id not in self._bots:
            raise UnknownBot
        return self._bots[bot_id]

    def warn_of_short_lives(self) -> None:
        """Tell the log of bots whose tokens live too short for clients (D-19)."""
        for bot in self._bots.values():
            warn_of_short_life(bot.profile, None, bot=bot.profile.id)

    async def add(self, profile: Profile) -> RegisteredBot:
        """Register a bot; its service URL has a key of its own from the start. Raises `AlreadyThere`, `BadArgument`."""

        async def add() -> None:
            if profile.id in self._bots:
                raise AlreadyThere
            self._check(profile)
            # The key first: a bot without one could not be told where to answer.
            await self._records.put(name_of(_SERVICE_KEYS, profile.id), lambda kept: (self._new_service_key(),))
            await self._records.put(name_of(_BOT, profile.id), lambda kept: profile)
            warn_of_short_life(profile, None, bot=profile.id)

        await self._records.change(add)
        return self.get(profile.id)

    async def change(self, bot_id: str, change: Callable[[Profile], Profile]) -> RegisteredBot:
        """Say something else about a bot. Raises `UnknownBot`, `ReadOnly`, `BadArgument`, and what `change` raises."""

        async def put() -> None:
            old = self.changeable(bot_id)
            new = change(old)
            if new.id != bot_id:
                raise BadArgument("'id' cannot be changed")
            self._check(new)
            await self._records.put(name_of(_BOT, bot_id), lambda kept: new)
            warn_of_short_life(new, old, bot=bot_id)

        await self._records.change(put)
        return self.get(bot_id)

    def changeable(self, bot_id: str) -> Profile:
        """What is registered of a bot that is not in the settings. Raises `UnknownBot`, `ReadOnly`."""
        registered = self.get(bot_id)
        if registered.read_only:
            raise ReadOnly
        return registered.profile

    async def erase(self, bot_id: str) -> None:
        """Take away all records of a bot. Part of a change."""
        for kind in (_BOT, _SERVICE_KEYS, _APP_SECRETS):
            await self._records.put(name_of(kind, bot_id), lambda kept: None)

    async def add_service_key(self, bot_id: str) -> RegisteredBot:
        """Tell the bot another service URL from now on. The former ones work until they are removed."""

        async def add() -> None:
            keys = self.get(bot_id).service_keys
            await self._records.put(name_of(_SERVICE_KEYS, bot_id), lambda kept: (self._new_service_key(), *keys))

        await self._records.change(add)
        return self.get(bot_id)

    async def remove_service_key(self, bot_id: str, mark: str) -> RegisteredBot:
        """Let a former key work no longer. Raises `UnknownKey`, and `BadArgument` for the one that the bot is told."""

        async def remove() -> None:
            keys = self.get(bot_id).service_keys
            if mark not in (each.mark for each in keys):
                raise UnknownKey
            if mark == keys[0].mark:
                raise BadArgument("The bot is told this key: make a new one first")
            await self._records.put(
                name_of(_SERVICE_KEYS, bot_id), lambda kept: tuple(each for each in keys if each.mark != mark)
            )

        await self._records.change(remove)
        return self.get(bot_id)

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
            if self.get(bot_id).profile.app_id is None:
                raise BadArgument("The bot has no app id")
            await self._records.put(name_of(_APP_SECRETS, bot_id), lambda kept: change(decoded(kept, dict[int, Key])))

        await self._records.change(put)
        return self.get(bot_id)

    def _check(self, profile: Profile) -> None:
        check_profile(profile)
        if profile.endpoint is not None and not may_be_called(profile.endpoint, self._configured.bot_hosts):
            raise BadArgument("'endpoint' is on a host that is not one of bot_allowed_hosts")

    def _new_service_key(self) -> ServiceKey:
        return ServiceKey(random.token_urlsafe(20), self._clock.now_ms())


def warn_of_short_life(own: Own, before: Own | None, **named: str) -> None:
    """`before`: of what was the same then, the log was told then."""
    life_s = own.token_ttl_s
    if life_s is not None and life_s < SHORT_LIFE_S and (before is None or before.token_ttl_s != life_s):
        _log.warning(SHORT_LIFE, token_ttl_s=life_s, **named)
