"""Origins of pages: their one spelling, and which are trusted (spec 4.6)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from landline.errors import BadArgument

ORIGINS = 256
ORIGINS_CHARACTERS = 3500
"""The most that a site or a token has, so that they fit into a token beside the longest ids of ASCII."""

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?/?", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}
ANY_ORIGIN = "*"


def origin(text: str) -> str:
    """The one spelling of an origin: scheme, host and port, lower case, no default port (4.6). `*` stands for itself.

    Raises `BadArgument` for anything that is not an origin, a path among it.
    """
    if text == ANY_ORIGIN:
        return text
    form = _ORIGIN.fullmatch(text.lower())
    if form is None:
        raise BadArgument("A trusted origin is malformed")
    scheme, host, port = form[1], form[2], int(form[3] or 0)
    if host.startswith("["):
        host = f"[{_ip6(host[1:-1])}]"
    if port > 65535 or (form[3] and not port):
        raise BadArgument("A trusted origin is malformed")
    return f"{scheme}://{host}" if port in (0, _DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def trusted_origins(given: Iterable[str]) -> tuple[str, ...]:
    """Origins in their one spelling, each once. Raises `BadArgument` for more than a token can carry, too
    (ADR 24)."""
    origins = tuple(dict.fromkeys(map(origin, given)))
    if len(origins) > ORIGINS:
        raise BadArgument(f"There are more than {ORIGINS} trusted origins")
    if sum(map(len, origins)) > ORIGINS_CHARACTERS:
        raise BadArgument(f"The trusted origins have more than {ORIGINS_CHARACTERS} characters together")
    return origins


def trusts(trusted: tuple[str, ...], given: str) -> bool:
    """Whether a page that a browser says is of the origin `given` is among `trusted` (4.6)."""
    try:
        return ANY_ORIGIN in trusted or origin(given) in trusted
    except BadArgument:
        return False  # such as "null", which is what a page without an origin of its own has


def _ip6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError as error:
        raise BadArgument("A trusted origin is malformed") from error
