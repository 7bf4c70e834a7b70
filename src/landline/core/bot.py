"""A bot, and the sites (client applications) that may talk to it (specification 1)."""

from __future__ import annotations

import msgspec


class Bot(msgspec.Struct, frozen=True):
    """A registered endpoint. Durations are seconds.

    `service_url` is what this bot calls back: base, `/b/` and the bot's key, without trailing slash; the key alone
    makes an anonymous bot recognisable, so it is a secret (bot-side 3). One without `app_id` is anonymous.

    `delivery_mode` is what its activities say of where replies go (bot-side 2.6); None, which is how it is normally, is
    not said. A `serial` bot hears the next activity of a conversation when it has answered the one before.
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
    delivery_mode: str | None = None
    serial: bool = False
    may_create_conversations: bool = False


class Site(msgspec.Struct, frozen=True):
    """A client application of one bot (specification 1)."""

    id: str
    bot_id: str
    enabled: bool = True
    trusted_origins: tuple[str, ...] = ()
    enhanced_authentication: bool = False
