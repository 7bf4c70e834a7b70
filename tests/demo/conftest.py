from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from landline.config import Settings
from landline.demo.page import STATIC
from landline.demo.server import Demo
from support.landline import SECRET
from support.web_chat import CHROMIUM, FLAGS, WebChat


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A free port, a directory of its own, a secret that tests know, and a stop without patience."""
    return Settings(port=0, data=tmp_path / "data", secret=SECRET, drain_s=0)


@pytest.fixture
async def demo(settings: Settings) -> AsyncIterator[Demo]:
    """A running demo."""
    demo = Demo(settings)
    await demo.start()
    yield demo
    await demo.stop()


@pytest.fixture
async def open_page(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[..., Awaitable[WebChat]]]:
    """Opens pages, each in a Chromium of its own that knows nothing yet: `await open_page(url, width=390, height=844)`.

    When the test is over, no page may have asked anything of another server.
    """
    missing = _missing()
    if missing:
        pytest.skip(missing)
    from playwright.async_api import async_playwright

    pages: list[WebChat] = []
    async with AsyncExitStack() as closers:
        playwright = await closers.enter_async_context(async_playwright())

        async def open_page(url: str, scheme: str = "light", width: int = 1280, height: int = 800) -> WebChat:
            browser = await playwright.chromium.launch_persistent_context(
                tmp_path_factory.mktemp("chromium"),
                executable_path=CHROMIUM,
                headless=True,
                args=list(FLAGS),
                color_scheme=scheme,
                viewport={"width": width, "height": height},
            )
            closers.push_async_callback(browser.close)
            page = WebChat(browser.pages[0], url)
            pages.append(page)
            return await page.load()

        yield open_page
    assert [page.strangers for page in pages if page.strangers] == []


def _missing() -> str | None:
    """What this machine lacks, and how it gets it."""
    if importlib.util.find_spec("playwright") is None:
        return "the Python package `playwright` is not installed: pip install --group dev"
    if CHROMIUM is None:
        return "no Chromium on this machine: apt-get install chromium"
    if not (STATIC / "index.html").exists():
        return "the page is not built: cd web && npm ci && npm run build"
    return None
