"""An operator at the admin API of a real server: every call says what it sends and answers what came."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from yarl import URL

from landline.conformance.directline import Answer
from support.landline import Landline


def credential_of(data: Path) -> str:
    """What the server of this data directory made at its first start."""
    return (data / "admin-secret").read_text().strip()


class Operator:
    """`async with Operator(landline) as operator:`. With the credential from the data directory unless one is given."""

    _session: aiohttp.ClientSession

    def __init__(self, landline: Landline, credential: str | None = None) -> None:
        self.landline = landline
        self.credential = credential

    async def __aenter__(self) -> Operator:
        credential = credential_of(self.landline.data) if self.credential is None else self.credential
        headers = {"Authorization": f"Bearer {credential}"} if credential else {}
        tls = aiohttp.TCPConnector(ssl=self.landline.trust)
        self._session = aiohttp.ClientSession(headers=headers, skip_auto_headers=("Content-Type",), connector=tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Any call below `/admin`. A text body goes out as it is."""
        data = body if body is None or isinstance(body, str) else json.dumps(body)
        url = URL(f"{self.landline.url}/admin{path}", encoded=True)
        async with self._session.request(method, url, data=data, headers=headers, allow_redirects=False) as response:
            answer = Answer(response.status, response.headers, await response.read())
        assert answer.headers.get("X-Correlating-OperationId"), answer
        assert not [name for name in answer.headers if name.lower().startswith("access-control")], answer
        if answer.status != 204:
            assert answer.headers["Cache-Control"] == "no-store", answer
            assert answer.headers["Content-Type"] == "application/json; charset=utf-8", answer
        return answer

    async def done(self, method: str, path: str, body: object = None) -> Any:
        """The same, where only a good answer will do; what it says."""
        answer = await self.call(method, path, body)
        assert answer.status in (200, 201, 204), answer
        return answer.json if answer.body else None

    async def add_bot(self, bot_id: str, endpoint: str | None = None, **more: object) -> Any:
        """A bot."""
        return await self.done("POST", "/bots", {"id": bot_id, "endpoint": endpoint, **more})

    async def add_site(self, site_id: str, bot_id: str = "bot", **more: object) -> str:
        """A site; its first secret."""
        return str((await self.done("POST", "/sites", {"id": site_id, "bot_id": bot_id, **more}))["secret"])

    async def rotate(self, site_id: str, key: int) -> str:
        """Rotate a key; its new secret."""
        return str((await self.done("POST", f"/sites/{site_id}/secrets/{key}/rotate"))["secret"])

    async def revoke(self, site_id: str, key: int) -> str:
        """Revoke a key; its new secret."""
        return str((await self.done("POST", f"/sites/{site_id}/secrets/{key}/revoke"))["secret"])

    async def disable(self, site_id: str) -> None:
        """Disable a site."""
        await self.done("PATCH", f"/sites/{site_id}", {"enabled": False})
