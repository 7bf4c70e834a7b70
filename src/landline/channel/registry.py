"""Which bots and sites there are, and which secret opens which site."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from landline.core import tokens
from landline.core.bot import Bot, Site
from landline.errors import Forbidden


class Registry:
    """Bots, sites, and the digests of secrets. A secret itself is never kept (specification 4.1)."""

    def __init__(self, bots: Iterable[Bot], sites: Iterable[Site], secrets: Mapping[bytes, str]) -> None:
        """`secrets` maps `core.tokens.digest(secret)` to the id of the site that the secret belongs to."""
        self._bots = {bot.id: bot for bot in bots}
        self._keys = {bot.service_key: bot for bot in self._bots.values()}
        self._sites = {site.id: site for site in sites}
        self._secrets = dict(secrets)

    def site_of_secret(self, secret: str) -> Site | None:
        """The site that `secret` opens, or None. Comparing digests leaks nothing about the secret by its timing."""
        site_id = self._secrets.get(tokens.digest(secret))
        return None if site_id is None else self.good_site(site_id)

    def good_site(self, site_id: str) -> Site:
        """The site, if it exists and is enabled. Raises `Forbidden` (specification 3.5: "Site missing or disabled")."""
        site = self._sites.get(site_id)
        if site is None or not site.enabled:
            raise Forbidden("Site missing or disabled")
        return site

    def bot(self, bot_id: str) -> Bot:
        """The bot with that id. Raises `Forbidden` where it is gone."""
        bot = self._bots.get(bot_id)
        if bot is None:
            raise Forbidden("Bot missing")
        return bot

    def bot_of_key(self, service_key: str) -> Bot | None:
        """The bot whose service URL carries this key (bot-side 3)."""
        return self._keys.get(service_key)

    def bots(self) -> Collection[Bot]:
        """All bots."""
        return self._bots.values()
