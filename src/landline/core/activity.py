"""Activities as open JSON objects: what is read of them, what we set, and what stays as it was written.

An activity belongs to whoever wrote it. The few members of spec 6.1 are read or replaced; every other value
goes through as a piece of text (`msgspec.Raw`), so that it arrives byte for byte. Names are compared exactly where we
read them. Where we replace or drop a member, every spelling of its name goes: bots on .NET read names without regard
to case, and `"From"` beside our `from` would let a client speak as somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from enum import Enum
from typing import TypeVar

import msgspec
from msgspec import Raw

from landline.core import links
from landline.core.bot import Bot
from landline.core.conversation import Account
from landline.core.json_text import (
    apart,
    check_array,
    decode,
    first_items_of,
    items_of,
    lenient_string,
    members_of,
    string,
)
from landline.core.json_text import lenient as _lenient
from landline.core.log import ConversationId
from landline.errors import BadArgument, MissingProperty

ID_CHARACTERS = 256
"""The longest id of an account: that of a token's user (5.1), and so that of any sender."""
CHANNEL = "directline"
"""`channelId` in everything that clients see (6.1). What a bot sees is its own setting."""

_OURS = frozenset(("id", "timestamp", "channelid", "conversation", "from", "serviceurl", "callerid", "recipient"))

_NULL = Raw(b"null")
_USER = Raw(b'"user"')
_BOT = Raw(b'"bot"')

_encode = msgspec.json.Encoder().encode


# What an activity becomes.


class Kind(Enum):
    """Who reads an activity, and whether it is kept (spec 6.3)."""

    STORED = "stored"
    STREAMS_ONLY = "streams only"
    """Kept and replayed, but never in Get Activities: a `typing` that concludes a livestream (D-33)."""
    TRANSIENT = "transient"
    """Open streams only, best effort, no number (D-49)."""
    UNSEEN = "unseen"
    """Clients never see it."""


_INTEGER = re.compile(rb"-?[0-9]+\Z")
_CONTAINERS = frozenset(b"{[")
_NO_TEXT = frozenset(b"{[tf")
_STRING_OR_NULL = frozenset(b'"n')
_OBJECT_OR_NULL = frozenset(b"{n")
"""How such values begin."""

_FROM_CLIENT = {"typing": Kind.TRANSIENT, "conversationUpdate": Kind.UNSEEN}
_FROM_BOT = {**_FROM_CLIENT, "installationUpdate": Kind.UNSEEN, "trace": Kind.UNSEEN}
_NOT_CLIENTS = frozenset(("contactRelationUpdate", "installationUpdate"))
"""Types that only a channel says, and bots believe (5.5, statement 214)."""


class ClientActivity(msgspec.Struct, frozen=True):
    """An activity of a client, found good.

    `stored` is what clients see of it, without id and timestamp. `account` and `members` are what goes to the bot as it
    was written: the members of `from`, and those of the activity that are not ours to set.
    """

    type: str
    kind: Kind
    sender: Account
    stored: bytes
    conversation: ConversationId
    account: dict[str, object]
    members: dict[str, Raw]

    def for_bot(self, bot: Bot, activity_id: str, time: str) -> bytes:
        """The bot's copy (bot 2.2), complete. Its `deliveryMode` is the bot's, never the client's, and none on an
        `invoke`, whose own answer it would hide (D-36, bot 2.6). Links to this server begin with what the bot
        calls back (D-29)."""
        mode = None if self.type == "invoke" else bot.delivery_mode
        copy = _encode(
            {
                "id": activity_id,
                "timestamp": time,
                "channelId": bot.channel_id,
                "serviceUrl": bot.service_url,
                "conversation": {"id": self.conversation},
                "from": {**self.account, "role": "user"},
                "recipient": {"id": bot.id, "name": bot.name, "role": "bot"},
                **_without(self.members, "deliverymode"),
                **_mode(mode),
            }
        )
        return links.shown(copy, links.json_text(bot.link_base))


class BotActivity(msgspec.Struct, frozen=True):
    """An activity of a bot, found good. `stored` is what clients see of it, without id and timestamp."""

    type: str
    kind: Kind
    stored: bytes


def from_client(
    body: bytes, *, conversation: ConversationId, bot: Bot, bound: Account | None, may_use_dl: bool
) -> ClientActivity:
    """Read what a client posted (spec 6.1).

    `bound`: the user of its token, who wins silently (4.6). `may_use_dl`: whether an unbound credential may speak as an
    id that begins with `dl_`. Raises `RequestError`.
    """
    return from_client_members(decode(body), conversation=conversation, bot=bot, bound=bound, may_use_dl=may_use_dl)


def from_client_members(
    given: dict[str, Raw], *, conversation: ConversationId, bot: Bot, bound: Account | None, may_use_dl: bool
) -> ClientActivity:
    """The same for what was decoded already."""
    kind = _type(given)
    if kind in _NOT_CLIENTS:
        raise BadArgument(f"A client cannot send {kind!r}")
    check_array(given.get("entities", _NULL), "entities")
    _check_shapes(given)
    written = members_of(given.get("from", _NULL), "from")
    sender = _sender(written, bound)
    if sender.id == bot.id:
        raise BadArgument("'from.id' is the bot's")
    if bound is None and not may_use_dl and sender.id.startswith("dl_"):
        raise BadArgument("A user id that begins with dl_ must come from the token")
    account = _account(written, sender.id, bound.name if bound else None)
    members = {name: value for name, value in given.items() if name.lower() not in _OURS}
    shown = _without(members, "value") if kind == "invoke" and _signs_in(members) else members
    return ClientActivity(
        type=kind,
        kind=_FROM_CLIENT.get(kind, Kind.STORED),
        sender=sender,
        stored=_stored(conversation, {**account, "role": _USER} if written.get("role") == _USER else account, shown),
        conversation=conversation,
        account=account,
        members=members,
    )


def from_bot(
    body: bytes, *, conversation: ConversationId, bot: Bot, reply_to: str | None, users: Set[str] | None = None
) -> BotActivity:
    """Read what a bot posted (spec 6.1, bot 3.1); `reply_to` is the activity it replies to by path (3.2).

    Lenient, since no SDK repeats a refused send: only what has no `type`, is no object, or would blank every Web Chat
    of the conversation is refused. Links that lead to this server by the bot's service URL will lead there by the
    reader's base (D-51). In a transcript, which has the lines of both sides, `users` are the ids of the members: what
    one of them said stays that one's (bot 3.9). Raises `RequestError`.
    """
    given = decode(body)
    kind = _type(given)
    _check_shapes(given)
    members = {name: value for name, value in given.items() if name.lower() not in _OURS or name == "recipient"}
    origin = given.get("from", _NULL)
    written = members_of(origin, "from") if memoryview(origin)[0] == ord("{") else {}
    user = None if users is None else _user_of(written, bot, users)
    if user is None:
        named = lenient_string(written.get("name", _NULL))
        account = {**_account(written, bot.id, None if named else bot.name), "role": "bot"}
    else:
        account = {**_account(written, user, None), **({"role": _USER} if written.get("role") == _USER else {})}
    stored = _stored(conversation, account, _replying(members, conversation, reply_to))
    for service_url in bot.service_urls:
        stored = links.kept(stored, service_url)
    return BotActivity(
        type=kind,
        kind=Kind.STREAMS_ONLY if kind == "typing" and _concludes(members) else _FROM_BOT.get(kind, Kind.STORED),
        stored=stored,
    )


def replies(body: bytes) -> list[bytes]:
    """The activities in a bot's answer to `expectReplies`, or in a history, in their order; none in an empty one
    (bot 2.6, 3.9).

    Raises `RequestError` for an answer that is not of that form.
    """
    if not body.strip():
        return []
    return [bytes(reply) for reply in items_of(decode(body).get("activities", _NULL), "activities")]


def id_of(body: bytes) -> str | None:
    """The id that an activity was given by whoever wrote it. Raises as `decode`."""
    return lenient_string(decode(body).get("id", _NULL))


def without_private_members(body: bytes) -> bytes:
    """An activity without its members that begin with `_`: state of an SDK that slipped out (bot 2.6).

    Raises as `decode`.
    """
    return _encode({name: value for name, value in decode(body).items() if not name.startswith("_")})


def first_words(body: bytes, *, bot_id: str) -> tuple[list[Account], bytes | None]:
    """Whom a bot wants in a new conversation, itself aside, and what it says there at once (bot 3.7).

    Raises `RequestError`.
    """
    given = decode(body)
    members: dict[str, Account] = {}
    for each in items_of(given.get("members", _NULL), "members"):
        written = members_of(each, "members")
        member = _sender(written, None, "members.id")
        if member.id != bot_id:
            members.setdefault(member.id, member)
    if not members:
        raise BadArgument("'members' names nobody but the bot")
    said = given.get("activity", _NULL)
    return list(members.values()), None if said == _NULL else bytes(said)


class _Authored(msgspec.Struct):
    author: Raw = msgspec.field(default=_NULL, name="from")


_AUTHORED = msgspec.json.Decoder(_Authored)


def is_bots(stored: bytes) -> bool:
    """Whether this stored activity is the bot's: no client's can carry its role (6.1)."""
    return members_of(_lenient(_AUTHORED, Raw(stored)).author, "from").get("role") == _BOT


def check_id(body: bytes, activity_id: str) -> None:
    """Raises `BadArgument` if this activity has an id of its own and it is another one (bot 3.3)."""
    given = decode(body).get("id", _NULL)
    if string(given, "id") not in (None, activity_id):
        raise BadArgument("'id' is another one than in the path")


def deletion(conversation: ConversationId, bot: Bot) -> bytes:
    """What is stored where the bot deleted an activity (D-35): a whole activity without content.

    Web Chat puts it in the place of whatever has the same id, and knows no way to draw its type: the message goes.
    """
    content: dict[str, object] = {"type": "messageDelete"}
    return _stored(conversation, {"id": bot.id, "name": bot.name, "role": "bot"}, content)


def _stored(
    conversation: ConversationId, account: dict[str, object], members: dict[str, object] | dict[str, Raw]
) -> bytes:
    return _encode({"channelId": CHANNEL, "conversation": {"id": conversation}, "from": account, **members})


def _type(members: dict[str, Raw]) -> str:
    kind = string(members.get("type", _NULL), "type")
    if not kind:
        raise MissingProperty(
            "'type' is missing" + ("; names of members begin in lower case" if "Type" in members else "")
        )
    return kind


def _check_shapes(members: dict[str, Raw]) -> None:
    """Refuse what turns every Web Chat of the conversation into an empty page, at each reload anew, because it is
    replayed (6.1, ADR 30). What Web Chat lives through is carried, whatever it is. Raises `BadArgument`."""
    if memoryview(members.get("text", _NULL))[0] in _NO_TEXT:
        raise BadArgument("'text' must be a string")
    _objects(members.get("attachments", _NULL), "attachments")
    suggested = apart(members.get("suggestedActions", _NULL))
    if memoryview(suggested)[0] not in _OBJECT_OR_NULL:
        raise BadArgument("'suggestedActions' must be an object")
    for action in _objects(_inside(_SUGGESTED, suggested).actions, "suggestedActions.actions"):
        if memoryview(_inside(_ACTION, action).title)[0] in _CONTAINERS:
            raise BadArgument("'title' of a suggested action must be a string")
    message_back = _inside(_CHANNEL_DATA, apart(members.get("channelData", _NULL))).message_back
    if memoryview(_inside(_MESSAGE_BACK, message_back).display_text)[0] not in _STRING_OR_NULL:
        raise BadArgument("'channelData.messageBack.displayText' must be a string")


def _objects(value: Raw, name: str) -> list[Raw]:
    """The entries of an array that has only objects; none for null. Raises `BadArgument` for anything else."""
    items = items_of(value, name)
    if any(memoryview(item)[0] != ord("{") for item in items):
        raise BadArgument(f"An entry of {name!r} must be an object")
    return items


class _Suggested(msgspec.Struct):
    actions: Raw = _NULL


class _Action(msgspec.Struct):
    title: Raw = _NULL


class _ChannelData(msgspec.Struct, rename="camel"):
    message_back: Raw = _NULL


class _MessageBack(msgspec.Struct, rename="camel"):
    display_text: Raw = _NULL


_SUGGESTED = msgspec.json.Decoder(_Suggested)
_ACTION = msgspec.json.Decoder(_Action)
_CHANNEL_DATA = msgspec.json.Decoder(_ChannelData)
_MESSAGE_BACK = msgspec.json.Decoder(_MessageBack)
_Shape = TypeVar("_Shape")


def _inside(shape: msgspec.json.Decoder[_Shape], value: Raw) -> _Shape:
    """What we look at in an object, `apart`; the defaults where it is something else."""
    return shape.decode(value if memoryview(value)[0] == ord("{") else b"{}")


def account_id(value: Raw, name: str) -> str | None:
    """The id of an account: a string of at most 256 characters, or an integer as its decimal text, since chat widgets
    number their users (6.1); None for null. Raises `BadArgument` for anything else."""
    number = _INTEGER.match(value) if len(value) <= ID_CHARACTERS else None
    given = str(int(number[0])) if number else string(value, name)
    if given and len(given) > ID_CHARACTERS:
        raise BadArgument(f"'{name}' is longer than {ID_CHARACTERS} characters")
    return given


def _sender(written: dict[str, Raw], bound: Account | None, named: str = "from.id") -> Account:
    """Who speaks: the token's user, else `from`. `named` is what a refusal calls the id."""
    given = account_id(written.get("id", _NULL), named)
    name = lenient_string(written.get("name", _NULL))
    if bound is not None:
        return Account(bound.id, name if bound.name is None else bound.name)
    if not given:
        raise MissingProperty(f"'{named}' is missing")
    return Account(given, name)


def _user_of(written: dict[str, Raw], bot: Bot, users: Set[str]) -> str | None:
    """Who of the users said a line with this `from`, or None where the bot did. Raises `BadArgument`, `MissingProperty`
    for a user without an id."""
    if written.get("role") == _USER:
        user = _sender(written, None).id
    else:
        user = _lenient_id(written.get("id", _NULL)) or bot.id
        if user not in users:
            return None
    return None if user == bot.id else user


def _lenient_id(value: Raw) -> str | None:
    try:
        return account_id(value, "from.id")
    except BadArgument:
        return None


def _account(written: dict[str, Raw], account_id: str, name: str | None) -> dict[str, object]:
    """`from` with that id, no role, and that name, or without one the name that was written; the rest as written."""
    if name is None:
        return {"id": account_id, **_without(written, "id", "role")}
    return {"id": account_id, "name": name, **_without(written, "id", "name", "role")}


def _without(members: dict[str, Raw], *names: str) -> dict[str, Raw]:
    """The members under any other name, whatever the case of its letters (`names` are in lower case)."""
    return {name: value for name, value in members.items() if name.lower() not in names}


def _signs_in(members: dict[str, Raw]) -> bool:
    """Whether `value` of this invoke holds a credential, which has no place in a log that clients replay (D-34)."""
    return any(
        (lenient_string(value) or "").lower().startswith("signin/")
        for name, value in members.items()
        if name.lower() == "name"
    )


class _StreamInformation(msgspec.Struct, rename="camel"):
    type: Raw = _NULL
    stream_type: Raw = _NULL


_ENTITIES = 100
"""So many are looked at."""
_STREAM_INFORMATION = msgspec.json.Decoder(_StreamInformation)


def _concludes(members: dict[str, Raw]) -> bool:
    """Whether a bot's `typing` ends a livestream, by `channelData` or by a `streaminfo` entity (D-33)."""
    if _is_final(members.get("channelData", _NULL), None):
        return True
    entities = members.get("entities", _NULL)
    return any(_is_final(entity, "streaminfo") for entity in first_items_of(entities, _ENTITIES))


def _is_final(value: Raw, entity_type: str | None) -> bool:
    if memoryview(value)[0] != ord("{"):
        return False
    found = _lenient(_STREAM_INFORMATION, value)
    if entity_type is not None and lenient_string(found.type) != entity_type:
        return False
    return lenient_string(found.stream_type) == "final"


# Ids, and the other activities that have no number.


def transient_id(conversation: ConversationId, random: str, *, seen: bool) -> str:
    """The id of an activity that takes no number: `{conversation}|tv{random}` where clients may see it, else `|tu`.

    Being told by the letter alone, whether clients can wait for an activity needs no memory of it (D-37, D-49).
    """
    return f"{conversation}|t{'v' if seen else 'u'}{random}"


def names_unseen(activity_id: str, conversation: ConversationId) -> bool:
    """Whether `activity_id` names nothing that clients of `conversation` can ever see: one of ours that they are not
    shown, or an id that is none of this conversation's, as two SDKs make them up when they speak first (D-37)."""
    return not activity_id.startswith(f"{conversation}|") or activity_id.startswith(f"{conversation}|tu")


def _replying(members: dict[str, Raw], conversation: ConversationId, reply_to: str | None) -> dict[str, object]:
    """`members` with the right `replyToId`: the path's if there is one, and none that would make clients wait for what
    never comes (D-37)."""
    named = reply_to if reply_to is not None else lenient_string(members.get("replyToId", _NULL))
    if reply_to is None and not (named and names_unseen(named, conversation)):
        return {**members}
    kept: dict[str, object] = {**_without(members, "replytoid")}
    if named and not names_unseen(named, conversation):
        # A path that was not UTF-8 may have left surrogates behind.
        kept["replyToId"] = named.encode(errors="replace").decode()
    return kept


def complete(stored: bytes, activity_id: str, time: str) -> bytes:
    """The complete JSON of an activity: id and timestamp in front of the stored bytes, as `core.log` does it."""
    return f'{{"id":"{activity_id}","timestamp":"{time}",'.encode() + stored[1:]


def join(
    conversation: ConversationId,
    bot: Bot,
    members: Sequence[Account],
    locale: str | None,
    activity_id: str,
    time: str,
) -> bytes:
    """The conversationUpdate that tells the bot of new `members`, itself among them when it joins (spec 6.4).

    It comes from the first user among them. Where there is none it comes from the conversation's own id: the bot's
    would make all conversations share one record in bots that keep state per sender.
    """
    joined = {member.id: member for member in members}
    user = next((member for member in joined.values() if member.id != bot.id), Account(conversation))
    update: dict[str, object] = {
        "type": "conversationUpdate",
        "id": activity_id,
        "timestamp": time,
        "channelId": bot.channel_id,
        "serviceUrl": bot.service_url,
        "conversation": {"id": conversation},
        "from": {**_shown(user), "role": "user"},
        "recipient": {"id": bot.id, "name": bot.name, "role": "bot"},
        "membersAdded": [_shown(member) for member in joined.values()],
        **_mode(bot.delivery_mode),
    }
    if locale is not None:
        update["locale"] = locale
    return _encode(update)


def _mode(mode: str | None) -> dict[str, str]:
    return {} if mode is None else {"deliveryMode": mode}


def _shown(account: Account) -> dict[str, str]:
    return {"id": account.id} if account.name is None else {"id": account.id, "name": account.name}
