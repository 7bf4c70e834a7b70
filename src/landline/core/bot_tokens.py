"""The tokens between us and bots with an app id: what they say, how they are signed and read (bot 5.1, 6.1, 6.2).

One key signs in both directions, so it is the claims that keep the directions apart: what we show to a bot has its app
id as audience and names no app; what a bot shows to us has the connector as audience and names the app.

Reading checks the signature only, so that its result may be cached; time and audience are questions of their own.
"""

from __future__ import annotations

import base64
from typing import Annotated

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from msgspec import Meta

from landline.core.bot import CONNECTOR, Bot
from landline.core.keys import SigningKey
from landline.errors import BotNotAuthenticated

LEEWAY_S = 300
"""How far apart clocks may be. Every SDK allows as much to us."""

_BACKDATED_S = 5
_KID_CHARACTERS = 256

_LAST_DATE = 253_402_300_799
"""The end of the year 9999. Beyond it, and where the number is none, a date says "for ever"."""
NumericDate = Annotated[float, Meta(ge=0, le=_LAST_DATE)]

Claims = dict[str, object]


def for_bot(bot: Bot, issuer: str, *, jti: str, now_s: int, life_s: int) -> Claims:
    """What we say to a bot. Without `ver`, `appid`, `azp` or `tid`: with them it would pass for another bot's call."""
    assert bot.app_id is not None
    return {
        "iss": issuer,
        "aud": bot.app_id,
        "serviceurl": bot.service_url,
        "jti": jti,  # or a token made anew within the same second would be the one that was refused
        "nbf": now_s - _BACKDATED_S,
        "exp": now_s + life_s,
    }


def for_connector(app_id: str, issuer: str, *, jti: str, now_s: int, life_s: int) -> Claims:
    """What a bot that has proven its app id may say to us."""
    return {
        "iss": issuer,
        "aud": CONNECTOR,
        "appid": app_id,
        "azp": app_id,
        "jti": jti,
        "nbf": now_s - _BACKDATED_S,
        "exp": now_s + life_s,
    }


def audience_of(scope: str | None) -> str:
    """What a scope asks for. None, and a scope of nothing but blanks, ask for the connector."""
    return (scope or "").strip().removesuffix("/.default") or CONNECTOR


def sign(claims: Claims, key: SigningKey) -> str:
    """The token. 0.2 ms: sign once, use often (bot 5.1)."""
    return jwt.encode(claims, key.private, algorithm="RS256", headers={"kid": key.kid, "x5t": key.kid})


class Said(msgspec.Struct, frozen=True):
    """What a bot's token says. `iss` may be any issuer whose signature was good."""

    iss: str
    aud: str | tuple[str, ...]
    exp: NumericDate
    nbf: NumericDate = 0
    iat: NumericDate = 0
    appid: str | None = None
    azp: str | None = None

    @property
    def app_id(self) -> str | None:
        """The app that the token was made for; None where it names none, or two."""
        if self.appid is not None and self.azp is not None and self.appid != self.azp:
            return None
        return self.appid or self.azp

    def is_for(self, audience: str) -> bool:
        """Whether it was made to be shown to `audience`."""
        return audience == self.aud if isinstance(self.aud, str) else audience in self.aud


class Sealed(msgspec.Struct, frozen=True):
    """What a token claims about its signature. Good for finding a key that is known already, and for nothing else."""

    issuer: str
    kid: str


class _Issuer(msgspec.Struct):
    iss: str


def unopened(token: str) -> Sealed:
    """Who seems to have signed this. Raises `BotNotAuthenticated` unless it has the form of an RS256 token."""
    try:
        header = jwt.get_unverified_header(token)
        issuer = msgspec.json.decode(_bytes(token.split(".")[1]), type=_Issuer).iss
    except (jwt.PyJWTError, ValueError, RecursionError, IndexError) as error:
        # Nothing is verified yet: anybody can write something here that breaks a parser.
        raise BotNotAuthenticated from error
    kid = header.get("kid")
    if header.get("alg") != "RS256" or "crit" in header or not isinstance(kid, str) or len(kid) > _KID_CHARACTERS:
        raise BotNotAuthenticated
    return Sealed(issuer, kid)


def read(token: str, key: RSAPublicKey) -> Said:
    """What a token says, whatever the time and the audience. Raises `BotNotAuthenticated` unless `key` signed it."""
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=["RS256"],
            options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
        )
        signature = token.rpartition(".")[2]
        if base64.urlsafe_b64encode(_bytes(signature)).rstrip(b"=") != signature.encode():
            # Decoding drops the last bits. A token has one spelling, or the cache could be filled with copies of one.
            raise BotNotAuthenticated
        return msgspec.convert(claims, Said)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise BotNotAuthenticated from error


def check_time(said: Said, now_s: float) -> None:
    """Raises `BotNotAuthenticated` outside of the token's life, which clocks may see differently."""
    if now_s >= said.exp + LEEWAY_S:
        raise BotNotAuthenticated("The bot's token has expired")
    if now_s < said.nbf - LEEWAY_S:
        raise BotNotAuthenticated("The bot's token is not valid yet")


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
