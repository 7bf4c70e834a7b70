"""One visitor cannot fill the disk with files: over the wire, across `kill -9`, and on a disk that is nearly full."""

from __future__ import annotations

from pathlib import Path

from landline.conformance.directline import Answer, DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.conformance.uploads import file_part, form, upload
from support.landline import SECRET, Landline
from support.small_disk import SmallDisk

FILE = form(file_part("a.bin", bytes(100_000)))
BLOCKS = 25 * 4096
"""What that counts."""


def said(answer: Answer) -> tuple[int, str, str]:
    return (answer.status, *(answer.json["error"][name] for name in ("code", "message")))


FULL = (413, "MessageSizeTooBig", "The conversation has no room for more uploads")
SITE_FULL = (413, "MessageSizeTooBig", "The site has no room for more uploads")


async def test_stored_uploads_are_bounded_across_kills_and_messages_go_on(tmp_path: Path) -> None:
    bounds = {"upload_bytes_total": 3 * BLOCKS, "upload_bytes_total_per_site": 4 * BLOCKS}
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0, **bounds) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        one, two = [(await client.start()).json["conversationId"] for _ in range(2)]
        for _ in range(3):
            assert (await upload(client, one, FILE)).status == 200
        assert said(await upload(client, one, FILE)) == FULL
        # What the bot attaches counts in its conversation.
        data = {"name": "a.txt", "type": "text/plain", "originalBase64": "aGk="}
        attached = await bot.request("POST", f"{bot.service_url(one)}/v3/conversations/{one}/attachments", json=data)
        assert said(attached) == FULL
        await landline.restart(kill=True)
        assert said(await upload(client, one, FILE)) == FULL
        assert (await upload(client, two, FILE)).status == 200
        assert said(await upload(client, two, FILE)) == SITE_FULL
        assert (await client.send(one, "words go on")).status == 200
        await landline.restart(kill=True)
        assert said(await upload(client, two, FILE)) == SITE_FULL
        log = await client.all_activities(one)
        assert sum(len(each.get("attachments", ())) for each in log) == 3


async def test_below_the_floor_of_free_space_words_go_on(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "disk", mib=12) as disk:
        async with (
            ScriptedBot() as bot,
            Landline(disk.path, bot=bot.endpoint, drain_s=0, free_space_floor_bytes=8 << 20) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            conversation = (await client.start()).json["conversationId"]
            answers = [await upload(client, conversation, FILE) for _ in range(60)]
            assert {answer.status for answer in answers} == {200, 413}
            assert said(answers[-1])[2].startswith("The server is short of disk space")
            assert (await client.send(conversation, "words go on")).status == 200
            assert (await bot.send(conversation, {"type": "message", "text": "both ways"})).status == 200
