"""The keys of other issuers that the operator trusts, fetched from the one address that was configured for each.

A token decides nothing here but which of a bot's trusted issuers is looked up. What it names besides (an issuer, a
key, an address in its header) is never connected to, and no redirect is followed. However many tokens with unknown keys
come, an issuer is asked once a minute at most. However few come, and all of them known, its keys are read again when
they are older than a setting says: what it has withdrawn is good no longer then.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from landline.bots.connections import Connections
from landline.bots.wire import Broken
from landline.core.json_text import first_items_of
from landline.errors import IssuerUnavailable

_UNKNOWN_S = 60.0
_FAILED_S = 5.0
"""Keys are fetched again, before they are old, because of a key that is not among them, or after a failure, when the
last attempt is so long ago."""
_KEPT = 24
"""Keys that could not be read again are used for so many times the life of fresh ones: an issuer in trouble takes no
bot away at once, and who keeps us from asking it cannot keep a key that it has withdrawn."""

_TIMEOUT_S = 5.0
_DOCUMENT_BYTES = 256 * 1024
_KEYS = 100
"""Keys that are looked at. Microsoft has about ten."""
_LEAST_BITS = 2048
_MOST_BITS = 16_384

_log = structlog.get_logger(__name__)


class _Key(msgspec.Struct):
    kty: str = ""
    kid: str = ""
    use: str = "sig"
    alg: str = "RS256"
    n: str = ""
    e: str = ""


class _KeySet(msgspec.Struct):
    keys: msgspec.Raw

    def __post_init__(self) -> None:
        if not bytes(self.keys).startswith(b"["):
            raise ValueError("not a list of keys")


class _Issuer:
    """One issuer: where its keys are, and which are known."""

    __slots__ = ("failed", "fetched_at", "fresh_s", "keys", "tried_at", "trying", "url")

    def __init__(self, url: str, fresh_s: float) -> None:
        self.url = url
        self.fresh_s = fresh_s
        self.keys: dict[str, RSAPublicKey] = {}
        self.fetched_at = self.tried_at = float("-inf")
        self.failed = False
        self.trying = asyncio.Lock()

    def should_ask(self, kid: str, now: float) -> bool:
        """Whether asking may bring this key, and may be done again by now."""
        pause = _FAILED_S if self.failed else _UNKNOWN_S if kid not in self.keys else 0.0
        stale = kid not in self.keys or now - self.fetched_at > self.fresh_s
        return stale and now - self.tried_at > min(pause, self.fresh_s)

    def is_known(self, now: float) -> bool:
        """Whether what is known of it can be right."""
        return now - self.fetched_at <= self.fresh_s * _KEPT


class HttpIssuers:
    """Implements `landline.ports.TrustedIssuers`, on the running event loop."""

    def __init__(self, fresh_s: float) -> None:
        """Keys that are older than `fresh_s` are read again before they are used."""
        self._fresh_s = fresh_s
        self._issuers: dict[str, _Issuer] = {}  # by the address of its key set; only operators add one
        self._connections: Connections | None = None
        """Made when the first issuer is asked: to read the authorities of the system takes a while."""

    async def key(self, key_set: str, kid: str) -> RSAPublicKey | None:
        """See `landline.ports.TrustedIssuers.key`."""
        known = self._issuers.get(key_set)
        if known is None:
            known = self._issuers[key_set] = _Issuer(key_set, self._fresh_s)
        # Who comes while the keys are under way waits for them, rather than being told that there are none.
        coming = known.trying.locked() and kid not in known.keys
        if coming or known.should_ask(kid, _now()):
            async with known.trying:
                if known.should_ask(kid, _now()):  # else somebody has asked while we waited
                    await self._ask(known)
        if known.failed and not known.is_known(_now()):
            raise IssuerUnavailable
        return known.keys.get(kid)

    async def _ask(self, issuer: _Issuer) -> None:
        """Fetch the keys; those that are known stay if that fails."""
        issuer.tried_at = _now()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                document = await self._document(issuer.url)
            issuer.keys = keys_in(document)
        except (Broken, OSError, ValueError) as error:  # a timeout is an OSError
            issuer.failed = True
            _log.warning("the keys of a trusted issuer could not be fetched", url=issuer.url, error=repr(error))
        else:
            issuer.failed, issuer.fetched_at = False, _now()

    async def _document(self, url: str) -> bytes:
        if self._connections is None:
            self._connections = Connections(ssl.create_default_context, _TIMEOUT_S)
        with await self._connections.get(url) as answer:
            if answer.status != 200:
                raise ValueError(f"answered {answer.status}")
            document = bytearray()
            while part := await answer.read():
                document += part
                if len(document) > _DOCUMENT_BYTES:
                    raise ValueError("the document is too large")
            return bytes(document)

    async def close(self) -> None:
        """See `landline.ports.TrustedIssuers.close`."""
        if self._connections is not None:
            await self._connections.close()


def keys_in(document: bytes) -> dict[str, RSAPublicKey]:
    """The keys that RS256 signatures can be held against. Raises `ValueError` if it is no key set."""
    found = {}
    try:
        given = first_items_of(msgspec.json.decode(document, type=_KeySet).keys, _KEYS)
    except RecursionError as error:
        raise ValueError("the document is nested too deeply") from error
    for each in given:
        # One that we cannot make anything of takes none of the others away (RFC 7517, section 5).
        with contextlib.suppress(ValueError):
            key = msgspec.json.decode(each, type=_Key)
            if key.kid and key.kty == "RSA" and key.use == "sig" and key.alg == "RS256":
                public = RSAPublicNumbers(_number(key.e), _number(key.n)).public_key()
                if public.key_size >= _LEAST_BITS:
                    found[key.kid] = public
    return found


def _number(text: str) -> int:
    if len(text) * 6 > _MOST_BITS + 12:
        raise ValueError("the number is too large")
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


def _now() -> float:
    return asyncio.get_running_loop().time()
