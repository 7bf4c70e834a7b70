"""Group F: upload (specification 5.6, 5.8, 6.5)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from landline.conformance.checks import Group, Need
from landline.conformance.directline import Activity, Answer
from landline.conformance.expect import accepted, expect, refused, same
from landline.conformance.send import bound, unbound
from landline.conformance.subject import USER, Conversation, Subject
from landline.conformance.uploads import FORM, PIXEL, activity_part, fetch, file_part, form, part, upload

group = Group("F", "Upload")

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256))
MIB = 1 << 20


def raw(content_type: str, name: str) -> dict[str, str]:
    """The headers of a single file, as the documentation has them: without a disposition type."""
    return {"Content-Type": content_type, "Content-Disposition": f'name="file"; filename="{name}"'}


async def only(talk: Conversation, answer: Answer) -> Activity:
    """The one activity that the log has after an upload."""
    accepted(answer)
    (found,) = await talk.log()
    same(found["id"], answer.json["id"], "id")
    return found


async def sent(talk: Conversation, answer: Answer) -> Activity:
    """The activity that an upload made."""
    name = accepted(answer).json["id"]
    return next(each for each in await talk.log() if each["id"] == name)


def named(activity: Activity) -> list[Any]:
    """The names of its attachments."""
    return [each.get("name") for each in activity["attachments"]]


@group.check(102)
async def single(s: Subject) -> None:
    """Raw JPEG with `Content-Disposition: name="file"; filename="a.jpg"` and `userId` → 200 `{"id"}`; activity
    `message`, one attachment, `contentType` image/jpeg, `name` a.jpg."""
    talk = await s.start()
    found = await only(talk, await upload(talk.client, talk.id, JPEG, raw("image/jpeg", "a.jpg")))
    same(found["type"], "message", "type")
    same([(each["contentType"], each["name"]) for each in found["attachments"]], [("image/jpeg", "a.jpg")])


@group.check(103)
async def download(s: Subject) -> None:
    """`contentUrl` of it fetched without Authorization → 200, identical bytes, stored content type, `nosniff`."""
    talk = await s.start()
    found = await only(talk, await upload(talk.client, talk.id, JPEG, raw("image/jpeg", "a.jpg")))
    got = await fetch(found["attachments"][0]["contentUrl"])
    same(got.status, 200, "status")
    same(got.body, JPEG, "bytes")
    same(got.headers.get("Content-Type"), "image/jpeg", "Content-Type")
    same(got.headers.get("X-Content-Type-Options"), "nosniff", "X-Content-Type-Options")


@group.check(104)
async def form_with_an_activity(s: Subject) -> None:
    """Multipart with an `application/vnd.microsoft.activity` part and two files → one activity, its text kept, two
    attachments."""
    talk = await s.start()
    body = form(
        activity_part({"type": "message", "text": "look"}), file_part("a.png", PIXEL), file_part("b.png", PIXEL)
    )
    found = await only(talk, await upload(talk.client, talk.id, body))
    same(found["text"], "look", "text")
    same(named(found), ["a.png", "b.png"], "attachments")


@group.check(105)
async def as_directlinejs_sends(s: Subject) -> None:
    """Multipart as DirectLineJS sends (templates a.png, b.png; files in order b, a) → attachments in template order,
    `thumbnailUrl` kept, bytes match names."""
    talk = await s.start()
    templates = [
        {"contentType": "image/png", "name": name, "thumbnailUrl": f"data:image/png;base64,{name[0]}"}
        for name in ("a.png", "b.png")
    ]
    activity = {"type": "message", "attachments": templates}
    body = form(activity_part(activity), file_part("b.png", b"bytes of b"), file_part("a.png", b"bytes of a"))
    found = await only(talk, await upload(talk.client, talk.id, body))
    same(named(found), ["a.png", "b.png"], "order")
    for attachment, template in zip(found["attachments"], templates, strict=True):
        same(attachment.get("thumbnailUrl"), template["thumbnailUrl"], "thumbnailUrl")
        same((await fetch(attachment["contentUrl"])).body, f"bytes of {template['name'][0]}".encode(), "bytes")


@group.check(106)
async def form_without_an_activity(s: Subject) -> None:
    """Multipart with files and no activity part → type `message` with the files in part order."""
    talk = await s.start()
    body = form(file_part("b.png", PIXEL), file_part("a.png", PIXEL))
    found = await only(talk, await upload(talk.client, talk.id, body))
    same((found["type"], named(found)), ("message", ["b.png", "a.png"]))


@group.check(107)
async def form_without_a_file(s: Subject) -> None:
    """Multipart with an activity and no file → 400 `BadArgument`."""
    talk = await s.start()
    refused(await upload(talk.client, talk.id, form(activity_part({"type": "message"}))), 400, "BadArgument")


@group.check(108)
async def nobody(s: Subject) -> None:
    """No `userId`, unbound credential, no activity sender → 400 `MissingProperty`; with a bound token → 200."""
    talk = await unbound(s)
    headers = raw("image/png", "a.png")
    refused(await upload(talk.client, talk.id, PIXEL, headers, user_id=None), 400, "MissingProperty")
    known = await bound(s)
    accepted(await upload(known.client, known.id, PIXEL, headers, user_id=None))


@group.check(109)
async def bound_user_wins(s: Subject) -> None:
    """`userId` u1 with token bound to u2 → `from.id` u2."""
    talk = await bound(s, "u2")
    found = await only(talk, await upload(talk.client, talk.id, PIXEL, raw("image/png", "a.png"), user_id="u1"))
    same(found["from"]["id"], "u2", "from.id")


@group.check(110)
async def path_in_a_name(s: Subject) -> None:
    r"""File name `C:\x\y.png` → `name` y.png."""
    talk = await s.start()
    body = form(part(PIXEL, r'name="file"; filename="C:\x\y.png"', "image/png"))
    same(named(await only(talk, await upload(talk.client, talk.id, body))), ["y.png"], "name")


@group.check(111)
async def size_limit(s: Subject) -> None:
    """Over the upload limit → 413 `MessageSizeTooBig`; 4 MiB file → 200."""
    talk = await s.start()
    headers = raw("application/octet-stream", "a.bin")
    accepted(await upload(talk.client, talk.id, bytes(4 * MIB), headers))
    refused(await upload(talk.client, talk.id, bytes(20 * MIB + 1), headers), 413, "MessageSizeTooBig")


@group.check(112)
async def scripts(s: Subject) -> None:
    """SVG or HTML attachment → served with `Content-Disposition: attachment` or a sandbox policy."""
    for content_type, name in (("image/svg+xml", "a.svg"), ("text/html", "a.html")):
        talk = await s.start()
        found = await only(talk, await upload(talk.client, talk.id, b"<script/>", raw(content_type, name)))
        headers = (await fetch(found["attachments"][0]["contentUrl"])).headers
        saved = headers.get("Content-Disposition", "").startswith("attachment")
        caged = "sandbox" in headers.get("Content-Security-Policy", "")
        expect(saved or caged, f"{content_type} is shown as a page of this origin")


@group.check(213)
async def odd_media_types(s: Subject) -> None:
    """`Content-Type` of an upload: parameters by RFC 9110 (`;name=value`), else `application/octet-stream`;
    `image/png;,text/html` is not shown in place."""
    plain = "application/octet-stream"
    for given, kept in (
        ("image/png; a=b", "image/png; a=b"),
        ('video/mp4;codecs="avc1, mp4a"', 'video/mp4;codecs="avc1, mp4a"'),
        ("image/png;,text/html", plain),
        ("image/png; text/html", plain),
        ("image/png, text/html", plain),
        ('image/png; a="b', plain),
        ("image/png; a=b c", plain),
    ):
        talk = await s.start()
        for body, headers in (
            (PIXEL, raw(given, "a.png")),
            (form(file_part("a.png", PIXEL, given)), FORM),
        ):
            attached = (await sent(talk, await upload(talk.client, talk.id, body, headers)))["attachments"][0]
            same(attached["contentType"], kept, f"contentType of {given}")
            got = (await fetch(attached["contentUrl"])).headers
            same(got.get("Content-Type"), kept, f"Content-Type of {given}")
            shown = got.get("Content-Disposition", "inline").startswith("inline")
            expect(not (shown and kept == plain), f"{given} is shown in place")


@group.check(113, Need.CONTROL)
async def expired(s: Subject) -> None:
    """With `upload_ttl_s` set: after it `contentUrl` 404, activity unchanged."""
    async with s.server(upload_ttl_s=1, activity_ttl_s=3600) as brief:
        talk = await brief.start()
        before = await only(talk, await upload(talk.client, talk.id, PIXEL, raw("image/png", "a.png")))
        link = before["attachments"][0]["contentUrl"]
        same((await fetch(link)).status, 200, "status before")
        end = time.monotonic() + 10
        while (got := await fetch(link)).status == 200 and time.monotonic() < end:
            await asyncio.sleep(0.1)
        same(got.status, 404, "status after it")
        same(await talk.log(), [before], "the activity")


@group.check(114, Need.BOT)
async def bot_fails(s: Subject) -> None:
    """Bot fails on an upload → 502 and activity kept."""
    talk = await s.start()
    s.bot.answer(500)
    answer = await upload(talk.client, talk.id, PIXEL, raw("image/png", "a.png"), user_id=USER)
    refused(answer, 502, "BotRejectedActivity")
    (found,) = await talk.log()
    same((await fetch(found["attachments"][0]["contentUrl"])).body, PIXEL, "bytes")
