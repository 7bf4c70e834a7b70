"""Secrets, tokens and tickets: what they say, how they are signed and read (spec 4, 7.2).

Time and random values come as arguments. Nothing here knows whether a site still exists or a key was revoked: that is
asked at every use, one floor up. Reading checks the signature only, so that its result may be cached; expiry is a
question of its own (`check_time`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct

import jwt
import msgspec
from msgspec import Raw

from landline.core.activity import account_id
from landline.core.conversation import Account
from landline.core.json_text import items_of, lenient_string, members_of, string
from landline.core.origins import trusted_origins
from landline.errors import BadArgument, Forbidden, TokenExpired

_US = "landline"
"""`iss` and `aud`. The signing key is the deployment's identity; a changed public address logs nobody out (4.2)."""

_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode()
"""How every token begins."""

_SKI = re.compile(r"[A-Za-z0-9_-]{12}", re.ASCII)


class Keys(msgspec.Struct, frozen=True):
    """The signing keys, one per purpose, so that what is signed for one can never pass for another."""

    token: bytes
    ticket: bytes
    user: bytes
    session: bytes
    conversation: bytes

    @classmethod
    def derive(cls, deployment_key: bytes) -> Keys:
        """The keys of a deployment, from the one secret that its nodes share (at least 32 random bytes)."""
        return cls(
            *(
                hmac.digest(deployment_key, f"landline {purpose}".encode(), "sha256")
                for purpose in cls.__struct_fields__
            )
        )

    def __repr__(self) -> str:
        return "Keys(...)"  # never in a log


# Secrets.


def digest(secret: str) -> bytes:
    """What is kept of a secret (4.1). It has 256 random bits, so a plain hash gives nothing away."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


def ski(secret: str) -> str:
    """The mark of a secret that its tokens carry on: 12 characters of its digest, base64url (4.2)."""
    return ski_of(digest(secret))


def ski_of(digest: bytes) -> str:
    """The same, where only the digest is known."""
    return base64.urlsafe_b64encode(digest[:9]).decode()


def is_ski(text: str) -> bool:
    """Whether `text` has the form of such a mark."""
    return _SKI.fullmatch(text) is not None


# Tokens.


TOKEN_CHARACTERS = 7680
"""The longest token: one that fits into the `t` of a stream URL, which may have 8 KiB (10; ADR 24)."""
NAME_CHARACTERS = 256


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token says (4.2). Times are whole seconds since 1970.

    `ski` names the secret it descends from, `oat` is the time of the first token of its chain.
    """

    bot: str
    site: str
    conv: str
    user: str | None = None
    name: str | None = None
    origin: tuple[str, ...] = ()
    ski: str
    jti: str
    oat: int
    nbf: int
    exp: int


def first(
    *,
    bot: str,
    site: str,
    conv: str,
    user: Account | None,
    origin: tuple[str, ...],
    ski: str,
    jti: str,
    now_s: int,
    life_s: int,
) -> Claims:
    """Begin a chain of tokens: from a secret (4.2). Raises `BadArgument` for a user whose name is too long."""
    if user is not None:
        check_name(user)
    return Claims(
        bot=bot,
        site=site,
        conv=conv,
        user=user.id if user else None,
        name=user.name if user else None,
        origin=origin,
        ski=ski,
        jti=jti,
        oat=now_s,
        nbf=now_s,
        exp=now_s + life_s,
    )


def check_name(user: Account, property: str = "user.name") -> None:
    """Raises `BadArgument` for a user whose name, which came in that property, is too long for a token."""
    if len(user.name or "") > NAME_CHARACTERS:
        raise BadArgument(f"'{property}' has more than {NAME_CHARACTERS} characters")


def successor(claims: Claims, *, jti: str, now_s: int, life_s: int, chain_s: float) -> Claims:
    """The token after this one: refresh, reconnect, start with a token. It opens the same and has full life.

    Raises `TokenExpired` more than `chain_s` after the chain began (4.2, Chain).
    """
    check_chain(claims, now_s, chain_s)
    return msgspec.structs.replace(claims, jti=jti, nbf=now_s, exp=now_s + life_s)


def check_chain(claims: Claims, now_s: int, chain_s: float) -> None:
    """Raises `TokenExpired` where there can be no successor any more."""
    if now_s - claims.oat > chain_s:
        raise TokenExpired("The token cannot be renewed any more")


def sign(claims: Claims, keys: Keys) -> str:
    """The token: a JWT, since clients read the claim `user` without verifying it (4.2)."""
    return jwt.encode({**msgspec.to_builtins(claims), "iss": _US, "aud": _US}, keys.token, algorithm="HS256")


def read(token: str, keys: Keys) -> Claims:
    """What a token says, whatever the time. Raises `Forbidden` unless it is whole, ours, and an ordinary one.

    We wrote it, so there is one spelling of its header and of its signature, and nothing is parsed before the signature
    was found good. After a restart every client comes with a token that has to be read, and a general reader of JWTs
    takes five times as long.
    """
    said, _, signature = token.rpartition(".")
    header, _, payload = said.partition(".")
    try:
        right = base64.urlsafe_b64encode(hmac.digest(keys.token, said.encode(), "sha256")).rstrip(b"=")
        if header != _HEADER or not hmac.compare_digest(signature.encode(), right):
            raise Forbidden
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        if claims.get("iss") != _US or claims.get("aud") != _US or "use" in claims:
            raise Forbidden
        return msgspec.convert(claims, Claims)
    except ValueError as error:
        raise Forbidden from error


def check_time(claims: Claims, now_s: float, leeway_s: float) -> None:
    """Raises `TokenExpired` from `exp` on, `Forbidden` before `nbf`; clocks may differ by `leeway_s` (D-18)."""
    if now_s >= claims.exp + leeway_s:
        raise TokenExpired
    if now_s < claims.nbf - leeway_s:
        raise Forbidden("The token is not valid yet")


# Tickets. Half of an upgrade's CPU was JWT; this is a fixed layout and one HMAC (ADR 4).

_VERSION = b"\1"
_LAYOUT = struct.Struct(">cQ8s12sB")  # version, expiry in ms, user digest, ski, length of the conversation id
_MAC_BYTES = 32
_NO_USER = bytes(8)


class Ticket(msgspec.Struct, frozen=True):
    """What the `t` of a stream URL says (7.2): it opens one conversation for a minute. `user` is a `user_digest`."""

    conversation: str
    site: str
    ski: str
    user: bytes
    expires_ms: int


def write_ticket(ticket: Ticket, keys: Keys) -> str:
    """The `t` of a stream URL: characters that are safe in a URL, never a dot, so that it cannot look like a token."""
    conversation = ticket.conversation.encode()
    head = _LAYOUT.pack(_VERSION, ticket.expires_ms, ticket.user, ticket.ski.encode(), len(conversation))
    said = head + conversation + ticket.site.encode()
    signed = said + hmac.digest(keys.ticket, said, "sha256")
    return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()


def read_ticket(text: str, keys: Keys) -> Ticket:
    """What a ticket says, whatever the time. Raises `Forbidden` unless it is, to the letter, one that we wrote."""
    try:
        signed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise Forbidden("Invalid stream URL") from error
    said, mac = signed[:-_MAC_BYTES], signed[-_MAC_BYTES:]
    if not hmac.compare_digest(hmac.digest(keys.ticket, said, "sha256"), mac) or said[:1] != _VERSION:
        raise Forbidden("Invalid stream URL")
    if base64.urlsafe_b64encode(signed).rstrip(b"=") != text.encode():
        # Decoding forgives stray characters. There is one spelling of a ticket, or logs could not be searched for it.
        raise Forbidden("Invalid stream URL")
    _, expires_ms, user, ski, length = _LAYOUT.unpack_from(said)
    ends = _LAYOUT.size + length
    return Ticket(
        conversation=said[_LAYOUT.size : ends].decode(),
        site=said[ends:].decode(),
        ski=ski.decode(),
        user=user,
        expires_ms=expires_ms,
    )


def user_digest(user: str | None, keys: Keys) -> bytes:
    """Eight bytes that stand for a user in a ticket, zero for none: proxies log URLs (7.2)."""
    return _NO_USER if user is None else hmac.digest(keys.user, user.encode(), "sha256")[:8]


# What a request for a token asks for.


def session_id(cookie: str, keys: Keys) -> str:
    """What a page is told of its session (5.7). Not the cookie itself, which scripts must not see."""
    mac = hmac.digest(keys.session, cookie.encode(), "sha256")
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


class TokenParameters(msgspec.Struct, frozen=True):
    """What a request for a token, or a start, asks for (1, 5.1, 5.2). `origins` are normalised."""

    user: Account | None = None
    origins: tuple[str, ...] = ()
    locale: str | None = None


def read_parameters(members: dict[str, Raw]) -> TokenParameters:
    """Read the body of Generate Token or Start, names without regard to case (1). Raises `BadArgument` (4.6, 5.1)."""
    given = {name.lower(): value for name, value in members.items()}
    origins = items_of(given["trustedorigins"], "trustedOrigins") if "trustedorigins" in given else []
    return TokenParameters(
        user=_user(members_of(given["user"], "user")) if "user" in given else None,
        origins=trusted_origins(string(item, "trustedOrigins") or "" for item in origins),
        locale=lenient_string(given["locale"]) if "locale" in given else None,
    )


def _user(members: dict[str, Raw]) -> Account | None:
    given = {name.lower(): value for name, value in members.items()}
    user = account_id(given["id"], "user.id") if "id" in given else None
    if user is None:
        return None
    if not user:
        raise BadArgument("'user.id' is empty")
    return Account(user, lenient_string(given["name"]) if "name" in given else None)
