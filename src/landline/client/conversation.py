"""One conversation: carries out what `landline.core.session.Session` decides, over a stream or by polling.

One task drives the session and another keeps its token fresh. What arrives waits in a bounded buffer until the
application takes it; while the buffer is full nothing is read, so that the server holds its stream back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from landline.client.buffer import Buffer, Item
from landline.client.calls import JSON, Answer, Calls, File, Opened, multipart, opened_by
from landline.client.errors import Closed, DirectLineError, TokenRejected
from landline.client.options import LONGEST_WAIT_S, Options, chance
from landline.client.sending import Sending
from landline.client.states import Change, Replay, State, States
from landline.core.session import (
    Decision,
    Deliver,
    HangUp,
    NewToken,
    Open,
    Over,
    Patience,
    Reconnect,
    Refresh,
    Session,
    Wait,
)

Activity = dict[str, Any]
NewTokenCallback = Callable[[str], Awaitable[str]]

_log = logging.getLogger("landline.client")

_UNSAID_LIFE_S = 1800.0
"""How long a token lives where nobody said so: the hosted service's half hour, which is the shortest known."""
_LONGEST_BEAT_S = 30.0
_GONE, _FORBIDDEN = 4404, 4403


class Conversation:
    """Made by `DirectLine.start` and `DirectLine.resume`. `async for activity in conversation` gives each activity
    once, in order (C1); an update has a known id and other content, a deletion is a `messageDelete`.

    The iteration ends when the conversation is closed or deleted, and raises `TokenRejected` when no credential of this
    program is valid for it any more. Several readers share the activities: each goes to one of them.
    """

    def __init__(
        self,
        calls: Calls,
        conversation_id: str,
        credential: str,
        *,
        user: Activity,
        options: Options,
        new_token: NewTokenCallback | None,
        on_over: Callable[[Conversation], None],
    ) -> None:
        self.id = conversation_id
        self.user = user
        self.token = credential
        """The token that is used at present; it changes when it is refreshed."""
        self.watermark = ""
        """The position behind what the application has taken. Keep it beside `id` to `resume` with after a restart."""
        self._calls = calls
        self._credential = credential
        self._options = options
        self._new_token = new_token
        self._on_over = on_over
        patience = Patience(options.first_wait_s, options.longest_wait_s, least=0.0)
        self._session = Session(patience, options.remembered)
        self._buffer = Buffer(options.buffered, options.buffered_bytes)
        self._states = States()
        self._retry_after_s = 0.0
        self._streamless = _STREAMLESS_AFTER if options.polling else 0
        self._has_streams = True
        self._renewed_at: float | None = None
        self._replay: Replay | None = None
        self._sending = Sending(calls, options)
        self._beat_s = _LONGEST_BEAT_S
        self._tasks: list[asyncio.Task[None]] = []
        self._rejected: TokenRejected | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    # What the application does.

    @property
    def state(self) -> State:
        """How the line stands at this moment."""
        return self._states.last.state

    def states(self) -> AsyncIterator[Change]:
        """The state as it is, then each change, until it is over. `replay` says what a reconnect may miss (C8)."""
        return self._states.changes()

    def __aiter__(self) -> Conversation:
        return self

    async def __anext__(self) -> Activity:
        while (item := await self._buffer.get()) is not None:
            self.watermark = item.watermark or self.watermark
            if item.activity is not None:
                return dict(msgspec.json.decode(item.activity))
        if self._rejected is not None:
            raise self._rejected
        raise StopAsyncIteration

    async def receive(self, timeout_s: float | None = None) -> Activity:
        """The next activity. Raises `TimeoutError` when none came in time, and `Closed` when none will come."""
        async with asyncio.timeout(timeout_s):
            try:
                return await anext(self)
            except StopAsyncIteration:
                raise Closed(self._states.last.reason) from None

    async def send(
        self, activity: str | Mapping[str, Any], *, key: str | None = None, timeout_s: float | None = None
    ) -> str:
        """Send a message, or any activity, and answer its id: it is accepted, and the bot took it.

        Repeated until the deadline, under one `Idempotency-Key` (yours, if you give `key`), where no answer came and
        the server knows the header (C11). Raises `BotFailed` when it is accepted and the bot did not take it,
        `OutcomeUnknown` when it may be accepted (C12), `Unreachable` when it is not, `Refused` when the server does not
        want it.
        """
        body: Activity = {"type": "message", "text": activity} if isinstance(activity, str) else dict(activity)
        encoded = msgspec.json.encode({"from": self.user} | body)
        return await self._post("activities", encoded, JSON, key, timeout_s)

    async def typing(self) -> str:
        """Tell the bot that the user is writing."""
        return await self.send({"type": "typing"})

    async def upload(
        self,
        *files: Path | str | File,
        text: str | None = None,
        activity: Mapping[str, Any] | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> str:
        """Send files, by their paths or as `File`, with one message. Otherwise as `send`."""
        read = [each if isinstance(each, File) else await asyncio.to_thread(_read, Path(each)) for each in files]
        words = {"text": text} if text is not None else {}
        body, content_type = multipart({"type": "message", "from": self.user} | words | dict(activity or {}), read)
        return await self._post("upload", body, content_type, key, timeout_s)

    def cut(self) -> None:
        """Cut the stream as a network does, without a word to either side: for tests of what a program makes of it."""
        if self._socket is not None and (connection := self._socket.get_extra_info("socket")) is not None:
            with socket.socket(fileno=os.dup(connection.fileno())) as wire, contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Leave: the stream is closed, iterations end. The conversation stays on the server. May be repeated."""
        self._session.stop()
        self._over("closed")
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Conversation:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _post(self, path: str, body: bytes, content_type: str, key: str | None, timeout_s: float | None) -> str:
        async def attempt(key: str) -> Answer:
            if self.state is State.OVER:
                raise Closed(self._states.last.reason)
            whither = f"/conversations/{self.id}/{path}"
            return await self._calls.call("POST", whither, self.token, body=body, content_type=content_type, key=key)

        return await self._sending.send(attempt, self._renew_for_send, key or uuid.uuid4().hex, timeout_s)

    # The driver.

    def begin(self, opened: Opened, watermark: str, replay: Replay | None) -> None:
        """Take up the line with what a start or a reconnect answered."""
        self._session.watermark = self.watermark = watermark
        self._heed(replay)
        self._has_streams = bool(opened.stream_url)
        self._take_token(opened)
        first = self._session.started(opened.stream_url or "", _life_s(opened), self._now())
        self._tasks = [asyncio.create_task(self._drive(first)), asyncio.create_task(self._keep_token())]

    async def _drive(self, decision: Decision | None) -> None:
        try:
            while decision is not None and not isinstance(decision, Over):
                decision = await self._carry_out(decision)
            self._over(decision.reason if isinstance(decision, Over) else "closed")
        except TokenRejected as rejected:
            self._rejected = rejected
            self._over("token-rejected")
        except Exception as error:
            _log.exception("conversation %s ended by a failure of the client", self.id)
            self._over(f"failed: {error}")
            raise

    async def _carry_out(self, decision: Decision) -> Decision | None:
        match decision:
            case Open(stream_url):
                return await self._open(stream_url)
            case Wait(seconds):
                self._say(State.RECONNECTING)
                wait_s, self._retry_after_s = max(seconds, min(self._retry_after_s, LONGEST_WAIT_S)), 0.0
                await asyncio.sleep(wait_s)
                return self._session.waited()
            case Reconnect(watermark):
                return await self._reconnect(watermark)
            case NewToken():
                self._say(State.WAITING_FOR_TOKEN)
                return await self._renew()
            case _:
                raise AssertionError(f"{decision} is not for the driver")

    async def _open(self, stream_url: str) -> Decision | None:
        if not stream_url or self._streamless >= _STREAMLESS_AFTER:
            return await self._poll(for_good=not stream_url or self._options.polling)
        try:
            options = self._options
            stream = await self._calls.stream(stream_url, options.heartbeat_s, options.close_timeout_s)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            _log.info("stream of %s: %s", self.id, error)
            self._streamless += 1
            return self._session.lost(chance())
        self._streamless = 0
        self._socket = stream
        try:
            return await self._read(stream)
        finally:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await stream.close()

    async def _read(self, stream: aiohttp.ClientWebSocketResponse) -> Decision | None:
        self._session.opened()
        self._online()
        # The library answers pings while it reads, and raises where the connection is gone by then.
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async for message in stream:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                decision = self._session.frame(message.data.encode("utf-8", "surrogatepass"))
                if isinstance(decision, HangUp):
                    await stream.close(code=1007)
                    break
                await self._deliver(decision)
        return self._session.lost(chance(), stream.close_code)

    async def _poll(self, *, for_good: bool) -> Decision | None:
        """Get Activities in place of a stream: its pages are activity sets like any frame."""
        self._session.opened()
        again_at = self._now() + self._options.stream_again_s
        while for_good or self._now() < again_at:
            try:
                answer = await self._get("/activities", self._session.watermark)
            except DirectLineError as error:
                _log.info("poll of %s: %s", self.id, error)
                return self._session.lost(chance())
            if not answer.ok:
                self._retry_after_s = answer.retry_after_s or 0.0
                code = {404: _GONE, 401: _FORBIDDEN, 403: _FORBIDDEN}.get(answer.status)
                return self._session.lost(chance(), code)
            self._heed(answer.replay)
            self._online()
            decision = self._session.frame(answer.body)
            if isinstance(decision, HangUp):
                return self._session.lost(chance())
            await self._deliver(decision)
            if decision is None:
                await asyncio.sleep(self._options.poll_s)
        self._streamless = _STREAMLESS_AFTER - 1
        return self._session.lost(0.0)

    async def _deliver(self, decision: Decision | None) -> None:
        if not isinstance(decision, Deliver):
            return
        *before, last = decision.activities
        for activity in before:
            await self._buffer.put(Item(activity, None))
        await self._buffer.put(Item(last, self._session.watermark))

    async def _reconnect(self, watermark: str) -> Decision | None:
        if not self._has_streams:  # nor, as a rule, a reconnect: it is polled on
            return self._session.answered("", _UNSAID_LIFE_S, self._now())
        try:
            answer = await self._get("", watermark)
            if not answer.ok:
                self._retry_after_s = answer.retry_after_s or 0.0
                return self._session.refused(chance(), answer.status)
            found = opened_by(answer)
        except DirectLineError as error:
            _log.info("reconnect of %s: %s", self.id, error)
            return self._session.refused(chance(), None)
        self._heed(answer.replay)
        self._take_token(found)
        return self._session.answered(found.stream_url or "", _life_s(found), self._now())

    async def _renew(self) -> Decision | None:
        """A new token from the callback; or once more the credential that the program gave."""
        now, last = self._now(), self._renewed_at
        again = last is not None and now - last < LONGEST_WAIT_S
        self._renewed_at = now
        if self._new_token is not None:
            if again:  # the callback's last token did not help for long, and its next may not either
                await asyncio.sleep(self._options.longest_wait_s * chance())
            self.token = await self._asked(self._new_token)
        elif again or self.token == self._credential:
            raise TokenRejected(403, "", "neither the token nor the credential it came from is valid any more")
        else:
            self.token = self._credential
        return self._session.renewed(_UNSAID_LIFE_S, self._now())

    async def _asked(self, callback: NewTokenCallback) -> str:
        """The callback's token, however often it takes: its backend may be as far away as the server."""
        wait_s = self._options.first_wait_s
        while True:
            try:
                return await callback(self.id)
            except Exception:  # noqa: BLE001 - of the program's own code, which is asked again
                _log.exception("no new token for %s", self.id)
            await asyncio.sleep(wait_s * chance())
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    async def _keep_token(self) -> None:
        """Refresh the token at half of its life, as the session says."""
        while True:
            await asyncio.sleep(self._beat_s)
            if isinstance(self._session.tick(self._now()), Refresh):
                await self._refresh()

    async def _refresh(self) -> None:
        try:
            answer = await self._calls.call("POST", "/tokens/refresh", self.token)
            if answer.ok:
                found = opened_by(answer)
                self._take_token(found)
                self._session.refreshed(_life_s(found), self._now())
                return
            status: int | None = answer.status
        except DirectLineError:
            status = None
        if isinstance(self._session.refresh_failed(self._now(), status), NewToken) and self._new_token is not None:
            self.token = await self._asked(self._new_token)
            self._session.renewed(_UNSAID_LIFE_S, self._now())

    async def _renew_for_send(self) -> None:
        """A token that was refused costs one look for another; the stream stays as it is (D-43)."""
        if self._new_token is not None:
            self.token = await self._new_token(self.id)
            return
        answer = await self._calls.call("GET", f"/conversations/{self.id}", self._credential, query={"watermark": ""})
        if not answer.ok:
            raise answer.error()
        self._take_token(opened_by(answer))

    # Small things.

    async def _get(self, path: str, watermark: str) -> Answer:
        return await self._calls.call(
            "GET", f"/conversations/{self.id}{path}", self.token, query={"watermark": watermark}
        )

    def _take_token(self, opened: Opened) -> None:
        self.token = opened.token or self.token
        life_s = _life_s(opened)
        self._beat_s = min(_LONGEST_BEAT_S, max(life_s / 8, 0.05))

    def _heed(self, replay: Replay | None) -> None:
        if replay is not None and replay is not Replay.COMPLETE:
            self._replay = replay
            _log.warning("conversation %s: the replay is %s", self.id, replay.value)

    def _online(self) -> None:
        replay, self._replay = self._replay, None
        if replay is not None or self.state is not State.ONLINE:
            self._states.change(Change(State.ONLINE, "polling" if self._polls else "", replay))

    @property
    def _polls(self) -> bool:
        return self._streamless >= _STREAMLESS_AFTER

    def _say(self, state: State) -> None:
        if self.state is not state:
            self._states.change(Change(state))

    def _over(self, reason: str) -> None:
        self._states.change(Change(State.OVER, reason))
        self._buffer.end()
        self._on_over(self)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


_STREAMLESS_AFTER = 3
"""Streams in a row that could not be opened although the reconnect before was answered: then it is polled."""


def _life_s(opened: Opened) -> float:
    return opened.expires_in if opened.expires_in and opened.expires_in > 0 else _UNSAID_LIFE_S


def _read(path: Path) -> File:
    return File(path.name, path.read_bytes())
