"""One conversation as a test sees it: say, expect, press, cut."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from landline.client.calls import File
from landline.client.conversation import Conversation
from landline.client.errors import DirectLineError
from landline.testing.transcript import Transcript, actions_of, is_card, shown, title_of

Activity = dict[str, Any]
Wanted = str | re.Pattern[str] | Callable[[Activity], object]
T = TypeVar("T")

_PASSED_BY = ("typing", "conversationUpdate")
_GRACE_S = 2.0
"""How long a failed expectation looks whether the answer was only late."""


class Chat:
    """Made by `Landline.chat`. What fails is an `AssertionError` that shows the transcript so far."""

    def __init__(
        self,
        conversation: Conversation,
        restart: Callable[[], Coroutine[Any, Any, None]],
        run: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]],
    ) -> None:
        """`run` carries a coroutine over to the loop of the channel."""
        self._conversation = conversation
        self._restart = restart
        self._run = run
        self._seen = Transcript()
        self._receiving: asyncio.Future[Activity] | None = None

    @property
    def transcript(self) -> Transcript:
        """Every activity that came so far and was looked at, both sides', in order. `print` shows it."""
        return self._seen

    async def say(self, text: str) -> None:
        """Send a message. Fails if the bot does not take it."""
        await self._send({"type": "message", "text": text})

    async def submit(self, value: Mapping[str, Any]) -> None:
        """Submit the inputs of a card, as `Action.Submit` does."""
        await self._send({"type": "message", "value": dict(value), "channelData": {"postBack": True}})

    async def upload(self, *files: Path | str | File, text: str | None = None) -> None:
        """Send files with one message."""
        await self._taken("the files", self._conversation.upload(*files, text=text))

    async def send(self, activity: Mapping[str, Any]) -> None:
        """Send any activity."""
        await self._send(dict(activity))

    async def expect(
        self, wanted: Wanted | None = None, *, card: str | None = None, timeout_s: float = 5.0
    ) -> Activity:
        """The bot's next activity, which has to be this one: a text, a pattern found in its text, a function that is
        true of it, or a `card` with this title. Typing is passed by."""
        try:
            activity = await self._next(timeout_s)
        except TimeoutError:
            raise AssertionError(await self._late(wanted, card, timeout_s)) from None
        if _matches(activity, wanted, card):
            return activity
        raise AssertionError(self._failure(_difference(activity, wanted, card)))

    async def expect_nothing(self, for_s: float = 0.5) -> None:
        """Fails if the bot says something within this time."""
        try:
            activity = await self._next(for_s)
        except TimeoutError:
            return
        raise AssertionError(self._failure(f"expected nothing, but the bot said: {shown(activity)}"))

    def card(self, title: str | None = None) -> Card:
        """The newest card that was seen, or the newest with this title."""
        for activity in reversed(self._seen):
            for attachment in reversed(activity.get("attachments") or ()):
                if is_card(attachment) and title in (None, title_of(attachment)):
                    return Card(self, attachment)
        raise AssertionError(self._failure(f"there is no card {title!r}" if title else "there is no card"))

    async def press(self, title: str) -> None:
        """Press a suggested action of the newest message that has some."""
        for activity in reversed(self._seen):
            actions = (activity.get("suggestedActions") or {}).get("actions")
            if actions:
                return await self._press(title, [(str(each.get("title")), each) for each in actions])
        raise AssertionError(self._failure("there are no suggested actions"))

    async def cut_line(self) -> None:
        """Cut the stream, as a network does. The client comes back by itself."""
        await self._run(self._cut())

    async def restart_channel(self) -> None:
        """Stop the channel and start it again on the same data and port."""
        await self._run(self._restart())

    async def _cut(self) -> None:
        self._conversation.cut()

    async def _press(self, title: str, actions: list[tuple[str, Activity]]) -> None:
        for name, action in actions:
            if name == title:
                return await self._send(_pressed(action))
        there = ", ".join(repr(name) for name, _ in actions) or "none"
        raise AssertionError(self._failure(f"there is no button {title!r}; there are: {there}"))

    async def _send(self, activity: Activity) -> None:
        await self._taken(shown(activity), self._conversation.send(activity))

    async def _taken(self, what: str, sending: Coroutine[Any, Any, str]) -> None:
        try:
            await self._run(sending)
        except DirectLineError as error:
            await self._look()
            raise AssertionError(self._failure(f"the bot did not take {what}: {error}")) from error

    async def _next(self, timeout_s: float) -> Activity:
        give_up_at = asyncio.get_running_loop().time() + timeout_s
        while True:
            activity = await self._received(give_up_at)
            self._seen.append(activity)
            mine = (activity.get("from") or {}).get("id") == self._conversation.user["id"]
            if not mine and activity.get("type") not in _PASSED_BY:
                return activity

    async def _received(self, give_up_at: float) -> Activity:
        """The next activity. A wait that ends without one is taken up by the next call: cancelling it across two loops
        could lose what arrives at that moment."""
        if self._receiving is None:
            self._receiving = asyncio.ensure_future(self._run(self._conversation.receive()))
        remaining_s = give_up_at - asyncio.get_running_loop().time()
        await asyncio.wait({self._receiving}, timeout=max(remaining_s, 0))
        if not self._receiving.done():
            raise TimeoutError
        received, self._receiving = self._receiving, None
        return dict(received.result())

    async def _look(self) -> None:
        """Take what has arrived, for the transcript."""
        with contextlib.suppress(TimeoutError):
            while True:
                await self._next(0.1)

    async def _late(self, wanted: Wanted | None, card: str | None, timeout_s: float) -> str:
        """Why nothing came in time. Waits a little longer, to tell a late answer from none."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        what = _named(wanted, card)
        try:
            activity = await self._next(_GRACE_S)
        except TimeoutError:
            return self._failure(f"expected {what}, but the bot said nothing within {timeout_s:g} s")
        late_s = loop.time() - began
        right = "it" if _matches(activity, wanted, card) else f"something else, {shown(activity)},"
        return self._failure(
            f"expected {what} within {timeout_s:g} s, but {right} came {late_s:.1f} s too late (see timeout_s)"
        )

    def _failure(self, what: str) -> str:
        return f"{what}\nThe conversation so far:\n{self._seen}"


class Card:
    """A card that the bot has shown."""

    def __init__(self, chat: Chat, attachment: Activity) -> None:
        self._chat = chat
        self.content: Any = attachment.get("content")
        self.title = title_of(attachment)
        self._actions = actions_of(attachment)

    async def press(self, title: str) -> None:
        """Press the button with this title, as Web Chat does."""
        await self._chat._press(title, self._actions)


def _pressed(action: Activity) -> Activity:
    """What Web Chat sends for a button."""
    kind, value = action.get("type"), action.get("value")
    match kind:
        case "imBack":
            return {"type": "message", "text": str(value)}
        case "postBack":
            what = {"text": value} if isinstance(value, str) else {"value": value}
            return {"type": "message", "channelData": {"postBack": True}} | what
        case "messageBack":
            text = action.get("text") or action.get("displayText") or ""
            return {"type": "message", "text": text, "value": value, "channelData": {"messageBack": True}}
        case "Action.Submit":
            data = action.get("data")
            what = {"text": data} if isinstance(data, str) else {"value": data}
            return {"type": "message", "channelData": {"postBack": True}} | what
        case "Action.Execute":
            asked = {key: action[key] for key in ("type", "id", "verb", "data") if key in action}
            return {"type": "invoke", "name": "adaptiveCard/action", "value": {"action": asked, "trigger": "manual"}}
        case _:
            raise AssertionError(f"a button of type {kind} sends nothing to the bot")


def _matches(activity: Activity, wanted: Wanted | None, card: str | None) -> bool:
    if card is not None:
        titles = [title_of(each) for each in activity.get("attachments") or () if is_card(each)]
        if card not in titles:
            return False
    if wanted is None:
        return True
    text = activity.get("text") or ""
    if isinstance(wanted, str):
        return bool(text == wanted)
    return bool(wanted.search(text)) if isinstance(wanted, re.Pattern) else bool(wanted(activity))


def _named(wanted: Wanted | None, card: str | None) -> str:
    parts = [f"a card {card!r}"] if card is not None else []
    if isinstance(wanted, re.Pattern):
        parts.append(f"a text that matches {wanted.pattern!r}")
    elif isinstance(wanted, str):
        parts.append(repr(wanted))
    elif wanted is not None:
        parts.append(f"an activity of which {getattr(wanted, '__name__', 'the function')} is true")
    return " with ".join(parts) or "an activity"


def _difference(activity: Activity, wanted: Wanted | None, card: str | None) -> str:
    lines = [f"expected {_named(wanted, card)}, but the bot said: {shown(activity)}"]
    text = activity.get("text")
    if isinstance(wanted, str) and text:
        lines += difflib.ndiff(wanted.splitlines(), str(text).splitlines())
    return "\n".join(line.rstrip("\n") for line in lines)
