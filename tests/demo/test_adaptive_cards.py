"""The buttons of Adaptive Cards in the published Web Chat: the bot and the page of docs/howto/adaptive-cards.md."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from landline.conformance.directline import DirectLine
from support.browsers import Browsers
from support.howtos import blocks, exchanged, followed, printed, text_of
from support.landline import SECRET, Landline, free_port
from support.web_chat import WebChat

PAGE = "adaptive-cards.md"


def stock_page() -> dict[str, str]:
    """The page of docs/howto/web-chat.md, with the bot of this one."""
    return printed("first-steps.md") | printed("web-chat.md") | {"bot.py": printed(PAGE)["bot.py"]}


def page_that_executes() -> dict[str, str]:
    """What it becomes when its reader has done what this one says."""
    files, text = stock_page(), text_of(PAGE)
    (added,) = [rest for first, rest in blocks(text, "js") if first == "at the end of store.js"]
    return files | {"store.js": files["store.js"] + added, "chat.js": exchanged(files["chat.js"], text)}


@pytest.fixture
async def landline(tmp_path: Path, closers: AsyncExitStack) -> Landline:
    bot = f"http://127.0.0.1:{free_port()}/api/messages"
    return await closers.enter_async_context(Landline(tmp_path / "data", bot=bot, drain_s=0))


@pytest.fixture
async def closers() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as closers:
        yield closers


async def asked(
    landline: Landline, files: dict[str, str], directory: Path, closers: AsyncExitStack, open_page: Browsers
) -> WebChat:
    """A page with these files that shows the card, with a name typed into it."""
    port = int(str(landline.settings["bot"]).split(":")[2].split("/")[0])
    url = await closers.enter_async_context(followed(directory, landline, port, files, landline.directline))
    page = await closers.enter_async_context(open_page.own(url, landline.url))
    await page.say("hi")
    await page.card.get_by_text("Coffee?", exact=True).wait_for()
    await page.card.get_by_placeholder("Your name").fill("Ann")
    return page


async def test_submit_sends_what_was_typed_and_a_link_is_opened(
    landline: Landline, tmp_path: Path, closers: AsyncExitStack, open_page: Browsers
) -> None:
    page = await asked(landline, stock_page(), tmp_path, closers, open_page)
    await page.press("Order")
    await page.until_last("One coffee for Ann.")
    await page.tab.context.route("https://en.wikipedia.org/**", lambda route: route.fulfill(body="There it is."))
    async with page.tab.context.expect_page() as opening:
        await page.press("What is coffee?")
    await (await opening.value).get_by_text("There it is.").wait_for()


async def test_web_chat_alone_does_nothing_at_execute(
    landline: Landline, tmp_path: Path, closers: AsyncExitStack, open_page: Browsers
) -> None:
    """When a release of Web Chat makes this red, the page needs its function no more."""
    page = await asked(landline, stock_page(), tmp_path, closers, open_page)
    page.excuse("received unknown action", "^[A-Za-z]{1,3}$")  # the second is the action itself, as the bundle names it
    async with page.tab.expect_event("console", lambda message: "received unknown action" in message.text):
        await page.press("Order here")
    await page.press("Order")
    assert await page.until_last("One coffee for Ann.")


async def test_execute_invokes_the_bot_which_changes_its_card(
    landline: Landline, tmp_path: Path, closers: AsyncExitStack, open_page: Browsers
) -> None:
    page = await asked(landline, page_that_executes(), tmp_path, closers, open_page)
    async with page.tab.expect_response(lambda response: is_invoke(response.request)) as answering:
        await page.press("Order here")
    assert (await answering.value).status == 200
    await page.card.get_by_text("One coffee for Ann is on its way.").wait_for()
    assert await page.card.count() == 1
    await page.reload()
    await page.card.get_by_text("One coffee for Ann is on its way.").wait_for()
    assert await page.rows.count() == 2

    async with DirectLine(landline.directline, SECRET) as client:
        conversation = (await answering.value).url.split("/")[-2]
        (invoke,) = [each for each in await client.all_activities(conversation) if each["type"] == "invoke"]
    assert invoke["value"]["action"] == {
        "type": "Action.Execute",
        "verb": "order",
        "data": {"drink": "coffee", "name": "Ann"},
    }


PRESSED = """
const passed = executes()(action => action);
const execute = { type: EXECUTE, id: 'b', verb: 'order', data: JSON.parse(process.argv[1]) };
const activity = { id: 'c|0000001', attachments: [{ content: { actions: [execute] } }] };
const shown = passed({ type: INCOMING, payload: { activity } });
const [submit] = shown.payload.activity.attachments[0].content.actions;
const value = { ...submit.data, name: 'Ann' };
const sent = passed({ type: 'DIRECT_LINE/POST_ACTIVITY', payload: { activity: { value } } });
console.log(JSON.stringify(sent.payload.activity.value.action.data));
"""


@pytest.mark.parametrize(
    ("data", "arrives"),
    [({"drink": "coffee"}, {"drink": "coffee", "name": "Ann"}), (None, {"name": "Ann"}), ("coffee", "coffee")],
)
def test_what_stands_beside_a_button_reaches_the_bot_in_the_shape_that_it_has(data: Any, arrives: Any) -> None:
    """A text is left alone, as the format has it: what was typed is joined with an object only."""
    program = page_that_executes()["store.js"] + PRESSED
    command = ["node", "--input-type=module", "-e", program, json.dumps(data)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == arrives


def is_invoke(request: Any) -> bool:
    return request.method == "POST" and '"invoke"' in (request.post_data or "")
