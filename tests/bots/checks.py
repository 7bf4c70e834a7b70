"""What the check bots on Python share, none of it an SDK's. Those on JavaScript have the same in `js/checks.mjs`.

A check bot is an ordinary bot, written as users of its SDK write theirs, that can be told what to do:

    any text               answers "echo: <text>"
    typing                 sends a typing activity, then "echo: typing"
    batch                  sends "batch 1", a typing activity and "batch 2" in one call of the SDK
    burst N                sends "burst 1" to "burst N" in one turn
    steady burst N         the same with a pause after each; goes on with the next where a send fails
    later N seconds TEXT   ends the turn and sends TEXT N seconds afterwards
    card                   sends a hero card and an inline picture
    members                asks the connector who takes part: "members: <id> <id> …" (the Agents SDK for JavaScript
                           can only ask for one at a time, and asks for itself and the sender)
    update                 sends "before", then changes it to "after"
    delete                 sends "gone", deletes it, then sends "deleted"
    attach                 uploads a picture through the connector and sends it
    stream                 streams "one two three" (Agents SDK only)
    end                    sends endOfConversation
    (a file)               answers "got <n> bytes of <content type>"
    membersAdded           answers "hello <id>" for each member but itself
    event NAME             answers "event: <name>"
    invoke ping            answers 200 {"pong": <value>}
    invoke refuse          answers 418 {"reason": "teapot"}
    invoke empty           answers 200 without a body

    GET  /health           200
    GET  /sent             ?conversation=…: what the SDK was answered there by the connector, [[text, id], …]
    POST /proactive        {"conversationId": …, "text": …}: says it there by the saved reference; answers {"id": …}

`CHECK_BOT_REFERENCES` names the JSON file that keeps conversation references over restarts.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from aiohttp import ClientSession, web

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
INLINE = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
PAUSE_S = 0.01
"""After each message of a steady burst."""


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
            except Exception as error:  # noqa: BLE001  # each SDK has its own
                print(f"{text}: {error!r}", file=sys.stderr, flush=True)
            await asyncio.sleep(PAUSE_S)


class CheckBot(Protocol):
    """What each SDK brings."""

    references: References
    sent: Sent

    async def turn(self, request: web.Request) -> web.StreamResponse: ...

    async def speak(self, reference: Any, text: str) -> str:
        """Say something outside of a turn; answers the id that the channel gave it."""
        ...


async def fetched(url: str) -> str:
    """What a file brings, in words."""
    async with ClientSession() as session, session.get(url) as answer:
        answer.raise_for_status()
        return f"got {len(await answer.read())} bytes of {answer.content_type}"


def asked_for(text: str, pattern: str) -> re.Match[str] | None:
    return re.fullmatch(pattern, text, re.DOTALL)


def serve(bot: CheckBot) -> None:
    """Listen on the port that the command line names."""

    async def proactive(request: web.Request) -> web.Response:
        wanted = await request.json()
        reference = bot.references.find(wanted["conversationId"])
        if reference is None:
            return web.json_response({"error": "no reference of this conversation"}, status=404)
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


def kept_references() -> References:
    return References(Path(os.environ["CHECK_BOT_REFERENCES"]))
