"""The other end of a conversation: a client for any Direct Line 3.0 server, which survives what breaks between them.

    async with DirectLine("https://chat.example.org", token) as line:
        conversation = await line.start(user="ann")
        await conversation.send("hi")
        async for activity in conversation:
            print(activity.get("text"))

It imports nothing of the server. What makes connections (aiohttp) is imported when a name that needs it is first used.
What it promises stands in docs/spec/client.md, as C1 and on.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from landline.client.errors import (
    BotFailed,
    Closed,
    DirectLineError,
    OutcomeUnknown,
    Refused,
    TokenRejected,
    Unreachable,
)
from landline.client.options import Options
from landline.client.states import Change, Replay, State

if TYPE_CHECKING:
    from landline.client.calls import File
    from landline.client.conversation import Activity, Conversation
    from landline.client.line import DirectLine

__all__ = [
    "Activity",
    "BotFailed",
    "Change",
    "Closed",
    "Conversation",
    "DirectLine",
    "DirectLineError",
    "File",
    "Options",
    "OutcomeUnknown",
    "Refused",
    "Replay",
    "State",
    "TokenRejected",
    "Unreachable",
]

_LATER = {
    "Activity": "landline.client.conversation",
    "Conversation": "landline.client.conversation",
    "DirectLine": "landline.client.line",
    "File": "landline.client.calls",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
