from __future__ import annotations

import msgspec
import pytest

from landline.channel.registry import Registry
from landline.core import tokens
from landline.core.tokens import ski
from landline.errors import BotGone, Forbidden
from support.channel import BOT, OTHER_BOT, OTHER_SECRET, OTHER_SITE, SECRET, SITE, two_bots


def test_a_secret_opens_its_own_site_and_no_other_text_opens_any() -> None:
    known = two_bots()
    assert known.site_of_secret(SECRET) == SITE
    assert known.site_of_secret(OTHER_SECRET) == OTHER_SITE
    for text in ("", SECRET[:-1], SECRET + "0", SECRET.upper(), "\udc80"):
        assert known.site_of_secret(text) is None


def test_a_secret_is_not_kept() -> None:
    assert SECRET not in repr(vars(two_bots()))


def test_a_disabled_site_is_closed_to_its_secret_and_to_its_tokens() -> None:
    known = two_bots(site=msgspec.structs.replace(SITE, enabled=False))
    with pytest.raises(Forbidden, match="Site missing or disabled"):
        known.site_of_secret(SECRET)
    with pytest.raises(Forbidden, match="Site missing or disabled"):
        known.good_site(SITE.id, ski(SECRET))
    assert known.site_of_secret(OTHER_SECRET) == OTHER_SITE


def test_a_site_that_is_gone_opens_nothing() -> None:
    with pytest.raises(Forbidden, match="Site missing or disabled"):
        two_bots().good_site("gone", ski(SECRET))


def test_a_bot_is_found_by_its_id() -> None:
    assert two_bots().bot(OTHER_BOT.id) == OTHER_BOT
    with pytest.raises(Forbidden):
        two_bots().bot("gone")


def test_a_service_key_is_the_key_of_one_bot_to_the_letter() -> None:
    known = two_bots()
    assert (known.bot_of_key("key-1"), known.bot_of_key("key-2")) == (BOT, OTHER_BOT)
    for key in ("", "key-", "KEY-1", "key-1/", "bot"):
        assert known.bot_of_key(key) is None


def test_a_former_service_key_is_the_key_of_its_bot_too() -> None:
    known = Registry([msgspec.structs.replace(BOT, former_keys=("old-key",))])
    assert known.bot_of_key("old-key") == known.bot_of_key("key-1") == known.bot(BOT.id)


def test_a_revoked_secret_is_refused_with_everything_that_descends_from_it() -> None:
    known = two_bots()
    known.replace(
        [BOT], [SITE], {tokens.digest(SECRET): SITE.id, tokens.digest("b"): SITE.id}, [(SITE.id, ski(SECRET))]
    )
    for refused in (lambda: known.site_of_secret(SECRET), lambda: known.good_site(SITE.id, ski(SECRET))):
        with pytest.raises(Forbidden):
            refused()
    assert not known.admits(SITE.id, ski(SECRET))
    assert known.site_of_secret("b") == known.good_site(SITE.id, ski("b")) == SITE
    assert known.any_ski(SITE.id) == ski("b")


def test_a_stream_of_a_bot_that_is_gone_may_not_stay() -> None:
    known = two_bots()
    assert known.admits(SITE.id, ski(SECRET))
    known.replace([OTHER_BOT], [SITE], {})
    assert not known.admits(SITE.id, ski(SECRET))
    with pytest.raises(BotGone):
        known.bot(BOT.id)


def test_the_whole_picture_is_replaced_at_once() -> None:
    known = two_bots()
    known.replace([OTHER_BOT], [OTHER_SITE], {tokens.digest(OTHER_SECRET): OTHER_SITE.id})
    assert known.site_of_secret(SECRET) is None
    assert known.bot_of_key("key-1") is None
    assert known.site_of_secret(OTHER_SECRET) == OTHER_SITE
