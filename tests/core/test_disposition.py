"""One file name in every spelling that clients give it (spec 5.6)."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landline.core.attachments import NAME_CHARACTERS, file_name, head

NAMES = ["привет.png", "größe.wav", "写真 1.jpg", "a?b=c_d.txt", "résumé (1).pdf", "🎉.gif", "x.png"]


def word(text: str, encoding: str = "B", charset: str = "utf-8") -> str:
    """An encoded word (RFC 2047)."""
    octets = text.encode(charset)
    if encoding in "Bb":
        return f"=?{charset}?{encoding}?{base64.b64encode(octets).decode()}?="
    return f"=?{charset}?{encoding}?" + "".join("_" if each == 32 else f"={each:02X}" for each in octets) + "?="


def named(disposition: str | bytes, *, in_form: bool = False) -> str:
    """What a file is called."""
    written = disposition if isinstance(disposition, bytes) else disposition.encode()
    return file_name(head(None, written, in_form=in_form).filename)


@pytest.mark.item(202)
@pytest.mark.parametrize("in_form", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_spelling_of_a_name_gives_the_same_name(name: str, in_form: bool) -> None:
    half, percent = len(name) // 2, quote(name, safe="")
    first, rest = quote(name[:half], safe=""), quote(name[half:], safe="")
    octets = name.encode()
    cut = base64.b64encode(octets[:5]).decode(), base64.b64encode(octets[5:]).decode()
    spellings = [
        f'form-data; name="file"; filename="{name}"',
        f"form-data; name=file; filename={name}",
        f'file; filename="{name}"',
        f'attachment; filename="{name}"',
        f'filename="{name}"',
        f"attachment; filename*=UTF-8''{percent}",
        f"attachment; FileName*=utf-8'en'{percent}; filename=x.bin",
        f"attachment; filename=x.bin; filename*=\"UTF-8''{percent}\"",
        f'form-data; filename="{word(name)}"',
        f'form-data; filename="{word(name, "b", "UTF-8")}"',
        f'form-data; filename="{word(name).replace("=?=", "?=")}"',
        f"form-data; filename={word(name)}",
        f'form-data; filename="{word(name, "Q")}"',
        f'form-data; filename="{word(name[:half])} {word(name[half:], "q")}"',
        f'form-data; filename="=?utf-8?B?{cut[0]}?=\r\n =?utf-8?B?{cut[1]}?="',
        f'form-data; filename="=?utf-8*ru?Q?{word(name, "Q").split("?")[3]}?="',
        f"attachment; filename*0*=UTF-8''{first}; filename*1*={rest}",
        f"attachment; filename*1=\"{name[half:]}\"; filename*0*=utf-8'en'{first}; filename=x.bin",
        f"attachment; filename=\"{word(name)}\"; filename*=unknown''x",
    ]
    assert {each: named(each, in_form=in_form) for each in spellings} == dict.fromkeys(spellings, name)


@pytest.mark.item(202)
@pytest.mark.parametrize("path", ["C:\\Users\\ann\\", "/tmp/", "../../", "\\\\host\\share\\"])
def test_path_parts_are_stripped_after_the_name_was_decoded(path: str) -> None:
    name = "???>>>.png"
    assert "/" in word(name), "the base64 has a slash of its own"
    assert named(f'file; filename="{word(name)}"') == name
    for spelling in (word(path + name), word(path + name, "Q"), path + name):
        assert named(f'file; filename="{spelling}"') == name
    assert named(f"file; filename*=utf-8''{quote(path + name, safe='')}") == name


@pytest.mark.item(202)
@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (b'file; filename="gr\xfc\xdfe.wav"', "grüße.wav"),  # latin-1
        (b"file; filename*=iso-8859-1''gr%FC%DFe.wav", "grüße.wav"),
        (b'file; filename="=?iso-8859-1?Q?gr=FC=DFe.wav?="', "grüße.wav"),
        (b'file; filename="=?windows-1251?B?7/Do4uXyLnBuZw==?="', "привет.png"),
        (b'file; filename="a =?utf-8?Q?=C3=BC?= b.txt"', "a ü b.txt"),
        (b'file; filename="a\\"b.txt"', 'a"b.txt'),
        (b'file; filename="c:\\\\dir\\\\b.txt"', "b.txt"),
        (b"file; filename=my photo.png", "my photo.png"),
        (b"file; filename*=photo.png", "photo.png"),
        (b"file; filename=x.png; filename*=", "x.png"),
        (b"file; filename=x.png; filename*=utf-8''", "x.png"),
        (b'file; filename=""', "attachment"),
        (b"file; filename=", "attachment"),
        (b'file; filename="=?utf-8?B??="', "attachment"),
        (b'file; filename="=?utf-8?B?Li4=?="', "attachment"),  # ..
        (b'file; filename="=?utf-8?B?YQAKYi50eHQ=?="', "ab.txt"),  # controls
        (b'file; filename="=?utf-8?B?!!!?="', "=?utf-8?B?!!!?="),  # none of them, so a name like any other
        (b'file; filename="=?utf-8?X?abc?= .txt"', "=?utf-8?X?abc?= .txt"),
        (b'file; filename="=?punycode?Q?abc?="', "=?punycode?Q?abc?="),
        (b'file; filename="=?utf-7?Q?+AC8-a?="', "=?utf-7?Q?+AC8-a?="),
        (b"file; filename=x.png; filename*=utf-7''a", "x.png"),
        (b"file; filename=x.png; filename*1=a", "x.png"),
        (b'file; filename="=?utf-8?Q?=FF=ZZ?="', "\ufffd=ZZ"),
    ],
)
def test_odd_and_hostile_names_are_still_names(disposition: bytes, name: str) -> None:
    assert named(disposition) == name


def test_browsers_write_quotes_with_percent_signs_in_forms_only() -> None:
    assert named('form-data; filename="a%22b%25.txt"', in_form=True) == 'a"b%25.txt'
    assert named('file; filename="a%22b%25.txt"') == "a%22b%25.txt"


@pytest.mark.item(202)
@pytest.mark.parametrize("encode", [str, word, lambda name: word(name, "Q")])
def test_a_long_name_keeps_its_end(encode: object) -> None:
    assert callable(encode)
    name = "ж" * 300 + ".png"
    assert named(f'file; filename="{encode(name)}"') == name[-NAME_CHARACTERS:]


@pytest.mark.item(202)
@given(st.text())
def test_whatever_is_encoded_comes_out_as_a_name(text: str) -> None:
    text = text.encode(errors="replace").decode()
    found = [named(f'file; filename="{word(text, encoding)}"') for encoding in "BQ"]
    assert found == [file_name(text)] * 2
    assert 0 < len(found[0]) <= NAME_CHARACTERS
    assert not set(found[0]) & set("/\\\0\r\n")
    json.dumps(found[0]).encode()


@pytest.mark.item(202, 212)
@pytest.mark.parametrize(
    "piece", ["=?utf-8?B?", "=?utf-8?Q?a?=", "=?a?B?YQ==?= ", "=?", "?=", "=?utf-8?Q?=41", "filename*0=a;", "%41", "\\"]
)
@pytest.mark.parametrize("before", ["filename=", 'filename="', "filename*=utf-8''", "filename*0*=''"])
def test_reading_a_name_takes_no_longer_than_it_is_long(before: str, piece: str) -> None:
    disposition = before + piece * (256 * 1024 // len(piece))
    began = time.process_time()
    named(disposition, in_form=True)
    assert time.process_time() - began < 0.1
