"""Links of ours inside stored bytes: a byte that nobody can write stands for the base of whoever reads (D-29, D-51)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from landline.core import links
from landline.core.activity import decode, from_bot
from landline.core.bot import Bot
from landline.core.links import OUR_BASE, json_text, kept, shown
from landline.core.log import ConversationId
from landline.errors import BadSyntax
from support.json_text import OBJECTS, as_object

SERVICE_URL = "http://10.0.0.1:3000/b/key-1"
"""Without its last slash, which bots may leave away or double."""
VIEW = "/v3/attachments/id1/views/original"
BOT = Bot("bot", "Bot", None, f"{SERVICE_URL}/", "key-1", "grammar")
C = ConversationId("Kq3vW9sTz1")


def test_nobody_can_write_what_stands_for_our_base() -> None:
    with pytest.raises(BadSyntax):
        decode(b'{"type":"message","text":"' + OUR_BASE + b'"}')


@given(OBJECTS)
def test_what_has_no_link_is_shown_as_it_is(members: dict[str, bytes]) -> None:
    text = as_object(members)
    assert OUR_BASE not in text
    assert shown(text, b"https://chat.example") is text


@pytest.mark.item(191)
@pytest.mark.parametrize("path", [VIEW, "/v3/directline/attachments/id1/a.png"])
def test_links_by_the_service_url_are_shown_under_the_readers_base(path: str) -> None:
    text = json.dumps(
        {"text": f"<{SERVICE_URL}{path}> {SERVICE_URL}/{path.replace('/attachments/', '//attachments//')}"}
    )
    for written in (text, text.replace("/", "\\/")):
        stored = kept(written.encode(), f"{SERVICE_URL}/")
        assert b"key-1" not in stored
        assert stored == kept(written.encode(), SERVICE_URL)
        for base in ("https://chat.example/prefix", 'http://odd"\\.example'):
            assert json.loads(shown(stored, json_text(base))) == {"text": f"<{base}{path}> {base}{path}"}


@pytest.mark.parametrize(
    "text",
    [
        SERVICE_URL,
        f"{SERVICE_URL}/v3/conversations/x/activities",
        f"{SERVICE_URL}/v3/attachmentsX",
        f"{SERVICE_URL}2{VIEW}",
        f"http://10.0.0.1:3000{VIEW}",
        f"http://10x0x0x1:3000/b/key-1{VIEW}",
        VIEW,
        f"{SERVICE_URL}v3/attachments/id1",
    ],
)
def test_nothing_else_is_changed(text: str) -> None:
    written = json.dumps({"text": text}).encode()
    assert kept(written, SERVICE_URL) == written


def test_an_escaped_backslash_before_a_slash_is_no_escaped_slash() -> None:
    written = json.dumps({"text": f"{SERVICE_URL}{VIEW}".replace("/", "\\/")}).encode()
    assert b"\\\\/" in written
    assert kept(written, SERVICE_URL) == written


@pytest.mark.item(191)
def test_a_bots_activity_is_stored_without_its_service_url() -> None:
    body = json.dumps({"type": "message", "channelData": {"deep": [f"{SERVICE_URL}{VIEW}"]}}).encode()
    stored = from_bot(body, conversation=C, bot=BOT, reply_to=None).stored
    assert b'"deep": ["' + OUR_BASE + VIEW.encode() + b'"]' in stored


def test_streams_with_one_base_share_its_bytes() -> None:
    assert links.json_text("http://a.example") is links.json_text("http://" + "a.example")
