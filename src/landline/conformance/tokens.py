"""Group C: tokens/generate, tokens/refresh (specification 4.4, 5.1)."""

from __future__ import annotations

import asyncio

from landline.conformance.checks import Group, Need
from landline.conformance.directline import claims
from landline.conformance.expect import accepted, expect, refused, same
from landline.conformance.subject import Subject

group = Group("C", "tokens/generate, tokens/refresh")


@group.check(42)
async def generate(s: Subject) -> None:
    """Generate with S, empty body → 200, exactly `conversationId`, `token`, `expires_in` (integer, default 3600), no
    `streamUrl`."""
    answer = accepted(await s.client.generate())
    same(sorted(answer.json), ["conversationId", "expires_in", "token"], "properties")
    same(answer.json["expires_in"], 3600, "expires_in")


@group.check(43)
async def generate_twice(s: Subject) -> None:
    """Generate twice → different `conversationId`s."""
    first, second = accepted(await s.client.generate()), accepted(await s.client.generate())
    expect(first.conversation_id != second.conversation_id, first.conversation_id)


@group.check(44, Need.BOT)
async def bot_is_not_called(s: Subject) -> None:
    """Generate does not call the bot."""
    token = accepted(await s.client.generate())
    await s.start()  # of which the bot hears, and later than of the other
    same(s.bot.heard(token.conversation_id), [], "what the bot heard")


@group.check(45)
async def capitalised(s: Subject) -> None:
    """Body `{"User":{"Id":"dl_a"}}` (capitalised) → claim `user` = `dl_a`."""
    answer = accepted(await s.client.request("POST", "/tokens/generate", json={"User": {"Id": "dl_a"}}))
    same(claims(answer.token).get("user"), "dl_a", "claim user")


@group.check(46)
async def empty_user(s: Subject) -> None:
    """Body `{"user":{}}` → 200, unbound token."""
    expect("user" not in claims(accepted(await s.client.generate(user={})).token), "a claim user")


@group.check(47)
async def user_id_is_no_string(s: Subject) -> None:
    """`user.id` not a string → 400 `BadArgument`."""
    refused(await s.client.generate(user={"id": 7.5}), 400, "BadArgument")


@group.check(48)
async def malformed_origin(s: Subject) -> None:
    """`trustedOrigins` with a malformed entry → 400 `BadArgument`."""
    refused(await s.client.generate(trustedOrigins=["https://www.example.org", "no origin"]), 400, "BadArgument")


@group.check(49)
async def generate_with_a_token(s: Subject) -> None:
    """Generate with a token → 403 `BadArgument`."""
    refused(await (await s.start()).client.generate(), 403, "BadArgument")


@group.check(50)
async def refresh(s: Subject) -> None:
    """Refresh T → 200, new token, same `conversationId`, later `exp`, same `user`, same `oat`."""
    old = accepted(await s.client.generate(user={"id": "dl_a"}))
    await asyncio.sleep(1.1)  # claims are whole seconds
    new = accepted(await s.client.using(old.token).refresh())
    expect(new.token != old.token, "the same token")
    same(new.conversation_id, old.conversation_id, "conversationId")
    before, after = claims(old.token), claims(new.token)
    expect(after["exp"] > before["exp"], f"exp {after['exp']} after {before['exp']}")
    for name in ("user", "oat", "conv"):
        same(after.get(name), before[name], f"claim {name}")


@group.check(51)
async def old_token_after_refresh(s: Subject) -> None:
    """After refresh the old token still works until its own expiry."""
    talk = await s.start()
    accepted(await talk.client.refresh())
    await talk.read()
    await talk.sent()


@group.check(52)
async def refresh_ten_times(s: Subject) -> None:
    """Refresh ten times in a row → each 200."""
    token = (await s.start()).opened.token
    for _ in range(10):
        token = accepted(await s.client.using(token).refresh()).token


@group.check(53)
async def refresh_with_a_secret(s: Subject) -> None:
    """Refresh with S → 403 `BadArgument`."""
    refused(await s.client.refresh(), 403, "BadArgument")


@group.check(54)
async def refresh_before_the_start(s: Subject) -> None:
    """Refresh before the conversation is started → 200."""
    accepted(await s.client.using(accepted(await s.client.generate()).token).refresh())


@group.check(55)
async def not_started(s: Subject) -> None:
    """GA, RC, send with a token whose conversation is not started → 404 `BadArgument`."""
    token = accepted(await s.client.generate())
    client = s.client.using(token.token)
    for answer in (
        await client.activities(token.conversation_id),
        await client.reconnect(token.conversation_id),
        await client.send(token.conversation_id, "hello"),
    ):
        refused(answer, 404, "BadArgument")
