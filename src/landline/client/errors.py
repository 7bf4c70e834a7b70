"""What the client raises.

DirectLineError
├── Unreachable       no server answered, and nothing was sent
├── OutcomeUnknown    a send may or may not have been accepted
├── Refused           the server answered, and not with 2xx
│   ├── BotFailed     502: the activity is accepted, the bot did not take it
│   └── TokenRejected 401 or 403: only another credential helps
└── Closed            the conversation was closed, or has ended
"""

from __future__ import annotations


class DirectLineError(Exception):
    """Everything that this client raises of its own."""


class Unreachable(DirectLineError):
    """No server answered in time. Nothing was sent that could have had an effect."""


class OutcomeUnknown(DirectLineError):
    """The request left and its answer did not arrive: the activity may be accepted, or not.

    It was not repeated, because this server does not say that it knows `Idempotency-Key`; or every repeat until the
    deadline ended this way."""


class Refused(DirectLineError):
    """The server's answer was an error: `status`, and `code` and the message of its error object where it has one."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(f"{status} {code}: {message}" if code else f"{status} {message}".rstrip())
        self.status = status
        self.code = code


class BotFailed(Refused):
    """The activity is in the conversation, and the bot did not take it (spec 8.6)."""


class TokenRejected(Refused):
    """The credential is not valid here, or no longer."""


class Closed(DirectLineError):
    """The conversation was closed by this program, or has ended."""
