"""Who may speak as a bot, over time: what the wire cannot show because nobody waits for an hour there."""

from __future__ import annotations

import math

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from landline.channel import bot_tokens as module
from landline.channel.bot_tokens import BotTokens
from landline.channel.keys import SigningKeys
from landline.channel.registry import Registry
from landline.core.bot import Bot
from landline.core.bot_tokens import Said
from landline.core.tokens import digest
from landline.errors import BotNotAuthenticated, Forbidden
from landline.stores.memory import MemoryStore
from support.bot_trust import APP_ID, APP_SECRETS, CONNECTOR, claims, forged, new_key
from support.clock import FakeClock

ISSUER, OTHER = "https://landline.example", "https://issuer.example"
OTHER_KEY = new_key()
OTHER_KEYS = "https://issuer.example/keys"
TWIN = "22222222-2222-4333-8444-555555555555"


def bot(bot_id: str, app_id: str | None, *secrets: str, trusted: tuple[str, ...] = (f"{OTHER}={OTHER_KEYS}",)) -> Bot:
    return Bot(
        id=bot_id,
        name=bot_id,
        endpoint=None,
        service_url=f"{ISSUER}/b/{bot_id}/",
        service_key=bot_id,
        reference_grammar_id="",
        app_id=app_id,
        app_secrets=tuple(map(digest, secrets)),
        trusted_issuers=trusted,
    )


BOT, ANONYMOUS, SECOND = bot("one", APP_ID, *APP_SECRETS), bot("nobody", None), bot("two", TWIN, "x" * 30)


class Issuers:
    """Key sets by their addresses."""

    def __init__(self) -> None:
        self.key_sets: dict[str, dict[str, RSAPrivateKey]] = {OTHER_KEYS: {"k": OTHER_KEY}}

    async def key(self, key_set: str, kid: str) -> RSAPublicKey | None:
        key = self.key_sets.get(key_set, {}).get(kid)
        return None if key is None else key.public_key()

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
    tokens: BotTokens, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_VERIFIED", 3)
    checked: list[str] = []

    def read(token: str, key: RSAPublicKey) -> Said:
        checked.append(token)
        return reading(token, key)

    reading = module.bot_tokens.read
    monkeypatch.setattr(module.bot_tokens, "read", read)
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
    checked.clear()
    await tokens.check(BOT, good[0])
    assert checked == [], "from the cache"
    for each in good[1:]:
        await tokens.check(BOT, each)
    await tokens.check(BOT, good[3])
    assert checked == good[1:]
    await tokens.check(BOT, good[0])
    assert checked == [*good[1:], good[0]], "the oldest was forgotten"


def of_other(now_s: float, key: RSAPrivateKey = OTHER_KEY, **said: object) -> str:
    """A token of the other issuer."""
    good = {"iss": OTHER, "nbf": now_s, "exp": now_s + 60} | said
    return forged({"alg": "RS256", "kid": "k"}, claims(**good), key)


@pytest.mark.bot_item(90)
async def test_a_kept_token_of_a_trusted_issuer_goes_with_its_key(
    tokens: BotTokens, issuers: Issuers, clock: FakeClock
) -> None:
    now_s = clock.now_ms() / 1000
    token = of_other(now_s)
    await tokens.check(BOT, token)
    another = new_key()
    for left in ({}, {"k2": OTHER_KEY}, {"k": another}):
        issuers.key_sets[OTHER_KEYS] = left
        for _ in range(2):
            with pytest.raises(BotNotAuthenticated):
                await tokens.check(BOT, token)
    await tokens.check(BOT, of_other(now_s, another))
    issuers.key_sets[OTHER_KEYS] = {"k": OTHER_KEY}
    await tokens.check(BOT, token)


@pytest.mark.bot_item(90)
async def test_an_issuer_that_one_bot_trusts_is_nobody_to_another(
    tokens: BotTokens, issuers: Issuers, clock: FakeClock
) -> None:
    token = of_other(clock.now_ms() / 1000)
    await tokens.check(BOT, token)
    for trusted in ((), ("https://elsewhere.example=" + OTHER_KEYS,), (f"{OTHER}=https://elsewhere.example/keys",)):
        careful = msgspec.structs.replace(BOT, id="careful", trusted_issuers=trusted)
        with pytest.raises(BotNotAuthenticated):
            await tokens.check(careful, token)
    # One name, two places: each bot has the keys of its own.
    issuers.key_sets["https://elsewhere.example/keys"] = {"k": new_key()}
    with pytest.raises(BotNotAuthenticated):
        await tokens.check(careful, token)
    await tokens.check(BOT, token)


@pytest.mark.bot_item(90)
@pytest.mark.parametrize("date", [1e308, math.inf, -math.inf, math.nan, -1, True, False, "9999999999", 1e13, [1], {}])
async def test_a_token_whose_dates_are_none_is_refused(tokens: BotTokens, clock: FakeClock, date: object) -> None:
    now_s = clock.now_ms() / 1000
    for claim in ("exp", "nbf", "iat"):
        with pytest.raises(BotNotAuthenticated):
            await tokens.check(BOT, of_other(now_s, **{claim: date}))
    await tokens.check(BOT, of_other(now_s, iat=now_s, exp=now_s + 0.5))


async def test_a_token_that_we_give_lives_as_long_as_we_say(tokens: BotTokens, clock: FakeClock) -> None:
    granted = await tokens.grant(APP_ID, APP_SECRETS[0], " ")
    said = jwt.decode(granted.token, options={"verify_signature": False})
    assert said["exp"] == clock.now_ms() // 1000 + granted.expires_in
