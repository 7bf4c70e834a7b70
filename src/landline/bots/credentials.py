"""How we prove to a bot that it is the channel that speaks: one token per bot and service URL, made once and reused."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from typing import Protocol

import msgspec

from landline.core import bot_tokens
from landline.core.bot import Bot
from landline.core.bot_tokens import Claims
from landline.ports import Clock

_EARLY_S = 300
"""A token is made anew so long before it expires (bot 5.1); one whose life is short, at half of it."""

_TOKENS = 4096


class Keys(Protocol):
    """What signs for us. Both calls raise `StoreError` while no key is known."""

    async def signer(self) -> str:
        """The name of the key that signs now."""
        ...

    async def sign(self, claims: Claims) -> str:
        """A signed token that says so."""
        ...


class _Made(msgspec.Struct, frozen=True):
    token: str
    signer: str
    good_until_s: float


class Credentials:
    """What goes into the `Authorization` header of a request to a bot."""

    def __init__(self, keys: Keys, clock: Clock, *, issuer: str, life_s: int) -> None:
        """`issuer` is our name in tokens: exactly what the bot's settings say."""
        self._keys = keys
        self._clock = clock
        self._issuer = issuer
        self._life_s = life_s
        self._made: OrderedDict[tuple[str, str, str], _Made] = OrderedDict()
        self._making = asyncio.Lock()

    async def token(self, bot: Bot) -> str | None:
        """A token for this bot; None if it has no app id, since such a bot refuses tokens (bot 2.1)."""
        if bot.app_id is None:
            return None
        signer = await self._keys.signer()
        made = self._good(bot, signer)
        if made is None:
            async with self._making:
                made = self._good(bot, signer) or await self._make(bot, signer)
        return made.token

    def refused(self, bot: Bot, token: str) -> None:
        """The bot did not take this token; the next one will be another. Nothing if that has happened already."""
        key = _key(bot)
        made = self._made.get(key)
        if made is not None and made.token == token:
            del self._made[key]

    def _good(self, bot: Bot, signer: str) -> _Made | None:
        """What was made before, unless another key signs by now: the one that made it may have been withdrawn."""
        made = self._made.get(_key(bot))
        good = made is not None and made.signer == signer and self._clock.now_ms() / 1000 < made.good_until_s
        return made if good else None

    async def _make(self, bot: Bot, signer: str) -> _Made:
        now_s = self._clock.now_ms() // 1000
        claims = bot_tokens.for_bot(bot, self._issuer, jti=secrets.token_hex(8), now_s=now_s, life_s=self._life_s)
        good_until_s = now_s + self._life_s - min(_EARLY_S, self._life_s / 2)
        made = self._made[_key(bot)] = _Made(await self._keys.sign(claims), signer, good_until_s)
        if len(self._made) > _TOKENS:
            self._made.popitem(last=False)
        return made


def _key(bot: Bot) -> tuple[str, str, str]:
    return bot.id, bot.app_id or "", bot.service_url
