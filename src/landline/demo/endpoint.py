"""The endpoint of a bot, out of what people type: a port, a host, or a URL without its path."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

import msgspec

from landline.core.bot import ENDPOINT
from landline.errors import ConfigurationError

USUAL_PATH = "/api/messages"
"""Where the samples of every SDK listen."""

_PORT = re.compile(r":?(\d{1,5})", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOST = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)


class Typed(msgspec.Struct, frozen=True):
    """An endpoint, and what was added to what was typed."""

    endpoint: str
    added: str = ""


def endpoint_of(typed: str) -> Typed:
    """The endpoint that is meant by `typed`. Raises `ConfigurationError` if it is no URL, and says why."""
    typed = typed.strip()
    port = _PORT.fullmatch(typed)
    url = f"localhost:{port[1]}" if port else typed
    if not _SCHEME.match(url):
        url = f"{_scheme_of(url)}://{url}"
    _check(url, typed)
    parts = urlsplit(url)
    added = []
    if not parts.path:
        parts = parts._replace(path=USUAL_PATH)
        added.append(f"the path {USUAL_PATH}")
    if not _SCHEME.match(typed):
        added.append(f"{parts.scheme}://")
    return Typed(parts.geturl(), " and ".join(added))


def _scheme_of(typed: str) -> str:
    """Whoever names a host of the internet, and no port, means https; whoever names this machine, or a port, does
    not."""
    authority = re.split(r"[/?#]", typed, maxsplit=1)[0]
    local = authority == "localhost" or "." not in authority or ":" in authority or _is_address(authority)
    return "http" if local else "https"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check(url: str, typed: str) -> None:
    """Raises `ConfigurationError`."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError as error:  # a port that is none, half a bracket, a name that no resolver would take
        raise _not_a_url(typed, "its host and port are not valid") from error
    if parts.scheme not in ("http", "https"):
        raise _not_a_url(typed, f"bots are called by http or https, not by {parts.scheme}")
    if "@" in parts.netloc:
        raise ConfigurationError("bot: a URL with a user and a password is not taken: URLs are shown and logged")
    if port == 0 or not (":" in host or _HOST.fullmatch(host)):
        raise _not_a_url(typed, "its host and port are not valid")
    if not re.match(ENDPOINT, url):
        raise _not_a_url(typed, "it has a fragment, or a space")


def _not_a_url(typed: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"bot: {typed!r} is no URL of a bot: {why}. One looks like http://localhost:3978{USUAL_PATH}"
    )
