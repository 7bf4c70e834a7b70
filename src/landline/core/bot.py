"""A bot, and the sites (client applications) that may talk to it (specification 1)."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec


class Bot(msgspec.Struct, frozen=True):
    """A registered endpoint. Durations are seconds.

    `service_url` is what this bot calls back: base, `/b/` and the bot's key, without trailing slash; the key alone
    makes an anonymous bot recognisable, so it is a secret (bot-side 3). A bot with `app_id` is no longer known by that:
    it shows a token, which it gets for a secret whose digest is one of `app_secrets`, at most two (bot-side 6).
    """

    id: str
    name: str
    endpoint: str | None
    service_url: str
    service_key: str
    reference_grammar_id: str
    channel_id: str = "directline"
    concurrency: int = 64
    app_id: str | None = None
    app_secrets: tuple[bytes, ...] = ()


class Site(msgspec.Struct, frozen=True):
    """A client application of one bot (specification 1)."""

    id: str
    bot_id: str
    enabled: bool = True
    trusted_origins: tuple[str, ...] = ()
    enhanced_authentication: bool = False


def may_be_called(endpoint: str, hosts: Sequence[str]) -> bool:
    """Whether `endpoint` lies on one of `hosts`: names, addresses, or `*.example.org` for every name below that one.
    No hosts at all allow any."""
    host = (urlsplit(endpoint).hostname or "").rstrip(".")
    return not hosts or any(_is_host(host, allowed.lower()) for allowed in hosts)


def _is_host(host: str, allowed: str) -> bool:
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed
