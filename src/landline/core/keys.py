"""The keys that we sign with towards bots: which are shown, which one signs, and when one hands over to the next.

Bots fetch the public halves once a day at most (bot 5.2). So a new key is shown a *lead* before it signs, and one
that was relieved is shown a lead longer: at no moment does a bot meet a signature whose key it could not have fetched.
Making a key takes randomness and happens elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey


class _Kept(msgspec.Struct):
    """A key as the store keeps it."""

    private: bytes
    signs_from_ms: int


class SigningKey(msgspec.Struct, frozen=True):
    """An RSA key with the time from which it signs. `kid` is its thumbprint (RFC 7638)."""

    kid: str
    signs_from_ms: int
    private: RSAPrivateKey

    @classmethod
    def of(cls, private: RSAPrivateKey, signs_from_ms: int) -> SigningKey:
        """A new key."""
        n, e = _public_numbers(private)
        thumbprint = hashlib.sha256(f'{{"e":"{e}","kty":"RSA","n":"{n}"}}'.encode()).digest()
        return cls(_base64url(thumbprint), signs_from_ms, private)

    @classmethod
    def from_kept(cls, kept: bytes) -> SigningKey:
        """The key that `to_keep` made these bytes of."""
        found = msgspec.json.decode(kept, type=_Kept)
        private = serialization.load_der_private_key(found.private, password=None)
        assert isinstance(private, RSAPrivateKey)
        return cls.of(private, found.signs_from_ms)

    def to_keep(self) -> bytes:
        """What the store keeps. Secret: whoever has it can speak to bots as this channel."""
        der = self.private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return msgspec.json.encode(_Kept(der, self.signs_from_ms))

    def __repr__(self) -> str:
        return f"SigningKey({self.kid!r})"  # never in a log


class KeyRing:
    """All keys there are, in the order in which they sign; at least one."""

    def __init__(self, keys: Sequence[SigningKey], lead_ms: int) -> None:
        assert keys
        self.keys = tuple(keys)
        self._lead_ms = lead_ms

    def signer(self, now_ms: int) -> SigningKey:
        """The one that signs. A clock that was set back before the first of them changes nothing."""
        begun = [key for key in self.keys if key.signs_from_ms <= now_ms]
        return begun[-1] if begun else self.keys[0]

    def waiting(self, now_ms: int) -> SigningKey | None:
        """The one that is shown and does not sign yet."""
        return self.keys[-1] if self.keys[-1] is not self.signer(now_ms) else None

    def shown(self, now_ms: int) -> list[SigningKey]:
        """Those whose signatures are good: the one that signs, the next, and what was relieved less than a lead ago."""
        return [
            key
            for number, key in enumerate(self.keys, 1)
            if number == len(self.keys) or now_ms < self.keys[number].signs_from_ms + self._lead_ms
        ]

    def find(self, kid: str, now_ms: int) -> SigningKey | None:
        """The shown key of that name."""
        return next((key for key in self.shown(now_ms) if key.kid == kid), None)


def key_set(keys: Sequence[SigningKey], endorsements: Sequence[str]) -> dict[str, object]:
    """The public halves, as bots fetch them (bot 5.2). `endorsements` are the channel ids that they speak for."""
    return {"keys": [_jwk(key, endorsements) for key in keys]}


def _jwk(key: SigningKey, endorsements: Sequence[str]) -> dict[str, object]:
    n, e = _public_numbers(key.private)
    return {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": key.kid,
        "x5t": key.kid,
        "n": n,
        "e": e,
        "endorsements": list(endorsements),
    }


def _public_numbers(private: RSAPrivateKey) -> tuple[str, str]:
    numbers = private.public_key().public_numbers()
    n, e = (number.to_bytes((number.bit_length() + 7) // 8, "big") for number in (numbers.n, numbers.e))
    return _base64url(n), _base64url(e)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
