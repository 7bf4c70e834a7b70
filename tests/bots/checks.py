"""What the check bots on Python share. Those on JavaScript have the same in `js/checks.mjs`.

A check bot is an ordinary bot, written as users of its SDK write theirs, that can be told what to do:

    any text               answers "echo: <text>"
    typing                 sends a typing activity, then "echo: typing"
    batch                  sends "batch 1", a typing activity and "batch 2" in one call of the SDK
    burst N                sends "burst 1" to "burst N" in one turn
    steady burst N         the same with a pause after each; goes on with the next, a while later, where a send fails
    later N seconds TEXT   ends the turn and sends TEXT N seconds afterwards
    card                   sends a hero card and an inline picture
    members                asks the connector who takes part: "members: <id> <id> …" (the Agents SDK for JavaScript
                           can only ask for one at a time, and asks for itself and the sender)
    update                 sends "before", then changes it to "after"
    delete                 sends "gone", deletes it, then sends "deleted"
    attach                 uploads a picture through the connector and sends it
    create                 starts a conversation with whoever asks, says "I began this" there, and here "created <id>"
    stream                 streams "one two three" (Agents SDK only)
    signin                 sends a sign-in card, and says what token the user has: "token: none"
    end                    sends endOfConversation
    (a file)               answers "got <n> bytes of <content type>"
    membersAdded           answers "hello <id>" for each member but itself
    event NAME             answers "event: <name>"
    invoke ping            answers 200 {"pong": <value>}
    invoke refuse          answers 418 {"reason": "teapot"}
    invoke empty           answers 200 without a body

    GET  /health           200
    GET  /sent             ?conversation=…: what the SDK was answered there by the connector, [[text, id], …]
    POST /proactive        {"conversationId": …, "text": …}: says it there by the saved reference; answers {"id": …};
                           "serviceUrl" stands in for that of the reference

`CHECK_BOT_REFERENCES` names the JSON file that keeps conversation references over restarts.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import socket
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CONNECTOR = "https://api.botframework.com"
INLINE = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
PAUSE_S = 0.01
"""After each message of a steady burst."""
AFTER_A_FAILURE_S = 0.2
"""After one that was not sent, so that a burst outlives who is killed in the middle of it."""


class References:
    """Conversation references by conversation id; each change is on disk before the turn goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def save(self, conversation_id: str, reference: Any) -> None:
        if self._saved.get(conversation_id) != reference:
            self._saved[conversation_id] = reference
            aside = self._path.with_suffix(".new")
            aside.write_text(json.dumps(self._saved))
            aside.replace(self._path)

    def find(self, conversation_id: str) -> Any:
        return self._saved.get(conversation_id)


class Sent:
    """What the connector answered, in order, by conversation."""

    def __init__(self) -> None:
        self.by_conversation: dict[str, list[tuple[str, str]]] = defaultdict(list)

    async def burst(self, conversation_id: str, count: int, say: Callable[[str], Awaitable[str]]) -> None:
        """A steady burst."""
        for number in range(1, count + 1):
            text = f"burst {number}"
            try:
                self.by_conversation[conversation_id].append((text, await say(text)))
                await asyncio.sleep(PAUSE_S)
            except Exception as error:  # noqa: BLE001  # each SDK has its own
                print(f"{text}: {error!r}", file=sys.stderr, flush=True)
                await asyncio.sleep(AFTER_A_FAILURE_S)


class CheckBot:
    """The turns, in the words that both SDKs for Python have: `class Bot(CheckBot, ActivityHandler)`.

    `core` and `schema` are the modules that have those words. What the SDKs say in words of their own is below.
    """

    core: Any
    schema: Any
    InvokeResponse: Any
    oneself: str
    """Its word for the bot of a conversation."""
    adapter: Any
    app_id: str

    def __init__(self) -> None:
        super().__init__()
        self.references = References(Path(os.environ["CHECK_BOT_REFERENCES"]))
        self.sent = Sent()
        self._later: set[asyncio.Task[str]] = set()

    # What each SDK brings

    async def turn(self, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError

    async def speak(self, reference: Any, text: str) -> str:
        """Say something outside of a turn; answers the id that the channel gave it."""
        raise NotImplementedError

    def connector(self, context: Any) -> Any:
        """The client of the connector in this turn."""
        raise NotImplementedError

    def picture(self) -> Any:
        """`PICTURE`, as the SDK takes it for an upload."""
        raise NotImplementedError

    # Turns

    async def on_members_added_activity(self, members_added: list[Any], turn_context: Any) -> None:
        for member in members_added:
            if member.id != turn_context.activity.recipient.id:
                await turn_context.send_activity(f"hello {member.id}")

    async def on_event_activity(self, turn_context: Any) -> None:
        await turn_context.send_activity(f"event: {turn_context.activity.name}")

    async def on_invoke_activity(self, turn_context: Any) -> Any:
        match turn_context.activity.name:
            case "ping":
                return self.InvokeResponse(status=200, body={"pong": turn_context.activity.value})
            case "refuse":
                return self.InvokeResponse(status=418, body={"reason": "teapot"})
            case "empty":
                return self.InvokeResponse(status=200)
        return self.InvokeResponse(status=501)

    async def on_message_activity(self, turn_context: Any) -> None:
        context, text = turn_context, turn_context.activity.text or ""
        if context.activity.attachments:
            await context.send_activity(await fetched(context.activity.attachments[0].content_url))
        elif burst := asked_for(text, r"(steady )?burst (\d+)"):
            await self._burst(context, int(burst[2]), steady=bool(burst[1]))
        elif later := asked_for(text, r"later ([\d.]+) seconds (.+)"):
            reference = self.references.find(context.activity.conversation.id)
            task = asyncio.create_task(self._speak_later(float(later[1]), reference, later[2]))
            self._later.add(task)
            task.add_done_callback(self._later.discard)
        elif command := getattr(self, f"do_{text}", None):
            await command(context)
        else:
            await context.send_activity(f"echo: {text}")

    async def _burst(self, context: Any, count: int, *, steady: bool) -> None:
        async def say(text: str) -> str:
            return (await context.send_activity(text)).id

        if steady:
            await self.sent.burst(context.activity.conversation.id, count, say)
            return
        for number in range(1, count + 1):
            await say(f"burst {number}")

    async def _speak_later(self, seconds: float, reference: Any, text: str) -> str:
        await asyncio.sleep(seconds)
        return await self.speak(reference, text)

    # Commands

    async def do_typing(self, context: Any) -> None:
        await context.send_activity(self._typing())
        await context.send_activity("echo: typing")

    async def do_batch(self, context: Any) -> None:
        text = self.core.MessageFactory.text
        await context.send_activities([text("batch 1"), self._typing(), text("batch 2")])

    def _typing(self) -> Any:
        return self.schema.Activity(type=self.schema.ActivityTypes.typing)

    async def do_card(self, context: Any) -> None:
        card = self.core.CardFactory.hero_card(self.schema.HeroCard(title="A card"))
        picture = self.schema.Attachment(content_type="image/png", content_url=INLINE, name="dot.png")
        await context.send_activity(self.core.MessageFactory.list([card, picture], text="a card"))

    async def do_members(self, context: Any) -> None:
        conversation_id = context.activity.conversation.id
        conversations = self.connector(context).conversations
        members = await conversations.get_conversation_members(conversation_id)
        paged = await conversations.get_conversation_paged_members(conversation_id)
        assert [each.id for each in paged.members] == [each.id for each in members]
        one = getattr(conversations, "get_conversation_member", None)  # not in every SDK
        assert one is None or (await one(conversation_id, members[-1].id)).id == members[-1].id
        await context.send_activity("members: " + " ".join(each.id for each in members))

    async def do_update(self, context: Any) -> None:
        changed = self.core.MessageFactory.text("after")
        changed.id = (await context.send_activity("before")).id
        await context.update_activity(changed)

    async def do_delete(self, context: Any) -> None:
        await context.delete_activity((await context.send_activity("gone")).id)
        await context.send_activity("deleted")

    async def do_attach(self, context: Any) -> None:
        data = self.schema.AttachmentData(name="dot.png", original_base64=self.picture(), type="image/png")
        uploaded = await self.connector(context).conversations.upload_attachment(context.activity.conversation.id, data)
        url = f"{context.activity.service_url}/v3/attachments/{uploaded.id}/views/original"
        picture = self.schema.Attachment(content_type="image/png", content_url=url, name="dot.png")
        await context.send_activity(self.core.MessageFactory.attachment(picture, text="attached"))

    async def do_create(self, context: Any) -> None:
        begun: list[str] = []

        async def begin(there: Any) -> None:
            await there.send_activity("I began this")
            begun.append(there.activity.conversation.id)

        activity = context.activity
        user = self.schema.ChannelAccount(id=activity.from_property.id)
        who = {self.oneself: activity.recipient, "members": [user]}
        await self.adapter.create_conversation(
            self.app_id,
            callback=begin,
            conversation_parameters=self.schema.ConversationParameters(is_group=False, **who),
            channel_id=activity.channel_id,
            service_url=activity.service_url,
            audience=CONNECTOR,
        )
        await context.send_activity(f"created {begun[0]}")

    async def do_end(self, context: Any) -> None:
        kind = self.schema.ActivityTypes.end_of_conversation
        await context.send_activity(self.schema.Activity(type=kind, code="completedSuccessfully"))


async def fetched(url: str) -> str:
    """What a file brings, in words."""
    async with ClientSession() as session, session.get(url) as answer:
        answer.raise_for_status()
        return f"got {len(await answer.read())} bytes of {answer.content_type}"


def asked_for(text: str, pattern: str) -> re.Match[str] | None:
    return re.fullmatch(pattern, text, re.DOTALL)


def print_hosts() -> None:
    """Have the log name every host that this process wants to reach."""
    look_up = socket.getaddrinfo

    def looking_up(host: Any, *more: Any, **besides: Any) -> Any:
        print("looks up", host, flush=True)
        return look_up(host, *more, **besides)

    socket.getaddrinfo = looking_up


def serve(bot: CheckBot) -> None:
    """Listen on the port that the command line names."""
    print_hosts()

    async def proactive(request: web.Request) -> web.Response:
        wanted = await request.json()
        reference = bot.references.find(wanted["conversationId"])
        if reference is None:
            return web.json_response({"error": "no reference of this conversation"}, status=404)
        if "serviceUrl" in wanted:
            reference = {**reference, "serviceUrl": wanted["serviceUrl"]}
        return web.json_response({"id": await bot.speak(reference, wanted["text"])})

    async def sent(request: web.Request) -> web.Response:
        return web.json_response(bot.sent.by_conversation[request.query["conversation"]])

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/api/messages", bot.turn)
    app.router.add_post("/proactive", proactive)
    app.router.add_get("/sent", sent)
    app.router.add_get("/health", health)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
