"""Who may do what, and for how long. How tokens and tickets are written is tested in `tests/core/test_tokens.py`."""

from __future__ import annotations

import msgspec
import pytest

from landline.channel.registry import Registry
from landline.channel.tokens import Grant, Lifetimes, Tokens, new_conversation_id
from landline.core.conversation import Account, Conversation, is_conversation_id
from landline.core.log import ConversationId
from landline.core.origins import ORIGINS, ORIGINS_CHARACTERS
from landline.core.tokens import (
    NAME_CHARACTERS,
    TOKEN_CHARACTERS,
    Claims,
    Keys,
    TokenParameters,
    digest,
    read,
    user_digest,
)
from landline.errors import BadArgument, Forbidden, TokenExpired, UnknownConversation
from support.channel import BOT, OTHER_BOT, OTHER_SECRET, SECRET, SITE, TestClock, two_bots

KEYS = Keys.derive(b"k" * 32)
LIFETIMES = Lifetimes(token_s=3600, chain_s=86400, stream_url_s=60, leeway_s=5)
ANN = Account("dl_ann", "Ann")


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def tokens(clock: TestClock) -> Tokens:
    return Tokens(two_bots(), KEYS, clock, LIFETIMES)


def claims_of(token: str) -> Claims:
    return read(token, KEYS)


def of(conversation: str, bot: str = BOT.id) -> Conversation:
    return Conversation(ConversationId(conversation), bot, None, None, 0, None)


def token_grant(tokens: Tokens, user: Account | None = None) -> Grant:
    return tokens.grant(tokens.generate(tokens.grant(SECRET), TokenParameters(user=user)).token)


def test_a_secret_opens_every_conversation_of_its_bot_and_none_of_another(tokens: Tokens) -> None:
    grant, foreign = tokens.grant(SECRET), tokens.grant(OTHER_SECRET)
    assert (grant.bot, grant.site, grant.user, grant.claims) == (BOT, SITE, None, None)
    for conversation in ("conversation-1", "conversation-2"):
        tokens.check_scope(grant, conversation)
        assert tokens.check_bot(grant, of(conversation)) == of(conversation)
        with pytest.raises(UnknownConversation):
            tokens.check_bot(foreign, of(conversation))
    assert tokens.check_bot(foreign, of("conversation-3", OTHER_BOT.id)).bot_id == OTHER_BOT.id


def test_a_token_opens_its_own_conversation_only(tokens: Tokens) -> None:
    issued = tokens.generate(tokens.grant(SECRET), TokenParameters())
    grant = tokens.grant(issued.token)
    tokens.check_scope(grant, issued.conversation)
    with pytest.raises(Forbidden, match="another conversation"):
        tokens.check_scope(grant, "conversation-2")


def test_an_unknown_conversation_is_unknown(tokens: Tokens) -> None:
    with pytest.raises(UnknownConversation):
        tokens.check_bot(tokens.grant(SECRET), None)


def test_a_token_carries_what_it_was_asked_to_and_a_life(tokens: Tokens) -> None:
    parameters = TokenParameters(user=ANN, origins=("https://example.org",))
    issued = tokens.generate(tokens.grant(SECRET), parameters)
    claims = claims_of(issued.token)
    assert issued.expires_in == claims.exp - claims.nbf == LIFETIMES.token_s
    assert (claims.user, claims.name, claims.origin) == ("dl_ann", "Ann", ("https://example.org",))
    assert claims.conv == issued.conversation
    assert tokens.grant(issued.token).user == ANN


def test_the_longest_names_of_ascii_and_the_most_origins_make_a_token_that_can_be_used(clock: TestClock) -> None:
    bot, site = msgspec.structs.replace(BOT, id="b" * 256), msgspec.structs.replace(SITE, id="s" * 64, bot_id="b" * 256)
    tokens = Tokens(Registry([bot], [site], {digest(SECRET): site.id}), KEYS, clock, LIFETIMES)
    origins = tuple(f"https://{number:04}{'x' * (1 if number < 84 else 2)}" for number in range(256))
    assert (len(origins), sum(map(len, origins))) == (ORIGINS, ORIGINS_CHARACTERS)
    ann = Account("u" * 256, "n" * NAME_CHARACTERS)
    issued = tokens.generate(tokens.grant(SECRET), TokenParameters(user=ann, origins=origins))
    assert len(issued.token) <= TOKEN_CHARACTERS
    clock.offset_ms += 7 * 86_400_000
    assert len(tokens.first(tokens.grant(SECRET), issued.conversation, ann, origins).token) <= TOKEN_CHARACTERS


@pytest.mark.parametrize(
    "user",
    [Account("u", "n" * 257), Account("u", "n" * 40_000), Account("\U0001f600" * 256, "\U0001f600" * 256)],
    ids=["a name", "a very long name", "what JSON writes with twelve characters for each"],
)
def test_a_token_that_would_be_too_long_is_not_made(tokens: Tokens, user: Account) -> None:
    with pytest.raises(BadArgument):
        tokens.generate(tokens.grant(SECRET), TokenParameters(user=user))


@pytest.mark.parametrize("letter", ["u", "\xfc", "\U0001f600"])
def test_any_user_id_that_may_be_has_a_token(tokens: Tokens, letter: str) -> None:
    user = Account(letter * 256)
    issued = tokens.generate(tokens.grant(SECRET), TokenParameters(user=user))
    assert tokens.grant(issued.token).user == user


def test_a_sites_own_origins_win_over_those_of_the_request(clock: TestClock) -> None:
    site = msgspec.structs.replace(SITE, trusted_origins=("https://site.example",))
    tokens = Tokens(two_bots(site=site), KEYS, clock, LIFETIMES)
    issued = tokens.generate(tokens.grant(SECRET), TokenParameters(origins=("https://evil.example",)))
    assert claims_of(issued.token).origin == ("https://site.example",)


def test_only_a_secret_generates_and_only_a_token_is_refreshed(tokens: Tokens) -> None:
    token = tokens.generate(tokens.grant(SECRET), TokenParameters()).token
    with pytest.raises(Forbidden):
        tokens.secret_grant(token)
    with pytest.raises(Forbidden):
        tokens.refresh(tokens.grant(SECRET))


def test_a_refresh_changes_nothing_but_the_life(tokens: Tokens, clock: TestClock) -> None:
    grant = token_grant(tokens, ANN)
    old = grant.claims
    assert old is not None
    clock.offset_ms += 60_000
    new = claims_of(tokens.refresh(grant).token)
    assert new.jti != old.jti
    assert new.exp == old.exp + 60
    assert msgspec.structs.replace(new, jti=old.jti, nbf=old.nbf, exp=old.exp) == old


def test_a_token_expires_although_it_was_verified_before(tokens: Tokens, clock: TestClock) -> None:
    token = tokens.generate(tokens.grant(SECRET), TokenParameters()).token
    tokens.grant(token)
    clock.offset_ms += (LIFETIMES.token_s + 4) * 1000
    tokens.grant(token)
    clock.offset_ms += 2000
    with pytest.raises(TokenExpired):
        tokens.grant(token)


def test_a_chain_of_tokens_ends_but_its_last_token_lives_on(tokens: Tokens, clock: TestClock) -> None:
    grant = token_grant(tokens)
    for _ in range(24):
        clock.offset_ms += 3590 * 1000
        last = tokens.refresh(grant).token
        grant = tokens.grant(last)
    clock.offset_ms += 600 * 1000
    with pytest.raises(TokenExpired, match="renewed"):
        tokens.refresh(grant)
    tokens.grant(last)


def test_a_token_of_another_deployment_or_of_no_token_is_refused(tokens: Tokens, clock: TestClock) -> None:
    foreign = Tokens(two_bots(), Keys.derive(b"f" * 32), clock, LIFETIMES)
    for credential in (foreign.generate(foreign.grant(SECRET), TokenParameters()).token, "", "x", "a.b.c", "\udc80.."):
        with pytest.raises(Forbidden):
            tokens.grant(credential)


def test_a_token_of_a_site_or_bot_that_is_gone_is_refused(tokens: Tokens, clock: TestClock) -> None:
    token = tokens.generate(tokens.grant(SECRET), TokenParameters()).token
    closed = Tokens(two_bots(site=msgspec.structs.replace(SITE, enabled=False)), KEYS, clock, LIFETIMES)
    renamed = Tokens(two_bots(bot=msgspec.structs.replace(BOT, id="renamed")), KEYS, clock, LIFETIMES)
    for elsewhere in (closed, renamed):
        with pytest.raises(Forbidden):
            elsewhere.grant(token)


def test_verified_tokens_are_kept_within_a_bound(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("landline.channel.tokens._VERIFIED", 3)
    for _ in range(9):
        token_grant(tokens)
    assert len(tokens._verified) == 3


def test_an_id_that_only_a_token_establishes_cannot_be_claimed_without_it(tokens: Tokens) -> None:
    unbound, bound = token_grant(tokens), token_grant(tokens, ANN)
    with pytest.raises(BadArgument):
        tokens.check_claimed(unbound, ANN)
    tokens.check_claimed(unbound, Account("ann"))
    tokens.check_claimed(unbound, None)
    tokens.check_claimed(bound, Account("dl_other"))
    tokens.check_claimed(tokens.grant(SECRET), ANN)


# Tickets


def test_a_ticket_opens_one_conversation_for_its_time_and_not_a_second_longer(tokens: Tokens, clock: TestClock) -> None:
    conversation = new_conversation_id()
    ticket = tokens.ticket(tokens.grant(SECRET), conversation, ANN.id)
    admitted = tokens.admit(ticket, conversation)
    assert (admitted.site, admitted.user) == (SITE.id, user_digest(ANN.id, KEYS))
    with pytest.raises(Forbidden):
        tokens.admit(ticket, new_conversation_id())
    clock.offset_ms += 59_000
    tokens.admit(ticket, conversation)
    clock.offset_ms += 1_000
    for each in (conversation, new_conversation_id()):  # its expiry is looked at first (3.4)
        with pytest.raises(TokenExpired):
            tokens.admit(ticket, each)


def test_a_ticket_is_no_credential_and_a_secret_no_ticket(tokens: Tokens) -> None:
    conversation = new_conversation_id()
    with pytest.raises(Forbidden):
        tokens.grant(tokens.ticket(tokens.grant(SECRET), conversation, None))
    with pytest.raises(Forbidden):
        tokens.admit(SECRET, conversation)


def test_a_plain_token_is_good_as_a_ticket_for_its_conversation(tokens: Tokens, clock: TestClock) -> None:
    issued = tokens.generate(tokens.grant(SECRET), TokenParameters(user=ANN))
    assert tokens.admit(issued.token, issued.conversation).user == user_digest(ANN.id, KEYS)
    with pytest.raises(Forbidden):
        tokens.admit(issued.token, new_conversation_id())
    clock.offset_ms += (LIFETIMES.token_s + 6) * 1000
    with pytest.raises(TokenExpired):
        tokens.admit(issued.token, issued.conversation)


@pytest.mark.item(204)
def test_a_header_opens_a_stream_with_a_token_of_its_conversation_and_nothing_else(
    tokens: Tokens, clock: TestClock
) -> None:
    issued = tokens.generate(tokens.grant(SECRET), TokenParameters(user=ANN))
    admitted = tokens.admit_bearer(issued.token, issued.conversation)
    assert (admitted.conversation, admitted.user) == (issued.conversation, user_digest(ANN.id, KEYS))
    ticket = tokens.ticket(tokens.grant(SECRET), issued.conversation, ANN.id)
    for other in (SECRET, ticket, "nonsense", "a.b.c", ""):
        with pytest.raises(Forbidden):
            tokens.admit_bearer(other, issued.conversation)
    with pytest.raises(Forbidden):
        tokens.admit_bearer(issued.token, new_conversation_id())
    clock.offset_ms += (LIFETIMES.token_s + 6) * 1000
    for each in (issued.conversation, new_conversation_id()):
        with pytest.raises(TokenExpired):
            tokens.admit_bearer(issued.token, each)


def test_a_secret_with_the_form_of_a_token_is_no_ticket(clock: TestClock) -> None:
    dotted = "secret.that.has-two-dots-0123456789"
    tokens = Tokens(Registry([BOT], [SITE], {digest(dotted): SITE.id}), KEYS, clock, LIFETIMES)
    with pytest.raises(Forbidden):
        tokens.admit(dotted, new_conversation_id())


def test_a_ticket_of_a_closed_site_is_refused(tokens: Tokens, clock: TestClock) -> None:
    conversation = new_conversation_id()
    ticket = tokens.ticket(tokens.grant(SECRET), conversation, None)
    closed = Tokens(two_bots(site=msgspec.structs.replace(SITE, enabled=False)), KEYS, clock, LIFETIMES)
    with pytest.raises(Forbidden):
        closed.admit(ticket, conversation)


def test_conversation_ids_are_new_and_of_the_right_form() -> None:
    ids = {new_conversation_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_conversation_id(each) for each in ids)
