"""Web Chat in a real Chromium: what a person sees of it, and what a person can do there.

Nothing in a page is prepared for tests. Messages are read from Web Chat's own bubbles, buttons are found by what is
written on them, and whatever a page complains about, fails to get, or asks of somebody else is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RECONNECT_S = 15
"""DirectLineJS waits 3 to 15 s before it reconnects."""

DEADLINE_S = 20.0


class WebChat:
    """One tab with the page at `url` in it, in which there is a Web Chat that talks to the server at `server`."""

    def __init__(self, tab: Any, url: str, server: str) -> None:
        self.tab = tab
        self.url = url
        self.complaints: list[str] = []
        """Errors and warnings of the page, what its content security policy forbade, and requests that failed."""
        self.strangers: list[str] = []
        """Requests that left for another server."""
        self._excused: list[str] = []
        self._known = tuple(each for base in (url, server) for each in (f"{base}/", f"ws{base.removeprefix('http')}/"))
        tab.on("console", self._hear)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("request", lambda request: self._note_request(request.url))
        tab.on("websocket", lambda websocket: self._note_request(websocket.url))
        tab.on("requestfailed", self._note_failure)
        tab.on("response", self._note_response)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _note_request(self, url: str) -> None:
        if not url.startswith((*self._known, "data:", "blob:")):
            self.strangers.append(url)

    def _note_failure(self, request: Any) -> None:
        # Aborted is what the page itself gives up: when it is left, or when Web Chat draws a picture anew.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"{request.failure}: {request.url}")

    def _note_response(self, response: Any) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")

    def excuse(self, *patterns: str) -> None:
        """What this test does to the page makes it complain of that."""
        self._excused += patterns

    @property
    def faults(self) -> list[str]:
        """What it complained of without excuse, and whom it asked that it must not."""
        told = [each for each in self.complaints if not any(re.search(pattern, each) for pattern in self._excused)]
        return told + self.strangers

    async def reload(self) -> None:
        """What the reload button does."""
        await self.tab.reload()

    async def say(self, text: str) -> None:
        """Type it and press Enter."""
        box = self.tab.get_by_placeholder("Type your message")
        await box.fill(text)
        await box.press("Enter")

    async def tell(self, text: str) -> None:
        """Say it, and wait until the bot's turn is over. That takes no stream."""
        async with self.tab.expect_response(lambda response: _is_send(response.request)):
            await self.say(text)

    async def attach(self, file: Path) -> None:
        """Pick the file, as with the paper clip, and when it is ticked press the button that sends it."""
        async with self.tab.expect_file_chooser() as choosing:
            await self.press("Upload file")
        await (await choosing.value).set_files(str(file))
        await self.tab.locator(".webchat__attachment-icon--checked").wait_for()
        await self.press("Send")

    def button(self, name: str) -> Any:
        """The button with that name, and not the copy of it that Web Chat makes for screen readers."""
        copies = ".webchat__live-region-activity"
        return self.tab.locator(f"button:not({copies} *)").and_(self.tab.get_by_role("button", name=name, exact=True))

    async def press(self, name: str) -> None:
        """Click on a button by its name."""
        await self.button(name).click()

    @property
    def typing(self) -> Any:
        """What shows that somebody types."""
        return self.tab.locator(".webchat__typing-indicator")

    @property
    def card(self) -> Any:
        """The card in the transcript."""
        return self.tab.locator(".webchat__bubble .webchat__adaptive-card-renderer")

    @property
    def rows(self) -> Any:
        """The rows of the transcript."""
        return self.tab.locator(".webchat__basic-transcript__activity")

    async def texts(self) -> list[str]:
        """What is written in the bubbles, from top to bottom."""
        found: list[str] = await self.tab.locator(".webchat__bubble .webchat__text-content").all_inner_texts()
        return [text.strip() for text in found]

    async def until_texts(
        self, promise: Callable[[Sequence[str]], object], what: str, timeout: float = DEADLINE_S
    ) -> list[str]:
        """Wait until `promise` holds of the texts, and answer them. AssertionError naming `what` after `timeout`."""
        waited = 0.0
        while True:
            texts = await self.texts()
            if promise(texts):
                return texts
            if waited > timeout:
                raise AssertionError(
                    f"{what}: not after {timeout} s; there is {texts}, and complaints {self.complaints}"
                )
            await self.tab.wait_for_timeout(50)
            waited += 0.05

    async def until_last(self, text: str, timeout: float = DEADLINE_S) -> list[str]:
        """Wait until `text` is the last that is written there, and answer all."""
        return await self.until_texts(lambda texts: texts and texts[-1] == text, f"{text!r} is shown", timeout)

    async def until_picture(self, picture: Any) -> tuple[str, int]:
        """Wait until the `img` is drawn; answer where it came from, and how wide it is by nature."""
        await picture.wait_for()
        await picture.evaluate("picture => picture.decode()")
        source, width = await picture.evaluate("picture => [picture.currentSrc, picture.naturalWidth]")
        return source, width

    async def colour(self, selector: str, of: str) -> tuple[int, int, int]:
        """The computed colour of an element."""
        return rgb(await self.tab.locator(selector).first.evaluate(f"element => getComputedStyle(element)[{of!r}]"))

    async def screenshot(self, path: Path) -> None:
        """As it looks now."""
        await self.tab.screenshot(path=str(path))


def rgb(colour: str) -> tuple[int, int, int]:
    """A computed colour, as CSS writes it."""
    red, green, blue = (int(float(each)) for each in re.findall(r"[0-9.]+", colour)[:3])
    return red, green, blue


def _is_send(request: Any) -> bool:
    return bool(request.method == "POST" and request.url.endswith("/activities"))


class DemoPage(WebChat):
    """The page of `landline demo`. `load` first."""

    def __init__(self, tab: Any, url: str) -> None:
        super().__init__(tab, url, url)

    async def load(self) -> DemoPage:
        """Open the page and wait until its line is open. Answers itself."""
        await self.tab.goto(self.url)
        await self.until_line("open")
        return self

    async def reload(self) -> None:
        """What the reload button does; done when the line is open again."""
        await self.tab.reload()
        await self.until_line("open")

    async def notes(self) -> list[str]:
        """The page's record of its line, newest first."""
        found: list[str] = await self.tab.locator(".notes li .text").all_text_contents()
        return found

    async def fact(self, name: str) -> str:
        """A number that the panel shows."""
        found: str = await self.tab.locator(f".facts div:has(dt:text('{name}')) dd").inner_text()
        return found

    async def until_line(self, state: str, timeout: float = DEADLINE_S) -> None:
        """Wait until the panel says that the line is open, or cut."""
        await self.tab.get_by_role("status").get_by_text(f"The line is {state}.").wait_for(timeout=timeout * 1000)
