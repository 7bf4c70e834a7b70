"""The demo's bot, as a client of the channel hears it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

from landline.conformance.directline import ClientStream, DirectLine
from landline.demo.bot import MOST_AT_ONCE, SPEAK
from landline.demo.server import Demo
from support.landline import SECRET

USER = {"id": "user"}


class Guest:
    """A client in a conversation with the bot."""

    def __init__(self, client: DirectLine, conversation: str, stream: ClientStream) -> None:
        self.stream = stream
        self._client = client
        self._conversation = conversation

    async def send(self, **activity: object) -> str:
        """Send it, see that the bot's turn went well, and answer the activity's id."""
        answer = await self._client.send(self._conversation, {"from": USER, **activity})
        assert answer.status == 200, answer
        return str(answer.json["id"])

    @property
    def heard(self) -> list[object]:
        """What the bot has said, the greeting left out."""
        said = [each.get("text") for each in self.stream.activities if each["from"].get("role") == "bot"]
        return said[1:]


@pytest.fixture
async def guest(demo: Demo) -> AsyncIterator[Guest]:
    async with DirectLine(f"{demo.url}/v3/directline", SECRET) as client:
        opened = await client.start(user=USER)
        async with client.stream(opened.stream_url) as stream:
            greeting = await stream.next_activity()
            assert greeting["text"].startswith("Hello.")
            yield Guest(client, opened.conversation_id, stream)


async def test_it_repeats_a_message_as_a_reply_to_it(guest: Guest) -> None:
    """Web Chat waits 5 s for what an answer refers to, unless it has it."""
    sent = await guest.send(type="message", text="Good morning")
    answer = await guest.stream.until_text("I heard: Good morning")
    assert answer["replyToId"] == sent


async def test_it_speaks_as_often_as_it_is_asked_to(guest: Guest) -> None:
    await guest.send(type="event", name=SPEAK, value=3)
    await guest.stream.until_text("Message 3 of 3.")
    assert guest.heard == ["Message 1 of 3.", "Message 2 of 3.", "Message 3 of 3."]


async def test_it_does_not_speak_for_ever(guest: Guest) -> None:
    await guest.send(type="event", name=SPEAK, value=10**6)
    await guest.stream.until_text(f"Message {MOST_AT_ONCE} of {MOST_AT_ONCE}.")
    assert len(guest.heard) == MOST_AT_ONCE


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "message"},
        {"type": "message", "text": ""},
        {"type": "message", "text": 7},
        {"type": "message", "attachments": None},
        {"type": "message", "attachments": [{}, {"name": 7, "contentType": "x", "contentUrl": "data:,"}]},
        {"type": "event", "name": SPEAK},
        {"type": "event", "name": SPEAK, "value": "often"},
        {"type": "event", "name": SPEAK, "value": -3},
        {"type": "event", "name": "another"},
        {"type": "x.custom"},
    ],
)
async def test_it_takes_whatever_it_is_sent(guest: Guest, odd: dict[str, object]) -> None:
    """A visitor may post what he likes; a bot that breaks would make it look as if the line did."""
    await guest.send(**odd)
    await guest.send(type="message", text="Still there?")
    await guest.stream.until_text("I heard: Still there?")


async def test_it_types_before_it_speaks(guest: Guest) -> None:
    await guest.send(type="message", text="typing")
    await guest.stream.until_text("I have thought about it.")
    assert [each["type"] for each in guest.stream.activities[2:]] == ["typing", "message"]


async def test_a_streamed_answer_says_all_so_far_and_names_its_first_piece(guest: Guest) -> None:
    await guest.send(type="message", text=" Stream ")
    await guest.stream.until(lambda stream: stream.activities[-1]["type"] == "message", "is finished")
    first, *pieces, last = guest.stream.activities[2:]
    assert first["channelData"] == {"streamType": "informative", "streamSequence": 1}
    assert {each["type"] for each in (first, *pieces)} == {"typing"}
    for number, (piece, longer) in enumerate(itertools.pairwise([*pieces, last]), start=2):
        assert piece["channelData"] == {"streamType": "streaming", "streamSequence": number, "streamId": first["id"]}
        assert longer["text"].startswith(piece["text"] + " ")
    assert last["channelData"] == {"streamType": "final", "streamId": first["id"]}


async def test_it_changes_and_takes_back_what_it_said_last_and_before(guest: Guest) -> None:
    for text in ("One", "Two", "update", "delete", "update"):
        await guest.send(type="message", text=text)
    await guest.stream.until_text("I heard: One (changed)")
    changes = [each for each in guest.stream.activities[2:] if each["from"].get("role") == "bot"]
    one, two = changes[0]["id"], changes[1]["id"]
    assert [(each["id"], each["type"], each.get("text")) for each in changes] == [
        (one, "message", "I heard: One"),
        (two, "message", "I heard: Two"),
        (two, "message", "I heard: Two (changed)"),
        (two, "messageDelete", None),
        (one, "message", "I heard: One (changed)"),
    ]


async def test_it_says_when_there_is_nothing_to_take_back(guest: Guest) -> None:
    for _ in range(2):
        await guest.send(type="message", text="delete")
    await guest.stream.until_text("There is nothing that I could take back.")


async def test_it_sends_back_what_was_attached(guest: Guest) -> None:
    file = {"contentType": "text/plain", "name": "a.txt", "contentUrl": "data:,a"}
    await guest.send(type="message", attachments=[{**file, "thumbnailUrl": "data:,small"}])
    answer = await guest.stream.until_text("I got a.txt (text/plain).")
    assert answer["attachments"] == [file]
