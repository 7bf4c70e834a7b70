"""Start, find, reconnect, admit; and where a reader begins that shows a watermark."""

from __future__ import annotations

import msgspec
import pytest
from structlog.testing import capture_logs

from landline.core.conversation import Account, Member, NewConversation
from landline.core.tokens import TokenParameters, user_digest
from landline.core.watermark import BEGINNING, Replay
from landline.errors import BadArgument, BotUnreachable, Forbidden, StoreUnavailable, TokenExpired, UnknownConversation
from landline.stores.memory import MemoryStore
from support.channel import BOT, OTHER_SECRET, Channel, TestClock
from support.scripted_transport import ScriptedTransport

# Start


async def test_a_start_with_a_secret_is_a_new_conversation_each_time(channel: Channel) -> None:
    one, other = await channel.open("u1"), await channel.open("u1")
    assert one.created
    assert other.created
    assert one.conversation.id != other.conversation.id
    assert (one.watermark, one.replay) == (BEGINNING, Replay.COMPLETE)
    assert channel.tokens.grant(one.issued.token).user == Account("u1")


async def test_a_start_with_a_token_is_the_tokens_conversation_and_repeating_it_changes_nothing(
    channel: Channel,
) -> None:
    grant = channel.token("dl_a", "Ann")
    assert grant.claims is not None
    first, second = await channel.open(grant=grant), await channel.open(grant=grant)
    assert [first.created, second.created] == [True, False]
    assert first.conversation.id == second.conversation.id == grant.claims.conv
    assert first.conversation.user == Account("dl_a", "Ann")
    assert first.issued.token != second.issued.token
    assert channel.tokens.grant(second.issued.token).user == Account("dl_a", "Ann")


async def test_a_start_does_not_wait_for_its_bot(channel: Channel, transport: ScriptedTransport) -> None:
    transport.hold = True
    await channel.open("u1")
    assert (await transport.nth(0)).joined == [BOT.id, "u1"]


async def test_a_user_named_by_a_page_is_a_member_but_does_not_bind_the_token(
    channel: Channel, transport: ScriptedTransport
) -> None:
    opened = await channel.open("ann", grant=channel.token())
    assert channel.tokens.grant(opened.issued.token).user is None
    assert (await transport.nth(0)).joined == [BOT.id, "ann"]


async def test_whom_a_page_names_once_the_conversation_is_started_joins_by_speaking(
    channel: Channel, transport: ScriptedTransport
) -> None:
    grant = channel.token()
    await channel.open("ann", grant=grant)
    conversation = await channel.start("bob", grant=grant)
    assert [each.account.id for each in await channel.store.members(conversation.id)] == [BOT.id, "ann"]
    await channel.send(conversation, "hello", "bob")
    assert transport.joins == [[BOT.id, "ann"], ["bob"]]


async def test_a_repeated_start_brings_the_first_member_whose_join_is_still_due(
    channel: Channel, transport: ScriptedTransport
) -> None:
    transport.failure = BotUnreachable()
    grant = channel.token()
    await channel.open("ann", grant=grant)
    await transport.nth(0)
    transport.failure = None
    await channel.open("bob", grant=grant)
    await transport.nth(1)
    assert transport.joins == [[BOT.id, "ann"]] * 2


async def test_a_user_named_by_a_page_does_not_displace_the_tokens(
    channel: Channel, transport: ScriptedTransport
) -> None:
    opened = await channel.open("somebody", grant=channel.token("dl_a"))
    assert channel.tokens.grant(opened.issued.token).user == Account("dl_a")
    assert (await transport.nth(0)).joined == [BOT.id, "dl_a"]


async def test_a_page_cannot_claim_an_id_that_only_a_token_establishes(channel: Channel) -> None:
    grant = channel.token()
    with pytest.raises(BadArgument):
        await channel.open("dl_a", grant=grant)
    assert grant.claims is not None
    with pytest.raises(UnknownConversation):
        await channel.conversations.find(grant, grant.claims.conv)


async def test_members_are_the_bot_and_then_the_user(channel: Channel) -> None:
    conversation = await channel.start("u1")
    members = await channel.store.members(conversation.id)
    assert [(each.account.id, each.is_bot) for each in members] == [(BOT.id, True), ("u1", False)]
    assert all(isinstance(each, Member) for each in members)


class SlowToStart(MemoryStore):
    """A store that is in trouble for the first few writes."""

    def __init__(self, failures: int) -> None:
        super().__init__(TestClock())
        self.failures = failures

    async def start(self, conversation: NewConversation) -> bool:
        self._fail()
        return await super().start(conversation)

    def _fail(self) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise StoreUnavailable


async def test_a_start_waits_for_a_store_in_trouble_since_its_failure_would_be_final_for_the_page() -> None:
    store = SlowToStart(3)
    channel = Channel(store, transport := ScriptedTransport())
    opened = await channel.open("ann", grant=channel.token())
    assert opened.created
    store.failures = 2
    assert not (await channel.open(grant=channel.tokens.grant(opened.issued.token))).created
    await transport.nth(0)
    assert transport.joins == [[BOT.id, "ann"]]
    store.failures = 1000
    with pytest.raises(StoreUnavailable):
        await channel.open("u1", within=0.2)
    await channel.delivery.close()


# Find


async def test_the_scope_of_a_token_is_checked_before_anybody_looks_whether_the_conversation_exists(
    channel: Channel,
) -> None:
    grant = channel.token()
    with pytest.raises(Forbidden):
        await channel.conversations.find(grant, "no-such-conversation")


@pytest.mark.parametrize("name", ["no-such-conversation", "short", "", "a" * 65, "with/slash", "ümlaut-123"])
async def test_a_conversation_that_does_not_exist_is_unknown(channel: Channel, name: str) -> None:
    with pytest.raises(UnknownConversation):
        await channel.conversations.find(channel.secret, name)


async def test_a_conversation_that_was_not_started_is_unknown_to_its_own_token(channel: Channel) -> None:
    grant = channel.token()
    assert grant.claims is not None
    with pytest.raises(UnknownConversation):
        await channel.conversations.find(grant, grant.claims.conv)


async def test_the_secret_of_another_bot_finds_nothing(channel: Channel) -> None:
    conversation = await channel.start()
    with pytest.raises(UnknownConversation):
        await channel.conversations.find(channel.tokens.grant(OTHER_SECRET), conversation.id)


# Reconnect


async def test_a_reconnect_without_watermark_begins_at_the_head(channel: Channel) -> None:
    conversation = await channel.start()
    await channel.send(conversation, "one")
    fresh = await channel.conversations.find(channel.secret, conversation.id)
    opened = await channel.conversations.reconnect(channel.secret, fresh, None)
    assert opened.watermark.startswith("1-")
    assert (opened.replay, opened.created) == (Replay.COMPLETE, False)


async def test_a_reconnect_of_a_conversation_in_which_nothing_was_said_begins_at_its_beginning(
    channel: Channel,
) -> None:
    conversation = await channel.start()
    assert (await channel.conversations.reconnect(channel.secret, conversation, None)).watermark == BEGINNING


async def test_a_reconnect_with_the_secret_revives_the_user_of_the_conversation(channel: Channel) -> None:
    conversation = await channel.start(grant=channel.token("dl_a", "Ann"))
    opened = await channel.conversations.reconnect(channel.secret, conversation, "")
    assert channel.tokens.grant(opened.issued.token).user == Account("dl_a", "Ann")
    admitted = await channel.admit(conversation.id, opened.ticket, "")
    assert admitted.ticket.user == user_digest("dl_a", channel.tokens._keys)


async def test_a_reconnect_with_an_unbound_token_binds_nobody(channel: Channel) -> None:
    grant = channel.token()
    conversation = await channel.start("ann", grant=grant)
    opened = await channel.conversations.reconnect(grant, conversation, "")
    assert channel.tokens.grant(opened.issued.token).user is None


async def test_a_reconnect_tells_the_bot_nothing(channel: Channel, transport: ScriptedTransport) -> None:
    conversation = await channel.start("u1")
    await transport.nth(0)
    await channel.conversations.reconnect(channel.secret, conversation, None)
    await channel.send(conversation, "next")
    assert [post.type for post in transport.posts] == ["conversationUpdate", "message"]


# Where a reader begins


async def filled(channel: Channel, count: int = 3) -> tuple[str, list[str]]:
    """A conversation with `count` activities, and the watermark behind each of them."""
    conversation = await channel.start()
    behind = []
    for number in range(count):
        await channel.send(conversation, str(number))
        fresh = await channel.conversations.find(channel.secret, conversation.id)
        behind.append((await channel.conversations.locate(fresh, None, absent_means_head=True)).watermark)
    return conversation.id, behind


async def test_every_watermark_ever_issued_continues_exactly_behind_itself(channel: Channel) -> None:
    conversation_id, behind = await filled(channel, 20)
    conversation = await channel.conversations.find(channel.secret, conversation_id)
    for position, watermark in enumerate(behind, 1):
        start = await channel.conversations.locate(conversation, watermark, absent_means_head=False)
        assert (start.position, start.watermark, start.replay) == (position, watermark, Replay.COMPLETE)


@pytest.mark.parametrize("text", ["", "-", "0"])
async def test_an_empty_watermark_is_the_beginning(channel: Channel, text: str) -> None:
    conversation_id, _ = await filled(channel)
    conversation = await channel.conversations.find(channel.secret, conversation_id)
    start = await channel.conversations.locate(conversation, text, absent_means_head=True)
    assert (start.position, start.replay) == (0, Replay.COMPLETE)


@pytest.mark.parametrize("text", ["null", "undefined", "x", "3", "-1", "3-", "x" * 300, "99-00000000"])
async def test_a_watermark_that_is_none_starts_over_and_says_so(channel: Channel, text: str) -> None:
    conversation_id, _ = await filled(channel)
    conversation = await channel.conversations.find(channel.secret, conversation_id)
    start = await channel.conversations.locate(conversation, text, absent_means_head=True)
    assert (start.position, start.replay) == (0, Replay.FROM_START)


async def test_the_watermark_of_another_conversation_starts_over(channel: Channel) -> None:
    _, foreign = await filled(channel)
    conversation_id, own = await filled(channel)
    assert foreign[1] != own[1]
    conversation = await channel.conversations.find(channel.secret, conversation_id)
    start = await channel.conversations.locate(conversation, foreign[1], absent_means_head=True)
    assert (start.position, start.replay) == (0, Replay.FROM_START)


async def test_a_watermark_that_this_log_never_had_makes_one_warning(channel: Channel) -> None:
    conversation_id, behind = await filled(channel)
    conversation = await channel.conversations.find(channel.secret, conversation_id)
    other_tag = behind[-1][:-8] + ("0" * 8 if behind[-1][-8:] != "0" * 8 else "1" * 8)
    with capture_logs() as lines:
        await channel.conversations.locate(conversation, other_tag, absent_means_head=True)
        await channel.conversations.locate(conversation, behind[-1], absent_means_head=True)
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["conversation"] for line in warnings] == [conversation_id]
    assert "rolled back" in warnings[0]["event"]


async def test_a_watermark_older_than_what_is_retained_is_truncated(channel: Channel) -> None:
    conversation_id, behind = await filled(channel)
    conversation = msgspec.structs.replace(await channel.conversations.find(channel.secret, conversation_id), oldest=2)
    start = await channel.conversations.locate(conversation, behind[0], absent_means_head=True)
    assert start.replay is Replay.TRUNCATED


# Admit


async def test_the_watermark_of_the_url_counts_not_the_one_it_was_issued_with(channel: Channel) -> None:
    conversation_id, behind = await filled(channel)
    conversation = await channel.conversations.find(channel.secret, conversation_id)
    ticket = (await channel.conversations.reconnect(channel.secret, conversation, "")).ticket
    for watermark, position in ((behind[1], 2), ("", 0), (None, 0), ("garbage", 0)):
        admitted = await channel.admit(conversation_id, ticket, watermark)
        assert admitted.start.position == position


async def test_a_ticket_admits_again_within_its_time(channel: Channel) -> None:
    opened = await channel.open()
    for _ in range(3):
        assert (await channel.admit(opened.conversation.id, opened.ticket, "0")).start.position == 0
    channel.clock.offset_ms += 60_000
    with pytest.raises(TokenExpired):
        await channel.admit(opened.conversation.id, opened.ticket, "0")


async def test_a_ticket_is_looked_at_before_the_conversation(channel: Channel) -> None:
    with pytest.raises(Forbidden):
        await channel.admit("no-such-conversation", "garbage", None)


async def test_a_good_ticket_for_a_conversation_that_was_never_started_finds_nothing(channel: Channel) -> None:
    token = channel.tokens.generate(channel.secret, TokenParameters())
    with pytest.raises(UnknownConversation):
        await channel.admit(token.conversation, token.token, None)
