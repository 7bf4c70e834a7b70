"""One conversation in several tabs: each shows everything, once, in the order of the log, whichever of them was cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest

from landline.conformance.directline import DEADLINE_S, DirectLine
from landline.demo.server import Demo
from support.browsers import Browsers
from support.landline import SECRET
from support.own_page import OwnSite
from support.relay import Relay
from support.web_chat import RECONNECT_S, WebChat

PEOPLE = ("Ann", "Ben", "Cy")
ROUNDS = 3


@pytest.fixture
async def client(demo: Demo) -> AsyncIterator[DirectLine]:
    """What reads the log."""
    async with DirectLine(f"{demo.url}/v3/directline", SECRET) as client:
        yield client


async def log_with(client: DirectLine, conversation_id: str, said: Sequence[str]) -> list[str]:
    """The messages of the log, as they are written in bubbles, once the bot has answered everything in `said`."""
    answers = {f"I heard: {text}" for text in said}
    async with asyncio.timeout(DEADLINE_S):
        while True:
            log = [each["text"] for each in await client.all_activities(conversation_id) if each["type"] == "message"]
            if answers <= set(log):
                return [text.replace("**", "") for text in log]
            await asyncio.sleep(0.05)


async def all_show(pages: Sequence[WebChat], log: Sequence[str]) -> None:
    for page in pages:
        await page.until_texts(lambda texts: len(texts) >= len(log), "everything is there", RECONNECT_S + 25)
        assert await page.texts() == log


async def test_three_tabs_of_one_browser_show_the_same(demo: Demo, client: DirectLine, open_page: Browsers) -> None:
    """All lines of the conversation are cut at once; each tab comes back in its own time."""
    first = await open_page(demo.url)
    tabs = [first, await open_page.beside(first), await open_page.beside(first)]
    conversation_id = await first.tab.evaluate("localStorage.getItem('landline-demo-conversation')")
    said: list[str] = []

    async def speak(when: str) -> None:
        texts = [f"{when}, tab {number}" for number in range(1, 4)]
        await asyncio.gather(*(tab.say(text) for tab, text in zip(tabs, texts, strict=True)))
        said.extend(texts)

    await speak("Before")
    await all_show(tabs, await log_with(client, conversation_id, said))
    await tabs[1].press("Cut the line")
    for tab in tabs:
        await tab.until_line("cut")
    await speak("Meanwhile")
    for tab in tabs:
        await tab.until_line("open", RECONNECT_S + 5)
    await speak("After")
    log = await log_with(client, conversation_id, said)
    assert sorted(text for text in log if text in said) == sorted(said)
    await all_show(tabs, log)
    await tabs[2].reload()
    await all_show(tabs, log)
    assert {await tab.fact("Reconnects") for tab in tabs[:2]} == {"1"}


async def test_three_people_show_the_same_when_the_line_of_one_is_cut(
    demo: Demo, client: DirectLine, open_page: Browsers
) -> None:
    """Each has a browser, and a network, of their own; Ben's is reset, torn in the middle of a frame, and reset again,
    and they go on talking."""
    opened = await client.generate()
    port = int(demo.url.rpartition(":")[2])
    said: list[str] = []
    async with AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(Relay(port)) for _ in PEOPLE]
        pages = []
        for name, relay in zip(PEOPLE, relays, strict=True):
            options = f"{{ directLine, store, userID: '{name.lower()}', username: '{name}' }}"
            site = await stack.enter_async_context(OwnSite(relay.directline, opened.token, options))
            pages.append(await stack.enter_async_context(open_page.own(site.url, relay.url)))
        bens = relays[1]
        for round_ in range(ROUNDS):
            texts = [f"{name}, {round_}" for name in PEOPLE]
            for page in pages:
                await page.tab.get_by_placeholder("Type your message").wait_for()
            await until_open(bens, round_ + 1)
            if round_ == 1:
                bens.streams[-1].cut_after(100)
            await asyncio.gather(*(page.say(text) for page, text in zip(pages, texts, strict=True)))
            said += texts
            if round_ != 1:
                bens.streams[-1].cut()
        log = await log_with(client, opened.conversation_id, said)
        assert sorted(text for text in log if text in said) == sorted(said)
        await all_show(pages, log)
        await until_open(bens, ROUNDS + 1)


async def until_open(relay: Relay, streams: int) -> None:
    """Wait until the page behind `relay` has opened that many streams, and has the last."""
    async with asyncio.timeout(RECONNECT_S + DEADLINE_S):
        while not (len(relay.streams) >= streams and relay.streams[-1].open):
            await asyncio.sleep(0.05)
