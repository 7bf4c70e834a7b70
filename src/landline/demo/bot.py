"""The bot of the demo: it repeats what it is told, and speaks several times when asked to.

It shares the process and nothing else. It is reached over HTTP like any bot, and answers through the connector, at the
service URL that each activity brings; what the demo shows is what a bot elsewhere would show.
"""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp import web

Activity = dict[str, Any]

SPEAK = "demo/speak"
"""The event that asks for several messages in a row; its value says how many."""

MOST_AT_ONCE = 20

_GREETING = (
    "Hello. I repeat whatever you say. Then cut the line and let me speak: what I say while you are away "
    "will be waiting for you, once and in order."
)
_ANSWER_S = 20
"""The connector waits out trouble of its own for longer than a request of ours usually takes, but not for this long."""


class EchoBot:
    """`start`, then `endpoint` is where it takes activities; `stop` when done. One event loop."""

    def __init__(self) -> None:
        application = web.Application()
        application.router.add_post("/api/messages", self._turn)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        self._connector: aiohttp.ClientSession | None = None

    @property
    def endpoint(self) -> str:
        """The messaging endpoint."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/api/messages"

    async def start(self) -> None:
        """Listen on a free port of the loopback address."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._connector = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_S))

    async def stop(self) -> None:
        """End; turns under way get a second. May be repeated."""
        await self._runner.cleanup()
        if self._connector is not None:
            await self._connector.close()

    async def _turn(self, request: web.Request) -> web.Response:
        """One activity. The answer leaves when the turn is over, as with every SDK (bot-side fact 3)."""
        activity: Activity = await request.json()
        match activity["type"]:
            case "message":
                await self._reply(activity, f"I heard: {activity.get('text', '')}")
            case "event" if activity.get("name") == SPEAK:
                await self._speak(activity)
            case "conversationUpdate" if _a_user_joins(activity):
                await self._say(activity, _GREETING)
        return web.Response()

    async def _speak(self, activity: Activity) -> None:
        """One after the other: the order in which the connector takes them is the order that clients see."""
        asked = activity.get("value")
        times = min(asked, MOST_AT_ONCE) if isinstance(asked, int) else 1
        for number in range(1, times + 1):
            await self._say(activity, f"Message {number} of {times}.")

    async def _reply(self, activity: Activity, text: str) -> None:
        await self._post(activity, f"/{activity['id']}", text)

    async def _say(self, activity: Activity, text: str) -> None:
        await self._post(activity, "", text)

    async def _post(self, activity: Activity, reply_to: str, text: str) -> None:
        assert self._connector is not None
        conversation = f"{activity['serviceUrl']}/v3/conversations/{activity['conversation']['id']}"
        said = {"type": "message", "text": text, "from": activity["recipient"]}
        async with self._connector.post(f"{conversation}/activities{reply_to}", json=said) as answer:
            answer.raise_for_status()


def _a_user_joins(activity: Activity) -> bool:
    bot = activity["recipient"]["id"]
    return any(member["id"] != bot for member in activity.get("membersAdded", ()))
