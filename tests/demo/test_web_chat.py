"""The real Web Chat, in a real browser, on a line that gets cut."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
import pytest

from landline.config import Settings
from landline.demo.server import Demo
from support.browsers import Browsers
from support.landline import free_port
from support.web_chat import DEADLINE_S, RECONNECT_S, DemoPage, rgb

LAST_IS_IN_VIEW = """() => {
  const scrolls = document.querySelector('.webchat__basic-transcript__scrollable').getBoundingClientRect();
  const bubble = [...document.querySelectorAll('.webchat__bubble')].pop().getBoundingClientRect();
  return bubble.bottom <= scrolls.bottom && bubble.bottom > scrolls.top;
}"""

GREETING = "Hello. I repeat whatever you say."
THREE = ["Message 1 of 3.", "Message 2 of 3.", "Message 3 of 3."]
CUT, SPEAK = "Cut the line", "Let the bot speak three times"


async def greeted(page: DemoPage) -> None:
    await page.until_texts(lambda texts: len(texts) == 1 and texts[0].startswith(GREETING), "the bot greets")


@pytest.mark.item(148, 181)
async def test_a_message_and_its_answer_are_shown_once(demo: Demo, open_page: Browsers) -> None:
    """Web Chat shows a message twice if its echo does not carry what it was sent with, and holds an answer back for 5 s
    while it waits for the message that the answer refers to. Of 181 the upload is shown elsewhere."""
    page = await open_page(demo.url)
    await greeted(page)
    await page.say("Good morning")
    answered = ["Good morning", "I heard: Good morning"]
    await page.until_texts(lambda texts: texts[1:] == answered, "the bot answers", timeout=5)
    assert (await page.notes())[:2] == ["Bot: I heard: Good morning", "You: Good morning"]
    await page.tab.locator(".webchat__activity-status--self").get_by_text("Just now").wait_for()
    await page.say("Good night")
    texts = await page.until_texts(lambda texts: texts[-1] == "I heard: Good night", "the bot answers again")
    assert texts[1:] == [*answered, "Good night", "I heard: Good night"]


@pytest.mark.item(132, 179)
async def test_what_the_bot_says_on_a_cut_line_is_shown_once_and_in_order(demo: Demo, open_page: Browsers) -> None:
    """The socket dies without a close frame; DirectLineJS comes back by itself and goes on behind its watermark."""
    page = await open_page(demo.url)
    await page.say("Before")
    await page.until_texts(lambda texts: texts[-1] == "I heard: Before", "the bot answers")
    await page.press(CUT)
    await page.until_line("cut")
    position = await page.fact("Position")
    await page.press(SPEAK)
    await page.tab.get_by_text("The bot has spoken 3 times, unheard").wait_for()
    assert not set(THREE) & set(await page.texts())
    assert await page.fact("Position") == position

    await page.until_line("open", RECONNECT_S + 5)
    texts = await page.until_texts(lambda texts: texts[-1] == THREE[-1], "the three messages arrive")
    assert texts[1:] == ["Before", "I heard: Before", *THREE]
    assert f"Open again, goes on at {position}" in await page.notes()
    assert await page.fact("Reconnects") == "1"
    # Nothing was sent again that was there already: greeting, two messages, the request to speak, three messages.
    assert await page.fact("Received") == "7"

    # And once more. What is posted works while the stream is down; echo and answer arrive with the replay.
    await page.press(CUT)
    await page.until_line("cut")
    await page.say("Is anybody there?")
    await page.until_line("open", RECONNECT_S + 5)
    await page.until_texts(lambda texts: texts[-1].startswith("I heard: Is"), "the answer arrives")
    await page.say("After")
    texts = await page.until_texts(lambda texts: texts[-1] == "I heard: After", "the line works as before")
    assert texts[6:] == ["Is anybody there?", "I heard: Is anybody there?", "After", "I heard: After"]
    assert await page.fact("Reconnects") == "2"


@pytest.mark.item(131)
async def test_a_reload_shows_the_whole_history(demo: Demo, open_page: Browsers) -> None:
    page = await open_page(demo.url)
    await page.say("Remember this")
    before = await page.until_texts(lambda texts: texts[-1] == "I heard: Remember this", "the bot answers")
    await page.reload()
    after = await page.until_texts(lambda texts: len(texts) >= len(before), "the history is there")
    assert after == before
    await page.say("And this")
    texts = await page.until_texts(lambda texts: texts[-1] == "I heard: And this", "the conversation goes on")
    assert texts == [*before, "And this", "I heard: And this"]


async def test_a_new_conversation_begins_with_the_greeting(demo: Demo, open_page: Browsers) -> None:
    page = await open_page(demo.url)
    await page.say("Forget this")
    await page.until_texts(lambda texts: texts[-1] == "I heard: Forget this", "the bot answers")
    await page.press("Start a new conversation")
    await greeted(page)


async def test_two_pages_do_not_hear_each_other(demo: Demo, open_page: Browsers) -> None:
    one, other = await open_page(demo.url), await open_page(demo.url)
    await one.say("I am one")
    await one.until_texts(lambda texts: texts[-1] == "I heard: I am one", "the bot answers")
    await one.press(CUT)
    await one.until_line("cut")
    await other.say("I am another")
    texts = await other.until_texts(lambda texts: texts[-1] == "I heard: I am another", "the bot answers")
    assert texts[1:] == ["I am another", "I heard: I am another"]
    assert await other.fact("Reconnects") == "0"


async def test_the_page_comes_back_when_the_server_was_away(settings: Settings, open_page: Browsers) -> None:
    """Another process, another bot, another secret; the same data, so the same conversation."""
    settings = msgspec.structs.replace(settings, port=free_port())
    demo = Demo(settings)
    await demo.start()
    page = await open_page(demo.url)
    page.excuse("ERR_CONNECTION_REFUSED", "WebSocket connection to .* failed")
    await page.say("Stay there")
    before = await page.until_texts(lambda texts: texts[-1] == "I heard: Stay there", "the bot answers")
    await demo.stop()
    await page.until_line("cut")
    demo = Demo(settings)
    await demo.start()
    try:
        await page.until_line("open", RECONNECT_S + 25)  # DirectLineJS tries a refused reconnect again after 20 s
        await page.say("Still there?")
        texts = await page.until_texts(lambda texts: texts[-1] == "I heard: Still there?", "the bot answers")
        assert texts == [*before, "Still there?", "I heard: Still there?"]
    finally:
        await demo.stop()


async def test_a_page_whose_token_has_expired_goes_on_with_its_history(settings: Settings, open_page: Browsers) -> None:
    """Web Chat ends a DirectLineJS whose token has expired; the page brings another, as after a night's sleep."""
    demo = Demo(msgspec.structs.replace(settings, token_ttl_s=2, clock_leeway_s=0))
    await demo.start()
    try:
        page = await open_page(demo.url)
        page.excuse("403")
        await greeted(page)
        await page.press(CUT)
        await page.until_line("cut")
        await page.tab.get_by_text("The token has expired").wait_for(timeout=(RECONNECT_S + 5) * 1000)
        await page.until_line("open")
        await page.say("Good morning")
        texts = await page.until_texts(lambda texts: texts[-1].startswith("I heard"), "the bot answers")
        assert texts[0].startswith(GREETING)
        assert texts[1:] == ["Good morning", "I heard: Good morning"]
    finally:
        await demo.stop()


async def test_a_page_whose_conversation_is_gone_begins_a_new_one(
    settings: Settings, tmp_path: Path, open_page: Browsers
) -> None:
    settings = msgspec.structs.replace(settings, port=free_port())
    demo = Demo(settings)
    await demo.start()
    page = await open_page(demo.url)
    await page.say("Forget this")
    await page.until_texts(lambda texts: texts[-1] == "I heard: Forget this", "the bot answers")
    page.excuse("ERR_CONNECTION_REFUSED", "WebSocket connection to .* failed", "404")
    await demo.stop()
    demo = Demo(msgspec.structs.replace(settings, data=tmp_path / "another"))
    await demo.start()
    try:
        await greeted(await page.load())
    finally:
        await demo.stop()


async def until_in_view(page: DemoPage, wanted: bool) -> None:
    """Wait until the last message is in view, or is not."""
    async with asyncio.timeout(DEADLINE_S):
        while await page.tab.evaluate(LAST_IS_IN_VIEW) != wanted:
            await page.tab.wait_for_timeout(50)


async def test_on_a_phone_what_was_replayed_is_in_view_after_quick_use(demo: Demo, open_page: Browsers) -> None:
    """Pictures and cards that arrive while Web Chat scrolls made it lose the end. It took luck, so: several times."""
    page = await open_page(demo.url, width=390, height=844)
    await greeted(page)
    for times in range(1, 4):
        for word in ("one", "card", "image"):
            await page.say(word)
        await page.press(CUT)
        await page.press(SPEAK)
        waiting = page.tab.get_by_text("3 messages of the bot are waiting.")
        await waiting.wait_for()
        await page.until_line("open", RECONNECT_S + 5)
        await page.until_texts(lambda texts, n=times: texts.count(THREE[-1]) == n, "it arrives")  # type: ignore[misc]
        await until_in_view(page, True)
        assert await waiting.count() == 0
    # Whoever scrolls up to read is left there, and finds a way back.
    await page.tab.locator(".webchat__basic-transcript__scrollable").hover()
    await page.tab.mouse.wheel(0, -900)
    await until_in_view(page, False)
    await page.press(SPEAK)
    await page.until_texts(lambda texts: texts.count(THREE[-1]) == 4, "it arrives")
    assert not await page.tab.evaluate(LAST_IS_IN_VIEW)
    await page.tab.locator(".webchat__scroll-to-end-button").click()
    await until_in_view(page, True)


async def test_what_was_said_before_anybody_listened_is_no_replay(demo: Demo, open_page: Browsers) -> None:
    """The bot greets when the conversation starts, which is before the stream is open. After a reload it is one."""
    page = await open_page(demo.url)
    await greeted(page)
    assert await page.tab.get_by_text("replayed").count() == 0
    await page.reload()
    await page.tab.get_by_text("replayed").first.wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("layout", "width", "height"),
    [("wide", 1280, 800), ("narrow", 390, 844), ("lying", 844, 390), ("small", 320, 568)],
)
async def test_the_page_fits_and_can_be_read(
    demo: Demo, open_page: Browsers, tmp_path: Path, scheme: str, layout: str, width: int, height: int
) -> None:
    """Nothing scrolls sideways, both buttons and the text box are in view, and text stands out from its ground.

    How it looks is for people to judge: the pictures are in the test's temporary directory."""
    page = await open_page(demo.url, scheme, width, height)
    await greeted(page)
    await page.say("Good morning")
    await page.until_texts(lambda texts: texts[-1] == "I heard: Good morning", "the bot answers")
    await page.screenshot(tmp_path / f"{layout}-{scheme}-open.png")
    assert await page.tab.evaluate("document.scrollingElement.scrollWidth") <= width
    for control in (
        page.tab.get_by_role("button", name=CUT),
        page.tab.get_by_role("button", name=SPEAK),
        page.tab.get_by_placeholder("Type your message"),
    ):
        box = await control.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= height
    paper = await page.colour("body", "backgroundColor")
    for selector in (".title .next a", ".state strong", ".state span", ".primary", ".actions button:last-of-type"):
        assert contrast(await page.colour(selector, "color"), paper) >= 4.5, selector
    for bubble in (".webchat__bubble--from-user", ".webchat__bubble:not(.webchat__bubble--from-user)"):
        text = await page.colour(f"{bubble} .webchat__text-content", "color")
        ground = await page.colour(f"{bubble} .webchat__bubble__content", "backgroundColor")
        assert contrast(text, ground) >= 4.5, bubble
    await page.press(CUT)
    await page.until_line("cut")
    await page.press(SPEAK)
    await page.screenshot(tmp_path / f"{layout}-{scheme}-cut.png")
    print("pictures:", tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (320, 568)])
async def test_what_the_bot_sends_fits_and_can_be_read(
    demo: Demo, open_page: Browsers, tmp_path: Path, scheme: str, width: int, height: int
) -> None:
    """Cards, choices, pictures and typing; the pictures of it are in the test's temporary directory."""
    page = await open_page(demo.url, scheme, width, height)
    await greeted(page)
    paper = await page.colour(".chat", "backgroundColor")
    await page.say("help")
    await page.button("delete").wait_for()
    await page.screenshot(tmp_path / f"{width}-{scheme}-help.png")
    assert contrast(await page.colour(".webchat__suggested-actions__button", "color"), paper) >= 4.5
    for control in (page.button("card"), page.button("delete"), page.button("Send"), page.button("Upload file")):
        box = await control.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
    await page.press("card")
    await page.card.get_by_text("Three birds on the line").wait_for()
    await page.screenshot(tmp_path / f"{width}-{scheme}-card.png")
    push = ".webchat__bubble .ac-pushButton"
    assert contrast(await page.colour(push, "color"), await page.colour(push, "backgroundColor")) >= 4.5
    bubble = await page.colour(".webchat__bubble__content:has(.ac-pushButton)", "backgroundColor")
    for text in ("Three birds on the line", "One of them is away", "It will not have missed anything."):
        shown = await page.card.get_by_text(text).evaluate("element => getComputedStyle(element).color")
        assert contrast(rgb(shown), bubble) >= 4.5, text
    await page.say("image")
    picture = page.tab.locator(".webchat__bubble__content > div > img")
    await page.until_picture(picture)
    shown, frame = await picture.bounding_box(), await picture.locator("..").bounding_box()
    assert shown is not None
    assert frame is not None
    assert abs(shown["height"] - frame["height"]) < 1
    assert shown["width"] / shown["height"] == pytest.approx(640 / 280, rel=0.02)
    assert await page.tab.evaluate("document.scrollingElement.scrollWidth") <= width
    print("pictures:", tmp_path)


async def test_a_streamed_answer_is_two_notes_on_the_record(demo: Demo, open_page: Browsers) -> None:
    """The pieces that it grew by are one thing that happened, whatever their number."""
    page = await open_page(demo.url)
    await greeted(page)
    await page.say("stream")
    await page.until_texts(lambda texts: texts[-1].endswith("and finished."), "the whole answer is shown")
    final, typing, asked = (await page.notes())[:3]
    assert final.startswith("Bot: This answer appears")
    assert (typing, asked) == ("Bot: (typing)", "You: stream")
    await page.tab.get_by_text(re.compile(r"\d\d times")).wait_for()


async def test_both_buttons_can_be_reached_and_pressed_without_a_mouse(demo: Demo, open_page: Browsers) -> None:
    page = await open_page(demo.url)
    await greeted(page)
    await page.tab.get_by_role("button", name=CUT).focus()
    await page.tab.keyboard.press("Enter")
    await page.until_line("cut")
    await page.tab.keyboard.press("Tab")
    await page.tab.keyboard.press("Enter")
    await page.tab.get_by_text("The bot has spoken 3 times, unheard").wait_for()


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """The ratio of WCAG 2.1, from 1 to 21; text needs 4.5."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: tuple[int, int, int]) -> float:
    shares = [value / 255 for value in colour]
    red, green, blue = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
