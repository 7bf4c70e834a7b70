"""Who takes part in a conversation, as its bot may ask (bot-side 3.5)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import msgspec

from landline.channel.joins import Joins
from landline.channel.retry import retry_while_unavailable
from landline.core.bot import Bot
from landline.core.conversation import Account, Conversation, Member
from landline.errors import BadArgument, UnknownMember
from landline.ports import Clock, Store

PAGE = 200
"""Members on a page, unless the bot wants fewer."""


class Members:
    """The members of one conversation at a time. The bot among them is named as it was registered."""

    def __init__(self, store: Store, joins: Joins, clock: Clock, *, store_wait_s: float) -> None:
        self._store = store
        self._joins = joins
        self._clock = clock
        self._store_wait_s = store_wait_s

    async def all(self, bot: Bot, conversation: Conversation) -> Sequence[Member]:
        """All of them, in the order in which they became known."""
        named = Account(bot.id, bot.name)
        members = await self._store.members(conversation.id)
        return [msgspec.structs.replace(member, account=named) if member.is_bot else member for member in members]

    async def one(self, bot: Bot, conversation: Conversation, account_id: str) -> Member:
        """The member with that id. Raises `UnknownMember`."""
        for member in await self.all(bot, conversation):
            if member.account.id == account_id:
                return member
        raise UnknownMember

    async def page(
        self, bot: Bot, conversation: Conversation, size: str | None, continuation: str | None
    ) -> tuple[Sequence[Member], str | None]:
        """A page, and what asks for the next one; None where there is none.

        `size` and `continuation` are what the bot wrote. Raises `BadArgument`.
        """
        wanted, members = _size(size), await self.all(bot, conversation)
        first = 0
        if continuation:
            last = _last(continuation)
            ids = [member.account.id for member in members]
            if last not in ids:
                raise BadArgument("'continuationToken' is not valid any more")
            first = ids.index(last) + 1
        page = members[first : first + wanted]
        more = len(members) > first + wanted
        return page, _continuation(page[-1].account.id) if more else None

    async def remove(self, bot: Bot, conversation: Conversation, account_id: str, deadline: float) -> None:
        """End a membership; one that is none has ended. Whoever speaks again joins again. Raises `BadArgument` for the
        bot itself, without which there is no conversation; `StoreUnavailable` for trouble that is not brief."""
        if account_id == bot.id:
            raise BadArgument("A bot cannot leave its conversation")
        give_up = min(deadline, self._clock.monotonic() + self._store_wait_s)
        await retry_while_unavailable(give_up, lambda: self._store.leave(conversation.id, account_id))
        self._joins.forget(conversation.id, account_id)


def _size(text: str | None) -> int:
    if not text:
        return PAGE
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise BadArgument("'pageSize' must be a positive number")
    return min(int(text), PAGE)


def _continuation(account_id: str) -> str:
    return base64.urlsafe_b64encode(account_id.encode()).decode()


def _last(continuation: str) -> str:
    try:
        return base64.urlsafe_b64decode(continuation.encode()).decode()
    except (binascii.Error, UnicodeError) as error:
        raise BadArgument("'continuationToken' is not one of ours") from error
