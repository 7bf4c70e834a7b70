"""The work itself, without an edge and without a store: what the floor and the peers do for each request.

Credentials, normalising, watermarks and frames are Landline's own (`landline.core`, `landline.channel.tokens`), so that
all servers do the same work and a figure shows what the edge around it costs. The log is a list in memory.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import msgspec

from landline.channel.registry import Registry
from landline.channel.tokens import Grant, Issued, Lifetimes, Tokens
from landline.core import activity, log, tokens
from landline.core.bot import Bot, Site
from landline.core.log import ConversationId, Entry
from landline.core.tokens import Keys, TokenParameters
from landline.core.watermark import BEGINNING, Watermark, parse, start_of, watermark
from landline.errors import UnknownConversation

PREFIX = "/v3/directline/conversations"
SECRET = "secret-of-the-benchmarks-0123456789"
"""Of the default site of every server under measurement."""

_BOT = Bot(
    id="bot",
    name="Bot",
    endpoint=None,
    service_url="http://127.0.0.1/b/key",
    service_key="key",
    reference_grammar_id="00000000-0000-4000-8000-000000000001",
)
_encode = msgspec.json.Encoder().encode


class SystemClock:
    """Implements `landline.ports.Clock`."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class Sent(NamedTuple):
    """What a send comes to: the body of the answer, and the frame for every stream of `conversation`."""

    answer: bytes
    conversation: ConversationId
    frame: bytes


class Work:
    """Conversations in memory, and what clients may do with them. `base` is what stream URLs begin with (`ws://…`)."""

    def __init__(self, base: str) -> None:
        site = Site("default", _BOT.id)
        registry = Registry([_BOT], [site], {tokens.digest(SECRET): site.id})
        lifetimes = Lifetimes(token_s=3600, chain_s=1_209_600, stream_url_s=60, leeway_s=5)
        self._clock = SystemClock()
        self._tokens = Tokens(registry, Keys.derive(bytes(32)), self._clock, lifetimes)
        self._base = base
        self._logs: dict[str, list[Entry]] = {}

    def start(self, credential: str) -> bytes:
        """Start a conversation (5.2); the answer's body."""
        grant = self._tokens.grant(credential)
        issued = self._tokens.generate(grant, TokenParameters())
        self._logs[issued.conversation] = []
        return self._opened(grant, issued, BEGINNING)

    def send(self, credential: str, conversation: str, body: bytes) -> Sent:
        """Accept an activity (5.5)."""
        grant, entries = self._find(credential, conversation)
        known = ConversationId(conversation)
        posted = activity.from_client(
            body, conversation=known, bot=grant.bot, bound=grant.user, may_use_dl=grant.may_claim_dl
        )
        time_ms = self._clock.now_ms()
        if entries and time_ms <= entries[-1].time_ms:
            time_ms = entries[-1].time_ms + 1
        entry = Entry(len(entries), time_ms, posted.stored)
        entries.append(entry)
        answer = _encode({"id": log.activity_id(known, entry.sequence)})
        return Sent(answer, known, log.frame(known, entry))

    def read(self, credential: str, conversation: str, given: str | None) -> bytes:
        """One page of activities (5.4)."""
        _, entries = self._find(credential, conversation)
        known, position = ConversationId(conversation), self._locate(conversation, entries, given)[0]
        page = log.Page(entries[position : position + 100], 0, None, 0, more=False)
        behind = watermark(known, len(entries), entries[-1].time_ms) if entries else BEGINNING
        return log.activity_set(known, page, behind)

    def reconnect(self, credential: str, conversation: str, given: str | None) -> bytes:
        """A new token and stream URL (5.3)."""
        grant, entries = self._find(credential, conversation)
        issued = self._tokens.successor(grant)
        return self._opened(grant, issued, self._locate(conversation, entries, given)[1])

    def admit(self, conversation: str, ticket: str, given: str | None) -> list[bytes]:
        """Let a stream in (7.1): what it has missed."""
        self._tokens.admit(ticket, conversation)
        entries = self._entries(conversation)
        position = self._locate(conversation, entries, given)[0]
        known = ConversationId(conversation)
        return [log.frame(known, entry) for entry in entries[position:]]

    def _find(self, credential: str, conversation: str) -> tuple[Grant, list[Entry]]:
        grant = self._tokens.grant(credential)
        self._tokens.check_scope(grant, conversation)
        return grant, self._entries(conversation)

    def _entries(self, conversation: str) -> list[Entry]:
        entries = self._logs.get(conversation)
        if entries is None:
            raise UnknownConversation
        return entries

    def _locate(self, conversation: str, entries: list[Entry], given: str | None) -> tuple[int, str]:
        parsed = parse(given)
        inside = isinstance(parsed, Watermark) and 0 < parsed.position <= len(entries)
        start = start_of(
            parsed,
            conversation,
            head=len(entries),
            last_ms=entries[-1].time_ms if entries else None,
            oldest=0,
            behind_ms=entries[parsed.position - 1].time_ms if inside else None,
            absent_means_head=True,
        )
        return start.position, start.watermark

    def _opened(self, grant: Grant, issued: Issued, start: str) -> bytes:
        ticket = self._tokens.ticket(grant, issued.conversation, None)
        return _encode(
            {
                "conversationId": issued.conversation,
                "token": issued.token,
                "expires_in": issued.expires_in,
                "streamUrl": f"{self._base}{PREFIX}/{issued.conversation}/stream?watermark={start}&t={ticket}",
                "referenceGrammarId": grant.bot.reference_grammar_id,
            }
        )
