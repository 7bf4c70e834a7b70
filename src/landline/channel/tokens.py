"""Who is asking, and for what: secrets, tokens and tickets, checked and issued (specification 4, 7.2)."""

from __future__ import annotations

import hmac
import re
import secrets
from collections import OrderedDict

import msgspec

from landline.channel.registry import Registry
from landline.core import origins, tokens
from landline.core.bot import Bot, Own, Site
from landline.core.conversation import Account, Conversation
from landline.core.log import ConversationId
from landline.core.tokens import Claims, Keys, Ticket, TokenParameters
from landline.errors import (
    BadArgument,
    BotGone,
    Forbidden,
    MissingProperty,
    NotTrusted,
    TokenExpired,
    UnknownConversation,
)
from landline.ports import Clock

_VERIFIED = 4096
"""Verified tokens kept. Their expiry and their site are checked at every use all the same (D-16)."""

_COOKIE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
"""Cookies of ours. Anything else was made up by somebody, who could then tell the session."""


class Lifetimes(msgspec.Struct, frozen=True):
    """How long credentials live, in seconds."""

    token_s: int
    chain_s: float
    stream_url_s: float
    leeway_s: float


class Grant(msgspec.Struct, frozen=True):
    """A credential that was good a moment ago. `claims` is None for a secret."""

    bot: Bot
    site: Site
    ski: str
    claims: Claims | None = None

    @property
    def user(self) -> Account | None:
        """The user that every activity sent with this credential comes from, if it is bound to one (4.6)."""
        if self.claims is None or self.claims.user is None:
            return None
        return Account(self.claims.user, self.claims.name)

    @property
    def overrides(self) -> tuple[Own, Own]:
        """Who may have lives and rates of their own: the site's win."""
        return self.site, self.bot

    def check_bound(self) -> None:
        """Refuse who may only look: under enhanced authentication a token without a user can neither start nor
        reconnect nor send (4.6). Raises `MissingProperty`."""
        if self.site.enhanced_authentication and self.claims is not None and self.claims.user is None:
            raise MissingProperty("The site has enhanced authentication, and the token names no user")

    @property
    def may_claim_dl(self) -> bool:
        """Whether a `dl_` id may be claimed with it: only a secret may, or a token that is bound to it (D-17)."""
        return self.claims is None


class Issued(msgspec.Struct, frozen=True):
    """A new token for one conversation."""

    conversation: ConversationId
    token: str
    expires_in: int


class Session(msgspec.Struct, frozen=True):
    """What a page is told of its browser's session, and the cookie to set if the browser had none."""

    id: str
    cookie: str | None


class Tokens:
    """Checks what clients present and issues what they get. Writes nothing."""

    def __init__(self, registry: Registry, keys: Keys, clock: Clock, lifetimes: Lifetimes) -> None:
        self._registry = registry
        self._keys = keys
        self._clock = clock
        self._lifetimes = lifetimes
        self._verified: OrderedDict[str, Claims] = OrderedDict()

    def grant(self, credential: str) -> Grant:
        """What this secret or token opens, in the order of 4.2: signature, expiry, site.

        Raises `Forbidden` or `TokenExpired`.
        """
        site = self._registry.site_of_secret(credential)
        if site is not None:
            return Grant(self._registry.bot(site.bot_id), site, tokens.ski(credential))
        return self._grant_of(self._claims(credential))

    def secret_grant(self, credential: str) -> Grant:
        """The same, where only a secret will do (4.3). Raises `Forbidden` for a token."""
        grant = self.grant(credential)
        if grant.claims is not None:
            raise Forbidden("Only a secret can generate a token")
        return grant

    def _grant_of(self, claims: Claims) -> Grant:
        tokens.check_time(claims, self._clock.now_ms() / 1000, self._lifetimes.leeway_s)
        bot, site = self._registry.bot(claims.bot), self._registry.good_site(claims.site, claims.ski)
        if site.bot_id != bot.id:
            raise Forbidden("The site belongs to another bot now")
        return Grant(bot, site, claims.ski, claims)

    def renewable(self, credential: str) -> Grant:
        """As `grant`, for a refresh: who asks for a bot that was deleted is told that the conversation is over, and so
        stops asking (4.5). Raises `UnknownConversation` then, and `Forbidden` for a secret (4.3)."""
        try:
            grant = self.grant(credential)
        except BotGone as error:
            raise UnknownConversation from error
        if grant.claims is None:
            raise Forbidden("A secret cannot be refreshed")
        self.check_chain(grant)
        return grant

    def check_chain(self, grant: Grant) -> None:
        """Refuse a token that cannot have a successor any more, before anything else is looked at (3.4, step 4). Raises
        `TokenExpired` (4.2, Chain)."""
        if grant.claims is not None:
            tokens.check_chain(grant.claims, self._clock.now_ms() // 1000, self._lifetimes.chain_s)

    def token_without_secret(self, site_id: str, parameters: TokenParameters) -> Issued:
        """A token for a new conversation, made in the name of a secret of that site: so it goes when that does.

        Raises `Forbidden` where the site is closed or has no secret."""
        ski = self._registry.any_ski(site_id)
        if ski is None:
            raise Forbidden("The site has no secret that a token could descend from")
        site = self._registry.good_site(site_id, ski)
        return self.generate(Grant(self._registry.bot(site.bot_id), site, ski), parameters)

    def check_origin(self, grant: Grant, origin: str | None, asked: tuple[str, ...] = ()) -> None:
        """Under enhanced authentication, refuse a page of an origin that is not trusted (D-21). Who sends no origin is
        no page. `asked` are the origins that a request made with a secret wants to trust."""
        self._check_trusted(grant.site, origin, grant.claims.origin if grant.claims else asked)

    def _check_trusted(self, site: Site, origin: str | None, named: tuple[str, ...]) -> None:
        trusted = site.trusted_origins or named
        if site.enhanced_authentication and origin is not None and trusted and not origins.trusts(trusted, origin):
            raise Forbidden("The origin is not trusted")

    def session(self, grant: Grant, origin: str | None, cookie: str | None) -> Session:
        """The session of a browser, for sign-in cards (5.7). Raises `Forbidden` for a secret, `NotTrusted`."""
        if grant.claims is None:
            raise Forbidden("Only a token has a session")
        trusted = grant.site.trusted_origins or grant.claims.origin
        if not trusted:
            raise NotTrusted
        if origin is None or not origins.trusts(trusted, origin):
            raise NotTrusted("The origin is not in the Trusted Origin list.")
        if cookie is not None and _COOKIE.fullmatch(cookie):
            return Session(tokens.session_id(cookie, self._keys), None)
        cookie = secrets.token_urlsafe(32)
        return Session(tokens.session_id(cookie, self._keys), cookie)

    def _claims(self, token: str) -> Claims:
        claims = self._verified.get(token)
        if claims is None:
            claims = tokens.read(token, self._keys)
            if len(self._verified) >= _VERIFIED:
                self._verified.popitem(last=False)
            self._verified[token] = claims
        else:
            self._verified.move_to_end(token)
        return claims

    def generate(self, grant: Grant, parameters: TokenParameters) -> Issued:
        """A token for a conversation that does not exist yet (5.1)."""
        self.check_claimed(grant, parameters.user)
        return self.first(grant, new_conversation_id(), parameters.user, parameters.origins)

    def first(
        self, grant: Grant, conversation: ConversationId, user: Account | None, origins: tuple[str, ...] = ()
    ) -> Issued:
        """Begin a chain of tokens from a secret (4.2). Raises `BadArgument` for what makes it too long to be used."""
        origins = grant.site.trusted_origins or origins
        life_s = self._life_s(grant)
        claims = tokens.first(
            bot=grant.bot.id,
            site=grant.site.id,
            conv=conversation,
            user=user,
            origin=origins,
            ski=grant.ski,
            jti=random_id(),
            now_s=self._clock.now_ms() // 1000,
            life_s=life_s,
        )
        issued = self._issue(claims, life_s)
        if len(issued.token) > tokens.TOKEN_CHARACTERS:
            raise BadArgument("The token would be too long: its user and its trusted origins are")
        return issued

    def refresh(self, grant: Grant) -> Issued:
        """Carry a token on (4.4). Raises `Forbidden` for a secret, `TokenExpired` at the end of the chain."""
        return self.successor(grant)

    def successor(self, grant: Grant) -> Issued:
        """The next token of a chain: same conversation, user and origins. Raises `TokenExpired` (4.2, Chain), and
        `Forbidden` for a secret."""
        if grant.claims is None:
            raise Forbidden("A secret cannot be refreshed")
        life_s = self._life_s(grant)
        claims = tokens.successor(
            grant.claims,
            jti=random_id(),
            now_s=self._clock.now_ms() // 1000,
            life_s=life_s,
            chain_s=self._lifetimes.chain_s,
        )
        return self._issue(claims, life_s)

    def _life_s(self, grant: Grant) -> int:
        return grant.site.token_ttl_s or grant.bot.token_ttl_s or self._lifetimes.token_s

    def _issue(self, claims: Claims, life_s: int) -> Issued:
        return Issued(ConversationId(claims.conv), tokens.sign(claims, self._keys), life_s)

    def check_scope(self, grant: Grant, conversation: str) -> None:
        """Refuse a token of another conversation, before anybody looks whether that one exists (3.4, step 6)."""
        if grant.claims is not None and grant.claims.conv != conversation:
            raise Forbidden("The token belongs to another conversation")

    def check_bot(self, grant: Grant, conversation: Conversation | None) -> Conversation:
        """A conversation of another bot is as unknown as one that does not exist (4.1)."""
        if conversation is None or conversation.bot_id != grant.bot.id:
            raise UnknownConversation
        return conversation

    def check_claimed(self, grant: Grant, user: Account | None) -> None:
        """Refuse a user id that only a token can establish, claimed without one (4.6, `dl_`); and what enhanced
        authentication does not let begin without a user. Raises `MissingProperty`, `BadArgument`."""
        grant.check_bound()
        if grant.site.enhanced_authentication and grant.claims is None:
            if user is None:
                raise MissingProperty("The site has enhanced authentication: 'user.id' is missing")
            if not user.id.startswith("dl_"):
                raise BadArgument("The site has enhanced authentication: 'user.id' must begin with dl_")
        if user is not None and user.id.startswith("dl_") and grant.user is None and not grant.may_claim_dl:
            raise BadArgument("A user id that begins with dl_ must come from the token")

    def ticket(self, grant: Grant, conversation: ConversationId, user: str | None) -> str:
        """The `t` of a stream URL: opens that conversation for `stream_url_s` seconds (7.2)."""
        return tokens.write_ticket(
            Ticket(
                conversation=conversation,
                site=grant.site.id,
                ski=grant.ski,
                user=tokens.user_digest(user, self._keys),
                expires_ms=self._clock.now_ms() + int(self._lifetimes.stream_url_s * 1000),
            ),
            self._keys,
        )

    def admit(self, t: str, conversation: str, origin: str | None = None) -> Ticket:
        """Check the `t` of a handshake: a ticket, or a plain conversation token (D-26 c), and the origin (D-21).

        A ticket carries no origins: where it was issued they were checked. Raises `Forbidden` or `TokenExpired`. Expiry
        is checked here and never again (D-26 b).
        """
        if t.count(".") == 2 and self._registry.site_of_secret(t) is None:
            return self._admit_token(t, conversation, origin)
        ticket = tokens.read_ticket(t, self._keys)
        if self._clock.now_ms() >= ticket.expires_ms:
            raise TokenExpired("The stream URL has expired")
        self._check_trusted(self.check_site(ticket), origin, ())
        if ticket.conversation != conversation:
            raise Forbidden("The stream URL belongs to another conversation")
        return ticket

    def admit_bearer(self, token: str, conversation: str, origin: str | None = None) -> Ticket:
        """Check what a handshake without a `t` has in its `Authorization` header: a token, and neither a secret nor a
        ticket (7.1). Raises `Forbidden` or `TokenExpired`."""
        if self._registry.site_of_secret(token) is not None:
            raise Forbidden("Only a token opens a stream")
        return self._admit_token(token, conversation, origin)

    def check_site(self, ticket: Ticket) -> Site:
        """The site of an admitted ticket, if it still opens anything. Raises `Forbidden`."""
        return self._registry.good_site(ticket.site, ticket.ski)

    def check_speaker(self, ticket: Ticket, sender: Account) -> None:
        """Refuse who is not the ticket's user, or, where it names none, who claims a `dl_` id (D-41)."""
        if ticket.user == tokens.user_digest(None, self._keys):
            if self.check_site(ticket).enhanced_authentication:
                raise MissingProperty("The site has enhanced authentication, and the stream was opened for no user")
            allowed = not sender.id.startswith("dl_")
        else:
            allowed = hmac.compare_digest(ticket.user, tokens.user_digest(sender.id, self._keys))
        if not allowed:
            raise Forbidden("The stream was opened for somebody else")

    def bot_of(self, conversation: Conversation) -> Bot:
        """The bot of a conversation. Raises `Forbidden` where it is gone."""
        return self._registry.bot(conversation.bot_id)

    def _admit_token(self, token: str, conversation: str, origin: str | None) -> Ticket:
        grant = self._grant_of(self._claims(token))
        self.check_origin(grant, origin)
        self.check_scope(grant, conversation)
        assert grant.claims is not None
        return Ticket(
            conversation=conversation,
            site=grant.site.id,
            ski=grant.ski,
            user=tokens.user_digest(grant.claims.user, self._keys),
            expires_ms=int(grant.claims.exp * 1000),
        )


def new_conversation_id() -> ConversationId:
    """An unguessable id: 128 random bits, of the form of D-2."""
    return ConversationId(secrets.token_urlsafe(16))


def random_id() -> str:
    """What makes a transient id or a token id unique for ever."""
    return secrets.token_hex(8)
