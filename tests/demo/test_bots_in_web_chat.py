"""What bots do besides talking, as Web Chat shows it: on the demo's page, and on a page of one's own from elsewhere.

The demo's bot does each of it at a word, through the connector. The page of one's own is the published bundle as the
documentation embeds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from landline.conformance.activities import BLANKING, CARRIED
from landline.conformance.directline import DEADLINE_S, DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.demo.server import Demo
from support.browsers import Browsers
from support.landline import SECRET, Landline
from support.own_page import OwnSite
from support.relay import Relay
from support.web_chat import RECONNECT_S, DemoPage, WebChat

PICTURE = Path(__file__).with_name("picture.png")
WIDTH, BOTS_WIDTH = 96, 640

GREETING = "Hello. I repeat whatever you say."
STREAMED_START, STREAMED_END = "This answer appears while it is made.", "finds it once, and finished."
LOOKS_FOR_WORDS = "I am looking for words"

DEMO, OWN = "the demo's page", "a page of one's own"


@pytest.fixture(params=[DEMO, OWN])
async def page(request: pytest.FixtureRequest, demo: Demo, open_page: Browsers) -> AsyncIterator[WebChat]:
    """A page on which the demo's bot has greeted."""
    if request.param == DEMO:
        page: WebChat = await open_page(demo.url)
        await greeted(page)
        yield page
    else:
        async with DirectLine(f"{demo.url}/v3/directline", SECRET) as client:
            token = (await client.generate(user={"id": "dl_ann", "name": "Ann"})).token
        async with OwnSite(f"{demo.url}/v3/directline", token) as site, open_page.own(site.url, demo.url) as page:
            await greeted(page)
            yield page


async def greeted(page: WebChat) -> None:
    await page.until_texts(lambda texts: texts and texts[0].startswith(GREETING), "the bot greets")


async def reloaded(page: WebChat, last: str) -> list[str]:
    """What is there when the page has been loaded again and shows `last` at the end."""
    await page.reload()
    return await page.until_last(last)


async def rows_are_drawn(page: WebChat) -> bool:
    """Whether every row of the transcript has a bubble in it."""
    empty = page.rows.filter(has_not=page.tab.locator(".webchat__bubble"))
    return int(await empty.count()) == 0


@pytest.mark.item(191)
async def test_a_card_has_a_title_a_picture_and_buttons_that_work(page: WebChat, demo: Demo) -> None:
    """The picture is a link that the bot made of its service URL. Of 191 the configured public base is shown
    elsewhere."""
    await page.say("card")
    card = page.card
    await card.get_by_text("Three birds on the line").wait_for()
    await card.get_by_text("It will not have missed anything.").wait_for()
    source, width = await page.until_picture(card.locator("img"))
    assert source.startswith(f"{demo.url}/v3/attachments/")
    assert width == BOTS_WIDTH

    async with page.tab.context.expect_page() as opening:
        await page.press("Open the picture")
    picture = await opening.value
    await picture.wait_for_url(source)
    assert await picture.evaluate("document.images[0].naturalWidth") == BOTS_WIDTH
    await picture.close()

    await page.press("Say hello to them")
    texts = await page.until_last("I heard: Hello, birds")
    assert texts[1:] == ["card", "Hello, birds", "I heard: Hello, birds"]
    await page.reload()
    assert await page.until_picture(card.locator("img")) == (source, BOTS_WIDTH)


async def test_a_picture_of_the_bot_is_shown(page: WebChat, demo: Demo) -> None:
    await page.say("image")
    await page.until_last("This is where I live.")
    source, width = await page.until_picture(page.tab.locator(".webchat__bubble img"))
    assert source.startswith(f"{demo.url}/v3/attachments/")
    assert width == BOTS_WIDTH


async def test_a_suggested_action_is_said_when_it_is_pressed_and_then_gone(page: WebChat) -> None:
    await page.say("help")
    choices = page.button("image")
    await choices.wait_for()
    await page.press("image")
    texts = await page.until_last("This is where I live.")
    assert [texts[1], *texts[3:]] == ["help", "image", "This is where I live."]
    assert await choices.count() == 0
    await page.reload()
    await page.until_last("This is where I live.")
    assert await choices.count() == 0


async def test_typing_is_shown_until_the_bot_speaks(page: WebChat) -> None:
    await page.say("typing")
    await page.typing.wait_for()
    assert (await page.texts())[-1] == "typing"
    await page.until_last("I have thought about it.")
    assert await page.typing.count() == 0
    assert await rows_are_drawn(page)
    await reloaded(page, "I have thought about it.")
    assert await page.typing.count() == 0


@pytest.mark.item(152)
async def test_a_streamed_answer_is_one_message_that_grows(page: WebChat) -> None:
    """Also beside what was typed and streamed before it: each answer grows where it belongs, and stays there."""
    await page.say("typing")
    await page.until_last("I have thought about it.")
    expected = ["typing", "I have thought about it."]
    for _ in range(2):
        await page.say("stream")
        await page.typing.wait_for()
        grown = await page.until_texts(half_streamed(len(expected) + 3), "a part of the answer is shown")
        texts = await page.until_texts(lambda texts: texts[-1].endswith(STREAMED_END), "the whole answer is shown")
        assert texts[-1].startswith(grown[-1])
        expected += ["stream", texts[-1]]
        assert texts[1:] == expected
    assert LOOKS_FOR_WORDS not in "".join(expected)
    assert await page.typing.count() == 0
    assert await rows_are_drawn(page)
    assert (await reloaded(page, expected[-1]))[1:] == expected


def half_streamed(count: int) -> Callable[..., bool]:
    return lambda texts: (
        len(texts) == count and texts[-1].startswith(STREAMED_START) and not texts[-1].endswith(STREAMED_END)
    )


@pytest.mark.item(183, 190)
async def test_what_the_bot_changes_is_shown_in_its_old_place(page: WebChat) -> None:
    """Of 183 and 190, what streams and our own client get is shown elsewhere."""
    await page.say("One")
    await page.until_last("I heard: One")
    await page.say("update")
    changed = ["One", "I heard: One (changed)", "update"]
    assert (await page.until_texts(lambda texts: len(texts) == 4 and "(ch" in texts[2], "it changes"))[1:] == changed
    await page.say("Two")
    await page.until_last("I heard: Two")
    await page.say("update")
    changed += ["Two", "I heard: Two (changed)", "update"]
    assert (await page.until_texts(lambda texts: "(ch" in texts[-2], "it changes, too"))[1:] == changed
    assert await rows_are_drawn(page)
    assert (await reloaded(page, "update"))[1:] == changed
    assert await rows_are_drawn(page)


@pytest.mark.item(184)
async def test_what_the_bot_takes_back_is_gone_for_good(page: WebChat) -> None:
    """Of 184, what streams and Get Activities say is shown elsewhere."""
    for word in ("One", "Two"):
        await page.say(word)
        await page.until_last(f"I heard: {word}")
    await page.say("update")
    await page.until_texts(lambda texts: "I heard: Two (changed)" in texts, "it changes")
    left = ["One", "I heard: One", "Two", "update", "delete"]
    await page.say("delete")
    assert (await page.until_texts(lambda texts: len(texts) == 6, "it goes"))[1:] == left
    assert await rows_are_drawn(page)
    assert (await reloaded(page, "delete"))[1:] == left
    assert await rows_are_drawn(page)
    await page.say("Three")
    assert (await page.until_last("I heard: Three"))[1:] == [*left, "Three", "I heard: Three"]


@pytest.mark.item(184)
async def test_a_streamed_answer_that_is_taken_back_leaves_no_piece_of_it(page: WebChat) -> None:
    """Web Chat keeps the pieces that an answer grew by."""
    await page.say("stream")
    await page.until_texts(lambda texts: texts[-1].endswith(STREAMED_END), "the whole answer is shown")
    await page.say("update")
    await page.until_texts(lambda texts: texts[-2].endswith("(changed)"), "it changes")
    await page.say("delete")
    await page.until_texts(lambda texts: texts[1:] == ["stream", "update", "delete"], "it goes")
    await page.say("After")
    assert (await page.until_last("I heard: After"))[1:4] == ["stream", "update", "delete"]
    assert await rows_are_drawn(page)


@pytest.mark.item(181)
async def test_an_uploaded_picture_is_shown_and_the_bot_gets_it(page: WebChat, demo: Demo) -> None:
    """Web Chat sends a small copy along and shows that; the bot sends back what it got, by its link."""
    told = f"I got {PICTURE.name} (image/png)."
    mine = page.tab.locator(".webchat__bubble--from-user img")
    echoed = page.tab.locator(".webchat__bubble:not(.webchat__bubble--from-user) img")
    await page.attach(PICTURE)
    await page.until_last(told)
    await page.until_picture(mine)
    source, width = await page.until_picture(echoed)
    assert source.startswith(f"{demo.url}/v3/directline/attachments/")
    assert width == WIDTH
    await reloaded(page, told)
    await page.until_picture(mine)
    assert await page.until_picture(echoed) == (source, WIDTH)
    assert await rows_are_drawn(page)


# On a line that gets cut.


@pytest.mark.item(152, 183, 184)
async def test_who_was_away_finds_answers_finished_changed_and_taken_back(demo: Demo, open_page: Browsers) -> None:
    page = await open_page(demo.url)
    await greeted(page)
    for word in ("One", "Two"):
        await page.say(word)
        await page.until_last(f"I heard: {word}")
    await cut(page)
    for word in ("delete", "update", "stream", "card"):
        await page.tell(word)
    await page.until_line("open", RECONNECT_S + 5)
    await page.card.get_by_text("Three birds on the line").wait_for()
    texts = await page.texts()
    assert texts[1:] == ["One", "I heard: One (changed)", "Two", "delete", "update", "stream", texts[-2], "card"]
    assert texts[-2].endswith(STREAMED_END)
    assert await rows_are_drawn(page)


@pytest.mark.item(152)
async def test_an_answer_whose_stream_was_cut_in_the_middle_is_shown_once(demo: Demo, open_page: Browsers) -> None:
    page = await open_page(demo.url)
    await greeted(page)
    await page.say("stream")
    await page.until_texts(half_streamed(3), "a part of the answer is shown")
    await cut(page)
    await page.until_line("open", RECONNECT_S + 5)
    texts = await page.until_texts(lambda texts: texts[-1].endswith(STREAMED_END), "the whole answer is shown")
    assert texts[1:-1] == ["stream"]
    await page.say("After")
    assert (await page.until_last("I heard: After"))[1:] == [*texts[1:], "After", "I heard: After"]


async def cut(page: DemoPage) -> None:
    await page.press("Cut the line")
    await page.until_line("cut")


# What a bot does of its own accord.


@dataclass
class Talk:
    """A bot without words of its own, and a page of one's own in a conversation with it."""

    bot: ScriptedBot
    id: str
    page: WebChat
    relay: Relay
    """What the page reaches the server through."""

    async def say(self, text: str, **more: object) -> str:
        """Let the bot say it; answers the id."""
        answer = await self.bot.send(self.id, {"type": "message", "text": text, **more})
        assert answer.status == 200
        return str(answer.json["id"])

    async def take_back(self, activity_id: str) -> None:
        """Let the bot take that back."""
        url = f"{self.bot.service_url(self.id)}/v3/conversations/{self.id}/activities/{activity_id}"
        assert (await self.bot.request("DELETE", url)).status == 200


@pytest.fixture
async def talk(tmp_path: Path, open_page: Browsers) -> AsyncIterator[Talk]:
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        Relay(landline.port) as relay,
        DirectLine(landline.directline, SECRET) as client,
    ):
        opened = await client.generate(user={"id": "dl_ann"})
        async with OwnSite(relay.directline, opened.token) as site, open_page.own(site.url, relay.url) as page:
            await bot.wait_for(lambda each: each.type == "conversationUpdate")
            yield Talk(bot, opened.conversation_id, page, relay)


async def test_the_buttons_of_a_message_go_with_it(talk: Talk) -> None:
    page = talk.page
    first = {"actions": [{"type": "imBack", "title": "First", "value": "first"}]}
    second = {"actions": [{"type": "imBack", "title": "Second", "value": "second"}]}
    await talk.say("One", suggestedActions=first)
    two = await talk.say("Two", suggestedActions=second)
    await page.until_last("Two")
    button = page.button("Second")
    await button.wait_for()
    await talk.take_back(two)
    await button.wait_for(state="detached")
    await page.button("First").wait_for()
    assert await page.texts() == ["One"]

    await page.say("Hello")
    await page.until_last("Hello")
    three = await talk.say("Three", suggestedActions=second)
    await button.wait_for()
    await talk.take_back(three)
    await button.wait_for(state="detached")
    assert await page.texts() == ["One", "Hello"]


async def test_a_message_that_was_held_back_is_not_shown_when_it_was_taken_back_meanwhile(talk: Talk) -> None:
    """Web Chat waits up to 5 s for a message of the conversation that an answer refers to."""
    page = talk.page
    await talk.say("One")
    await page.until_last("One")
    two = await talk.say("Two", replyToId=f"{talk.id}|9999998")
    await talk.take_back(two)
    await talk.say("Three", replyToId=f"{talk.id}|9999999")
    page.excuse("Timed out while waiting for activity")
    assert await page.until_last("Three") == ["One", "Three"]
    assert len([each for each in page.complaints if "Timed out" in each]) == 2


async def test_who_comes_back_in_the_middle_of_a_streamed_answer_sees_it_grow_on(talk: Talk) -> None:
    """Web Chat knows the pieces of an answer by the id of the first, which this page has missed."""
    await talk.say("Before")
    await talk.page.until_last("Before")
    talk.relay.streams[-1].cut()
    first = await talk.say("One", type="typing", channelData={"streamType": "streaming", "streamSequence": 1})
    async with asyncio.timeout(RECONNECT_S + DEADLINE_S):
        while len(talk.relay.streams) < 2:
            await asyncio.sleep(0.05)
    text = "One"
    for number in range(2, 5):
        text += f" and {number}"
        piece = {"streamType": "streaming", "streamSequence": number, "streamId": first}
        await talk.say(text, type="typing", channelData=piece)
    assert await talk.page.until_last(text) == ["Before", text]
    await talk.say("Finished", channelData={"streamType": "final", "streamId": first})
    assert await talk.page.until_last("Finished") == ["Before", "Finished"]
    await talk.page.say("After")
    assert await talk.page.until_last("After") == ["Before", "Finished", "After"]
    assert await rows_are_drawn(talk.page)


@pytest.mark.item(184)
async def test_a_page_that_was_not_told_of_deletes_shows_no_content_either(demo: Demo, open_page: Browsers) -> None:
    """Web Chat with no option but the server's. It has nothing to draw a delete with, and says so in the console."""
    async with DirectLine(f"{demo.url}/v3/directline", SECRET) as client:
        token = (await client.generate(user={"id": "dl_ann"})).token
    async with (
        OwnSite(f"{demo.url}/v3/directline", token, "{ directLine }") as site,
        open_page.own(site.url, demo.url) as page,
    ):
        page.excuse('No renderer for activity of type "messageDelete"')
        await greeted(page)
        await page.say("One")
        await page.until_last("I heard: One")
        await page.say("delete")
        assert (await page.until_texts(lambda texts: len(texts) == 3, "it goes"))[1:] == ["One", "delete"]
        assert (await reloaded(page, "delete"))[1:] == ["One", "delete"]
        assert "I heard: One" not in await page.tab.content()


@pytest.mark.item(208)
@pytest.mark.parametrize("made_up", ["0b6cdd9a-6a0a-4b29-8a0c-3f1d7c1c9d5e", None], ids=["a UUID", "the conversation"])
async def test_what_a_bot_says_of_its_own_accord_is_shown_at_once(talk: Talk, made_up: str | None) -> None:
    """As two of the four SDKs say it: in reply to an id that they made up, or to the conversation's own. Web Chat would
    hold it back for five seconds."""
    await talk.say("Begin")
    await talk.page.until_last("Begin")
    answer = await talk.bot.reply(talk.id, made_up or talk.id, {"type": "message", "text": "By the way"})
    assert answer.status == 200
    await talk.page.until_last("By the way", timeout=1)


@pytest.mark.item(209)
async def test_what_is_carried_leaves_the_page_whole(talk: Talk) -> None:
    """What would blank it is refused; what is odd besides does no harm that a reader sees, though Web Chat complains of
    an entity that is null."""
    talk.page.excuse("reading 'type'")
    await talk.say("Begin")
    for odd in BLANKING:
        assert (await talk.bot.send(talk.id, {"type": "message", **odd})).status == 400, odd
    for odd in CARRIED:
        assert (await talk.bot.send(talk.id, {"type": "message", **odd})).status == 200, odd
    await talk.say("End")
    await talk.page.until_last("End")
    await talk.page.reload()
    texts = await talk.page.until_last("End")
    assert texts[0] == "Begin"


async def test_what_the_bot_did_not_take_is_shown_as_sent_since_it_is_in_the_conversation(talk: Talk) -> None:
    """docs/howto/long-turns.md says so."""
    page = talk.page
    talk.bot.answer(500)
    page.excuse("502")
    await page.tell("hi")
    await page.until_last("hi")
    await page.tab.locator(".webchat__activity-status").get_by_text("Just now").first.wait_for()
    assert await page.tab.get_by_role("button", name="Retry").count() == 0
    assert any(each.startswith("502") for each in page.complaints)
