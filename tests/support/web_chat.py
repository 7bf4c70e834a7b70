"""The demo's page in a real Chromium: what a person sees of it, and what a person can do there.

Nothing in the page is prepared for tests. Messages are read from Web Chat's own bubbles, buttons are found by what is
written on them, and whatever the page complains about, or asks of another server, is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

RECONNECT_S = 15
"""DirectLineJS waits 3 to 15 s before it reconnects."""

DEADLINE_S = 20.0


class WebChat:
    """One tab with the page at `url` in it. `load` first."""

    def __init__(self, tab: Any, url: str) -> None:
        self.tab = tab
        self.url = url
        self.complaints: list[str] = []
        """Errors and warnings of the page, and what its content security policy forbade."""
        self.strangers: list[str] = []
        """Requests that left for another server."""
        tab.on("console", self._hear)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("request", lambda request: self._note_request(request.url))
        tab.on("websocket", lambda websocket: self._note_request(websocket.url))

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _note_request(self, url: str) -> None:
        ours = (f"{self.url}/", f"ws{self.url.removeprefix('http')}/", "data:", "blob:")
        if not url.startswith(ours):
            self.strangers.append(url)

    async def load(self) -> WebChat:
        """Open the page and wait until its line is open. Answers itself."""
        await self.tab.goto(self.url)
        await self.until_line("open")
        return self

    async def reload(self) -> None:
        """What the reload button does; done when the line is open again."""
        await self.tab.reload()
        await self.until_line("open")

    async def say(self, text: str) -> None:
        """Type it and press Enter."""
        box = self.tab.get_by_placeholder("Type your message")
        await box.fill(text)
        await box.press("Enter")

    async def press(self, button: str) -> None:
        """Click on a button by its name."""
        await self.tab.get_by_role("button", name=button).click()

    async def texts(self) -> list[str]:
        """What is written in the bubbles, from top to bottom."""
        found: list[str] = await self.tab.locator("main .webchat__bubble .webchat__text-content").all_inner_texts()
        return [text.strip() for text in found]

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

    async def colour(self, selector: str, of: str) -> tuple[int, int, int]:
        """The computed colour of an element."""
        script = f"element => getComputedStyle(element)[{of!r}].match(/[0-9.]+/g).slice(0, 3).map(Number)"
        red, green, blue = await self.tab.locator(selector).first.evaluate(script)
        return red, green, blue

    async def screenshot(self, path: Path) -> None:
        """As it looks now."""
        await self.tab.screenshot(path=str(path))
