"""Forms in pieces: what is heard of them, what is not, and what they may cost (spec 5.6)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from landline.core.attachments import Head
from landline.errors import BadSyntax, TooLarge
from landline.wire.multipart import Event, Form, form_of

KIND = b"multipart/form-data; boundary=B"
PARTS = 3
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\none\r\n--B\r\n'
    b'Content-Disposition: form-data; name="x"\r\n\r\n\r\ntwo\r\n--B--\r\n'
)


def parser() -> Form:
    """One for `KIND`."""
    form = form_of(KIND, PARTS)
    assert form is not None
    return form


async def read(*pieces: bytes) -> list[Event]:
    """What a body says, the bytes of each part in one."""

    async def arriving() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    found: list[Event] = []
    async for event in parser().read(arriving()):
        if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
            event = found.pop() + event
        found.append(event)
    return found


async def test_pieces_of_any_size_say_the_same() -> None:
    said = [Head(None, "file", "a"), b"one", Head(None, "x", None), b"\r\ntwo"]
    for size in range(1, len(FORM) + 1):
        assert await read(*(FORM[at : at + size] for at in range(0, len(FORM), size))) == said


@pytest.mark.parametrize(
    "preamble",
    [
        b"\r\n",
        b"To whom it may concern\r\n",
        b"a: b\r\n\r\n--\r\n",
        b"--B? no\r\n--b\r\n",
        b"\r\n--\r\r\n",
        b"x--B\r\n",
    ],
)
async def test_what_stands_before_the_first_boundary_is_not_heard_of(preamble: bytes) -> None:
    said = await read(FORM)
    body = preamble + FORM
    for cut in range(len(body)):
        assert await read(body[:cut], body[cut:]) == said


async def test_blanks_behind_a_boundary_are_none_of_its_part() -> None:
    assert await read(FORM.replace(b"--B\r\n", b"--B \t \r\n")) == await read(FORM)


@pytest.mark.parametrize("body", [b"", b"no form", FORM[:-4], b"To whom\r\n--Bye\r\n\r\nx", b"x" + FORM[:40]])
async def test_what_is_no_form_or_not_all_of_one_is_refused(body: bytes) -> None:
    with pytest.raises(BadSyntax):
        await read(body)


async def test_one_part_too_many_ends_the_form_before_the_rest_is_asked_for() -> None:
    part = b"--B\r\na:\r\n\r\n\r\n"
    assert len(await read(part * PARTS + b"--B--")) == PARTS
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield part

    with pytest.raises(TooLarge, match="more than 3 parts"):
        async for _ in parser().read(endless()):
            pass
    assert asked == PARTS + 1


async def test_lines_that_begin_as_the_boundary_are_content_as_long_as_they_are_few() -> None:
    content = b"\r\n--Bx" * 999
    body = FORM.replace(b"one", b"one" + content)
    assert (await read(body))[1] == b"one" + content
    assert await read(content + b"\r\n" + FORM) == await read(FORM)
    with pytest.raises(BadSyntax, match="too many lines"):
        await read(FORM.replace(b"one", content * 2))


@pytest.mark.parametrize(
    ("inside", "refusal"),
    [
        (b"a: b\r\nno colon\r\n", "broken"),
        (b"a b: c\r\n", "broken"),
        (b" folded: c\r\n", "broken"),
        (b"a: " + b"b" * 5000, "too long"),
        (b"a:\r\n" * 2000, "too long"),
    ],
)
async def test_a_head_that_is_none_is_refused_in_pieces_of_any_size(inside: bytes, refusal: str) -> None:
    body = b"--B\r\n" + inside + b"\r\n\r\n--B--"
    for size in (1, 7, len(body)):
        with pytest.raises(BadSyntax, match=refusal):
            await read(*(body[at : at + size] for at in range(0, len(body), size)))


async def test_names_of_headers_are_found_in_any_case_and_the_first_one_counts() -> None:
    head = b"X-Content-Type: x/y\r\ncontent-TYPE:a/b \r\nContent-Type: c/d\r\n"
    assert await read(b"--B\r\n" + head + b"\r\nx\r\n--B--") == [Head("a/b", None, None), b"x"]


async def test_a_part_without_a_head_has_no_type_and_no_name() -> None:
    assert await read(b"--B\r\n\r\nx\r\n--B--") == [Head(None, None, None), b"x"]


async def test_random_bytes_in_a_part_come_out_as_they_went_in() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    content = b"".join(chance.choices([b"\r\n--", b"\r", b"\n", b"--", b"B", b" ", b"\x00" * 20_000], k=200))
    while b"\r\n--B" in content:
        content = content.replace(b"\r\n--B", b"")
    body = b"--B\r\nContent-Type: a/b\r\n\r\n" + content + b"\r\n--B--"
    cuts = sorted(chance.choices(range(len(body)), k=50))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert await read(*pieces) == [Head("a/b", None, None), content]
