"""Group B: credentials (specification 4)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any

from landline.conformance.checks import Group, Need
from landline.conformance.directline import Answer, ClientStream, claims, parameter
from landline.conformance.expect import accepted, expect, refused, same
from landline.conformance.subject import Conversation, Subject

group = Group("B", "Credentials")


def a_name() -> str:
    """An id that nothing else has."""
    return f"site-{secrets.token_hex(8)}"


def forged(token: str) -> str:
    """The token with one character of its signature changed: one in the middle, since the last carries spare bits."""
    head, payload, signature = token.split(".")
    middle = len(signature) // 2
    other = "A" if signature[middle] != "A" else "B"
    return ".".join((head, payload, signature[:middle] + other + signature[middle + 1 :]))


def _segment(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def made_up(token: str, algorithm: str, key: bytes = b"") -> str:
    """The claims of a token in one that somebody else signed, or nobody."""
    signed = f"{_segment({'alg': algorithm, 'typ': 'JWT'})}.{_segment(claims(token))}"
    signature = hmac.digest(key, signed.encode(), hashlib.sha256) if key else b""
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def expired(s: Subject) -> Conversation:
    """A conversation whose token has just expired."""
    talk = await s.start()
    ends = claims(talk.opened.token)["exp"]
    await asyncio.sleep(max(0.0, ends - time.time()) + 0.1)
    return talk


@group.check(23)
async def no_credential(s: Subject) -> None:
    """Missing `Authorization` → 401 `BadArgument`."""
    nobody = s.client.using(None)
    for answer in (await nobody.generate(), await nobody.start(), await nobody.refresh()):
        refused(answer, 401, "BadArgument")


@group.check(24)
async def basic(s: Subject) -> None:
    """`Authorization: Basic x` → 401 `BadArgument`."""
    refused(await s.client.request("POST", "/conversations", headers={"Authorization": "Basic x"}), 401, "BadArgument")


@group.check(25)
async def lower_case(s: Subject) -> None:
    """`authorization: bearer <T>` (lower case) → accepted."""
    talk = await s.start()
    headers = {"authorization": f"bearer {talk.opened.token}"}
    accepted(await s.client.request("GET", f"/conversations/{talk.id}/activities", headers=headers))


@group.check(26)
async def random_string(s: Subject) -> None:
    """Random string as bearer → 403 `BadArgument`."""
    refused(await s.client.using("c29tZXRoaW5n-else").start(), 403, "BadArgument")


@group.check(27)
async def changed_signature(s: Subject) -> None:
    """T with one signature character changed → 403 `BadArgument`."""
    talk = await s.start()
    refused(await s.client.using(forged(talk.opened.token)).activities(talk.id), 403, "BadArgument")


@group.check(28, Need.CONTROL)
async def expired_token(s: Subject) -> None:
    """Expired T on start, RC, GA, send, upload, refresh → 403 `TokenExpired` each."""
    async with s.brief() as brief:
        talk = await expired(brief)
        upload = f"/conversations/{talk.id}/upload?userId=u"
        answers: list[Answer] = [
            await talk.client.start(),
            await talk.client.reconnect(talk.id),
            await talk.client.activities(talk.id),
            await talk.send(),
            await talk.client.request("POST", upload, data=b"x", headers={"Content-Type": "image/png"}),
            await talk.client.refresh(),
        ]
        for answer in answers:
            refused(answer, 403, "TokenExpired")


@group.check(29, Need.CONTROL)
async def expired_and_forged(s: Subject) -> None:
    """Expired T with broken signature → 403 `BadArgument`."""
    async with s.brief() as brief:
        talk = await expired(brief)
        refused(await talk.client.using(forged(talk.opened.token)).activities(talk.id), 403, "BadArgument")


@group.check(30)
async def foreign_key(s: Subject) -> None:
    """T with `alg: none` or signed by another key → 403 `BadArgument`."""
    talk = await s.start()
    for token in (made_up(talk.opened.token, "none"), made_up(talk.opened.token, "HS256", b"another key" * 4)):
        refused(await s.client.using(token).activities(talk.id), 403, "BadArgument")


@group.check(31)
async def other_conversation(s: Subject) -> None:
    """T used on another existing conversation → 403 `BadArgument`."""
    talk, other = await s.start(), await s.start()
    for answer in (
        await talk.client.activities(other.id),
        await talk.client.reconnect(other.id),
        await talk.client.send(other.id, "hello"),
    ):
        refused(answer, 403, "BadArgument")


@group.check(32, Need.CONTROL)
async def secret_of_the_same_bot(s: Subject) -> None:
    """S opens a conversation started with another site's credential of the same bot → 200."""
    async with s.operator() as operator:
        other = s.client.using(await operator.add_site(a_name()))
    ours, theirs = await s.start(), accepted(await other.start(), 201)
    for client, id_ in ((other, ours.id), (s.client, theirs.conversation_id)):
        accepted(await client.activities(id_))
        accepted(await client.reconnect(id_))


@group.check(33, Need.FOREIGN_SECRET)
async def secret_of_another_bot(s: Subject) -> None:
    """Secret of another bot on C → 404 `BadArgument`."""
    talk = await s.start()
    stranger = s.client.using(s.foreign_secret)
    for answer in (
        await stranger.activities(talk.id),
        await stranger.reconnect(talk.id),
        await stranger.send(talk.id, "x"),
    ):
        refused(answer, 404, "BadArgument")


@group.check(34, Need.SECOND_SECRET)
async def both_secrets(s: Subject) -> None:
    """Both secrets of a site work at the same time → 200/200."""
    accepted(await s.client.generate())
    accepted(await s.client.using(s.second_secret).generate())


@group.check(35, Need.CONTROL)
async def rotated(s: Subject) -> None:
    """After rotating key 1: old key 1 → 403 `BadArgument`; key 2 → 200; new key 1 → 200."""
    async with s.operator() as operator:
        site = a_name()
        old = await operator.add_site(site)
        second = await operator.rotate(site, 2)
        new = await operator.rotate(site, 1)
    refused(await s.client.using(old).generate(), 403, "BadArgument")
    accepted(await s.client.using(second).generate())
    accepted(await s.client.using(new).generate())


async def opens(talk: Conversation) -> list[Answer]:
    """What GA, refresh and RC answer."""
    client = talk.client
    return [await client.activities(talk.id), await client.refresh(), await client.reconnect(talk.id)]


async def is_closed(talk: Conversation, stream: ClientStream) -> None:
    """Fail unless the token opens nothing any more, and its stream is closed."""
    for answer in await opens(talk):
        refused(answer, 403, "BadArgument")
    same((await stream.until_closed(3))[0], 4403, "close code")


@group.check(36, Need.CONTROL)
async def rotated_and_revoked(s: Subject) -> None:
    """After *rotating* key 1: a token descending from it → 200 on GA, refresh and RC. After *revoking* it: 403
    `BadArgument` on all three, its open stream closes with 4403."""
    async with s.operator() as operator:
        rotating, revoking = a_name(), a_name()
        for site in (rotating, revoking):
            client = s.client.using(await operator.add_site(site))
            talk = await s.started(accepted(await client.start(), 201))
            async with talk.stream() as stream:
                if site == rotating:
                    await operator.rotate(site, 1)
                    for answer in await opens(talk):
                        accepted(answer)
                    expect(stream.open, "the stream was closed")
                else:
                    await operator.revoke(site, 1)
                    await is_closed(talk, stream)


@group.check(37, Need.CONTROL)
async def disabled(s: Subject) -> None:
    """Disabled site: secret and tokens → 403 `BadArgument`; its open stream closes with 4403."""
    async with s.operator() as operator:
        site = a_name()
        client = s.client.using(await operator.add_site(site))
        talk = await s.started(accepted(await client.start(), 201))
        async with talk.stream() as stream:
            await operator.disable(site)
            await is_closed(talk, stream)
        refused(await client.generate(), 403, "BadArgument")


@group.check(38, Need.CONTROL)
async def after_a_restart(s: Subject) -> None:
    """Token remains valid after server restart."""
    async with s.quick() as other:
        talk = await other.start()
        expect(other.running, "a server that can be restarted")
        if other.running is not None:
            await other.running.restart()
        await talk.read()
        accepted(await talk.client.refresh())


@group.check(39)
async def token_claims(s: Subject) -> None:
    """Token payload decodes as JWT with `conv`, `bot`, `site`, `nbf`, `exp`; `exp - nbf` equals `expires_in`."""
    answer = accepted(await s.client.generate())
    found = claims(answer.token)
    expect({"conv", "bot", "site", "nbf", "exp"} <= found.keys(), f"claims: {sorted(found)}")
    same(found["conv"], answer.conversation_id, "conv")
    same(found["exp"] - found["nbf"], answer.json["expires_in"], "exp - nbf")


@group.check(40)
async def user_claim(s: Subject) -> None:
    """Token made with `user.id` → claim `user` equals it; token without → no `user` claim."""
    same(claims((await s.client.generate(user={"id": "dl_a"})).token).get("user"), "dl_a", "claim user")
    expect("user" not in claims((await s.client.generate()).token), "a claim user in an unbound token")


@group.check(41)
async def ticket_as_bearer(s: Subject) -> None:
    """Ticket as bearer on GA → 403 `BadArgument`."""
    talk = await s.start()
    ticket = parameter(talk.opened.stream_url, "t")
    expect(ticket, talk.opened.stream_url)
    refused(await s.client.using(ticket).activities(talk.id), 403, "BadArgument")
