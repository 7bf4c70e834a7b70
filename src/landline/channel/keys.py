"""The deployment's signing keys: made when first needed, the same on every node and after every restart, rotated.

Each key is kept under a number of its own, and a number is given out once (`Store.remember`): nodes that make the first
key, or the next one, at the same moment end up with the same key.
"""

from __future__ import annotations

import asyncio

import structlog
from cryptography.hazmat.primitives.asymmetric import rsa

from landline.core import bot_tokens
from landline.core.bot_tokens import Claims
from landline.core.keys import KeyRing, SigningKey
from landline.errors import StoreError
from landline.ports import Clock, Store

_BITS = 2048

_LOOK_S = 60.0
"""How old the knowledge of another node's new key may be. It signs a day later at the earliest."""

_log = structlog.get_logger(__name__)


class SigningKeys:
    """Signs what bots are shown, and knows the keys that they may hold it against."""

    def __init__(self, store: Store, clock: Clock, *, lead_s: float) -> None:
        """`lead_s` is how long a key is shown before it signs, and after it was relieved (bot-side 5.2)."""
        self._store = store
        self._clock = clock
        self._lead_ms = int(lead_s * 1000)
        self._ring: KeyRing | None = None
        self._looked_at = 0.0
        self._looking = asyncio.Lock()

    async def ring(self) -> KeyRing:
        """All keys, made if there are none. Raises `StoreError` while none are known; later, trouble of the store only
        delays the news of a rotation elsewhere."""
        if self._ring is None or self._clock.monotonic() - self._looked_at > _LOOK_S:
            async with self._looking:
                await self._look()
        assert self._ring is not None
        return self._ring

    async def _look(self) -> None:
        if self._ring is not None and self._clock.monotonic() - self._looked_at <= _LOOK_S:
            return  # somebody else has looked while we waited
        try:
            await self._read()
        except StoreError as error:
            if self._ring is None:
                raise
            _log.warning("signing keys could not be looked up; those that are known go on", reason=error.message)
        self._looked_at = self._clock.monotonic()

    async def _read(self) -> KeyRing:
        keys = [] if self._ring is None else list(self._ring.keys)
        while (kept := await self._store.recall(_name(len(keys) + 1))) is not None:
            keys.append(SigningKey.from_kept(kept))
        if not keys:
            keys.append(await self._add(1, signs_from_ms=self._clock.now_ms()))
        self._ring = KeyRing(keys, self._lead_ms)
        return self._ring

    async def _add(self, number: int, signs_from_ms: int) -> SigningKey:
        """The key of that number: a new one, unless somebody was faster."""
        private = await asyncio.to_thread(rsa.generate_private_key, public_exponent=65537, key_size=_BITS)
        made = SigningKey.of(private, signs_from_ms)
        return SigningKey.from_kept(await self._store.remember(_name(number), made.to_keep()))

    async def rotate(self) -> SigningKey:
        """Show a new key from now on, which signs when every bot has had the time to fetch it. Answers that key.

        While one is waiting to sign no further one is made: it is answered again."""
        async with self._looking:
            ring, now_ms = await self._read(), self._clock.now_ms()
            waiting = ring.waiting(now_ms)
            if waiting is None:
                waiting = await self._add(len(ring.keys) + 1, signs_from_ms=now_ms + self._lead_ms)
                self._ring = KeyRing((*ring.keys, waiting), self._lead_ms)
                _log.info("a new signing key is shown", kid=waiting.kid, signs_in_s=self._lead_ms // 1000)
            return waiting

    async def shown(self) -> list[SigningKey]:
        """The keys that bots may see a signature of."""
        return (await self.ring()).shown(self._clock.now_ms())

    async def find(self, kid: str) -> SigningKey | None:
        """The key that made a signature, if its signatures are still good."""
        return (await self.ring()).find(kid, self._clock.now_ms())

    async def sign(self, claims: Claims) -> str:
        """The token that says `claims`. Costs 0.2 ms of the loop: keep what you get."""
        return bot_tokens.sign(claims, (await self.ring()).signer(self._clock.now_ms()))


def _name(number: int) -> str:
    return f"signing-key/{number}"
