"""A bot that says what a test tells it to, for authors of clients."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from aiohttp import web

from landline.conformance.scripted_bot import ScriptedBot

Activity = dict[str, Any]
Said = str | Activity


class Bot:
    """`landline.bot`. Until it is told something else it answers `You said: …`."""

    def __init__(self) -> None:
        self._server = ScriptedBot(on_activity=self._turn)
        self._rules: list[tuple[re.Pattern[str], tuple[Said, ...]]] = []
        self._status: int | None = None
        self.otherwise: Callable[[Activity], Said | None] = lambda activity: f"You said: {activity.get('text')}"
        """What it answers to a message that no `when` is for; None is nothing."""

    @property
    def endpoint(self) -> str:
        """Its messaging endpoint."""
        return self._server.endpoint

    @property
    def received(self) -> list[Activity]:
        """All activities that reached it, in order."""
        return [each.activity for each in self._server.received]

    def when(self, pattern: str, *answers: Said) -> Bot:
        """Answer a message whose whole text matches the regular expression with these texts or activities."""
        self._rules.insert(0, (re.compile(pattern), answers))
        return self

    def fail(self, status: int | None = 500) -> None:
        """Answer every activity with this status from now on; None: as before."""
        self._status = status

    async def start(self) -> None:
        """Listen on a free port."""
        await self._server.__aenter__()

    async def stop(self) -> None:
        """End."""
        await self._server.__aexit__(None, None, None)

    async def _turn(self, server: ScriptedBot, activity: Activity) -> web.Response | None:
        if self._status is not None:
            return web.Response(status=self._status)
        if activity.get("type") == "message":
            for answer in self._answers(activity):
                body = {"type": "message", "text": answer} if isinstance(answer, str) else answer
                await server.reply(activity["conversation"]["id"], activity["id"], body)
        return None

    def _answers(self, activity: Activity) -> tuple[Said, ...]:
        for pattern, answers in self._rules:
            if pattern.fullmatch(activity.get("text") or ""):
                return answers
        other = self.otherwise(activity)
        return () if other is None else (other,)
