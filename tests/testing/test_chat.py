"""The plugin as authors of bots and clients use it, and above all what it says when the bot does something else."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
import unittest
from pathlib import Path

import pytest

from landline.client import DirectLine
from landline.testing import Landline

BUY = {
    "type": "message",
    "attachments": [
        {
            "contentType": "application/vnd.microsoft.card.hero",
            "content": {
                "title": "Shoes",
                "buttons": [
                    {"type": "imBack", "title": "Buy", "value": "buy shoes"},
                    {"type": "openUrl", "title": "Look", "value": "https://shop.invalid"},
                ],
            },
        }
    ],
}
FORM = {
    "type": "message",
    "attachments": [
        {
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "type": "AdaptiveCard",
                "body": [{"type": "Container", "items": [{"type": "TextBlock", "text": "Address"}]}],
                "actions": [{"type": "Action.Submit", "title": "Send", "data": {"form": 1}}],
            },
        }
    ],
}


async def test_expects_texts_patterns_functions_and_cards(landline: Landline, tmp_path: Path) -> None:
    landline.bot.when("shop", BUY).when("form", FORM)
    chat = await landline.chat()
    await chat.say("hi")
    await chat.expect("You said: hi")
    await chat.say("hi")
    await chat.expect(re.compile("said: h"))
    await chat.say("hi")
    await chat.expect(lambda activity: activity["text"].endswith("hi"))
    await chat.say("shop")
    await chat.expect(card="Shoes")
    await chat.card().press("Buy")
    await chat.expect("You said: buy shoes")
    await chat.say("form")
    await chat.expect(card="Address")
    await chat.card("Address").press("Send")
    await chat.expect()
    await chat.submit({"street": "High Street"})
    await chat.expect()
    assert landline.bot.received[-2]["value"] == {"form": 1}
    assert landline.bot.received[-1]["value"] == {"street": "High Street"}
    file = tmp_path / "note.txt"
    file.write_text("hello")
    await chat.upload(file, text="see")
    await chat.expect("You said: see")
    await chat.expect_nothing(0.05)
    assert str(chat.transcript).splitlines()[:2] == ["  user: 'hi'", "  Bot: 'You said: hi'"]
    assert "[card 'Shoes': Buy, Look]" in str(chat.transcript)


async def test_a_cut_line_and_a_restarted_channel_lose_nothing(landline: Landline) -> None:
    chat = await landline.chat()
    await chat.say("one")
    await chat.cut_line()
    await chat.say("two")
    await chat.restart_channel()
    await chat.say("three")
    for word in ("one", "two", "three"):
        await chat.expect(f"You said: {word}", timeout_s=20)


async def test_something_else_is_shown_with_the_difference_and_the_transcript(landline: Landline) -> None:
    landline.bot.when("hi", "Hallo")
    chat = await landline.chat()
    await chat.say("hi")
    with pytest.raises(AssertionError) as failure:
        await chat.expect("Hello")
    assert str(failure.value).splitlines() == [
        "expected 'Hello', but the bot said: 'Hallo'",
        "- Hello",
        "?  ^",
        "+ Hallo",
        "?  ^",
        "The conversation so far:",
        "  user: 'hi'",
        "  Bot: 'Hallo'",
    ]


async def test_another_card_is_shown(landline: Landline) -> None:
    landline.bot.when("shop", BUY)
    chat = await landline.chat()
    await chat.say("shop")
    with pytest.raises(AssertionError, match=r"expected a card 'Hats', but the bot said: \[card 'Shoes': Buy, Look\]"):
        await chat.expect(card="Hats")
    with pytest.raises(AssertionError, match="there is no button 'Sell'; there are: 'Buy', 'Look'"):
        await chat.card().press("Sell")
    with pytest.raises(AssertionError, match="a button of type openUrl sends nothing"):
        await chat.card().press("Look")


async def test_silence_is_said(landline: Landline) -> None:
    landline.bot.otherwise = lambda activity: None
    chat = await landline.chat()
    await chat.say("hi")
    with pytest.raises(AssertionError, match=r"expected 'Hello', but the bot said nothing within 0\.05 s\n") as failure:
        await chat.expect("Hello", timeout_s=0.05)
    assert str(failure.value).endswith("The conversation so far:\n  user: 'hi'")


async def test_an_answer_that_is_too_late_is_called_late(landline: Landline) -> None:
    chat = await landline.chat()
    expecting = asyncio.create_task(chat.expect("You said: hi", timeout_s=0.05))
    await asyncio.wait({expecting}, timeout=0.2)
    await chat.say("hi")
    with pytest.raises(AssertionError, match=r"expected 'You said: hi' within 0\.05 s, but it came \d\.\d s too late"):
        await expecting


async def test_a_bot_that_fails_is_said(landline: Landline) -> None:
    chat = await landline.chat()
    landline.bot.fail(500)
    with pytest.raises(AssertionError, match="the bot did not take 'hi': 502 ") as failure:
        await chat.say("hi")
    assert "user: 'hi'" in str(failure.value)


async def test_a_bot_that_is_not_there_is_said() -> None:
    with Landline(bot_timeout_s=0.5) as landline:
        chat = await landline.chat("http://127.0.0.1:1/api/messages")
        with pytest.raises(AssertionError, match="the bot did not take 'hi': 502 "):
            await chat.say("hi")


async def test_a_client_of_ones_own_talks_to_the_scripted_bot(landline: Landline) -> None:
    landline.bot.when("ping", "pong")
    async with DirectLine(landline.url, landline.secret) as line:
        conversation = await line.start(user="ann")
        await conversation.send("ping")
        assert [(await conversation.receive(10))["text"] for _ in range(2)] == ["ping", "pong"]


def test_unittest_works_too() -> None:
    class OfABot(unittest.IsolatedAsyncioTestCase):
        async def test_repeats(self) -> None:
            with Landline() as landline:
                chat = await landline.chat()
                await chat.say("hi")
                await chat.expect("You said: hi")

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(OfABot).run(result)
    assert result.testsRun == 1
    assert not result.errors + result.failures


def test_a_second_channel_starts_in_well_under_a_second() -> None:
    """The best of three: the first one of a process also pays for its imports."""
    took_s = []
    for _ in range(3):
        began = time.perf_counter()
        with Landline() as landline:
            assert landline.url
            took_s.append(time.perf_counter() - began)
    print(f"started in {min(took_s):.3f} s")
    assert min(took_s) < 1


def test_pytest_imports_nothing_heavy_for_the_plugin() -> None:
    heavy = ["aiohttp", "landline.server", "landline.channel", "landline.client", "apsw", "structlog"]
    program = f"import landline.testing.plugin, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
