"""What this process knows from its memory: the tail of live conversations."""

from __future__ import annotations

from landline import ports
from landline.core.conversation import Conversation
from landline.core.log import ConversationId, Page
from landline.stores.sqlite.engine import Engine


class Live(Engine, ports.Live):
    """As `landline.ports.Live` says. No conversation and no time is known once the store is closed."""

    def cached_conversation(self, conversation: ConversationId) -> Conversation | None:
        return self._tail.conversation(conversation) if self._reads is not None else None

    def cached_time(self, conversation: ConversationId, sequence: int) -> int | None:
        return self._tail.accepted_at(conversation, sequence) if self._reads is not None else None

    def read_cached(self, conversation: ConversationId, position: int, transient: int, max_bytes: int) -> Page | None:
        return self._tail.recent(conversation, position, transient, max_bytes)

    def transient_counter(self) -> int:
        return self._tail.transients

    def send_transient(self, conversation: ConversationId, activity: bytes) -> None:
        if self._tail.pass_by(conversation, activity):
            self._moved(conversation)
