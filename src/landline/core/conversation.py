"""A conversation and its members: who takes part, and what the bot has been told of them (spec 6.4).

A member's join is *due* from the moment the member is known and *announced* once the bot was told. The mark is durable:
nobody loses a greeting because a process died between the 201 and the conversationUpdate (D-38).
"""

from __future__ import annotations

import re

import msgspec

from landline.core.log import ConversationId

_ID = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)


class Account(msgspec.Struct, frozen=True):
    """A channel account: someone who takes part in a conversation."""

    id: str
    name: str | None = None


MEMBER_NAME_CHARACTERS = 256
"""A member's name is cut to this: all members are read when one more joins, and a sender may write any name."""


class Member(msgspec.Struct, frozen=True):
    """An account in a conversation; `is_bot` for the bot itself. `announced` says that the bot was told."""

    account: Account
    is_bot: bool
    announced: bool


class NewConversation(msgspec.Struct, frozen=True):
    """What Start Conversation fixes for ever: the bot, the first user if known, the locale of the join (5.2).

    `guest` takes part from the beginning like a user, but nobody vouched for that one: a page named them (D-17).
    """

    id: ConversationId
    bot_id: str
    user: Account | None = None
    locale: str | None = None
    guest: Account | None = None


class Conversation(msgspec.Struct, frozen=True):
    """A started conversation as the store knows it.

    `head` is the next sequence number; `last_ms` is the acceptance time of the last entry ever accepted (None before
    the first), kept also when retention has removed that entry; `oldest` is the first number still retained.
    """

    id: ConversationId
    bot_id: str
    user: Account | None
    locale: str | None
    head: int
    last_ms: int | None
    oldest: int = 0


def as_member(account: Account) -> Account:
    """The account, as it is kept of a member."""
    if len(account.name or "") <= MEMBER_NAME_CHARACTERS:
        return account
    return msgspec.structs.replace(account, name=(account.name or "")[:MEMBER_NAME_CHARACTERS])


def is_conversation_id(text: str) -> bool:
    """Whether `text` has the form of a conversation id (D-2)."""
    return _ID.fullmatch(text) is not None
