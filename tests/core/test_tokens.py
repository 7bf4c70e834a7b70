"""Secrets, tokens and tickets: what one key wrote, only that key reads, and only to the letter."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import string as characters

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landline.core import tokens
from landline.core.activity import decode
from landline.core.conversation import Account
from landline.core.origins import ORIGINS, ORIGINS_CHARACTERS
from landline.core.tokens import (
    Claims,
    Keys,
    Ticket,
    TokenParameters,
    read_parameters,
)
from landline.errors import BadArgument, Forbidden, RequestError, TokenExpired
from support.json_text import OBJECTS, VALUES, as_object

KEYS = Keys.derive(b"k" * 32)
FOREIGN = Keys.derive(b"f" * 32)
NOW_S = 1_767_607_200


def chain(user: Account | None = None, origins: tuple[str, ...] = ()) -> Claims:
    return tokens.first(
        bot="bot1",
        site="site1",
        conv="Kq3vW9sTz1",
        user=user,
        origin=origins,
        ski="abcdefghijkl",
        jti="j1",
        now_s=NOW_S,
        life_s=3600,
    )


def payload(token: str) -> dict[str, object]:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


# Keys and secrets.


def test_each_purpose_and_each_deployment_has_its_own_key():
    keys = {getattr(which, purpose) for which in (KEYS, FOREIGN) for purpose in ("token", "ticket", "user")}
    assert len(keys) == 6
    assert all(len(key) == 32 for key in keys)
    assert Keys.derive(b"k" * 32) == KEYS


def test_keys_are_not_printed():
    assert repr(KEYS) == f"{KEYS}" == "Keys(...)"


def test_a_secret_is_known_by_its_digest_and_marked_by_its_first_characters():
    assert tokens.digest("s3cret") == hashlib.sha256(b"s3cret").digest()
    assert tokens.ski("s3cret") == base64.urlsafe_b64encode(hashlib.sha256(b"s3cret").digest()).decode()[:12]
    assert len(tokens.digest("\udc80")) == 32


# Tokens.


@given(
    st.none()
    | st.builds(Account, st.text(st.characters(exclude_categories=("Cs",)), min_size=1), st.none() | st.just("A")),
    st.sampled_from([(), ("*",), ("https://a.example", "https://b.example:8443")]),
)
def test_a_token_says_what_was_signed(user, origins):
    claims = chain(user, origins)
    assert tokens.read(tokens.sign(claims, KEYS), KEYS) == claims


@pytest.mark.item(39, 40)
def test_the_payload_has_the_claims_of_the_specification_and_no_empty_ones():
    bare = payload(tokens.sign(chain(), KEYS))
    assert bare == {
        "bot": "bot1",
        "site": "site1",
        "conv": "Kq3vW9sTz1",
        "ski": "abcdefghijkl",
        "jti": "j1",
        "oat": NOW_S,
        "nbf": NOW_S,
        "exp": NOW_S + 3600,
        "iss": "landline",
        "aud": "landline",
    }
    bound = payload(tokens.sign(chain(Account("dl_1", "Ann"), ("*",)), KEYS))
    assert bound == {**bare, "user": "dl_1", "name": "Ann", "origin": ["*"]}


@pytest.mark.item(27)
def test_one_changed_character_makes_a_token_worthless():
    token = tokens.sign(chain(), KEYS)
    for at, letter in enumerate(token[:-1]):  # two bits of the very last character mean nothing
        changed = token[:at] + ("A" if letter != "A" else "B") + token[at + 1 :]
        with pytest.raises(Forbidden):
            tokens.read(changed, KEYS)


GOOD = {"bot": "b", "site": "s", "conv": "c", "ski": "k", "jti": "j", "oat": 1, "nbf": 1, "exp": 2}
NAMED = {**GOOD, "iss": "landline", "aud": "landline"}


def test_the_forgeries_below_differ_from_a_good_token_by_one_thing_each():
    assert tokens.read(jwt.encode(NAMED, KEYS.token, "HS256"), KEYS) == Claims(**GOOD)


@pytest.mark.item(26, 29, 30)
@pytest.mark.parametrize(
    "forged",
    [
        jwt.encode(NAMED, FOREIGN.token, "HS256"),
        jwt.encode(NAMED, KEYS.ticket, "HS256"),
        jwt.encode(NAMED, KEYS.token + b"0" * 32, "HS512"),
        jwt.encode(NAMED, None, "none"),
        jwt.encode({**NAMED, "use": "x"}, KEYS.token, "HS256"),
        jwt.encode({**NAMED, "use": None}, KEYS.token, "HS256"),
        jwt.encode({**NAMED, "iss": "other"}, KEYS.token, "HS256"),
        jwt.encode({**NAMED, "aud": "other"}, KEYS.token, "HS256"),
        jwt.encode(GOOD, KEYS.token, "HS256"),
        jwt.encode({**NAMED, "exp": "soon"}, KEYS.token, "HS256"),
        jwt.encode({**NAMED, "user": 1}, KEYS.token, "HS256"),
        jwt.encode({name: value for name, value in NAMED.items() if name != "conv"}, KEYS.token, "HS256"),
        "",
        "..",
        "a.b.c",
        "s3cret-of-some-site",
        "e30.e30.",
        base64.urlsafe_b64encode(b"[" * 20_000).decode() + ".e30.e30",
        "\udc80.\udc80.\udc80",
        "ü.ü.ü",
    ],
)
def test_what_we_did_not_sign_for_this_is_refused(forged):
    with pytest.raises(Forbidden):
        tokens.read(forged, KEYS)


@given(
    st.text()
    | st.tuples(st.binary(), st.binary(), st.binary()).map(
        lambda parts: ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    )
)
def test_no_text_passes_for_a_token_or_breaks_its_reader(text):
    with pytest.raises(Forbidden):
        tokens.read(text, KEYS)


@given(OBJECTS)
def test_no_header_breaks_the_reader(members):
    header = base64.urlsafe_b64encode(as_object({**members, "alg": b'"HS256"'})).decode().rstrip("=")
    with pytest.raises(Forbidden):
        tokens.read(header + ".e30.AAAA", KEYS)


def test_a_token_is_read_whatever_the_time_and_checked_against_it_separately():
    claims = tokens.read(tokens.sign(chain(), KEYS), KEYS)  # long past, or not yet: reading does not ask
    tokens.check_time(claims, NOW_S - 5, 5)
    tokens.check_time(claims, NOW_S + 3604.9, 5)
    with pytest.raises(TokenExpired):
        tokens.check_time(claims, NOW_S + 3605, 5)
    with pytest.raises(Forbidden):
        tokens.check_time(claims, NOW_S - 5.1, 5)


@pytest.mark.item(50)
def test_a_successor_opens_the_same_and_lives_in_full():
    claims = chain(Account("dl_1", "Ann"), ("https://a.example",))
    later = tokens.successor(claims, jti="j2", now_s=NOW_S + 100, life_s=60, chain_s=1000)
    assert (later.jti, later.nbf, later.exp) == ("j2", NOW_S + 100, NOW_S + 160)
    same = ("bot", "site", "conv", "user", "name", "origin", "ski", "oat")
    assert [getattr(later, name) for name in same] == [getattr(claims, name) for name in same]


def test_a_chain_ends_though_each_token_of_it_was_renewed_in_time():
    claims = chain()
    for at in (400, 800, 1000):
        claims = tokens.successor(claims, jti="j", now_s=NOW_S + at, life_s=3600, chain_s=1000)
    assert claims.exp == NOW_S + 4600
    with pytest.raises(TokenExpired):
        tokens.successor(claims, jti="j", now_s=NOW_S + 1001, life_s=3600, chain_s=1000)


# Tickets.

TICKET = Ticket("Kq3vW9sTz1", "site1", "abcdefghijkl", b"\0\1\2\3\4\5\6\7", NOW_S * 1000 + 60_000)
URL_SAFE = characters.ascii_letters + characters.digits + "-_"


@given(
    st.builds(
        Ticket,
        st.text(URL_SAFE, min_size=8, max_size=64),
        st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
        st.text(URL_SAFE, min_size=12, max_size=12),
        st.binary(min_size=8, max_size=8),
        st.integers(0, 2**63),
    )
)
def test_a_ticket_says_what_was_written_in_characters_that_need_no_escape(ticket):
    text = tokens.write_ticket(ticket, KEYS)
    assert tokens.read_ticket(text, KEYS) == ticket
    assert set(text) <= set(URL_SAFE)


@pytest.mark.item(139)
def test_one_changed_character_makes_a_ticket_worthless():
    text = tokens.write_ticket(TICKET, KEYS)
    for at in range(len(text)):
        for letter in {*URL_SAFE, ".", "=", " ", "ü"} - {text[at]}:
            with pytest.raises(Forbidden):
                tokens.read_ticket(text[:at] + letter + text[at + 1 :], KEYS)


def test_a_ticket_has_one_spelling():
    text = tokens.write_ticket(TICKET, KEYS)
    for other in (
        text + "=",
        text + "==",
        text + "\n",
        " " + text,
        text[:9] + "." + text[9:],
        text + "AAAA",
        text[:-1],
    ):
        with pytest.raises(Forbidden):
            tokens.read_ticket(other, KEYS)


def test_a_ticket_of_another_layout_is_refused_though_we_signed_it():
    text = tokens.write_ticket(TICKET, KEYS)
    said = b"\2" + base64.urlsafe_b64decode(text + "==")[1:-32]
    for signed in (said, b"", said[:9]):
        forged = base64.urlsafe_b64encode(signed + hmac.digest(KEYS.ticket, signed, "sha256")).decode().rstrip("=")
        with pytest.raises(Forbidden):
            tokens.read_ticket(forged, KEYS)


@pytest.mark.item(41)
def test_tickets_and_tokens_do_not_pass_for_each_other():
    ticket = tokens.write_ticket(TICKET, KEYS)
    with pytest.raises(Forbidden):
        tokens.read(ticket, KEYS)
    with pytest.raises(Forbidden):
        tokens.read_ticket(tokens.sign(chain(), KEYS), KEYS)
    with pytest.raises(Forbidden):
        tokens.read_ticket(ticket, FOREIGN)


@given(st.text() | st.text(URL_SAFE, max_size=120) | st.just("\udc80"))
def test_no_text_passes_for_a_ticket_or_breaks_its_reader(text):
    with pytest.raises(Forbidden):
        tokens.read_ticket(text, KEYS)


def test_a_user_digest_tells_users_apart_and_names_none():
    ann, bob = tokens.user_digest("ann", KEYS), tokens.user_digest("bob", KEYS)
    assert len(ann) == len(bob) == 8
    assert len({ann, bob, tokens.user_digest("ann", FOREIGN), tokens.user_digest(None, KEYS)}) == 4
    assert tokens.user_digest("ann", KEYS) == ann != hmac.digest(KEYS.ticket, b"ann", "sha256")[:8]
    assert tokens.user_digest(None, KEYS) == bytes(8)

    # Origins and token parameters.


@pytest.mark.item(48)
@pytest.mark.parametrize("text", ["", "null", "https://a.example/path", "https://a.example:0", "**"])
def test_what_is_no_origin_is_refused_among_the_parameters(text):
    with pytest.raises(BadArgument):
        parameters({"trustedOrigins": ["https://a.example", text]})


def parameters(body: object) -> TokenParameters:
    return read_parameters(decode(json.dumps(body).encode()))


@pytest.mark.item(45)
def test_parameters_are_read_whatever_the_case_of_their_names():
    body = {
        "User": {"Id": "dl_a", "NAME": "Ann", "other": 1},
        "TRUSTEDORIGINS": ["https://A.example/", "https://a.example:443", "*"],
        "Locale": "de-DE",
        "eTag": "x",
    }
    assert parameters(body) == TokenParameters(Account("dl_a", "Ann"), ("https://a.example", "*"), "de-DE")


@pytest.mark.item(46, 61)
@pytest.mark.parametrize(
    "body",
    [{}, {"user": None}, {"user": {}}, {"user": {"id": None}}, {"user": {"name": "A"}}, {"trustedOrigins": None}],
)
def test_nobody_need_be_named(body):
    assert parameters(body) == TokenParameters()


@pytest.mark.item(47)
@pytest.mark.parametrize("user", ["u", 1, [], True, *({"id": wrong} for wrong in (1.5, "", "u" * 257, {}, "\ud83d"))])
def test_a_user_id_is_a_string_of_1_to_256_characters(user):
    with pytest.raises(BadArgument):
        parameters({"user": user})


def test_the_longest_user_id_is_accepted():
    assert parameters({"user": {"id": "u" * 256}}).user == Account("u" * 256)


@pytest.mark.item(62)
@pytest.mark.parametrize("locale", [None, 1, {"x": 1}, ["de"], True])
def test_a_locale_that_is_no_string_is_ignored(locale):
    assert parameters({"locale": locale}).locale is None


def test_a_lone_surrogate_in_a_name_refuses_nobody():
    assert parameters({"user": {"id": "u", "name": "A\ud83d"}}).user == Account("u", "A\ufffd")


@pytest.mark.parametrize("origins", ["https://a.example", {}, 1, [1], [None], ["\ud83d"]])
def test_trusted_origins_are_an_array_of_strings(origins):
    with pytest.raises(BadArgument):
        parameters({"trustedOrigins": origins})


ORIGIN_BY_NUMBER = "https://a{}.b"


def test_trusted_origins_are_counted_once_each():
    most = [ORIGIN_BY_NUMBER.format(number) for number in range(256)]
    assert sum(map(len, most)) <= ORIGINS_CHARACTERS, "or what is refused below may be too long"
    assert len(parameters({"trustedOrigins": [*most, *most]}).origins) == ORIGINS
    with pytest.raises(BadArgument, match="256"):
        parameters({"trustedOrigins": [*most, "https://c.d"]})


def test_trusted_origins_may_be_so_long_together():
    most = [f"https://{letter}.{'x' * 1740}" for letter in "ab"]
    assert sum(map(len, most)) == ORIGINS_CHARACTERS
    assert parameters({"trustedOrigins": most}).origins == tuple(most)
    with pytest.raises(BadArgument, match="3500"):
        parameters({"trustedOrigins": [most[0], most[1] + "x"]})


@given(st.dictionaries(st.sampled_from(["user", "User", "trustedOrigins", "locale"]), VALUES))
def test_parameters_are_either_refused_or_fit_into_a_token(members):
    try:
        read = read_parameters(decode(as_object(members)))
    except RequestError:
        return
    claims = chain(read.user, read.origins)
    assert tokens.read(tokens.sign(claims, KEYS), KEYS) == claims


def test_a_session_is_told_apart_from_its_cookie_and_from_other_deployments() -> None:
    other = Keys.derive(b"o" * 32)
    told = {tokens.session_id("a", KEYS), tokens.session_id("b", KEYS), tokens.session_id("a", other)}
    assert len(told | {"a", "b"}) == 5
    assert tokens.session_id("a", KEYS) in told


@pytest.mark.parametrize("text", ["", "x" * 11, "x" * 13, "x" * 11 + "=", "\u0661" * 12])
def test_a_mark_of_a_secret_has_its_form(text: str) -> None:
    assert tokens.is_ski(tokens.ski("anything"))
    assert not tokens.is_ski(text)
