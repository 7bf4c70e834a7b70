"""Who is asking, and for what: secrets, tokens and tickets, checked and issued (specification 4, 7.2)."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict

import msgspec

from landline.channel.registry import Registry
from landline.core import tokens
from landline.core.bot import Bot, Site
from landline.core.conversation import Account, Conversation
from landline.core.log import ConversationId
from landline.core.tokens import Claims, Keys, Ticket, TokenParameters
from landline.errors import BadArgument, Forbidden, TokenExpired, UnknownConversation
from landline.ports import Clock

_VERIFIED = 4096
"""Verified tokens kept. Their expiry and their site are checked at every use all the same (design section 4)."""


class Lives(msgspec.Struct, frozen=True):
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
    def may_claim_dl(self) -> bool:
        """Whether a `dl_` id may be claimed with it: only a secret may, or a token that is bound to it (D-17)."""
        return self.claims is None


class Issued(msgspec.Struct, frozen=True):
    """A new token for one conversation."""

    conversation: ConversationId
    token: str
    expires_in: int


class Tokens:
    """Checks what clients present and issues what they get. Writes nothing."""

    def __init__(self, registry: Registry, keys: Keys, clock: Clock, lives: Lives) -> None:
        self._registry = registry
        self._keys = keys
        self._clock = clock
        self._lives = lives
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
        tokens.check_time(claims, self._clock.now_ms() / 1000, self._lives.leeway_s)
        return Grant(self._registry.bot(claims.bot), self._registry.good_site(claims.site), claims.ski, claims)

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
        return self.first(grant, new_conversation_id(), parameters.user, parameters.origins)

    def first(
        self, grant: Grant, conversation: ConversationId, user: Account | None, origins: tuple[str, ...] = ()
    ) -> Issued:
        """Begin a chain of tokens from a secret (4.2)."""
        origins = grant.site.trusted_origins or origins
        claims = tokens.first(
            bot=grant.bot.id,
            site=grant.site.id,
            conv=conversation,
            user=user,
            origin=origins,
            ski=grant.ski,
            jti=random_id(),
            now_s=self._clock.now_ms() // 1000,
            life_s=self._lives.token_s,
        )
        return self._issue(claims)

    def refresh(self, grant: Grant) -> Issued:
        """Carry a token on (4.4). Raises `Forbidden` for a secret, `TokenExpired` at the end of the chain."""
        if grant.claims is None:
            raise Forbidden("A secret cannot be refreshed")
        return self.successor(grant.claims)

    def successor(self, claims: Claims) -> Issued:
        """The next token of a chain: same conversation, user and origins. Raises `TokenExpired` (4.2, Chain)."""
        return self._issue(
            tokens.successor(
                claims,
                jti=random_id(),
                now_s=self._clock.now_ms() // 1000,
                life_s=self._lives.token_s,
                chain_s=self._lives.chain_s,
            )
        )

    def _issue(self, claims: Claims) -> Issued:
        return Issued(ConversationId(claims.conv), tokens.sign(claims, self._keys), self._lives.token_s)

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
        """Refuse a user id that only a token can establish, claimed without one (4.6, `dl_`)."""
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
                expires_ms=self._clock.now_ms() + int(self._lives.stream_url_s * 1000),
            ),
            self._keys,
        )

    def admit(self, t: str, conversation: str) -> Ticket:
        """Check the `t` of a handshake: a ticket, or a plain conversation token (D-26 c).

        Raises `Forbidden` or `TokenExpired`. Expiry is checked here and never again (D-26 b).
        """
        if t.count(".") == 2 and self._registry.site_of_secret(t) is None:
            return self._admit_token(t, conversation)
        ticket = tokens.read_ticket(t, self._keys)
        if ticket.conversation != conversation:
            raise Forbidden("The stream URL belongs to another conversation")
        if self._clock.now_ms() >= ticket.expires_ms:
            raise TokenExpired("The stream URL has expired")
        self._registry.good_site(ticket.site)
        return ticket

    def check_speaker(self, ticket: Ticket, sender: Account) -> None:
        """Refuse who is not the ticket's user, or, where it names none, who claims a `dl_` id (D-41)."""
        if ticket.user == tokens.user_digest(None, self._keys):
            allowed = not sender.id.startswith("dl_")
        else:
            allowed = hmac.compare_digest(ticket.user, tokens.user_digest(sender.id, self._keys))
        if not allowed:
            raise Forbidden("The stream was opened for somebody else")

    def bot_of(self, conversation: Conversation) -> Bot:
        """The bot of a conversation. Raises `Forbidden` where it is gone."""
        return self._registry.bot(conversation.bot_id)

    def _admit_token(self, token: str, conversation: str) -> Ticket:
        grant = self._grant_of(self._claims(token))
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
