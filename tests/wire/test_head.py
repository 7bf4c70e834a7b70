"""What a request head may say, without a connection."""

from __future__ import annotations

import pytest

from landline.wire.head import NotAcceptable, authority, bad_target, check_fields, fields_of, is_host, path_and_query


def refused(version: str, **fields: str) -> int | None:
    """The status that these fields get; None if they are taken. `_` in a name is a hyphen."""
    try:
        check_fields(version, {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()})
    except NotAcceptable as error:
        return error.status
    return None


@pytest.mark.item(211)
@pytest.mark.parametrize("host", ["here", "here:80", "here:", "a_b.c-d", "10.0.0.1:3000", "[::1]", "[::1]:80", "x."])
def test_a_host_may_be_a_name_or_an_address_with_a_port(host: str) -> None:
    assert is_host(host.encode())
    assert refused("1.1", host=host) is None


IMPOSSIBLE = [
    "",
    " ",
    "a b",
    "a/b",
    "user@here",
    "here:x",
    "here:-1",
    "here:65536",
    "here:123456",
    ":80",
    "::1",
    "[::1",
    "[x]",
    "a,b",
    "here?",
    "here#",
    "a\\b",
    "%41",
    "ä.example",
    "here:80:81",
]


@pytest.mark.item(211)
@pytest.mark.parametrize("host", IMPOSSIBLE)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_impossible_host_is_400(version: str, host: str) -> None:
    assert refused(version, host=host) == 400


@pytest.mark.item(211)
def test_only_http_1_0_goes_without_a_host() -> None:
    assert refused("1.0") is None
    assert refused("1.1") == refused("0.9") == 400


@pytest.mark.item(211)
@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "identity", "xchunked", "chunked;q=1", ",chunked", ""])
def test_a_transfer_coding_other_than_chunked_alone_is_501(coding: str) -> None:
    assert refused("1.1", host="here", transfer_encoding=coding) == 501
    assert refused("1.0", host="here", transfer_encoding=coding) == 400


@pytest.mark.item(211)
def test_chunked_may_be_written_in_any_case_and_is_not_for_http_1_0() -> None:
    assert refused("1.1", host="here", transfer_encoding="Chunked") is None
    assert refused("1.0", host="here", transfer_encoding="chunked") == 400


def test_the_first_of_several_fields_counts() -> None:
    assert fields_of([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]) == {b"a": b"1", b"b": b"2"}


@pytest.mark.item(197)
def test_two_equal_authorization_lines_are_one_and_two_differing_are_none() -> None:
    one, other = (b"authorization", b"Bearer a"), (b"authorization", b"bearer a")
    assert fields_of([one, (b"x", b""), one]) == {b"authorization": b"Bearer a", b"x": b""}
    for lines in ([one, other], [other, one], [one, one, other]):
        with pytest.raises(NotAcceptable, match="differs") as refusal:
            fields_of(lines)
        assert refusal.value.status == 400


@pytest.mark.item(197)
@pytest.mark.parametrize("name", [b"host", b"content-length"])
def test_two_equal_lines_that_frame_or_route_a_request_are_refused(name: bytes) -> None:
    with pytest.raises(NotAcceptable, match="given twice"):
        fields_of([(name, b"1"), (name, b"1")])


@pytest.mark.parametrize(
    ("url", "named"),
    [
        (b"/path", None),
        (b"*", None),
        (b"/http://there/", None),
        (b"http://there/path", b"there"),
        (b"http://there:81/path?x", b"there:81"),
        (b"http://[::1]:5/", b"[::1]:5"),
        (b"http://user:password@there/", b"there"),
    ],
)
def test_a_target_in_absolute_form_names_the_host(url: bytes, named: bytes | None) -> None:
    assert authority(url) == named


def test_a_target_has_a_path_and_a_query() -> None:
    assert path_and_query(b"/a/b?c=d?e#f") == (b"/a/b", b"c=d?e")
    assert path_and_query(b"http://there?c") == (b"/", b"c")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET \xc3\xa4 HTTP/1.1\r\n", 400),
        (b"\r\nGET here:80 HTTP/1.0\r\nHost", 400),
        (b"GET x\r\n", None),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nGET / HTTP/1.1\r\n", None),
        (b"\x16\x03\x01\x02\x00\x01\x00", None),
    ],
)
def test_a_bad_target_is_told_from_what_is_no_http(data: bytes, status: int | None) -> None:
    found = bad_target(data)
    assert (found and found.status) == status
