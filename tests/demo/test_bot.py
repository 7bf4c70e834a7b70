"""The demo's bot, as a client of the channel hears it."""

from __future__ import annotations

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
