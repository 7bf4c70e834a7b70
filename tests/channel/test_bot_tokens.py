"""Who may speak as a bot, over time: what the wire cannot show because nobody waits for an hour there."""

from __future__ import annotations

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from landline.channel import bot_tokens as module
from landline.channel.bot_tokens import BotTokens
from landline.channel.keys import SigningKeys
from landline.channel.registry import Registry
from landline.core.bot import Bot
from landline.core.tokens import digest
from landline.errors import BotNotAuthenticated, Forbidden
from landline.stores.memory import MemoryStore
from support.bot_trust import APP_ID, APP_SECRETS, CONNECTOR, claims, forged, new_key
from support.clock import FakeClock

ISSUER, OTHER = "https://landline.example", "https://issuer.example"
OTHER_KEY = new_key()
TWIN = "22222222-2222-4333-8444-555555555555"


def bot(bot_id: str, app_id: str | None, *secrets: str) -> Bot:
    return Bot(
        id=bot_id,
        name=bot_id,
        endpoint=None,
        service_url=f"{ISSUER}/b/{bot_id}/",
        service_key=bot_id,
        reference_grammar_id="",
        app_id=app_id,
        app_secrets=tuple(map(digest, secrets)),
    )


BOT, ANONYMOUS, SECOND = bot("one", APP_ID, *APP_SECRETS), bot("nobody", None), bot("two", TWIN, "x" * 30)


class Issuers:
    """One other issuer, which counts how often its key is asked for."""

    asked = 0

    async def key(self, issuer: str, kid: str) -> RSAPublicKey | None:
        self.asked += 1
        return OTHER_KEY.public_key() if (issuer, kid) == (OTHER, "k") else None

    async def close(self) -> None:
        pass


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def issuers() -> Issuers:
    return Issuers()


@pytest.fixture
async def keys(clock: FakeClock) -> SigningKeys:
    store = MemoryStore(clock)
    await store.open()
    return SigningKeys(store, clock, lead_s=90_000)


@pytest.fixture
async def tokens(clock: FakeClock, issuers: Issuers, keys: SigningKeys) -> BotTokens:
    registry = Registry([BOT, ANONYMOUS, SECOND], [], {})
    return BotTokens(registry, keys, issuers, clock, issuer=ISSUER, life_s=3600)


@pytest.mark.bot_item(90)
async def test_a_token_that_was_good_a_moment_ago_expires_in_the_cache_too(tokens: BotTokens, clock: FakeClock) -> None:
    token = (await tokens.grant(APP_ID, APP_SECRETS[0], None)).token
    await tokens.check(BOT, token)
    clock.move(3_899_000)
    await tokens.check(BOT, token)
    clock.move(1_000)
    with pytest.raises(BotNotAuthenticated, match="expired"):
        await tokens.check(BOT, token)
    clock.move(-4_300_000)
    with pytest.raises(BotNotAuthenticated, match="not valid yet"):
        await tokens.check(BOT, token)


@pytest.mark.bot_item(90)
async def test_a_token_that_was_good_a_moment_ago_goes_with_its_key(tokens: BotTokens, keys: SigningKeys) -> None:
    token = (await tokens.grant(APP_ID, APP_SECRETS[0], None)).token
    await tokens.check(BOT, token)
    await keys.withdraw(await keys.signer())
    with pytest.raises(BotNotAuthenticated):
        await tokens.check(BOT, token)
    await tokens.check(BOT, (await tokens.grant(APP_ID, APP_SECRETS[0], None)).token)


@pytest.mark.bot_item(91)
async def test_each_of_two_bots_has_tokens_of_its_own(tokens: BotTokens) -> None:
    one = (await tokens.grant(APP_ID, APP_SECRETS[1], None)).token
    two = (await tokens.grant(TWIN, "x" * 30, f"{CONNECTOR}/.default")).token
    for _ in range(2):
        await tokens.check(BOT, one)
        await tokens.check(SECOND, two)
        with pytest.raises(Forbidden):
            await tokens.check(SECOND, one)
        with pytest.raises(Forbidden):
            await tokens.check(BOT, two)
    for app_id, secret in ((APP_ID, "x" * 30), (TWIN, APP_SECRETS[0]), ("", ""), ("None", "")):
        with pytest.raises(Forbidden):
            await tokens.grant(app_id, secret, None)


async def test_an_anonymous_bot_is_known_by_its_path_whatever_it_shows(tokens: BotTokens) -> None:
    for token in (None, "x", (await tokens.grant(APP_ID, APP_SECRETS[0], None)).token):
        await tokens.check(ANONYMOUS, token)


async def test_a_verified_token_costs_no_signature_and_bad_ones_push_none_out(
    tokens: BotTokens, clock: FakeClock, issuers: Issuers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_VERIFIED", 3)
    now = clock.now_ms() // 1000

    def token(number: int, key: object = OTHER_KEY) -> str:
        said = claims(iss=OTHER, jti=str(number), nbf=now, exp=now + 60)
        return forged({"alg": "RS256", "kid": "k"}, said, key)  # type: ignore[arg-type]

    good = [token(number) for number in range(4)]
    await tokens.check(BOT, good[0])
    another = new_key()
    for number in range(10):
        with pytest.raises(BotNotAuthenticated):
            await tokens.check(BOT, token(number, another))
    asked = issuers.asked
    await tokens.check(BOT, good[0])
    assert issuers.asked == asked, "from the cache"
    for each in good[1:]:
        await tokens.check(BOT, each)
    await tokens.check(BOT, good[3])
    assert issuers.asked == asked + 3
    await tokens.check(BOT, good[0])
    assert issuers.asked == asked + 4, "the oldest was forgotten"


async def test_a_token_that_we_give_lives_as_long_as_we_say(tokens: BotTokens, clock: FakeClock) -> None:
    granted = await tokens.grant(APP_ID, APP_SECRETS[0], " ")
    said = jwt.decode(granted.token, options={"verify_signature": False})
    assert said["exp"] == clock.now_ms() // 1000 + granted.expires_in
