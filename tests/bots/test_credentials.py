"""Tokens for bots: made once, reused, renewed in time, and made anew when a bot says no."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from landline.bots.credentials import Credentials
from landline.core.bot import Bot, may_be_called
from support.clock import FakeClock

BOT = Bot(
    id="bot",
    name="Bot",
    endpoint=None,
    service_url="https://landline.example/b/key/",
    service_key="key",
    reference_grammar_id="",
    app_id="app",
)
ANONYMOUS = Bot(**{name: getattr(BOT, name) for name in BOT.__struct_fields__} | {"app_id": None})


class Signer:
    """Counts what it signs, and may take its time."""

    def __init__(self) -> None:
        self.kid = "key 1"
        self.signed: list[dict[str, Any]] = []

    async def signer(self) -> str:
        return self.kid

    async def sign(self, claims: dict[str, object]) -> str:
        self.signed.append(claims)
        await asyncio.sleep(0)
        return f"token {len(self.signed)}"


@pytest.fixture
def signer() -> Signer:
    return Signer()


def credentials(signer: Signer, clock: FakeClock, life_s: int = 3600) -> Credentials:
    return Credentials(signer, clock, issuer="https://landline.example", life_s=life_s)


async def test_a_token_is_signed_once_however_many_ask_for_it(signer: Signer) -> None:
    ours = credentials(signer, FakeClock())
    assert await asyncio.gather(*(ours.token(BOT) for _ in range(50))) == ["token 1"] * 50


@pytest.mark.parametrize(("life_s", "good_s"), [(3600, 3300), (900, 600), (600, 300), (10, 5)])
async def test_a_token_is_renewed_five_minutes_before_its_end(signer: Signer, life_s: int, good_s: int) -> None:
    clock = FakeClock()
    ours = credentials(signer, clock, life_s)
    assert await ours.token(BOT) == "token 1"
    clock.move(good_s * 1000 - 1)
    assert await ours.token(BOT) == "token 1"
    clock.move(1)
    assert await ours.token(BOT) == "token 2"
    assert signer.signed[1]["exp"] == clock.now_ms() // 1000 + life_s


async def test_a_token_of_a_key_that_signs_no_more_is_not_shown_again(signer: Signer) -> None:
    """It may have been withdrawn, and a bot may have heard of that before."""
    ours = credentials(signer, FakeClock())
    assert await ours.token(BOT) == "token 1"
    signer.kid = "key 2"
    assert await asyncio.gather(*(ours.token(BOT) for _ in range(5))) == ["token 2"] * 5


async def test_each_bot_and_each_service_url_has_a_token_of_its_own(signer: Signer) -> None:
    ours = credentials(signer, FakeClock())
    moved = Bot(**{name: getattr(BOT, name) for name in BOT.__struct_fields__} | {"service_url": "https://new/b/key"})
    assert [await ours.token(each) for each in (BOT, moved, BOT)] == ["token 1", "token 2", "token 1"]
    assert signer.signed[1]["serviceurl"] == "https://new/b/key"


@pytest.mark.bot_item(81)
async def test_a_bot_without_app_id_gets_none(signer: Signer) -> None:
    assert await credentials(signer, FakeClock()).token(ANONYMOUS) is None
    assert signer.signed == []


@pytest.mark.bot_item(20)
async def test_many_refusals_of_one_token_make_one_new_token(signer: Signer) -> None:
    ours = credentials(signer, FakeClock())
    assert await ours.token(BOT) == "token 1"
    for _ in range(5):
        ours.refused(BOT, "token 1")
        assert await ours.token(BOT) == "token 2"
    assert signer.signed[0]["jti"] != signer.signed[1]["jti"], "or both would be the same token within a second"


@pytest.mark.parametrize(
    ("endpoint", "hosts", "allowed"),
    [
        ("http://anywhere.example/x", (), True),
        ("http://bot.internal:3978/x", ("bot.internal",), True),
        ("http://BOT.internal./x", ("Bot.Internal",), True),
        ("http://bot.internal.evil.example/x", ("bot.internal",), False),
        ("http://notbot.internal/x", ("bot.internal",), False),
        ("http://a.bot.internal/x", ("*.internal",), True),
        ("http://internal/x", ("*.internal",), False),
        ("http://evil-internal/x", ("*.internal",), False),
        ("http://[::1]:1/x", ("::1", "127.0.0.1"), True),
        ("http://127.0.0.1/x", ("::1",), False),
        ("http://evil.example/bot.internal", ("bot.internal",), False),
    ],
)
def test_a_bot_is_called_on_allowed_hosts_only(endpoint: str, hosts: tuple[str, ...], allowed: bool) -> None:
    assert may_be_called(endpoint, hosts) is allowed
