"""A real channel inside a test: for bots, and for clients of bots.

    async def test_greets(landline):
        chat = await landline.chat("http://127.0.0.1:3978/api/messages")
        await chat.say("hi")
        await chat.expect("Hello")

pytest finds the fixture by itself. Elsewhere: `with Landline() as landline:`. Nothing of the server is imported before
one is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landline.testing.bot import Bot
    from landline.testing.channel import Landline
    from landline.testing.chat import Chat

__all__ = ["Bot", "Chat", "Landline"]

_LATER = {
    "Bot": "landline.testing.bot",
    "Chat": "landline.testing.chat",
    "Landline": "landline.testing.channel",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
