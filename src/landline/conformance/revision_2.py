"""Group K: revision 2 of the specification (section 14 K)."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

from landline.conformance.checks import Group, Need
from landline.conformance.directline import Answer
from landline.conformance.expect import accepted, same
from landline.conformance.send import unbound
from landline.conformance.subject import Subject
from landline.conformance.upload import named, only, raw
from landline.conformance.uploads import PIXEL, activity_part, file_part, form, part, upload

group = Group("K", "Revision 2")

_JSON = {"Content-Type": "application/json; charset=utf-8"}


@group.check(199)
async def body_null(s: Subject) -> None:
    """tokens/generate, tokens/refresh and start with the body `null` → as with an empty body."""

    async def post(path: str, credential: str | None = None) -> Answer:
        client = s.client if credential is None else s.client.using(credential)
        return await client.request("POST", path, data=b"null", headers=_JSON)

    token = accepted(await post("/tokens/generate")).token
    accepted(await post("/tokens/refresh", token))
    accepted(await post("/conversations", token), 201)
    accepted(await post("/conversations"), 201)


@group.check(201, Need.BOT)
async def sender_of_an_upload(s: Subject) -> None:
    """Upload with `userId=%201415…` in the query and `from.id` `+1415…` in the part → from the part; one member.
    Without a part: the query."""
    talk = await unbound(s)
    body = form(activity_part({"type": "message", "from": {"id": "+14155550100"}}), file_part("a.png", PIXEL))
    found = await only(talk, await upload(talk.client, talk.id, body, user_id="%2014155550100"))
    same(found["from"]["id"], "+14155550100", "from.id")
    joined = [
        member["id"]
        for each in s.bot.heard(talk.id)
        for member in each.get("membersAdded") or ()
        if member["id"] != each["recipient"]["id"]
    ]
    same(joined, ["+14155550100"], "members that the bot heard of")
    other = await unbound(s)
    answer = await upload(other.client, other.id, PIXEL, raw("image/png", "a.png"), user_id="%2B14155550100")
    same((await only(other, answer))["from"]["id"], "+14155550100", "from.id")


@group.check(202)
async def spellings_of_a_name(s: Subject) -> None:
    """File names `=?utf-8?B?…?=` with a `/` inside the Base64, and a Q-encoded one → decoded, extension intact; the
    same name as `filename*` and as raw UTF-8 gives the same attachment name."""
    name = "???>>> ü.png"
    word = f"=?utf-8?B?{base64.b64encode(name.encode()).decode()}?="
    assert "/" in word
    letters = "".join(f"={each:02X}" for each in name.encode())
    spellings = (
        f'filename="{word}"',
        f'filename="=?utf-8?Q?{letters}?="',
        f"filename*=UTF-8''{quote(name, safe='')}",
        f'filename="{name}"',
    )
    found: dict[str, Any] = {}
    for spelling in spellings:
        talk = await s.start()
        body = form(part(PIXEL, f'name="file"; {spelling}', "image/png"))
        found[spelling] = named(await only(talk, await upload(talk.client, talk.id, body)))
        if spelling.isascii():
            talk = await s.start()
            headers = {"Content-Type": "image/png", "Content-Disposition": f"file; {spelling}"}
            same(named(await only(talk, await upload(talk.client, talk.id, PIXEL, headers))), [name], spelling)
    same(found, {spelling: [name] for spelling in spellings}, "names")
