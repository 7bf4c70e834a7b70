"""One turn of the demo's bot: the activity that it was sent, and how it speaks through the connector. What it says is
decided in `demo.bot`.
"""

from __future__ import annotations

import base64
from typing import Any

import aiohttp

Activity = dict[str, Any]


class Turn:
    """Everything goes to the service URL that `activity` brought, as with every SDK. Each call raises
    `aiohttp.ClientError` if the connector does not take it."""

    def __init__(self, connector: aiohttp.ClientSession, activity: Activity) -> None:
        self.activity = activity
        self._connector = connector
        self._service = f"{activity['serviceUrl'].rstrip('/')}/v3"

    @property
    def conversation(self) -> str:
        """The id of the conversation."""
        return str(self.activity["conversation"]["id"])

    async def reply(self, **content: object) -> Activity:
        """Say it as an answer to the activity. Answers what was said, with its id; a message unless `content` says
        otherwise."""
        return await self._post(f"/activities/{self.activity['id']}", content)

    async def say(self, **content: object) -> Activity:
        """Say it of the bot's own accord."""
        return await self._post("/activities", content)

    async def change(self, said: Activity, **content: object) -> Activity:
        """Have it say this instead."""
        changed = {**said, **content}
        await self._ask("PUT", self._path_of(said), changed)
        return changed

    async def take_back(self, said: Activity) -> None:
        """Have it said no longer."""
        await self._ask("DELETE", self._path_of(said))

    async def upload(self, name: str, kind: str, content: bytes) -> str:
        """Leave a file with the channel; answers where clients find it."""
        file = {"name": name, "type": kind, "originalBase64": base64.b64encode(content).decode()}
        left = await self._ask("POST", "/attachments", file)
        return f"{self._service}/attachments/{left['id']}/views/original"

    async def _post(self, path: str, content: Activity) -> Activity:
        said = {"type": "message", "from": self.activity["recipient"], **content}
        return {**said, **await self._ask("POST", path, said)}

    async def _ask(self, method: str, path: str, body: Activity | None = None) -> Any:
        url = f"{self._service}/conversations/{self.conversation}{path}"
        async with self._connector.request(method, url, json=body) as answer:
            answer.raise_for_status()
            return await answer.json() if answer.content_length else None

    def _path_of(self, said: Activity) -> str:
        return f"/activities/{said['id']}"
