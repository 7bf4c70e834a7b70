"""The client for scripts without an event loop: the same names, and each call waits for its outcome.

    with DirectLine(url, secret_or_token) as line:
        conversation = line.start(user="ann")
        conversation.send("hi")
        print(conversation.receive(timeout_s=10)["text"])

A thread of its own keeps the line while the script does something else. It may be used from several threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from landline.client import conversation as _conversation
from landline.client import line as _line
from landline.client.calls import File
from landline.client.options import Options
from landline.client.states import State

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]


class DirectLine:
    """As `landline.client.DirectLine`, in a `with` block. `new_token` is called in the thread of the line."""

    def __init__(
        self,
        url: str,
        credential: str,
        *,
        new_token: Callable[[str], str] | None = None,
        options: Options | None = None,
    ) -> None:
        self._line = _line.DirectLine(url, credential, new_token=_in_thread(new_token), options=options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> DirectLine:
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(loop,), name="landline-client", daemon=True)
        self._thread.start()
        try:
            self._run(self._line.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._line.close())
        finally:
            self._stop()

    def start(self, user: str | Mapping[str, Any] | None = None, *, locale: str | None = None) -> Conversation:
        """As `landline.client.DirectLine.start`."""
        return Conversation(self._run(self._line.start(user, locale=locale)), self._run)

    def resume(
        self,
        conversation_id: str,
        *,
        watermark: str = "",
        token: str | None = None,
        user: str | Mapping[str, Any] | None = None,
    ) -> Conversation:
        """As `landline.client.DirectLine.resume`."""
        resumed = self._line.resume(conversation_id, watermark=watermark, token=token, user=user)
        return Conversation(self._run(resumed), self._run)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeError("use it as: with DirectLine(url, secret_or_token) as line")
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()  # Ctrl-C in the script: what it waited for is not wanted any more
            raise

    def _stop(self) -> None:
        loop, thread, self._loop = self._loop, self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


class Conversation:
    """As `landline.client.Conversation`."""

    def __init__(self, inner: _conversation.Conversation, run: Run) -> None:
        self._inner = inner
        self._run = run

    @property
    def id(self) -> str:
        return self._inner.id

    @property
    def token(self) -> str:
        return self._inner.token

    @property
    def state(self) -> State:
        return self._inner.state

    @property
    def watermark(self) -> str:
        return self._inner.watermark

    def send(self, activity: str | Mapping[str, Any], *, key: str | None = None, timeout_s: float | None = None) -> str:
        """As `landline.client.Conversation.send`."""
        return str(self._run(self._inner.send(activity, key=key, timeout_s=timeout_s)))

    def typing(self) -> str:
        """As `landline.client.Conversation.typing`."""
        return str(self._run(self._inner.typing()))

    def upload(
        self,
        *files: Path | str | File,
        text: str | None = None,
        activity: Mapping[str, Any] | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> str:
        """As `landline.client.Conversation.upload`."""
        sent = self._inner.upload(*files, text=text, activity=activity, key=key, timeout_s=timeout_s)
        return str(self._run(sent))

    def receive(self, timeout_s: float | None = None) -> dict[str, Any]:
        """As `landline.client.Conversation.receive`."""
        return dict(self._run(self._inner.receive(timeout_s)))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (activity := self._run(_next(self._inner))) is not None:
            yield activity

    def close(self) -> None:
        """As `landline.client.Conversation.close`."""
        self._run(self._inner.close())


async def _next(conversation: _conversation.Conversation) -> dict[str, Any] | None:
    return await anext(conversation, None)


def _in_thread(callback: Callable[[str], str] | None) -> Callable[[str], Awaitable[str]] | None:
    if callback is None:
        return None

    async def ask(conversation_id: str) -> str:
        return await asyncio.to_thread(callback, conversation_id)

    return ask


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
