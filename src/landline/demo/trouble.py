"""What keeps a bot from taking what it is sent, in words that help whoever tries it. Pure: errors in, words out."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec

from landline.bots.wire import Broken
from landline.demo.endpoint import USUAL_PATH
from landline.errors import BotRejected, BotTimedOut, BotUnreachable, DeliveryError
from landline.ports import BotAnswer

_PAGE = re.compile(rb"\s*<(!doctype|html|head|body)", re.IGNORECASE)


class Trouble(msgspec.Struct, frozen=True):
    """`word` is for the end of a line that is drawn, `help` a sentence or two; `guide` names a page that says more.
    It is `passing` where it may be about this one activity, and another may be taken."""

    word: str
    help: str
    guide: str = ""
    passing: bool = False


def in_connecting(error: Exception, endpoint: str) -> Trouble:
    """Why there is no connection to `endpoint`: no name, no TCP, no TLS."""
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    match error:
        case socket.gaierror():
            return Trouble("no such name", f"The name {parts.hostname} does not resolve. Is it spelled right?")
        case ssl.SSLCertVerificationError():
            why = error.verify_message
            return Trouble(
                "TLS failed",
                f"Its certificate is not trusted ({why}). Name the authority that signed it with --bot-ca-file, "
                "or use http on this machine.",
            )
        case ssl.SSLError():
            return Trouble("TLS failed", f"The TLS handshake failed. Does it speak http on port {port}, not https?")
        case TimeoutError():
            other = "Does it speak http, not https?" if parts.scheme == "https" else "Is there a firewall between?"
            return Trouble(
                "no connection",
                f"{parts.hostname} does not answer on port {port}. Is the address right? {other}",
            )
        case OSError(errno=errno.ECONNREFUSED):
            return Trouble(
                "refused", f"Nobody listens on {parts.hostname}, port {port}. Is your bot running on {port}?"
            )
        case OSError(errno=int(number)):
            return Trouble("not reached", f"{parts.hostname} cannot be reached: {os.strerror(number).lower()}.")
    return Trouble("not reached", f"The connection to {parts.hostname}, port {port}, broke before anything was sent.")


def in_delivering(error: DeliveryError, endpoint: str, app_id: str | None, waited_s: float) -> Trouble:
    """Why a bot that was connected to did not take an activity, for which it had `waited_s`."""
    if isinstance(error, BotRejected):
        return _rejected(error.status, endpoint, app_id)
    if isinstance(error, BotTimedOut):
        return silent(waited_s)
    if isinstance(error, BotUnreachable):
        why = (
            "It ends every connection before it is told anything. Does what is there speak HTTP? Is it the right port?"
        )
        return Trouble("not HTTP", why)
    cause = error.__cause__
    if isinstance(cause, Broken) and str(cause).startswith("not HTTP"):
        return Trouble("not HTTP", "What answers there does not speak HTTP. Is it the right port?")
    hint = "" if urlsplit(endpoint).scheme == "https" else " Does it speak https, or did it crash?"
    return Trouble("hung up", f"It took the message and ended the connection without an answer.{hint}", passing=True)


def silent(waited_s: float) -> Trouble:
    """A bot that was told something that long ago."""
    return Trouble(
        "no answer",
        f"It took the message and has not answered for {waited_s:.0f} s. Is it busy, or held at a breakpoint? "
        "What it says later arrives all the same.",
        passing=True,
    )


def in_answer(answer: BotAnswer) -> Trouble | None:
    """Whether a 2xx is that of a web site rather than of a bot. Some frameworks call an empty answer HTML."""
    if answer.content_type.startswith("text/html") and _PAGE.match(answer.body):
        return Trouble("a web page", f"It answers with a web page: this is a web site's address. {_usual('')}")
    return None


def _rejected(status: int, endpoint: str, app_id: str | None) -> Trouble:
    word = str(status)
    path = urlsplit(endpoint).path
    match status:
        case 401 | 403 if app_id is None:
            return Trouble(
                word,
                "Has your bot an app id? Landline knows none. Run the bot without one "
                "(an empty MicrosoftAppId), or tell both of it.",
                "authenticated-bots",
            )
        case 401 | 403:
            return Trouble(
                word,
                f"The bot does not trust Landline's token. Has it the app id {app_id}, and Landline as the "
                "one who gives out tokens?",
                "authenticated-bots",
            )
        case 404:
            return Trouble(word, f"There is nothing at {path}. {_usual(path)}")
        case 405 | 501:
            return Trouble(word, f"It takes no POST at {path}. {_usual(path)}")
        case 415:
            return Trouble(word, f"It takes no JSON at {path}. {_usual(path)}")
        case 429 | 503:
            return Trouble(word, "It is busy, or not ready yet. Try again in a moment.", passing=True)
    if 300 <= status < 400:
        return Trouble(
            word,
            "It sends us elsewhere, and a message is not sent after it. Give the address that it means: "
            "https in place of http, or a slash more or less.",
        )
    name = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "An error"
    if status >= 500:
        return Trouble(word, f"{name}: the bot failed over it. Its own log says why.", passing=True)
    return Trouble(word, f"{name}: the bot does not want it. Its own log says why.", passing=True)


def _usual(path: str) -> str:
    if path.rstrip("/") == USUAL_PATH:
        return "Is another server running on this port, or does your bot listen at another path?"
    return f"The path is usually {USUAL_PATH}."
