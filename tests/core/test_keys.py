"""Which key signs, and which are shown, at every moment around a rotation."""

from __future__ import annotations

import base64
import hashlib
import json

import jwt
import pytest

from landline.core.keys import KeyRing, SigningKey, key_set
from support.bot_trust import new_key

LEAD = 100
FIRST, SECOND, THIRD = (SigningKey.of(new_key(), from_ms) for from_ms in (1000, 2000, 3000))


@pytest.mark.bot_item(86)
@pytest.mark.parametrize(
    ("now", "signer", "waiting", "shown"),
    [
        (0, FIRST, THIRD, [FIRST, SECOND, THIRD]),  # a clock that was set back
        (1000, FIRST, THIRD, [FIRST, SECOND, THIRD]),
        (1999, FIRST, THIRD, [FIRST, SECOND, THIRD]),
        (2000, SECOND, THIRD, [FIRST, SECOND, THIRD]),
        (2099, SECOND, THIRD, [FIRST, SECOND, THIRD]),
        (2100, SECOND, THIRD, [SECOND, THIRD]),
        (3000, THIRD, None, [SECOND, THIRD]),
        (3100, THIRD, None, [THIRD]),
        (10**15, THIRD, None, [THIRD]),
    ],
)
def test_a_key_hands_over_to_the_next_and_is_shown_a_lead_longer(
    now: int, signer: SigningKey, waiting: SigningKey | None, shown: list[SigningKey]
) -> None:
    ring = KeyRing([FIRST, SECOND, THIRD], LEAD)
    assert ring.signer(now) is signer
    assert ring.waiting(now) is waiting
    assert ring.shown(now) == shown
    for key in (FIRST, SECOND, THIRD):
        assert ring.find(key.kid, now) is (key if key in shown else None)


def test_a_key_is_the_same_after_it_was_kept() -> None:
    again = SigningKey.from_kept(FIRST.to_keep())
    assert (again.kid, again.signs_from_ms) == (FIRST.kid, FIRST.signs_from_ms)
    assert again.private.private_numbers() == FIRST.private.private_numbers()


def test_the_name_of_a_key_is_its_thumbprint_and_its_public_half_verifies() -> None:
    (shown,) = key_set([FIRST], ["directline"])["keys"]  # type: ignore[misc]
    required = json.dumps({name: shown[name] for name in ("e", "kty", "n")}, separators=(",", ":"))
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(required.encode()).digest()).rstrip(b"=").decode()
    assert shown["kid"] == shown["x5t"] == FIRST.kid == thumbprint
    token = jwt.encode({"a": 1}, FIRST.private, algorithm="RS256")
    assert jwt.decode(token, jwt.PyJWK(shown).key, algorithms=["RS256"]) == {"a": 1}


def test_a_key_that_is_printed_gives_nothing_away() -> None:
    assert repr(FIRST) == f"SigningKey({FIRST.kid!r})"
