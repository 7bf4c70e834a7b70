"""What becomes of activities: which members are ours, and that all others survive to the byte."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landline.core import activity
from landline.core.activity import Kind, decode, from_bot, from_client
from landline.core.bot import Bot
from landline.core.conversation import Account
from landline.core.log import ConversationId
from landline.errors import BadArgument, BadSyntax, MissingProperty, RequestError
from support.json_text import OBJECTS, VALUES, as_object

CONVERSATION = ConversationId("Kq3vW9sTz1")
BOT = Bot("bot1", "Bot", None, "http://127.0.0.1:3000/b/k", "k", "g", channel_id="webchat")
OURS = {"id", "timestamp", "channelid", "conversation", "from", "serviceurl", "callerid", "recipient"}
READ = {
    "type",
    "name",
    "text",
    "suggestedactions",
    "value",
    "attachments",
    "entities",
    "deliverymode",
    "replytoid",
    "channeldata",
}


def posted(body: bytes | dict[str, object], bound: Account | None = None, *, may_use_dl: bool = False):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return from_client(text, conversation=CONVERSATION, bot=BOT, bound=bound, may_use_dl=may_use_dl)


def message(**members: object) -> dict[str, object]:
    return {"type": "message", "from": {"id": "u1"}, **members}


def echo(body: bytes | dict[str, object], bound: Account | None = None) -> dict[str, object]:
    return json.loads(posted(body, bound).stored)


def to_bot(body: bytes | dict[str, object], bound: Account | None = None) -> dict[str, object]:
    return json.loads(posted(body, bound).for_bot(BOT, f"{CONVERSATION}|0000000", "2026-01-05T10:00:00.001Z"))


def said(body: bytes | dict[str, object], reply_to: str | None = None):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return from_bot(text, conversation=CONVERSATION, bot=BOT, reply_to=reply_to)


def shown(body: bytes | dict[str, object], reply_to: str | None = None) -> dict[str, object]:
    return json.loads(said(body, reply_to).stored)


# What a client posts.


@pytest.mark.item(185)
def test_lone_surrogates_survive_next_to_everything_that_looks_like_them():
    # A pair, a lone low half, text that reads like an escape, and the private characters that stand in.
    text = rb'"\ud83d\ude00 \uDE00\ud83d \\ud83d \ue000\uE001 \ud83d\ud83d\ude00"'
    assert bytes(decode(b'{"text":' + text + b',"n":[1]}')["text"]) == text
    body = b'{"type":"message","from":{"id":"u1","name":"\\ud83d"},"text":' + text + b"}"
    assert bytes(decode(posted(body).stored)["text"]) == text
    assert bytes(decode(posted(body).for_bot(BOT, "x", "t"))["text"]) == text
    assert json.loads(posted(body).stored)["from"]["name"] == "\ud83d"
    assert posted(body).sender == Account("u1", "\ufffd")


@pytest.mark.parametrize(
    "body",
    [
        rb'{"type":"mess\ud83d","from":{"id":"u"}}',
        rb'{"type":"message","from":{"id":"u\udc00"}}',
    ],
)
def test_ids_that_are_read_are_well_formed(body):
    with pytest.raises(BadArgument):
        posted(body)


def test_of_equal_names_only_the_last_one_is_kept():
    body = b'{"type":"message","from":{"id":"dl_x","id":"u1"},"text":1,"text":2}'
    assert posted(body).sender.id == "u1"
    assert posted(body).stored.count(b'"id":') == 2
    assert posted(body).stored.count(b'"text":') == 1
    assert echo(body)["text"] == 2


@given(OBJECTS)
@pytest.mark.item(76, 77)
@pytest.mark.bot_item(7)
def test_unknown_members_of_a_client_activity_arrive_byte_for_byte_on_both_sides(members):
    members = {name: value for name, value in members.items() if name.lower() not in OURS | READ}
    written = posted(as_object({**members, "type": b'"x.custom"', "from": b'{"id":"u1"}'}))
    for copy in (written.stored, written.for_bot(BOT, "x", "t")):
        received = decode(copy)
        assert {name: bytes(received[name]) for name in members} == members


@given(st.sampled_from(["value", "localTimestamp", "locale"]), VALUES)
def test_known_members_arrive_byte_for_byte(name, value):
    body = as_object({"type": b'"message"', "from": b'{"id":"u1"}', name: value})
    assert bytes(decode(posted(body).stored)[name]) == value
    assert bytes(decode(posted(body).for_bot(BOT, "x", "t"))[name]) == value


@pytest.mark.item(75, 78)
def test_what_the_server_sets_is_not_taken_from_the_client():
    body = message(
        id="mine",
        timestamp="1999-01-01T00:00:00Z",
        channelId="webchat",
        conversation={"id": "other", "isGroup": True},
        serviceUrl="https://evil.example",
        callerId="urn:x",
        recipient={"id": "me"},
        text="hi",
    )
    assert echo(body) == {
        "type": "message",
        "channelId": "directline",
        "conversation": {"id": CONVERSATION},
        "from": {"id": "u1"},
        "text": "hi",
    }


@pytest.mark.bot_item(2, 4, 6, 32)
def test_the_bots_copy_has_everything_an_sdk_needs():
    body = message(id="mine", serviceUrl="https://evil.example", callerId="urn:x", deliveryMode="stream", text="hi")
    assert to_bot(body) == {
        "type": "message",
        "id": f"{CONVERSATION}|0000000",
        "timestamp": "2026-01-05T10:00:00.001Z",
        "channelId": "webchat",
        "serviceUrl": "http://127.0.0.1:3000/b/k",
        "conversation": {"id": CONVERSATION},
        "from": {"id": "u1", "role": "user"},
        "recipient": {"id": "bot1", "name": "Bot", "role": "bot"},
        "text": "hi",
    }


@pytest.mark.item(174)
def test_delivery_mode_stays_in_the_echo_and_never_reaches_the_bot():
    assert echo(message(deliveryMode="stream"))["deliveryMode"] == "stream"
    assert "deliveryMode" not in to_bot(message(deliveryMode="stream"))


def test_another_spelling_of_a_name_that_we_set_does_not_get_past_us():
    body = message(
        From={"id": "admin"}, SERVICEURL="https://evil.example", Recipient={}, ID="x", DeliveryMode="expectReplies"
    )
    assert echo(body).keys() == {"type", "from", "channelId", "conversation", "DeliveryMode"}
    assert to_bot(body).keys() == {
        *("type", "id", "timestamp", "from", "channelId", "conversation", "serviceUrl", "recipient")
    }
    bound = {"type": "message", "from": {"Id": "admin", "NAME": "Admin", "Role": "bot", "x": 1}}
    assert echo(bound, Account("dl_a", "Ann"))["from"] == {"id": "dl_a", "name": "Ann", "x": 1}


@pytest.mark.item(79)
def test_the_tokens_user_wins_silently():
    body = message(**{"from": {"id": "u2", "name": "Bob", "aadObjectId": "a", "role": "user"}})
    assert echo(body, Account("dl_1"))["from"] == {"id": "dl_1", "name": "Bob", "aadObjectId": "a", "role": "user"}
    assert echo(body, Account("dl_1", "Ann"))["from"] == {
        "id": "dl_1",
        "name": "Ann",
        "aadObjectId": "a",
        "role": "user",
    }
    assert to_bot(body, Account("dl_1", "Ann"))["from"] == echo(body, Account("dl_1", "Ann"))["from"]
    assert posted(body, Account("dl_1", "Ann")).sender == Account("dl_1", "Ann")
    assert posted(body, Account("dl_1")).sender == Account("dl_1", "Bob")


@pytest.mark.item(80)
@pytest.mark.parametrize("written", [{}, {"from": None}, {"from": {}}, {"from": {"id": None}}])
def test_a_bound_user_need_not_say_who_it_is(written):
    assert echo({"type": "message", **written}, Account("dl_1"))["from"] == {"id": "dl_1"}


@pytest.mark.item(81)
@pytest.mark.parametrize("written", [{}, {"from": None}, {"from": {}}, {"from": {"id": None}}, {"from": {"id": ""}}])
def test_an_unbound_activity_needs_a_sender(written):
    with pytest.raises(MissingProperty):
        posted({"type": "message", **written})


@pytest.mark.item(82)
@pytest.mark.parametrize("origin", ["u1", 1, [], True, {"id": 1.5}, {"id": {}}, {"id": "u" * 257}])
def test_a_sender_of_the_wrong_type_is_a_bad_argument(origin):
    with pytest.raises(BadArgument):
        posted({"type": "message", "from": origin})


@pytest.mark.item(83)
def test_nobody_speaks_as_the_bot():
    with pytest.raises(BadArgument):
        posted(message(**{"from": {"id": "bot1"}}))
    with pytest.raises(BadArgument):
        posted(message(), Account("bot1"))
    assert posted(message(**{"from": {"id": "bot1"}}), Account("dl_1")).sender.id == "dl_1"


@pytest.mark.item(84)
@pytest.mark.parametrize("role", ["bot", "skill", None, 1, ["user"]])
def test_a_role_other_than_user_is_removed(role):
    assert echo(message(**{"from": {"id": "u1", "role": role}}))["from"] == {"id": "u1"}
    assert to_bot(message(**{"from": {"id": "u1", "role": role}}))["from"] == {"id": "u1", "role": "user"}
    assert echo(message(**{"from": {"id": "u1", "role": "user"}}))["from"] == {"id": "u1", "role": "user"}


@pytest.mark.item(98)
def test_only_a_secret_or_its_token_speaks_as_a_dl_id():
    body = message(**{"from": {"id": "dl_x"}})
    with pytest.raises(BadArgument):
        posted(body)
    assert posted(body, may_use_dl=True).sender.id == "dl_x"
    assert posted(body, Account("dl_y")).sender.id == "dl_y"


@pytest.mark.item(85, 86, 88)
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"[]", BadArgument),
        (b'[{"type":"message","from":{"id":"u"}}]', BadArgument),
        (b'[{"type":', BadSyntax),
        (b'"x"', BadArgument),
        (b"{", BadSyntax),
        (b'{"from":{"id":"u"}}', MissingProperty),
        (b'{"type":null,"from":{"id":"u"}}', MissingProperty),
        (b'{"type":"","from":{"id":"u"}}', MissingProperty),
        (b'{"type":1,"from":{"id":"u"}}', BadArgument),
        (b'{"type":["message"],"from":{"id":"u"}}', BadArgument),
        (b'{"type":"contactRelationUpdate","from":{"id":"u"}}', BadArgument),
        (b'{"type":"message","from":{"id":"u"},"attachments":{}}', BadArgument),
        (b'{"type":"message","from":{"id":"u"},"entities":"x"}', BadArgument),
    ],
)
def test_each_mistake_has_its_error(body, error):
    with pytest.raises(RequestError) as raised:
        posted(body)
    assert type(raised.value) is error


def test_nulls_are_kept_and_arrays_are_not_invented():
    body = message(text=None, attachments=None, channelData=None)
    assert echo(body).items() >= {"text": None, "attachments": None, "channelData": None}.items()
    assert "entities" not in echo(body)


@pytest.mark.item(72, 87, 89, 121)
@pytest.mark.parametrize(
    ("kind", "becomes"),
    [
        ("message", Kind.STORED),
        ("event", Kind.STORED),
        ("endOfConversation", Kind.STORED),
        ("messageReaction", Kind.STORED),
        ("invoke", Kind.STORED),
        ("trace", Kind.STORED),
        ("Typing", Kind.STORED),
        ("x.custom", Kind.STORED),
        ("typing", Kind.TRANSIENT),
        ("conversationUpdate", Kind.UNSEEN),
    ],
)
def test_the_type_decides_who_reads_a_client_activity(kind, becomes):
    assert posted(message(type=kind)).kind is becomes
    assert to_bot(message(type=kind))["type"] == kind


@pytest.mark.item(100)
@pytest.mark.parametrize("name", ["name", "Name"])
def test_credentials_of_a_sign_in_reach_the_bot_and_not_the_log(name):
    body = message(type="invoke", value={"token": "T"}, VALUE="T", **{name: "signin/tokenExchange"})
    assert echo(body).keys() == {"type", "from", "channelId", "conversation", name}
    assert to_bot(body)["value"] == {"token": "T"}


def test_other_invokes_and_other_types_keep_their_value():
    assert echo(message(type="invoke", name="adaptiveCard/action", value=1))["value"] == 1
    assert echo(message(type="invoke", name=None, value=1))["value"] == 1
    assert echo(message(type="event", name="signin/x", value=1))["value"] == 1


# What a bot posts.


@given(OBJECTS)
@pytest.mark.bot_item(41)
def test_unknown_members_of_a_bot_activity_arrive_byte_for_byte(members):
    members = {name: value for name, value in members.items() if name.lower() not in OURS | READ}
    received = decode(said(as_object({**members, "type": b'"x.custom"'})).stored)
    assert {name: bytes(received[name]) for name in members} == members


@pytest.mark.bot_item(38, 39, 40)
def test_a_bot_speaks_as_itself_in_its_conversation():
    body: dict[str, object] = {
        "type": "message",
        "id": None,
        "timestamp": "x",
        "channelId": "emulator",
        "serviceUrl": BOT.service_url,
        "callerId": "urn:x",
        "conversation": {"id": "other"},
        "from": {"id": "u1", "name": "Clippy", "role": "user", "extra": 1},
        "recipient": {"id": "u1"},
        "text": "hi",
    }
    assert shown(body) == {
        "type": "message",
        "channelId": "directline",
        "conversation": {"id": CONVERSATION},
        "from": {"id": "bot1", "name": "Clippy", "role": "bot", "extra": 1},
        "recipient": {"id": "u1"},
        "text": "hi",
    }


@pytest.mark.parametrize("origin", [None, "x", 1, [], {}, {"name": None}, {"name": ""}, {"name": 5}, {"id": 5}])
def test_a_bot_without_a_usable_name_has_its_registered_one(origin):
    assert shown({"type": "message", "from": origin})["from"] == {"id": "bot1", "name": "Bot", "role": "bot"}
    assert shown({"type": "message"})["from"] == {"id": "bot1", "name": "Bot", "role": "bot"}


@pytest.mark.bot_item(50)
def test_a_bot_activity_needs_a_type_and_nothing_else():
    for body, error in ((b"{}", MissingProperty), (b"[]", BadArgument), (b"{", BadSyntax)):
        with pytest.raises(error):
            said(body)
    assert said({"type": "message", "attachments": None, "entities": 1, "recipient": None}).kind is Kind.STORED


@pytest.mark.bot_item(30)
@pytest.mark.parametrize("kind", ["trace", "conversationUpdate", "installationUpdate"])
def test_clients_never_see_a_bots_housekeeping(kind):
    assert said({"type": kind}).kind is Kind.UNSEEN


@pytest.mark.item(152, 153)
@pytest.mark.parametrize(
    ("members", "becomes"),
    [
        ({}, Kind.TRANSIENT),
        ({"text": "so far", "channelData": {"streamType": "streaming"}}, Kind.TRANSIENT),
        ({"entities": [{"type": "streaminfo", "streamType": "informative"}]}, Kind.TRANSIENT),
        ({"entities": [{"type": "other", "streamType": "final"}]}, Kind.TRANSIENT),
        ({"entities": {"type": "streaminfo", "streamType": "final"}}, Kind.TRANSIENT),
        ({"entities": ["final", None, {"type": 1}, {"type": "streaminfo", "streamType": 1}]}, Kind.TRANSIENT),
        ({"channelData": "final"}, Kind.TRANSIENT),
        ({"channelData": {"streamType": "final", "streamId": "s"}}, Kind.STREAMS_ONLY),
        ({"entities": [1, {"type": "streaminfo", "streamType": "final"}]}, Kind.STREAMS_ONLY),
        ({"entities": [{"type": "streaminfo", "streamType": "final", "x": "\ud83d"}]}, Kind.STREAMS_ONLY),
        ({"channelData": {"streamType": "final", "x": "\ud83d", "y": 1e300}}, Kind.STREAMS_ONLY),
    ],
)
def test_only_the_end_of_a_livestream_is_kept_of_typing(members, becomes):
    assert said({"type": "typing", **members}).kind is becomes
    assert said({"type": "message", **members}).kind is Kind.STORED


@pytest.mark.bot_item(36, 37)
@pytest.mark.parametrize("named", [f"{CONVERSATION}|0000001", f"{CONVERSATION}|9999999", f"{CONVERSATION}|ü"])
def test_a_reply_names_what_its_path_names(named):
    assert shown({"type": "message", "replyToId": "body"}, named)["replyToId"] == named
    assert shown({"type": "message"}, named)["replyToId"] == named


@pytest.mark.item(208)
@pytest.mark.parametrize(
    "named", ["7a0c9e0e-6d1c-4b8f-9d38-0f0b5f6f9f43", CONVERSATION, f"x{CONVERSATION}|0000001", "ü", "", "\udc80"]
)
def test_clients_do_not_wait_for_an_id_that_the_bot_made_up(named):
    assert "replyToId" not in shown({"type": "message"}, named)
    assert "replyToId" not in shown({"type": "message", "replyToId": f"{CONVERSATION}|0000001"}, named)
    if named.isprintable() and named:
        assert "replyToId" not in shown({"type": "message", "replyToId": named})


def test_a_plain_send_keeps_the_reply_it_names():
    known = f"{CONVERSATION}|0000001"
    assert shown({"type": "message", "replyToId": known})["replyToId"] == known
    assert shown({"type": "message", "replyToId": None})["replyToId"] is None
    assert "replyToId" not in shown({"type": "message"})


@pytest.mark.item(173)
def test_no_client_waits_for_what_it_can_never_see():
    unseen = activity.transient_id(CONVERSATION, "0123", seen=False)
    assert "replyToId" not in shown({"type": "message", "replyToId": "body"}, unseen)
    assert "replyToId" not in shown({"type": "message", "replyToId": unseen})
    seen = activity.transient_id(CONVERSATION, "u123", seen=True)
    assert shown({"type": "message"}, seen)["replyToId"] == seen


# Ids, and the activities that have no number.


@given(st.text("0123456789abcdefu", min_size=1), st.booleans())
def test_a_transient_id_says_whether_clients_can_see_it_and_never_looks_numbered(random, seen):
    made = activity.transient_id(CONVERSATION, random, seen=seen)
    assert made.startswith(f"{CONVERSATION}|t")
    assert made.endswith(random)
    assert activity.names_unseen(made, CONVERSATION) is not seen
    assert activity.names_unseen(made, ConversationId("other-one"))


def test_completing_puts_id_and_timestamp_in_front_and_changes_nothing_else():
    stored = posted(message(text="hi")).stored
    complete = activity.complete(stored, "a|t1", "2026-01-05T10:00:00.001Z")
    assert complete.endswith(stored[1:])
    assert json.loads(complete) == {**json.loads(stored), "id": "a|t1", "timestamp": "2026-01-05T10:00:00.001Z"}


def joined(*members: Account, locale: str | None = None) -> dict[str, object]:
    return json.loads(activity.join(CONVERSATION, BOT, members, locale, "a|tu1", "2026-01-05T10:00:00.001Z"))


@pytest.mark.item(62, 70)
@pytest.mark.bot_item(2, 6, 8)
def test_a_join_names_each_new_member_once_and_comes_from_the_user():
    update = joined(Account("bot1", "Bot"), Account("dl_1", "Ann"), Account("dl_1", "Ann"), locale="de-DE")
    assert update == {
        "type": "conversationUpdate",
        "id": "a|tu1",
        "timestamp": "2026-01-05T10:00:00.001Z",
        "channelId": "webchat",
        "serviceUrl": BOT.service_url,
        "conversation": {"id": CONVERSATION},
        "from": {"id": "dl_1", "name": "Ann", "role": "user"},
        "recipient": {"id": "bot1", "name": "Bot", "role": "bot"},
        "membersAdded": [{"id": "bot1", "name": "Bot"}, {"id": "dl_1", "name": "Ann"}],
        "locale": "de-DE",
    }


@pytest.mark.item(71)
def test_a_join_without_a_user_comes_from_the_conversation_not_from_the_bot():
    update = joined(Account("bot1", "Bot"))
    assert update["from"] == {"id": CONVERSATION, "role": "user"}
    assert update["membersAdded"] == [{"id": "bot1", "name": "Bot"}]
    assert "locale" not in update
    assert joined(Account("u1"))["membersAdded"] == [{"id": "u1"}]


# Whatever arrives.

SUSPECTS = st.dictionaries(
    st.sampled_from([*READ, "from", "From", "recipient", "replyToId", "channelData", "type", "id"]), VALUES, max_size=6
)
BODIES = st.one_of(
    st.binary(max_size=80),
    VALUES,
    SUSPECTS.map(as_object),
    st.tuples(
        SUSPECTS,
        st.sampled_from([b'"message"', b'"typing"', b'"invoke"', b'"trace"']),
        st.sampled_from([b'{"id":"u1"}', rb'{"id":"u1","name":"\ud83d","role":{}}', b'{"id":"dl_1"}']),
    ).map(lambda drawn: as_object({**drawn[0], "type": drawn[1], "from": drawn[2]})),
)


@given(BODIES, st.sampled_from([None, Account("dl_1", "Ann")]), st.booleans())
def test_a_client_body_is_either_refused_or_makes_whole_activities(body, bound, may_use_dl):
    try:
        written = posted(body, bound, may_use_dl=may_use_dl)
    except RequestError:
        return
    stored = json.loads(written.stored)
    assert stored["conversation"] == {"id": CONVERSATION}
    assert stored["from"]["id"] == written.sender.id
    assert not stored.keys() & {"id", "timestamp", "serviceUrl", "callerId", "recipient"}
    assert json.loads(written.for_bot(BOT, "x|1", "t"))["from"]["role"] == "user"


@given(BODIES, st.none() | st.text(st.characters()) | st.just("\udc80"))
def test_a_bot_body_is_either_refused_or_makes_a_whole_activity(body, reply_to):
    try:
        written = said(body, reply_to)
    except RequestError:
        return
    stored = json.loads(written.stored)
    assert stored["from"]["id"] == "bot1"
    assert stored["from"]["role"] == "bot"
    assert not stored.keys() & {"id", "timestamp", "serviceUrl", "callerId"}


# What blanks a page, and ids that are numbers


BLANKING = [
    *({"text": each} for each in ({}, [], True, False)),
    *({"suggestedActions": each} for each in (7, "x", [], True)),
    *({"attachments": each} for each in ([None], [{}, 7], ["x"], [[]], {}, "x")),
    *(
        {"suggestedActions": {"actions": each}}
        for each in (7, "ab", {}, [None], ["x"], [{"title": {}}], [{"title": []}])
    ),
    *({"channelData": {"messageBack": {"displayText": each}}} for each in ({}, [], 7, True)),
]


@pytest.mark.item(214)
def test_only_a_channel_says_that_a_bot_was_installed():
    with pytest.raises(BadArgument):
        posted(message(type="installationUpdate", action="add"))
    assert said({"type": "installationUpdate"}).kind is Kind.UNSEEN


@pytest.mark.item(209)
@pytest.mark.parametrize("odd", BLANKING, ids=repr)
def test_what_blanks_every_web_chat_is_refused_from_both_sides(odd):
    with pytest.raises(BadArgument):
        posted(message(**odd))
    with pytest.raises(BadArgument):
        said({"type": "event", **odd})


@pytest.mark.item(209)
@pytest.mark.parametrize(
    "odd",
    [
        *({"text": each} for each in (0, -1.5, None, "")),
        *({"suggestedActions": each} for each in (None, {}, {"actions": None}, {"actions": [{"title": 7}, {}]})),
        *({"channelData": {"messageBack": each}} for each in (None, 7, {"displayText": "x"}, {"displayText": None})),
        *({"attachments": each} for each in (None, [], [{}], [{"content": 7}])),
        *({"locale": 7}, {"channelData": "x"}, {"channelData": [7]}, {"entities": [None, 7]}),
    ],
    ids=repr,
)
def test_what_web_chat_lives_through_is_carried(odd):
    assert echo(message(**odd)).items() >= odd.items()
    assert shown({"type": "message", **odd}).items() >= odd.items()


@pytest.mark.item(203)
@pytest.mark.parametrize(
    ("given", "known"), [(b"1", "1"), (b"-7", "-7"), (b"-0", "0"), (b"9" * 256, "9" * 256), (b'"01"', "01")]
)
def test_an_integer_is_the_id_that_it_spells(given, known):
    written = posted(b'{"type":"message","from":{"id":' + given + b',"name":"John"}}')
    assert written.sender == Account(known, "John")
    assert json.loads(written.stored)["from"] == {"id": known, "name": "John"}


@pytest.mark.item(203)
@pytest.mark.parametrize("given", [b"1.5", b"1.0", b"1e3", b"true", b"{}", b"[1]", b"9" * 257, b"1" * 100_000])
def test_nothing_else_but_a_string_is_an_id(given):
    with pytest.raises(BadArgument):
        posted(b'{"type":"message","from":{"id":' + given + b"}}")


# Transcripts


@pytest.mark.bot_item(62)
@pytest.mark.parametrize(
    ("origin", "becomes"),
    [
        ({"id": "ann", "name": "Ann", "role": "user"}, {"id": "ann", "name": "Ann", "role": "user"}),
        ({"id": 7, "role": "user", "x": 1}, {"id": "7", "role": "user", "x": 1}),
        ({"id": "u1", "name": "Bo"}, {"id": "u1", "name": "Bo"}),
        ({"id": "u1", "role": "bot"}, {"id": "u1"}),
        ({"id": "stranger"}, {"id": "bot1", "name": "Bot", "role": "bot"}),
        ({"id": "bot1", "role": "user"}, {"id": "bot1", "name": "Bot", "role": "bot"}),
        ({"id": {}}, {"id": "bot1", "name": "Bot", "role": "bot"}),
        (None, {"id": "bot1", "name": "Bot", "role": "bot"}),
    ],
    ids=repr,
)
def test_a_line_of_a_transcript_stays_with_who_said_it(origin, becomes):
    body = json.dumps({"type": "message", "from": origin}).encode()
    line = from_bot(body, conversation=CONVERSATION, bot=BOT, reply_to=None, users={"u1"})
    assert json.loads(line.stored)["from"] == becomes
    assert activity.is_bots(line.stored) == (becomes["id"] == "bot1")


# How a bot replies


@pytest.mark.bot_item(32)
@pytest.mark.parametrize("mode", [None, "expectReplies", "stream"])
def test_the_delivery_mode_is_the_bots_and_never_on_an_invoke(mode: str | None) -> None:
    bot = msgspec.structs.replace(BOT, delivery=mode or "normal")

    def told(kind: str) -> object:
        body = json.dumps({"type": kind, "from": {"id": "u"}, "DeliveryMode": "notification"}).encode()
        read = from_client(body, conversation=CONVERSATION, bot=bot, bound=None, may_use_dl=True)
        copy = json.loads(read.for_bot(bot, "id", "time"))
        assert [name for name in copy if name.lower() == "deliverymode"] in ([], ["deliveryMode"])
        return copy.get("deliveryMode")

    assert told("message") == mode
    assert told("invoke") is None


@pytest.mark.bot_item(28, 29)
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"  ", []),
        (b"{}", []),
        (b'{"activities":null}', []),
        (b'{"activities":[],"body":1}', []),
        (b'{"activities":[{"a": 1.50},{"b":2}]}', [b'{"a": 1.50}', b'{"b":2}']),
        (b'{"activities":[{"t":"\\ud83d"},7]}', [b'{"t":"\\ud83d"}', b"7"]),
    ],
)
def test_replies_are_taken_out_of_an_answer_as_they_were_written(body: bytes, expected: list[bytes]) -> None:
    assert activity.replies(body) == expected


@pytest.mark.parametrize("body", [b"OK", b"[]", b"7", b'{"activities":{}}', b'{"activities":"x"}', b"\xff"])
def test_an_answer_of_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        activity.replies(body)


@pytest.mark.bot_item(29)
def test_private_members_are_dropped_and_nothing_else() -> None:
    body = b'{"_channelId":"x","a_b":{"_kept":1},"_":2,"text":"\\ud83d"}'
    assert activity.without_private_members(body) == b'{"a_b":{"_kept":1},"text":"\\ud83d"}'
