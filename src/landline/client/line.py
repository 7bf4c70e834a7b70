"""The client: an address, a credential, and the conversations that it has begun."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from landline.client.calls import Answer, Calls, opened_by
from landline.client.conversation import Activity, Conversation, NewTokenCallback
from landline.client.errors import DirectLineError, OutcomeUnknown, Unreachable
from landline.client.options import Options, chance

_PATH = "/v3/directline"


class DirectLine:
    """`async with DirectLine(url, secret_or_token) as line:` talks to one Direct Line 3.0 server.

    `url` is the server, or its Direct Line base if that is not at `/v3/directline`. `new_token` is asked for a token of
    a conversation, by its id, when none of the client's own is valid any more.
    """

    def __init__(
        self,
        url: str,
        credential: str,
        *,
        new_token: NewTokenCallback | None = None,
        options: Options | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        """A `session` of yours is used and not closed; with one come your proxies, your TLS and your headers."""
        self.base = _base(url)
        self._credential = credential
        self._new_token = new_token
        self._options = options or Options()
        self._given = session
        self._session: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None
        self._conversations: set[Conversation] = set()

    async def __aenter__(self) -> DirectLine:
        # Each conversation holds a connection for its stream: the usual 100 would be a limit of conversations.
        self._session = self._given or aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        # A stream begins on a connection of its own: one that calls have left may be dead without a sign of it.
        self._streams = self._given or aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all conversations and connections. May be repeated."""
        await asyncio.gather(*(each.close() for each in list(self._conversations)))
        sessions = self._session, self._streams
        self._session = self._streams = None
        for session in sessions:
            if session is not None and self._given is None:
                await session.close()

    async def start(self, user: str | Mapping[str, Any] | None = None, *, locale: str | None = None) -> Conversation:
        """Start a conversation, or join the one that the token is for.

        Tried until `send_timeout_s`; with a secret, a try whose answer was lost leaves an unused conversation behind.
        Raises `Unreachable`, `TokenRejected` or another `Refused`."""
        account = _account(user)
        body = msgspec.json.encode({"user": account} | ({"locale": locale} if locale else {}))
        calls = self._calls()
        answer = await self._until_answered(lambda: calls.call("POST", "/conversations", self._credential, body=body))
        return self._begin(calls, answer, account, self._credential, "")

    async def resume(
        self,
        conversation_id: str,
        *,
        watermark: str = "",
        token: str | None = None,
        user: str | Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Go on with a conversation behind `watermark`; without one, from its beginning (C4).

        Raises as `start`; `Refused` with status 404 when there is no such conversation any more."""
        credential, calls = token or self._credential, self._calls()
        path, query = f"/conversations/{quote(conversation_id, safe='')}", {"watermark": watermark}
        answer = await self._until_answered(lambda: calls.call("GET", path, credential, query=query))
        return self._begin(calls, answer, _account(user), credential, watermark)

    def _begin(self, calls: Calls, answer: Answer, user: Activity, credential: str, watermark: str) -> Conversation:
        opened = opened_by(answer)
        conversation = Conversation(
            calls,
            opened.conversation_id,
            credential,
            user=user,
            options=self._options,
            new_token=self._new_token,
            on_over=self._conversations.discard,
        )
        self._conversations.add(conversation)
        conversation.begin(opened, watermark, answer.replay)
        return conversation

    def _calls(self) -> Calls:
        if self._session is None or self._streams is None:
            raise RuntimeError("use it as: async with DirectLine(url, secret_or_token) as line")
        return Calls(self.base, self._session, self._streams, self._options.request_timeout_s)

    async def _until_answered(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Try again while nobody answers, or the server says that it will be able to later."""
        loop, wait_s = asyncio.get_running_loop(), self._options.first_wait_s
        give_up_at = loop.time() + self._options.send_timeout_s
        while True:
            retry_after_s = 0.0
            try:
                answer = await call()
                if answer.ok:
                    return answer
                last: DirectLineError = answer.error()
                if answer.status not in (429, 502, 503, 504):
                    raise last
                retry_after_s = answer.retry_after_s or 0.0
            except (Unreachable, OutcomeUnknown) as error:
                last = Unreachable(str(error))
            pause_s = max(retry_after_s, wait_s * chance())
            wait_s = min(wait_s * 2, self._options.longest_wait_s)
            if loop.time() + pause_s > give_up_at:
                raise last
            await asyncio.sleep(pause_s)


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{url!r} is not the address of a server, such as https://chat.example.org")
    url = url.rstrip("/")
    return url if parts.path.rstrip("/").endswith("/directline") else url + _PATH


def _account(user: str | Mapping[str, Any] | None) -> Activity:
    if user is None:
        return {"id": f"user-{uuid.uuid4().hex}"}
    return {"id": user} if isinstance(user, str) else dict(user)
