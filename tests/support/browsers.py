"""Chromiums, and the pages that are open in them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.web_chat import DemoPage, WebChat

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


class Browsers:
    """Opens pages, each in a Chromium of its own that knows nothing yet, or in further tabs of one."""

    def __init__(self, playwright: Any, profiles: pytest.TempPathFactory, closers: AsyncExitStack) -> None:
        self.pages: list[WebChat] = []
        self._playwright = playwright
        self._profiles = profiles
        self._closers = closers

    async def __call__(self, url: str, scheme: str = "light", width: int = 1280, height: int = 800) -> DemoPage:
        """The demo's page: `await open_page(url, width=390, height=844)`."""
        return await self._demo_page(await self._tab(scheme, width, height), url)

    async def beside(self, page: DemoPage) -> DemoPage:
        """The same page in another tab of the same browser."""
        return await self._demo_page(await page.tab.context.new_page(), page.url)

    @contextlib.asynccontextmanager
    async def own(self, url: str, server: str) -> AsyncIterator[WebChat]:
        """A page from elsewhere, in which Web Chat talks to `server`. It is closed first, since it would complain of a
        server that is gone."""
        page = WebChat(await self._tab("light", 1000, 800), url, server)
        self.pages.append(page)
        await page.tab.goto(url)
        try:
            yield page
        finally:
            await page.tab.context.close()

    async def _demo_page(self, tab: Any, url: str) -> DemoPage:
        page = DemoPage(tab, url)
        self.pages.append(page)
        return await page.load()

    async def _tab(self, scheme: str, width: int, height: int) -> Any:
        browser = await self._playwright.chromium.launch_persistent_context(
            self._profiles.mktemp("chromium"),
            executable_path=CHROMIUM,
            headless=True,
            args=list(FLAGS),
            color_scheme=scheme,
            viewport={"width": width, "height": height},
        )
        self._closers.push_async_callback(browser.close)
        return browser.pages[0]
