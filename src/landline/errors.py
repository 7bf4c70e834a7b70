"""Every exception Landline raises, as one tree. What each looks like on the wire is one table in `wire/problems.py`.

    LandlineError
    ├── RequestError                 the caller's mistake; asking again the same way cannot help
    │   ├── BadSyntax                not parseable
    │   ├── BadArgument              wrong type or forbidden value
    │   │   └── NotWebSocket         a stream was asked for without an upgrade
    │   ├── MissingProperty          a mandatory property is absent
    │   ├── UnsupportedMediaType
    │   │   └── UnsupportedCoding    compressed
    │   ├── TooLarge
    │   │   ├── TooMuchInConversation  its stored uploads would be too many bytes
    │   │   ├── TooMuchOfSite          likewise, of the site
    │   │   └── TooLittleSpace         the disk is nearly full: no uploads
    │   ├── UrlTooLong
    │   ├── TooSlow                  the body did not come in time
    │   ├── RangeNotSatisfiable      a part was asked for that is not there
    │   ├── NotFound                 no such path
    │   ├── MethodNotAllowed
    │   └── TooManyMembers           somebody would be one member more than a conversation may have
    ├── CredentialError              who is asking
    │   ├── MissingCredential        nothing usable was presented
    │   ├── BotNotAuthenticated      a bot with an app id showed no good token
    │   ├── Forbidden                presented, but not good enough
    │   │   └── BotGone              good once, but its bot was deleted
    │   ├── NotTrusted               a page of this origin may not know its session
    │   └── TokenExpired             once good, no longer
    ├── RateLimited                  too often; the answer says when to come back
    │   └── TooManyConnections       of one address
    ├── UnknownConversation          unknown, not started, gone, or another bot's
    ├── UnknownActivity              a bot named an activity it may not touch
    ├── UnknownMember                a bot named somebody who takes no part
    ├── UnknownBot                   an operator named what is not there
    ├── UnknownSite                  likewise
    ├── UnknownKey                   likewise
    ├── AlreadyThere                 an operator adds what is there
    ├── ReadOnly                     it is named in the settings, and changed there only
    ├── UnknownAttachment            unknown, gone, or another bot's
    ├── Conflict                     the same key was used for something else
    │   └── CallConflict             likewise, of a bot's call
    ├── IssuerUnavailable            the keys of a trusted issuer could not be fetched
    ├── Draining                     this process is going away
    ├── NotServing                   this process cannot call bots: only its data was opened
    ├── ClientGone                   nobody is there to be answered
    ├── StoreError
    │   ├── StoreUnavailable         surely not stored; a retry may help
    │   │   └── DeadlinePassed       withdrawn while still queued
    │   ├── OutcomeUnknown           may or may not be stored
    │   └── ConversationFull         the conversation's last number is used up
    ├── DeliveryError                the bot did not take an activity
    │   ├── BotUnreachable           the request never reached the bot
    │   ├── BotTimedOut              the request was sent, no answer came in time; outcome unknown
    │   ├── BotBroke                 the request was sent, the connection broke; outcome unknown
    │   ├── BotRejected              the bot answered with an error
    │   └── NoBot                    no endpoint is configured
    └── StartupError                 the server cannot start
        ├── ConfigurationError       exit code 2
        └── DataDirectoryError       exit code 3: locked, damaged, or of a newer version
            └── DirectoryInUse       another process has it

The docstring of a class is its default message.
"""

from __future__ import annotations


class LandlineError(Exception):
    """Something went wrong."""

    retry = False
    """Whether the same call may succeed later."""

    def __init__(self, message: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        super().__init__(self.message)


class RequestError(LandlineError):
    """The request is not acceptable"""


class BadSyntax(RequestError):
    """The body is not valid JSON"""


class BadArgument(RequestError):
    """A property has a wrong type or a forbidden value"""


class NotWebSocket(BadArgument):
    """This path is a WebSocket: an upgrade is required"""


class MissingProperty(RequestError):
    """A mandatory property is absent"""


class UnsupportedMediaType(RequestError):
    """Content-Type is not supported"""


class UnsupportedCoding(UnsupportedMediaType):
    """Content-Encoding is not supported, only identity is"""


class TooLarge(RequestError):
    """The request is larger than the limit"""


class TooMuchInConversation(TooLarge):
    """The conversation has no room for more uploads"""


class TooMuchOfSite(TooLarge):
    """The site has no room for more uploads"""


class TooLittleSpace(TooLarge):
    """The server is short of disk space: it takes no uploads for now, but messages without files"""


class UrlTooLong(RequestError):
    """The URL is too long"""


class TooSlow(RequestError):
    """The request did not arrive in time"""


class RangeNotSatisfiable(RequestError):
    """The range lies outside of what there is"""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class NotFound(RequestError):
    """There is nothing at this path"""


class MethodNotAllowed(RequestError):
    """The method is not supported at this path"""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__()
        self.allowed = allowed


class TooManyMembers(RequestError):
    """The conversation has as many members as it may have"""


class CredentialError(LandlineError):
    """The credential does not open this"""


class MissingCredential(CredentialError):
    """Missing token or secret"""


class BotNotAuthenticated(CredentialError):
    """The bot's token is missing or not valid"""


class Forbidden(CredentialError):
    """Invalid token or secret"""


class BotGone(Forbidden):
    """The bot was deleted"""


class NotTrusted(CredentialError):
    """Trusted Origin list is empty."""


class TokenExpired(CredentialError):
    """Token has expired"""


class RateLimited(LandlineError):
    """Too many requests"""

    retry = True

    def __init__(self, wait_s: float) -> None:
        """`wait_s` is how long it would have taken until the caller's turn."""
        super().__init__()
        self.wait_s = wait_s


class TooManyConnections(RateLimited):
    """This address has too many connections"""

    def __init__(self) -> None:
        super().__init__(1.0)


class UnknownConversation(LandlineError):
    """Unknown conversation"""


class UnknownActivity(LandlineError):
    """Unknown activity"""


class UnknownBot(LandlineError):
    """Unknown bot"""


class UnknownSite(LandlineError):
    """Unknown site"""


class UnknownKey(LandlineError):
    """Unknown key"""


class AlreadyThere(LandlineError):
    """The id is taken"""


class ReadOnly(LandlineError):
    """It is named in the settings of the server, and can only be changed there"""


class UnknownAttachment(LandlineError):
    """Unknown attachment"""


class UnknownMember(LandlineError):
    """Unknown member"""


class Conflict(LandlineError):
    """The Idempotency-Key was used for something else"""


class CallConflict(Conflict):
    """The x-ms-client-request-id was used for something else"""


class IssuerUnavailable(LandlineError):
    """The keys of the token's issuer cannot be fetched"""

    retry = True


class Draining(LandlineError):
    """The server is shutting down"""

    retry = True


class NotServing(LandlineError):
    """No server runs here that could call the bot"""


class ClientGone(LandlineError):
    """The client hung up before its request was complete"""


class StoreError(LandlineError):
    """The store could not do it"""


class StoreUnavailable(StoreError):
    """Storage is unavailable; nothing was stored"""

    retry = True

    def __init__(self, message: str | None = None, *, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


class DeadlinePassed(StoreUnavailable):
    """The deadline passed before the activity was stored; nothing was stored"""


class OutcomeUnknown(StoreError):
    """The outcome is unknown: the activity may have been stored. Repeat with an Idempotency-Key"""

    retry = True


class ConversationFull(StoreError):
    """The conversation's last number is used up"""


class DeliveryError(LandlineError):
    """Failed to send activity"""


class BotUnreachable(DeliveryError):
    """Failed to send activity: bot could not be reached"""


class BotTimedOut(DeliveryError):
    """Failed to send activity: bot timed out"""


class BotBroke(DeliveryError):
    """Failed to send activity: bot broke the connection"""


class BotRejected(DeliveryError):
    """Failed to send activity: bot returned an error"""

    def __init__(self, status: int, body: bytes = b"") -> None:
        super().__init__()
        self.status = status
        self.body = body[:4096]


class NoBot(DeliveryError):
    """Failed to send activity: no bot endpoint is configured"""


class StartupError(LandlineError):
    """The server cannot start"""

    exit_code = 1


class ConfigurationError(StartupError):
    """The configuration is not usable"""

    exit_code = 2


class DataDirectoryError(StartupError):
    """The data directory is not usable"""

    exit_code = 3


class DirectoryInUse(DataDirectoryError):
    """The data directory is in use by another process"""
