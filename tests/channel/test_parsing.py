from __future__ import annotations

import threading

import pytest

from landline.channel.parsing import AT_ONCE_BYTES, parsed
from landline.errors import BadSyntax


@pytest.mark.item(212)
@pytest.mark.parametrize(("size", "on_the_loop"), [(0, True), (AT_ONCE_BYTES, True), (AT_ONCE_BYTES + 1, False)])
async def test_a_long_text_is_read_beside_the_event_loop(size: int, on_the_loop: bool) -> None:
    thread = await parsed(size, threading.current_thread)
    assert (thread is threading.current_thread()) is on_the_loop


async def test_a_refusal_comes_out_of_the_thread() -> None:
    def refuse() -> None:
        raise BadSyntax

    with pytest.raises(BadSyntax):
        await parsed(AT_ONCE_BYTES + 1, refuse)
