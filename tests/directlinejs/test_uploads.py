"""The published DirectLineJS sends files: what its form looks like is its own business, and the server copes with it.

The page fetches what it sends, as DirectLineJS does: from a `data:` URL, and from this server, across origins.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.conformance.uploads import PIXEL, fetch, upload
from support.directlinejs import Browser
from support.landline import SECRET, Landline


@pytest.mark.item(198)
async def test_domain_that_ends_in_a_slash_works(tmp_path: Path) -> None:
    """What DirectLineJS makes of it are paths with two: start, stream, post, and the replies."""
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        Browser() as browser,
    ):
        for domain in (f"{landline.directline}/", f"{landline.url}//v3/directline"):
            page = await (await browser.page(scale=1)).start(domain, secret=SECRET)
            await page.until_streaming()
            posted = await page.post("hello")
            await page.until_text("hello")
            assert [each["id"] for each in page.activities] == [posted]
            await page.end()


@pytest.mark.item(103, 105)
@pytest.mark.bot_item(13)
async def test_files_sent_by_directlinejs_arrive_each_under_its_own_name(tmp_path: Path) -> None:
    """The first file takes longer to fetch than the second, so that DirectLineJS adds them to its form in the order in
    which they are not wanted."""
    slow, quick = os.urandom(3_000_000), PIXEL
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
        Browser() as browser,
    ):
        gallery = (await client.start()).conversation_id
        single = {"Content-Type": "image/png", "Content-Disposition": 'filename="slow.png"'}
        assert (await upload(client, gallery, slow, single)).status == 200
        (picture,) = await client.all_activities(gallery)
        page = await (await browser.page(scale=1)).start(landline.directline, secret=SECRET)
        await page.until_streaming()
        posted = await page.post(
            "look",
            attachments=[
                {
                    "name": "a.png",
                    "contentType": "image/png",
                    "contentUrl": picture["attachments"][0]["contentUrl"],
                    "thumbnailUrl": "data:image/png;base64,QQ==",
                },
                {
                    "name": "b.png",
                    "contentType": "image/png",
                    "contentUrl": f"data:image/png;base64,{base64.b64encode(quick).decode()}",
                },
            ],
        )
        await page.until_text("look")
        (shown,) = page.activities
        assert shown["id"] == posted
        first, second = shown["attachments"]
        assert (first["name"], first["thumbnailUrl"]) == ("a.png", "data:image/png;base64,QQ==")
        assert second["name"] == "b.png"
        assert [(await fetch(each["contentUrl"])).body for each in (first, second)] == [slow, quick]
        heard = (await bot.wait_for_text("look")).activity["attachments"]
        assert [each["name"] for each in heard] == ["a.png", "b.png"]
        assert [(await fetch(each["contentUrl"])).body for each in heard] == [slow, quick]
        await page.end()
