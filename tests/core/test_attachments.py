"""What parts of an upload are, what files are called, and how they get into an activity (spec 5.6, 5.8)."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landline.core import attachments
from landline.core.attachments import NAME_CHARACTERS, AttachmentId, File, Head, Role, file_name, head, message
from landline.core.json_text import ITEMS
from landline.core.links import OUR_BASE
from landline.errors import BadArgument, BadSyntax, MissingProperty, RequestError
from support.json_text import OBJECTS, as_object


def file(name: str, content_type: str | None = "image/png", number: int = 0) -> File:
    return File(AttachmentId(f"id{number}"), name, content_type)


def merged(written: object, *files: File, user_id: str | None = None) -> dict[str, Any]:
    """The activity as a reader sees it whose base is `base:`."""
    body = written if isinstance(written, bytes) else json.dumps(written).encode()
    members = message(None if written is None else body, files, user_id).members
    text = b"{" + b",".join(json.dumps(name).encode() + b":" + bytes(value) for name, value in members.items()) + b"}"
    assert text.count(OUR_BASE) == len(files)
    activity = json.loads(text.replace(OUR_BASE, b"base:"))
    assert isinstance(activity, dict)
    return activity


def url(name: str, number: int = 0) -> str:
    return f"base:/v3/directline/attachments/id{number}/{name}"


# Heads


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        (None, None, None),
        (b"", None, None),
        (b"form-data", None, None),
        (b'form-data; name="file"; filename="a.jpg"', "file", "a.jpg"),
        (b'name="file"; filename="a.jpg"', "file", "a.jpg"),
        (b'filename="a.jpg"; name=file', "file", "a.jpg"),
        (b"FORM-DATA;NAME=file;FileName=a b.jpg ;x", "file", "a b.jpg"),
        (b'attachment; filename = "a;b=c.jpg" ; name = "file"', "file", "a;b=c.jpg"),
        (b'form-data; name="a\\"b"; filename="c\\"d"', 'a"b', 'c"d'),
        (rb'form-data; filename="C:\x\y.png"', None, r"C:\x\y.png"),
        ('form-data; filename="Grüße €.txt"'.encode(), None, "Grüße €.txt"),
        ('form-data; filename="Grüße.txt"'.encode("latin-1"), None, "Grüße.txt"),
        (b"attachment; filename*=UTF-8''%e2%82%ac%20rates.txt; filename=\"x\"", None, "€ rates.txt"),
        (b"attachment; filename=\"x\"; filename*=iso-8859-1'en'%A3.txt", None, "£.txt"),
        (b"attachment; filename=\"x\"; filename*=unknown'en'%A3.txt", None, "x"),
        (b'form-data; name="file"; filename=""', "file", ""),
        (b'form-data; filename="unclosed', None, '"unclosed'),
        (b";;; ; =x; name", None, None),
    ],
)
def test_a_disposition_is_read_as_it_is_written_in_the_wild(
    disposition: bytes | None, name: str | None, filename: str | None
) -> None:
    found = head(None, disposition, in_form=False)
    assert (found.name, found.filename) == (name, filename)


def test_browsers_write_quotes_in_names_with_percent_signs_in_forms_only() -> None:
    disposition = b'form-data; name="file"; filename="a%22b%0D%0A100%25.txt"'
    assert head(None, disposition, in_form=True).filename == 'a"b\r\n100%25.txt'
    assert head(None, disposition, in_form=False).filename == "a%22b%0D%0A100%25.txt"


@given(st.binary(max_size=300))
def test_no_disposition_is_too_odd_to_be_read(disposition: bytes) -> None:
    found = head(b"\xff", disposition, in_form=True)
    assert file_name(found.filename)


@pytest.mark.parametrize("piece", [b"x", b"=", b'"', b'a="', b'a="\\', b"; ", b'";', b"a=b;", b"\\"])
def test_reading_a_disposition_takes_no_longer_than_it_is_long(piece: bytes) -> None:
    began = time.process_time()
    head(None, piece * (32 * 1024 // len(piece)), in_form=True)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("part", "role"),
    [
        (Head(content_type="application/vnd.microsoft.activity"), Role.ACTIVITY),
        (Head(content_type="Application/VND.microsoft.Activity; charset=utf-8", filename="blob"), Role.ACTIVITY),
        (Head(content_type="application/json", name="activity"), Role.NEITHER),
        (Head(content_type="application/json", name="x", filename="x.json"), Role.FILE),
        (Head(name="file"), Role.FILE),
        (Head(filename=""), Role.FILE),
        (Head(name="files"), Role.NEITHER),
        (Head(), Role.NEITHER),
    ],
)
def test_a_part_is_an_activity_by_its_type_and_a_file_by_its_name(part: Head, role: Role) -> None:
    assert part.role is role


# Names and types


@pytest.mark.item(110)
@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        (r"C:\x\y.png", "y.png"),
        (r"\\host\share\y.png", "y.png"),
        ("/a/b/y.png", "y.png"),
        ("a/b\\y.png", "y.png"),
        ("y.png", "y.png"),
        (" y .png ", "y .png"),
        ("y\r\n.png", "y.png"),
        ("", "attachment"),
        (None, "attachment"),
        ("dir/", "attachment"),
        ("..", "attachment"),
        ("a/..", "attachment"),
        ("....", "attachment"),
        (".\x00.\r", "attachment"),
        (".", "attachment"),
        ("x" * 500 + ".png", "x" * (NAME_CHARACTERS - 4) + ".png"),
    ],
)
def test_a_file_is_called_by_the_last_part_of_its_path(given_name: str | None, name: str) -> None:
    assert file_name(given_name) == name


@given(st.text())
def test_no_name_leads_anywhere_else(given_name: str) -> None:
    name = file_name(given_name)
    assert name not in ("", ".", "..")
    assert not set(name) & set("/\\\r\n\0")
    assert file_name(name) == name


@pytest.mark.item(213)
@pytest.mark.parametrize(
    ("given_type", "media_type"),
    [
        ("image/png", "image/png"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ("image/svg+xml", "image/svg+xml"),
        (None, "application/octet-stream"),
        ("", "application/octet-stream"),
        ("image", "application/octet-stream"),
        ("image/png, text/html", "application/octet-stream"),
        ("image/png\r\nX-Evil: 1", "application/octet-stream"),
        ("image/p\u00fcng", "application/octet-stream"),
        ("x/" + "y" * 300, "application/octet-stream"),
        ("image/png;", "image/png;"),
        ("image/png ; a=b ;; c=d", "image/png ; a=b ;; c=d"),
        ('image/png; a="b, \\"c; d"', 'image/png; a="b, \\"c; d"'),
        ("image/png;,text/html", "application/octet-stream"),
        ("image/png; text/html", "application/octet-stream"),
        ("image/png; a=b, text/html", "application/octet-stream"),
        ("image/png; a = b", "application/octet-stream"),
        ('image/png; a="b', "application/octet-stream"),
        ('image/png; a="b"c', "application/octet-stream"),
        ("image/png; a=", "application/octet-stream"),
        ("image/png;a=b\0", "application/octet-stream"),
    ],
)
def test_what_is_no_media_type_is_plain_bytes(given_type: str | None, media_type: str) -> None:
    assert attachments.media_type(given_type) == media_type


@pytest.mark.item(112)
@pytest.mark.parametrize(
    ("content_type", "shown"),
    [
        ("image/png", True),
        ("IMAGE/JPEG", True),
        ("audio/mpeg", True),
        ("video/mp4; codecs=avc1", True),
        ("image/svg+xml", False),
        ("Image/SVG+XML; x=y", False),
        ("image/svg", False),
        ("image/vnd.x+xml", False),
        ("text/html", False),
        ("text/plain", False),
        ("application/pdf", False),
        ("imagetext/html", False),
        ("image/png;,text/html", False),
        ("image/png, text/html", False),
        ('video/mp4; codecs="avc1, mp4a"', True),
    ],
)
def test_only_pictures_sound_and_films_are_shown_in_place(content_type: str, shown: bool) -> None:
    assert attachments.may_be_shown(content_type) is shown


# The message


@pytest.mark.item(106)
def test_without_activity_there_is_a_message_with_the_files_in_their_order() -> None:
    activity = merged(None, file("b c.png", number=0), file("a.txt", None, number=1), user_id="u1")
    assert activity == {
        "type": "message",
        "from": {"id": "u1"},
        "attachments": [
            {"name": "b c.png", "contentType": "image/png", "contentUrl": url("b%20c.png")},
            {"name": "a.txt", "contentType": "application/octet-stream", "contentUrl": url("a.txt", 1)},
        ],
    }


@pytest.mark.item(105)
def test_files_fill_templates_by_name_and_keep_what_those_say() -> None:
    written = {
        "type": "event",
        "attachments": [
            {"name": "a.png", "contentType": "image/x", "thumbnailUrl": "t", "contentUrl": None, "y": [1]},
            {"contentType": "application/vnd.card", "content": {"name": "a.png"}},
            {"name": "b.png", "contentUrl": "https://elsewhere.example/b.png"},
            {"name": "b.png"},
            "no object",
            None,
        ],
    }
    activity = merged(written, file("b.png", None, 0), file("a.png", "image/png", 1), file("b.png", None, 2))
    assert activity["type"] == "event"
    assert activity["attachments"] == [
        {"name": "a.png", "contentType": "image/png", "thumbnailUrl": "t", "contentUrl": url("a.png", 1), "y": [1]},
        {"contentType": "application/vnd.card", "content": {"name": "a.png"}},
        {"name": "b.png", "contentUrl": "https://elsewhere.example/b.png"},
        {"name": "b.png", "contentType": "application/octet-stream", "contentUrl": url("b.png", 0)},
        "no object",
        None,
        {"name": "b.png", "contentType": "application/octet-stream", "contentUrl": url("b.png", 2)},
    ]


def test_two_templates_of_one_name_are_filled_in_their_order_and_leftover_ones_go() -> None:
    written = {"type": "message", "attachments": [{"name": "a", "n": 1}, {"name": "a", "n": 2}, {"name": "z"}]}
    activity = merged(written, file("a", number=0), file("a", number=1))
    assert [(each["n"], each["contentUrl"]) for each in activity["attachments"]] == [
        (1, url("a", 0)),
        (2, url("a", 1)),
    ]


@pytest.mark.item(105)
@given(
    st.lists(st.sampled_from([{"name": "a"}, {"name": "/x/a"}, {"name": "b"}, {"name": None}, {}, {"content": 1}])),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=8),
)
def test_each_file_takes_the_first_template_of_its_name_that_no_other_has(
    attached: list[dict[str, Any]], names: list[str]
) -> None:
    written = {"type": "message", "attachments": [{**each, "n": number} for number, each in enumerate(attached)]}
    taken: dict[int, int] = {}
    for number, name in enumerate(names):
        fitting = (n for n, each in enumerate(attached) if (each.get("name") or "")[-1:] == name and n not in taken)
        taken[next(fitting, -1 - number)] = number  # below zero for one that has none
    left = [n for n, each in enumerate(attached) if n in taken or "content" in each]
    ids = [(n, taken.get(n)) for n in left] + [(None, number) for n, number in taken.items() if n < 0]

    found = merged(written, *(file(name, number=number) for number, name in enumerate(names)))["attachments"]

    urls = [None if number is None else url(names[number], number) for _, number in ids]
    assert [(each.get("n"), each.get("contentUrl")) for each in found] == list(
        zip([n for n, _ in ids], urls, strict=True)
    )


def test_many_templates_cost_no_more_with_many_files() -> None:
    written = b'{"type":"message","attachments":[' + b",".join([b'{"name":"/a"}'] * ITEMS) + b"]}"

    def cost_s(files: int) -> float:
        given = [file(f"{number}.png", number=number) for number in range(files)]
        began = time.process_time()
        message(written, given, "u1")
        return time.process_time() - began

    assert min(cost_s(20) for _ in range(3)) < 3 * min(cost_s(1) for _ in range(3))


def test_more_templates_than_are_read_are_refused() -> None:
    written = b'{"type":"message","attachments":[' + b",".join([b"{}"] * (ITEMS + 1)) + b"]}"
    with pytest.raises(BadArgument):
        message(written, [file("a.png")], "u1")


def test_a_part_without_a_type_gets_that_of_its_template() -> None:
    written = {"type": "message", "attachments": [{"name": r"C:\x\a.png", "contentType": "image/png"}]}
    found = message(json.dumps(written).encode(), [file("a.png", None), file("b", "text/html")], "u")
    assert found.content_types == ("image/png", "text/html")


@pytest.mark.item(201)
@pytest.mark.parametrize("sender", [{"name": "Ann"}, {"id": "", "name": "Ann"}, {"id": None, "name": "Ann", "ID": "x"}])
def test_the_query_says_who_speaks_where_the_activity_does_not(sender: dict[str, object]) -> None:
    written = {"type": "message", "from": sender}
    assert merged(written, file("a"), user_id="u2")["from"] == {"id": "u2", "name": "Ann"}
    assert merged(written, file("a"))["from"] == sender


@pytest.mark.item(201)
@pytest.mark.parametrize("sender", [{"ID": "x", "id": "u1", "name": "Ann"}, {"id": 7}, {"id": True}])
def test_who_speaks_by_the_activity_is_not_changed_by_the_query(sender: dict[str, object]) -> None:
    """What is no id at all is refused where every `from` is read."""
    written = {"type": "message", "from": sender}
    assert merged(written, file("a"), user_id="u2")["from"] == sender


@pytest.mark.item(107)
@pytest.mark.parametrize(
    ("written", "error"),
    [
        (b"{", BadSyntax),
        (b"[1]", BadArgument),
        (b'{"attachments":{}}', BadArgument),
        (b'{"attachments":"x"}', BadArgument),
    ],
)
def test_an_activity_that_cannot_take_files_is_refused(written: bytes, error: type[RequestError]) -> None:
    with pytest.raises(error):
        message(written, [file("a")], "u")


@pytest.mark.item(107)
def test_no_file_is_no_upload() -> None:
    with pytest.raises(BadArgument):
        message(b'{"type":"message"}', [], "u")


@given(OBJECTS)
def test_everything_else_in_the_activity_stays_as_it_was_written(written: dict[str, bytes]) -> None:
    written.pop("attachments", None)
    members = message(as_object(written), [file("a")], None).members
    assert {name: bytes(value) for name, value in members.items() if name != "attachments"} == written


def test_half_an_emoji_in_another_attachment_is_carried_on() -> None:
    written = (
        rb'{"type":"message","attachments":[{"content":{"text":"\ud83d"}},{"name":"a","x":"\ude00"},{"content":1}]}'
    )
    members = message(written, [file("a")], None).members
    assert rb'{"content":{"text":"\ud83d"}}' in bytes(members["attachments"])
    assert rb'"x":"\ude00"' in bytes(members["attachments"])


# What bots attach


@pytest.mark.bot_item(65)
def test_a_bots_upload_has_the_views_that_it_gives() -> None:
    found = attachments.from_bot(
        b'{"type":"image/png","name":"/x/a.png","originalBase64":"-_+/QQ","thumbnailBase64":"QQ==","more":1}'
    )
    assert found == attachments.BotUpload("a.png", "image/png", {"original": b"\xfb\xff\xbfA", "thumbnail": b"A"})
    found = attachments.from_bot(b'{"originalBase64":"","thumbnailBase64":null}')
    assert found == attachments.BotUpload("attachment", "application/octet-stream", {"original": b""})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{}", MissingProperty),
        (b'{"originalBase64":null}', MissingProperty),
        (b'{"originalBase64":"A"}', BadArgument),
        (b'{"originalBase64":"\xc3\xa9AAA"}', BadArgument),
        (b'{"originalBase64":[1,2]}', BadArgument),
        (b'{"originalBase64":"QQ==","thumbnailBase64":"?"}', BadArgument),
        (b"nothing", BadSyntax),
    ],
)
def test_what_is_no_upload_of_a_bot_is_refused(body: bytes, error: type[RequestError]) -> None:
    with pytest.raises(error):
        attachments.from_bot(body)
