"""The how-to pages followed to the end: the bot, the backend and the page that they print, in a real Chromium.

Only ports are changed, and what a page has installed stands where its commands would have put it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.browsers import Browsers
from support.howtos import followed, printed
from support.landline import Landline, free_port
from support.relay import Relay
from support.web_chat import RECONNECT_S, WebChat


async def test_the_first_steps_lead_to_a_page_that_talks_to_the_bot(tmp_path: Path, open_page: Browsers) -> None:
    """And that shows the conversation again when it is loaded again, though it keeps nothing itself."""
    bot_port = free_port()
    async with (
        Landline(tmp_path / "data", bot=f"http://127.0.0.1:{bot_port}/api/messages", drain_s=0) as landline,
        followed(tmp_path, landline, bot_port, printed("first-steps.md"), landline.directline) as url,
        open_page.own(url, landline.url) as page,
    ):
        await page.say("hi")
        await page.until_last("You said: hi")
        await page.reload()
        assert await page.until_last("You said: hi") == ["hi", "You said: hi"]


def test_the_page_prints_the_same_store_as_the_demo_uses() -> None:
    ours = Path(__file__).parents[2] / "web" / "src" / "store.js"
    assert printed("web-chat.md")["store.js"] == ours.read_text("utf-8")


@pytest.fixture
async def outlived(tmp_path: Path, open_page: Browsers) -> AsyncIterator[tuple[WebChat, Relay, Landline]]:
    """The page of docs/howto/web-chat.md behind a line that can be cut, when its first token has expired."""
    life_s = 8
    bot_port, files = free_port(), printed("first-steps.md") | printed("web-chat.md")
    async with (
        Landline(
            tmp_path / "data",
            bot=f"http://127.0.0.1:{bot_port}/api/messages",
            drain_s=0,
            token_ttl_s=life_s,
            clock_leeway_s=0,
        ) as landline,
        Relay(landline.port) as relay,
        followed(tmp_path, landline, bot_port, files, f"http://127.0.0.1:{relay.port}/v3/directline") as url,
        open_page.own(url, f"http://127.0.0.1:{relay.port}") as page,
    ):
        await page.say("hi")
        await page.until_last("You said: hi")
        await asyncio.sleep(life_s + 1)  # the subject is that time passes
        page.excuse("403", "Failed to load resource", "token has expired")
        yield page, relay, landline


async def test_a_page_that_is_open_goes_on_with_another_token(outlived: tuple[WebChat, Relay, Landline]) -> None:
    """A send that met the expired token is sent by Web Chat's own Retry; what comes after it needs nothing."""
    page, _, _ = outlived
    await page.say("late")
    await page.press("Retry")
    await page.until_last("You said: late", timeout=2 * RECONNECT_S)


async def test_a_page_that_is_loaded_again_asks_its_backend(outlived: tuple[WebChat, Relay, Landline]) -> None:
    page, _, _ = outlived
    await page.reload()
    assert await page.until_last("You said: hi") == ["hi", "You said: hi"]
    await page.say("again")
    await page.until_last("You said: again")


async def test_a_device_that_slept_longer_than_its_token_lives_gets_what_it_missed(
    outlived: tuple[WebChat, Relay, Landline],
) -> None:
    """Its line was cut meanwhile, and the reconnect is refused. Another tab says something that it must get."""
    page, relay, landline = outlived
    other = await page.tab.context.new_page()
    await other.goto(page.url)
    beside = WebChat(other, page.url, landline.url)
    await beside.until_last("You said: hi")
    for link in relay.streams[:1]:
        link.cut()
    await beside.say("meanwhile")
    await beside.until_last("You said: meanwhile")
    texts = await page.until_last("You said: meanwhile", timeout=3 * RECONNECT_S)
    assert texts == ["hi", "You said: hi", "meanwhile", "You said: meanwhile"]
