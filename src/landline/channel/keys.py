"""The deployment's signing keys: made when first needed, the same on every node and after every restart, rotated,
withdrawn.

Each key is kept under a number of its own, and a number is given out once (`Records.put_if_absent`): nodes that make
the first key, or the next one, at the same moment end up with the same key. A key that was withdrawn leaves its number
behind and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog
from cryptography.hazmat.primitives.asymmetric import rsa

from landline.core import bot_tokens
from landline.core.bot_tokens import Claims
from landline.core.keys import KeyRing, SigningKey
from landline.errors import StoreError, StoreUnavailable, UnknownKey
from landline.ports import Clock, Records

_BITS = 2048
_PREFIX = "signing-key/"
_WITHDRAWN = b""

_LOOK_S = 60.0
"""How old the knowledge of another node's new key may be, which signs a day later at the earliest; and how long a node
may trust a key that was withdrawn at another."""

_log = structlog.get_logger(__name__)


class SigningKeys:
    """Signs what bots are shown, and knows the keys that they may hold it against."""

    def __init__(self, store: Records, clock: Clock, *, lead_s: float) -> None:
        """`lead_s` is how long a key is shown before it signs, and after it was relieved (bot-side 5.2)."""
        self._store = store
        self._clock = clock
        self._lead_ms = int(lead_s * 1000)
        self._ring: KeyRing | None = None
        self._kept: Mapping[str, bytes] = {}
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
        kept = await self._store.list(_PREFIX)
        while not any(kept.values()):
            await self._add(kept, signs_from_ms=self._clock.now_ms())
            kept = await self._store.list(_PREFIX)
        if self._ring is None or kept != self._kept:
            keys = [SigningKey.from_kept(kept[name]) for name in sorted(kept, key=_number) if kept[name] != _WITHDRAWN]
            self._ring, self._kept = KeyRing(keys, self._lead_ms), kept
        return self._ring

    async def _add(self, kept: Mapping[str, bytes], signs_from_ms: int) -> None:
        """Keep a new key under the next number, unless somebody was faster: then theirs is as good."""
        number = max(map(_number, kept), default=0) + 1
        private = await asyncio.to_thread(rsa.generate_private_key, public_exponent=65537, key_size=_BITS)
        await self._store.put_if_absent(f"{_PREFIX}{number}", SigningKey.of(private, signs_from_ms).to_keep())

    async def rotate(self) -> SigningKey:
        """Show a new key from now on, which signs when every bot has had the time to fetch it. Answers that key.

        While one is waiting to sign no further one is made: it is answered again."""
        async with self._looking:
            ring, now_ms = await self._read(), self._clock.now_ms()
            waiting = ring.waiting(now_ms)
            if waiting is None:
                await self._add(self._kept, signs_from_ms=now_ms + self._lead_ms)
                waiting = (await self._read()).keys[-1]
                _log.info("a new signing key is shown", kid=waiting.kid, signs_in_s=self._lead_ms // 1000)
            return waiting

    async def withdraw(self, kid: str) -> None:
        """Let a shown key be good for nothing from now on, neither its signatures nor as a signer, and erase it.

        Where it was the one that signs, the one before it signs again if it is still shown; else the next one, or a new
        one, signs at once, before every bot has had the time to fetch it. Raises `UnknownKey`."""
        async with self._looking:
            ring, now_ms = await self._read(), self._clock.now_ms()
            shown = ring.shown(now_ms)
            if kid not in (key.kid for key in shown):
                raise UnknownKey
            # What is shown no more goes as well: it must not be the one before, and come back.
            for key in ring.keys:
                if key.kid == kid or key not in shown:
                    await self._replace(key, _WITHDRAWN)
            self._ring = None  # whatever happens now, it does not sign again
            signer = (await self._read()).signer(now_ms)
            if signer.signs_from_ms > now_ms:
                await self._replace(signer, SigningKey.of(signer.private, now_ms).to_keep())
                await self._read()
            _log.info("a signing key was withdrawn", kid=kid, signs_now=signer.kid)

    async def _replace(self, key: SigningKey, new: bytes) -> None:
        kept = key.to_keep()
        name = next(name for name, value in self._kept.items() if value == kept)
        if not await self._store.compare_and_set(name, kept, new):
            raise StoreUnavailable("Somebody else withdrew a key at the same time")

    async def shown(self) -> list[SigningKey]:
        """The keys that bots may see a signature of."""
        return (await self.ring()).shown(self._clock.now_ms())

    async def find(self, kid: str) -> SigningKey | None:
        """The key that made a signature, if its signatures are still good."""
        return (await self.ring()).find(kid, self._clock.now_ms())

    async def signer(self) -> str:
        """The name of the key that signs now."""
        return (await self.ring()).signer(self._clock.now_ms()).kid

    async def sign(self, claims: Claims) -> str:
        """The token that says `claims`. Costs 0.2 ms of the loop: keep what you get."""
        return bot_tokens.sign(claims, (await self.ring()).signer(self._clock.now_ms()))


def _number(name: str) -> int:
    return int(name.removeprefix(_PREFIX))
