"""The keys of other issuers: from the configured address and nowhere else, seldom, and only what can be used."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from landline.bots import issuers as module
from landline.bots.issuers import HttpIssuers, keys_in
from landline.core.keys import SigningKey, key_set
from landline.errors import IssuerUnavailable
from support.bot_trust import Authority, Ear, new_key


class Time:
    """What `issuers` takes for the time."""

    now = 1000.0


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(module, "_now", lambda: time.now)
    return time


@pytest.fixture
async def other() -> AsyncIterator[Authority]:
    async with Authority() as other:
        yield other


@pytest.fixture
async def trusted(other: Authority, time: Time) -> AsyncIterator[HttpIssuers]:
    trusted = HttpIssuers({other.issuer: other.url})
    yield trusted
    await trusted.close()


async def test_keys_are_fetched_once_for_everybody_and_again_when_a_day_old(
    other: Authority, trusted: HttpIssuers, time: Time
) -> None:
    found = await asyncio.gather(*(trusted.key(other.issuer, other.key.kid) for _ in range(20)))
    expected = other.key.private.public_key()
    assert all(key == expected for key in found)
    assert len(other.asked) == 1
    time.now += 86_000
    await trusted.key(other.issuer, other.key.kid)
    assert len(other.asked) == 1
    time.now += 1000
    await trusted.key(other.issuer, other.key.kid)
    assert len(other.asked) == 2


async def test_an_issuer_that_nobody_trusts_is_never_asked(other: Authority, trusted: HttpIssuers) -> None:
    async with Ear() as ear:
        for issuer in (ear.url, other.url, other.issuer + "/", other.issuer.upper(), ""):
            assert await trusted.key(issuer, other.key.kid) is None
        assert (ear.heard, other.asked) == (0, [])


async def test_keys_of_one_name_are_told_apart_by_their_issuer(other: Authority) -> None:
    """Or an issuer could publish its own key under the name of another's, and sign as that."""
    async with Authority() as second:
        second.document = json.loads(json.dumps(second.document).replace(second.key.kid, other.key.kid))
        trusted = HttpIssuers({"https://one.example": other.url, "https://two.example": second.url})
        try:
            for _ in range(2):
                first = await trusted.key("https://one.example", other.key.kid)
                assert first == other.key.private.public_key()
                assert await trusted.key("https://two.example", other.key.kid) == second.key.private.public_key()
        finally:
            await trusted.close()


async def test_tokens_with_made_up_keys_make_us_ask_once_a_minute(
    other: Authority, trusted: HttpIssuers, time: Time
) -> None:
    for number in range(100):
        assert await trusted.key(other.issuer, f"made up {number}") is None
    assert len(other.asked) == 1
    # A key that the issuer has had for a moment is found a minute later.
    new = SigningKey.of(new_key(), 0)
    other.document = key_set([other.key, new], [])
    time.now += 61
    assert await trusted.key(other.issuer, new.kid) == new.private.public_key()
    assert len(other.asked) == 2


@pytest.mark.parametrize("trouble", ["500", "a redirect", "no JSON", "no key set", "too large", "gone"])
async def test_trouble_of_the_issuer_takes_no_known_key_away(
    other: Authority, trusted: HttpIssuers, time: Time, trouble: str
) -> None:
    async with Ear() as ear:
        make: dict[str, Callable[[], None]] = {
            "500": lambda: setattr(other, "status", 500),
            "a redirect": lambda: other.__dict__.update(status=302, headers={"Location": f"{ear.url}/keys"}),
            "no JSON": lambda: setattr(other, "document", "x"),
            "no key set": lambda: setattr(other, "document", {"keys": "many"}),
            "too large": lambda: setattr(other, "document", {"keys": [], "x": "x" * 300_000}),
            "gone": lambda: None,
        }
        known = HttpIssuers({other.issuer: other.url})
        try:
            assert await known.key(other.issuer, other.key.kid) is not None
            make[trouble]()
            if trouble == "gone":
                await other.__aexit__(None, None, None)
            time.now += 90_000
            assert await known.key(other.issuer, other.key.kid) is not None, "what is known stays"
            with pytest.raises(IssuerUnavailable):
                await trusted.key(other.issuer, other.key.kid)
            asked = len(other.asked)
            with pytest.raises(IssuerUnavailable):
                await trusted.key(other.issuer, other.key.kid)
            assert len(other.asked) == asked, "not again at once"
        finally:
            await known.close()
        assert ear.heard == 0


async def test_keys_that_no_signature_may_be_held_against_are_ignored(other: Authority, trusted: HttpIssuers) -> None:
    (good,) = key_set([other.key], [])["keys"]  # type: ignore[misc]
    other.document = {
        "keys": [
            good,
            {**good, "kid": "for encryption", "use": "enc"},
            {**good, "kid": "of another algorithm", "alg": "RS512"},
            {**good, "kid": "no RSA", "kty": "oct", "k": good["n"]},
            {**good, "kid": "too small", "n": good["n"][:100]},
            {"kty": "EC", "kid": "another form", "crv": "P-256", "x": "x", "y": "y"},
            # What nobody can make anything of. The first of these would have taken all the others away.
            {**good, "kid": "no number", "n": "???"},
            {**good, "kid": "no text", "e": 65537},
            {**good, "kid": "no modulus", "n": ""},
            {**good, "kid": "an even exponent", "e": "AQAA"},
            {**good, "kid": "no known use", "use": None},
            {**good, "kid": "of no alphabet", "n": "\xe4" * 400},
            {"kid": "nothing else"},
            {**good, "kid": ["a list"]},
            "no object",
            None,
        ]
    }
    assert await trusted.key(other.issuer, other.key.kid) == other.key.private.public_key()
    for each in other.document["keys"][1:-3]:  # type: ignore[index]
        assert await trusted.key(other.issuer, each["kid"]) is None, each["kid"]


@pytest.mark.parametrize("document", [b'{"keys":' + b"[" * 100_000, b'{"keys":{}}', b'{"keys":"many"}', b"[" * 100_000])
def test_a_document_that_is_no_key_set_is_refused_in_words(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        keys_in(document)


def test_keys_with_numbers_of_another_size_take_none_away() -> None:
    huge = b'{"kty":"RSA","kid":"a","e":"AQAB","n":"' + b"w" * 200_000 + b'"}'
    assert keys_in(b'{"keys":[' + huge + b",{}," + huge + b"]}") == {}
