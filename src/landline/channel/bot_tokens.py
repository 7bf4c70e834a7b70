"""Which bot is calling: the tokens that bots get from us, and what they have to show (bot-side 6)."""

from __future__ import annotations

import hmac
from collections import OrderedDict

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from landline.channel.keys import SigningKeys
from landline.channel.registry import Registry
from landline.channel.tokens import random_id
from landline.core import bot_tokens
from landline.core.bot import CONNECTOR, Bot, key_set_of
from landline.core.bot_tokens import Said, Sealed
from landline.core.tokens import digest
from landline.errors import BadArgument, BotNotAuthenticated, Forbidden
from landline.ports import Clock, TrustedIssuers

_VERIFIED = 1024
"""Verified tokens kept. Only good ones get in, so nobody but bots can push one out."""

_NOBODY = bytes(32)


class BotToken(msgspec.Struct, frozen=True):
    """A token for a bot that has proven its app id. `expires_in` is seconds."""

    token: str
    expires_in: int


class _Verified(msgspec.Struct, frozen=True):
    """What a token says whose signature was good, and the key that it was good by."""

    said: Said
    sealed: Sealed
    key: RSAPublicKey


class BotTokens:
    """The authority of bots with an app id."""

    def __init__(
        self,
        registry: Registry,
        keys: SigningKeys,
        trusted: TrustedIssuers,
        clock: Clock,
        *,
        issuer: str,
        life_s: int,
    ) -> None:
        """`issuer` is our own name in tokens; of those that a bot trusts besides, `trusted` finds the keys."""
        self._registry = registry
        self._keys = keys
        self._trusted = trusted
        self._clock = clock
        self._issuer = issuer
        self._life_s = life_s
        self._verified: OrderedDict[str, _Verified] = OrderedDict()

    async def grant(self, app_id: str, secret: str, scope: str | None) -> BotToken:
        """A token for the connector. Raises `Forbidden` for wrong credentials, `BadArgument` for any other scope.

        No other scope: with our signature and another bot's app id as audience, a bot could pass for the channel.
        """
        self._check_secret(app_id, secret)
        if bot_tokens.audience_of(scope) != CONNECTOR:
            raise BadArgument(f"The only scope is {CONNECTOR}/.default")
        claims = bot_tokens.for_connector(
            app_id, self._issuer, jti=random_id(), now_s=self._clock.now_ms() // 1000, life_s=self._life_s
        )
        return BotToken(await self._keys.sign(claims), self._life_s)

    def _check_secret(self, app_id: str, secret: str) -> None:
        """An unknown app costs the same time as a wrong secret, and all secrets are compared to the end."""
        given = digest(secret)
        good = [kept for bot in self._registry.bots() if bot.app_id == app_id for kept in bot.app_secrets]
        matches = [hmac.compare_digest(given, kept) for kept in (*good, _NOBODY)]
        if not any(matches):
            raise Forbidden("Unknown client id or wrong client secret")

    async def check(self, bot: Bot, token: str | None) -> None:
        """Refuse a call that is not `bot`'s. One without app id is known by its key path alone, whatever it shows.

        Raises `BotNotAuthenticated` without a good token, `Forbidden` with another bot's."""
        if bot.app_id is None:
            return
        if token is None:
            raise BotNotAuthenticated
        verified = await self._verify(bot, token)
        said = verified.said
        bot_tokens.check_time(said, self._clock.now_ms() / 1000)
        self._check_audience(said)
        self._keep(token, verified)
        if said.app_id != bot.app_id:
            raise Forbidden("The token belongs to another bot")

    async def _verify(self, bot: Bot, token: str) -> _Verified:
        """By the key that must have signed it, among those that we know or know where to fetch. What the token says of
        its issuer is looked up and never followed.

        The key is looked up each time, for it may have been withdrawn; the signature is checked once."""
        kept = self._verified.get(token)
        sealed = bot_tokens.unopened(token) if kept is None else kept.sealed
        key = await self._key(bot, sealed)
        if key is None:
            raise BotNotAuthenticated
        if kept is not None and kept.key == key:
            return kept
        return _Verified(bot_tokens.read(token, key), sealed, key)

    async def _key(self, bot: Bot, sealed: Sealed) -> RSAPublicKey | None:
        if sealed.issuer == self._issuer:
            ours = await self._keys.find(sealed.kid)
            return None if ours is None else ours.private.public_key()
        key_set = key_set_of(sealed.issuer, bot.trusted_issuers)
        return None if key_set is None else await self._trusted.key(key_set, sealed.kid)

    def _check_audience(self, said: Said) -> None:
        """Of other issuers a bot may also have a token for itself. Of ours that is what we show to the bot: whoever it
        was shown to must not be able to speak as the bot."""
        audiences = (CONNECTOR,) if said.iss == self._issuer else (CONNECTOR, said.app_id)
        if said.app_id is None or not any(said.is_for(audience) for audience in audiences if audience):
            raise BotNotAuthenticated

    def _keep(self, token: str, verified: _Verified) -> None:
        self._verified[token] = verified
        self._verified.move_to_end(token)
        if len(self._verified) > _VERIFIED:
            self._verified.popitem(last=False)
