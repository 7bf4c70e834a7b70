"""An ordinary bot on the Bot Framework SDK for Python, as its users write them.

Runs in an environment of its own (`requirements.txt`), so it imports nothing of ours. What it does:

    any text               answers "echo: <text>"
    typing                 sends a typing activity, then "echo: typing"
    burst N                sends "burst 1" to "burst N" in one turn
    later N seconds TEXT   ends the turn and sends TEXT N seconds afterwards
    membersAdded           answers "hello <id>" for each member but itself

    GET  /health           200
    POST /proactive        {"conversationId": …, "text": …}: says it there by the saved reference; answers {"id": …}

    python echo_bot.py PORT

`ECHO_BOT_REFERENCES` names the JSON file that keeps conversation references over restarts. `ECHO_BOT_CONFIG` has the
attributes of its configuration, as Python; without it the bot has no app id.
"""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

from aiohttp import web
from botbuilder.core import ActivityHandler, TurnContext
from botbuilder.integration.aiohttp import CloudAdapter, ConfigurationBotFrameworkAuthentication
from botbuilder.schema import Activity, ActivityTypes, ChannelAccount, ConversationReference


class References:
    """Conversation references by conversation id; each change is on disk before the turn goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved: dict[str, dict[str, object]] = json.loads(path.read_text()) if path.exists() else {}

    def save(self, reference: ConversationReference) -> None:
        serialized = reference.serialize()
        if self._saved.get(reference.conversation.id) != serialized:
            self._saved[reference.conversation.id] = serialized
            aside = self._path.with_suffix(".new")
            aside.write_text(json.dumps(self._saved))
            aside.replace(self._path)

    def find(self, conversation_id: str) -> ConversationReference | None:
        saved = self._saved.get(conversation_id)
        return ConversationReference().deserialize(saved) if saved else None


class EchoBot(ActivityHandler):
    """The turns."""

    def __init__(self, adapter: CloudAdapter, references: References, app_id: str) -> None:
        self._adapter = adapter
        self._app_id = app_id
        self._references = references
        self._later: set[asyncio.Task[str]] = set()

    async def on_turn(self, turn_context: TurnContext) -> None:
        self._references.save(TurnContext.get_conversation_reference(turn_context.activity))
        await super().on_turn(turn_context)

    async def on_members_added_activity(self, members_added: list[ChannelAccount], turn_context: TurnContext) -> None:
        for member in members_added:
            if member.id != turn_context.activity.recipient.id:
                await turn_context.send_activity(f"hello {member.id}")

    async def on_message_activity(self, turn_context: TurnContext) -> None:
        text = turn_context.activity.text or ""
        if burst := re.fullmatch(r"burst (\d+)", text):
            for number in range(1, int(burst[1]) + 1):
                await turn_context.send_activity(f"burst {number}")
            return
        if later := re.fullmatch(r"later ([\d.]+) seconds (.+)", text, re.DOTALL):
            reference = TurnContext.get_conversation_reference(turn_context.activity)
            task = asyncio.create_task(self._speak_later(float(later[1]), reference, later[2]))
            self._later.add(task)
            task.add_done_callback(self._later.discard)
            return
        if text == "typing":
            await turn_context.send_activity(Activity(type=ActivityTypes.typing))
        await turn_context.send_activity(f"echo: {text}")

    async def _speak_later(self, seconds: float, reference: ConversationReference, text: str) -> str:
        await asyncio.sleep(seconds)
        return await self.speak(reference, text)

    async def speak(self, reference: ConversationReference, text: str) -> str:
        """Say something outside of a turn; answers the id that the channel gave it."""
        ids: list[str] = []

        async def say(turn_context: TurnContext) -> None:
            response = await turn_context.send_activity(text)
            ids.append(response.id)

        # Anonymous bots have no app id; the SDK wants a text nevertheless.
        await self._adapter.continue_conversation(reference, say, self._app_id)
        return ids[0]


def configuration() -> SimpleNamespace:
    attributes: dict[str, object] = {}
    exec(os.environ.get("ECHO_BOT_CONFIG", ""), {}, attributes)
    return SimpleNamespace(**attributes)


def application(references: References) -> web.Application:
    config = configuration()
    adapter = CloudAdapter(ConfigurationBotFrameworkAuthentication(config))
    bot = EchoBot(adapter, references, getattr(config, "APP_ID", ""))

    async def messages(request: web.Request) -> web.Response:
        return await adapter.process(request, bot)

    async def proactive(request: web.Request) -> web.Response:
        wanted = await request.json()
        reference = references.find(wanted["conversationId"])
        if reference is None:
            return web.json_response({"error": "no reference of this conversation"}, status=404)
        return web.json_response({"id": await bot.speak(reference, wanted["text"])})

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/api/messages", messages)
    app.router.add_post("/proactive", proactive)
    app.router.add_get("/health", health)
    return app


if __name__ == "__main__":
    web.run_app(
        application(References(Path(os.environ["ECHO_BOT_REFERENCES"]))),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
    )
