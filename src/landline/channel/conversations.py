"""Starting, finding and reconnecting a conversation; letting a stream in (specification 5.2, 5.3, 7.1)."""

from __future__ import annotations

import msgspec
import structlog

from landline.channel.delivery import Delivery
from landline.channel.retention import LastUse
from landline.channel.retry import retry_while_unavailable
from landline.channel.tokens import Grant, Issued, Tokens, new_conversation_id
from landline.core.bot import Bot
from landline.core.conversation import Account, Conversation, NewConversation, is_conversation_id
from landline.core.log import ConversationId
from landline.core.tokens import Ticket, TokenParameters
from landline.core.watermark import BEGINNING, Given, Number, Replay, Start, Watermark, parse, proven_by, start_of
from landline.errors import UnknownConversation
from landline.ports import Store

_log = structlog.get_logger(__name__)


class Opened(msgspec.Struct, frozen=True):
    """What a start or a reconnect answers: a new token, and a stream that begins at `watermark`."""

    conversation: Conversation
    issued: Issued
    ticket: str
    watermark: str
    replay: Replay
    created: bool = False


class Admitted(msgspec.Struct, frozen=True):
    """A stream that may open, and where it begins."""

    conversation: Conversation
    bot: Bot
    ticket: Ticket
    start: Start


class Conversations:
    """The use cases around a conversation as a whole."""

    def __init__(self, store: Store, tokens: Tokens, delivery: Delivery, last_use: LastUse) -> None:
        self._store = store
        self._last_use = last_use
        self._tokens = tokens
        self._delivery = delivery

    async def find(self, grant: Grant, conversation: str, *, to_read: bool = True) -> Conversation:
        """The conversation, if this credential opens it. Raises `Forbidden` before anybody looks whether it exists,
        then `UnknownConversation` (3.4).

        A reader is told where the log stands now. Whoever sends needs only what never changes, which memory may know:
        the append finds out whether the conversation is still there."""
        self._tokens.check_scope(grant, conversation)
        if not is_conversation_id(conversation):
            raise UnknownConversation
        name = ConversationId(conversation)
        known = None if to_read else self._store.cached_conversation(name)
        found = self._tokens.check_bot(grant, known or await self._store.conversation(name))
        self._last_use.note(found.id)
        return found

    async def refresh(self, grant: Grant) -> Issued:
        """Carry a token on (4.4). It works before the conversation is started, and not once it is gone.

        Raises `Forbidden`, `TokenExpired`, `UnknownConversation`.
        """
        issued = self._tokens.refresh(grant)
        if await self._store.conversation(issued.conversation) is not None:
            self._last_use.note(issued.conversation)
        elif await self._store.is_purged(issued.conversation):
            raise UnknownConversation
        return issued

    async def check_not_gone(self, grant: Grant, deadline: float) -> None:
        """Refuse a token whose conversation was purged, rather than say what is wrong with what was sent (3.4, D-24).
        Raises `UnknownConversation`."""
        if grant.claims is None:
            return
        name = ConversationId(grant.claims.conv)
        if self._store.cached_conversation(name) is not None:
            return
        if await retry_while_unavailable(deadline, lambda: self._store.is_purged(name)):
            raise UnknownConversation

    async def start(self, grant: Grant, parameters: TokenParameters, deadline: float) -> Opened:
        """Start the grant's conversation, or a new one for a secret; start again what is started already (5.2).

        The bot is told in the background: the answer neither waits for it nor depends on it (D-23). A store in trouble
        is waited for: a start that fails is final for the page (3.6).
        """
        self._tokens.check_claimed(grant, parameters.user)
        issued = self._issue(grant, parameters)
        bound = parameters.user if grant.claims is None else grant.user
        # Whom a page names is a first member, but the token stays unbound. Where the conversation is started already,
        # that one joins by speaking, as anybody else does (6.4).
        guest = parameters.user if bound is None else None
        new = NewConversation(issued.conversation, grant.bot.id, bound, parameters.locale, guest)
        created = await retry_while_unavailable(deadline, lambda: self._store.start(new))
        conversation = self._tokens.check_bot(grant, await self._store.conversation(issued.conversation))
        self._last_use.note(conversation.id)
        self._delivery.announce(conversation, deadline)
        return self._opened(grant, conversation, issued, Start(0, BEGINNING, Replay.COMPLETE), bound, created=created)

    def _issue(self, grant: Grant, parameters: TokenParameters) -> Issued:
        if grant.claims is not None:
            return self._tokens.successor(grant)
        return self._tokens.first(grant, new_conversation_id(), parameters.user, parameters.origins)

    async def reconnect(self, grant: Grant, conversation: Conversation, watermark: str | None) -> Opened:
        """A new token and a stream URL that goes on behind `watermark` (5.3). Writes nothing, calls nobody."""
        grant.check_bound()
        if grant.claims is not None:
            issued, user = self._tokens.successor(grant), grant.user
        else:
            issued, user = self._tokens.first(grant, conversation.id, conversation.user), conversation.user
        start = await self.locate(conversation, watermark, absent_means_head=True)
        return self._opened(grant, conversation, issued, start, user)

    def _opened(
        self,
        grant: Grant,
        conversation: Conversation,
        issued: Issued,
        start: Start,
        user: Account | None,
        *,
        created: bool = False,
    ) -> Opened:
        ticket = self._tokens.ticket(grant, conversation.id, user.id if user else None)
        return Opened(conversation, issued, ticket, start.watermark, start.replay, created)

    async def admit(self, ticket: Ticket, watermark: str | None) -> Admitted:
        """Look at a handshake whose ticket is good: the conversation, then where the URL's watermark lies (7.1, 7.2).

        The URL's watermark is what counts, not the one it was issued with (D-26 e). Raises `Forbidden`,
        `UnknownConversation`.
        """
        found = await self._store.conversation(ConversationId(ticket.conversation))
        if found is None:
            raise UnknownConversation
        self._last_use.note(found.id)
        start = await self.locate(found, watermark, absent_means_head=False)
        # Once more, since streams were closed while the store was asked: nothing waits between here and the opening.
        self._tokens.check_site(ticket)
        return Admitted(found, self._tokens.bot_of(found), ticket, start)

    def admit_known(self, ticket: Ticket, watermark: str | None) -> Admitted | None:
        """The same at once, where memory can tell all of it; None where the store has to be asked."""
        found = self._store.cached_conversation(ConversationId(ticket.conversation))
        if found is None:
            return None
        given, behind_ms = parse(watermark), None
        if isinstance(given, Watermark) and given.position > found.head:
            return None  # what memory knows may be behind: it can confirm a position, and never refuse one
        before = proven_by(given, oldest=found.oldest, head=found.head)
        if before is not None:
            behind_ms = self._store.cached_time(found.id, before)
            if behind_ms is None:
                return None
        self._last_use.note(found.id)
        start = _start(found, given, behind_ms, absent_means_head=False)
        return Admitted(found, self._tokens.bot_of(found), ticket, start)

    def check_speaker(self, ticket: Ticket, sender: Account) -> None:
        """Refuse somebody whom this stream's ticket does not let speak (D-41). Raises `Forbidden`."""
        self._tokens.check_speaker(ticket, sender)

    async def locate(self, conversation: Conversation, text: str | None, *, absent_means_head: bool) -> Start:
        """Where a reader that presents this `watermark` parameter begins (the table of 8.2.4). Never an error."""
        given, behind_ms = parse(text), None
        before = proven_by(given, oldest=conversation.oldest, head=conversation.head)
        if before is not None:
            behind_ms = await self._store.accepted_at(conversation.id, before)
        return _start(conversation, given, behind_ms, absent_means_head=absent_means_head)


def _start(
    conversation: Conversation, given: Watermark | Number | Given, behind_ms: int | None, *, absent_means_head: bool
) -> Start:
    start = start_of(
        given,
        conversation.id,
        head=conversation.head,
        last_ms=conversation.last_ms,
        oldest=conversation.oldest,
        behind_ms=behind_ms,
        absent_means_head=absent_means_head,
    )
    if start.rolled_back:
        _log.warning(
            "a client holds a watermark that this log never had: this store may have been rolled back",
            conversation=conversation.id,
            head=conversation.head,
        )
    return start
