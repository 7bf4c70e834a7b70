from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from landline.config import Settings
from landline.demo.page import STATIC
from landline.demo.server import Demo
from support.browsers import CHROMIUM, Browsers
from support.landline import SECRET
from support.own_page import WEB_CHAT


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
async def open_page(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browsers]:
    """Opens pages. When the test is over, no page may have complained without excuse, or asked anything of a server
    that it does not know."""
    missing = _missing()
    if missing:
        pytest.skip(missing)
    from playwright.async_api import async_playwright

    async with AsyncExitStack() as closers:
        playwright = await closers.enter_async_context(async_playwright())
        browsers = Browsers(playwright, tmp_path_factory, closers)
        yield browsers
    assert [page.faults for page in browsers.pages if page.faults] == []


def _missing() -> str | None:
    """What this machine lacks, and how it gets it."""
    if importlib.util.find_spec("playwright") is None:
        return "the Python package `playwright` is not installed: pip install --group dev"
    if CHROMIUM is None:
        return "no Chromium on this machine: apt-get install chromium"
    if not (STATIC / "index.html").exists() or not WEB_CHAT.exists():
        return "the page is not built: cd web && npm ci && npm run build"
    return None
