"""Browser pages with the published DirectLineJS in them: a Node process, driven over its standard input and output.

What runs in the pages, and what is put around it, is told in `tests/directlinejs/client.mjs`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

Activity = dict[str, Any]

CLIENT = Path(__file__).parent.parent / "directlinejs" / "client.mjs"
ORIGIN = "http://shop.example"
EARLIER = ("0.11", "0.13")
"""Versions of DirectLineJS that pages in use still have, beside the newest."""
SCALE = 20.0
"""How many seconds pass in a page while one passes here."""
_LINE_BYTES = 1 << 22


@dataclass
class Socket:
    """One WebSocket that a page opened, and everything that came through it."""

    url: str
    frames: list[str] = field(default_factory=list)
    opened: bool = False
    close_code: int | None = None
    close_reason: str | None = None

    @property
    def open(self) -> bool:
        """Whether the page can still receive on it, as far as the page knows."""
        return self.opened and self.close_code is None

    @property
    def sets(self) -> list[dict[str, Any]]:
        """The ActivitySets that came, in order, without the keep-alives."""
        return [json.loads(frame) for frame in self.frames if frame]

    @property
    def activities(self) -> list[Activity]:
        """The activities that came, in order."""
        return [activity for each in self.sets for activity in each["activities"]]


class Page:
    """One page. Made by `Browser.page`; what happened in it can be read from it at any time."""

    def __init__(self, browser: Browser, number: int, scale: float) -> None:
        self.scale = scale
        self.conversation_id: str | None = None
        self.token: str | None = None
        self.statuses: list[str] = []
        """The statuses that `connectionStatus$` went through."""
        self.activities: list[Activity] = []
        """What `activity$` emitted, repeats included: DirectLineJS does not drop them."""
        self.watermark: str | None = None
        """The client's own watermark when it emitted its last activity."""
        self.sockets: list[Socket] = []
        self.stopped: str | None = None
        """Why `activity$` came to an end, if it did."""
        self.console: list[str] = []
        self._browser = browser
        self._number = number
        self._posts: dict[int, asyncio.Future[str]] = {}
        self._news = asyncio.Event()

    @property
    def status(self) -> str:
        """The present status."""
        return self.statuses[-1] if self.statuses else "Uninitialized"

    @property
    def open_sockets(self) -> list[Socket]:
        """The sockets that it can receive on."""
        return [each for each in self.sockets if each.open]

    @property
    def distinct(self) -> list[Activity]:
        """What a client shows that drops what it has already: the same id with the same content (8.4)."""
        seen: dict[str, Activity] = {}
        for activity in self.activities:
            seen.setdefault(json.dumps(activity, sort_keys=True), activity)
        return list(seen.values())

    @property
    def texts(self) -> list[str]:
        """The texts of the distinct activities, in order."""
        return [str(each.get("text")) for each in self.distinct]

    async def start(self, domain: str, **options: object) -> Page:
        """`new DirectLine({domain, ...options})`, and subscribe to its status and activities. Answers itself."""
        await self._say("start", options={"domain": domain, **options})
        return self

    async def post(self, text: str, timeout: float = 25, **properties: object) -> str:
        """Post a message and answer what DirectLineJS says of it: its id, or `"retry"`. Raises PostFailed."""
        number = next(self._browser.numbers)
        posted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._posts[number] = posted
        activity = {"type": "message", "text": text, "from": {"id": "user"}, **properties}
        await self._say("post", post=number, activity=activity)
        async with asyncio.timeout(timeout):
            return await posted

    async def reconnect(self, conversation: dict[str, Any]) -> None:
        """`directLine.reconnect(conversation)`: what a page does that obtained a new token."""
        await self._say("reconnect", conversation=conversation)

    async def end(self) -> None:
        """`directLine.end()`."""
        await self._say("end")

    async def close(self) -> None:
        """Leave the page, as closing a tab does."""
        await self._say("close")

    async def until(self, promise: Callable[[Page], object], what: str, timeout: float = 30) -> None:
        """Wait until `promise(page)` holds. AssertionError naming `what` after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not promise(self):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {timeout} s: {what}\n{self}") from None

    async def until_streaming(self, sockets: int = 1, timeout: float = 30) -> None:
        """Wait until it is online and the newest of at least `sockets` sockets is open."""
        await self.until(
            lambda page: page.status == "Online" and len(page.sockets) >= sockets and page.sockets[-1].open,
            f"online, with {sockets} sockets opened so far and the last one in use",
            timeout,
        )

    async def until_text(self, text: str, timeout: float = 30) -> None:
        """Wait until an activity with this text was received."""
        await self.until(
            lambda page: text in (each.get("text") for each in page.activities), f"receives {text!r}", timeout
        )

    def __str__(self) -> str:
        sockets = [(each.opened, each.close_code, each.close_reason, len(each.activities)) for each in self.sockets]
        return (
            f"statuses {self.statuses}, stopped {self.stopped}, received {len(self.activities)}, last "
            f"{self.texts[-5:]}, sockets (opened, code, reason, activities) {sockets}, console {self.console[-5:]}"
        )

    async def _say(self, verb: str, **details: object) -> None:
        await self._browser.say(page=self._number, verb=verb, **details)

    def happened(self, event: str, facts: dict[str, Any]) -> None:
        """Take one event in; the browser calls this."""
        getattr(self, f"_on_{event}")(**facts)
        self._news.set()

    def _on_status(self, status: str, **known: str | None) -> None:
        self.statuses.append(status)
        self.conversation_id, self.token = known.get("conversationId"), known.get("token")

    def _on_activity(self, activity: Activity, watermark: str) -> None:
        self.activities.append(activity)
        self.watermark = watermark

    def _on_stopped(self, message: str) -> None:
        self.stopped = message

    def _on_posted(self, post: int, id: str | None = None, error: dict[str, Any] | None = None) -> None:
        posted = self._posts.pop(post)
        if posted.done():
            return
        if error is None:
            posted.set_result(str(id))
        else:
            posted.set_exception(PostFailed(error.get("status"), error.get("message")))

    def _on_socket(self, socket: int, state: str, url: str = "", code: int = 0, reason: str = "") -> None:
        if state == "connecting":
            self.sockets.append(Socket(url))
        elif state == "open":
            self.sockets[socket].opened = True
        else:
            self.sockets[socket].close_code, self.sockets[socket].close_reason = code, reason

    def _on_frame(self, socket: int, data: str) -> None:
        self.sockets[socket].frames.append(data)

    def _on_console(self, level: str, message: str) -> None:
        self.console.append(f"{level}: {message}")


class PostFailed(Exception):
    """DirectLineJS reported an error for a post."""

    def __init__(self, status: int | None, message: str | None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Browser:
    """The Node process. Pages in it share nothing but the process; an error in the driver itself fails the test."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self._pages: dict[int, Page] = {}
        self._process: asyncio.subprocess.Process
        self._listening: asyncio.Task[None]

    async def __aenter__(self) -> Browser:
        self._process = await asyncio.create_subprocess_exec(
            "node", str(CLIENT), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES
        )
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), 20)
        await self._listening

    async def page(self, scale: float = SCALE, luck: float | None = None, version: str = "") -> Page:
        """A new page whose clock runs `scale` times as fast. With `luck` its every random number is that one; with
        `version` it has that DirectLineJS, one of `EARLIER`."""
        number = next(self.numbers)
        page = self._pages[number] = Page(self, number, scale)
        await self.say(page=number, verb="open", origin=ORIGIN, scale=scale, luck=luck, version=version)
        return page

    async def say(self, **command: object) -> None:
        """Send one command."""
        if self._listening.done():
            await self._listening  # raises what ended it
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] == "failed":
                raise AssertionError(event["message"])
            self._pages[event.pop("page")].happened(event.pop("event"), event)
