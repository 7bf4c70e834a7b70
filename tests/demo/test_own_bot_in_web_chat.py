"""The page with the visitor's own bot, in a real browser: the line to the bot as it is, and what can be done there."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from landline.config import Settings
from landline.demo.bot import EchoBot
from landline.demo.server import Demo
from support.browsers import Browsers
from support.landline import free_port
from support.misbehaving import Misbehaving, answering
from support.web_chat import RECONNECT_S, DemoPage


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What a test has started, ended in the right order."""
    async with AsyncExitStack() as closers:
        yield closers


async def tried(settings: Settings, stack: AsyncExitStack, endpoint: str) -> Demo:
    demo = Demo(msgspec.structs.replace(settings, bot=endpoint))
    await demo.start()
    stack.push_async_callback(demo.stop)
    return demo


async def own_bot(stack: AsyncExitStack) -> str:
    """A bot as somebody else would run it; its endpoint."""
    bot = EchoBot()
    await bot.start()
    stack.push_async_callback(bot.stop)
    return bot.endpoint


async def drawn(page: DemoPage) -> str:
    """What the drawing says to those who do not see it."""
    label: str = await page.tab.locator(".drawing").get_attribute("aria-label")
    return label


async def test_an_own_bot_is_talked_to_over_a_cut_line(
    settings: Settings, stack: AsyncExitStack, open_page: Browsers
) -> None:
    """Letting it speak three times is a thing of the demo's bot. Of any bot one can ask something while the line is
    cut, and see the answer wait."""
    demo = await tried(settings, stack, await own_bot(stack))
    page = await open_page(demo.url)
    await page.tab.get_by_text("Your bot: connected.").wait_for()
    assert (await drawn(page)).endswith("From Landline to the bot: connected.")
    assert await page.button("Let the bot speak three times").count() == 0
    await page.say("Good morning")
    await page.until_last("I heard: Good morning")
    await page.press("Cut the line")
    await page.until_line("cut")
    await page.tab.get_by_role("button", name="again").click()
    await page.tab.get_by_text("The bot has it; the answer is waiting.").wait_for()
    assert (await page.texts()).count("Good morning") == 1
    await page.until_line("open", RECONNECT_S + 5)
    texts = await page.until_texts(lambda texts: len(texts) == 5, "the answer arrives")
    assert texts[1:] == ["Good morning", "I heard: Good morning"] * 2
    assert await page.tab.get_by_text("the answer is waiting").count() == 0


async def test_a_bot_that_is_not_there_is_drawn_so_and_comes_by_itself(
    settings: Settings, stack: AsyncExitStack, open_page: Browsers
) -> None:
    port = free_port()
    demo = await tried(settings, stack, f"http://localhost:{port}/api/messages")
    page = await open_page(demo.url)
    await page.tab.get_by_text("Your bot: refused.").wait_for(timeout=5000)
    await page.tab.get_by_text(f"Is your bot running on {port}?").wait_for()
    assert (await drawn(page)).endswith("From Landline to the bot: refused.")
    bot = Misbehaving(answering("200 OK"))
    async with bot.listening(port):
        await page.tab.get_by_text("Your bot: connected.").wait_for(timeout=15_000)
    await page.tab.get_by_text("Your bot: refused.").wait_for(timeout=15_000)
    assert {"The bot: refused", "The bot: connected"} <= set(await page.notes())


async def test_a_bot_that_refuses_what_it_is_told_says_why_and_where_to_read_on(
    settings: Settings, stack: AsyncExitStack, open_page: Browsers
) -> None:
    place = await stack.enter_async_context(Misbehaving(answering("401 Unauthorized")).listening())
    demo = await tried(settings, stack, f"http://{place}/api/messages")
    page = await open_page(demo.url)
    await page.tab.get_by_text("Your bot: 401.").wait_for(timeout=5000)
    await page.tab.get_by_text("Has your bot an app id?").wait_for()
    await page.tab.get_by_role("link", name="How").click()
    await page.tab.get_by_role("heading", level=1, name="app id").wait_for()
    # Leads on, within the same pages.
    await page.tab.get_by_role("link", name="The demo").click()
    await page.tab.get_by_role("link", name="First steps").click()
    await page.tab.get_by_role("heading", level=1, name="First steps").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (844, 390), (320, 568)])
async def test_what_is_said_of_a_bot_fits(
    settings: Settings,
    stack: AsyncExitStack,
    open_page: Browsers,
    tmp_path: Path,
    scheme: str,
    width: int,
    height: int,
) -> None:
    """The longest text there is: the buttons and the text box stay in view. How it looks is for people to judge."""
    place = await stack.enter_async_context(Misbehaving(answering("401 Unauthorized")).listening())
    demo = await tried(settings, stack, f"http://{place}/api/messages")
    page = await open_page(demo.url, scheme, width, height)
    await page.tab.get_by_text("Your bot: 401.").wait_for()
    await page.screenshot(tmp_path / f"{width}-{scheme}.png")
    print("pictures:", tmp_path)
    assert await page.tab.evaluate("document.scrollingElement.scrollWidth") <= width
    box = await page.tab.get_by_placeholder("Type your message").bounding_box()
    assert box is not None
    assert 0 <= box["y"] <= box["y"] + box["height"] <= height


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1024, 600)])
async def test_nothing_in_the_panel_lies_on_something_else(
    settings: Settings, stack: AsyncExitStack, open_page: Browsers, width: int, height: int
) -> None:
    """Where there is less room than the panel needs, it scrolls."""
    demo = await tried(settings, stack, await own_bot(stack))
    page = await open_page(demo.url, "light", width, height)
    await page.say("hi")
    await page.tab.locator(".notes li").nth(2).wait_for()
    parts = [".drawing", ".states", ".actions", ".facts", ".notes ol", ".notes .link"]
    boxes = [await page.tab.locator(part).bounding_box() for part in parts]
    ends = [(box["y"], box["y"] + box["height"]) for box in boxes]
    assert all(end <= begin + 1 for (_, end), (begin, _) in itertools.pairwise(ends)), dict(
        zip(parts, ends, strict=True)
    )
