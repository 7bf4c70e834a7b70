"""Which bots and sites there are right now, and which credential opens which site. Asked at every use, so in memory.

Where it comes from, and how it changes, is `channel/registrations.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from landline.core import tokens
from landline.core.bot import Bot, Site
from landline.errors import BotGone, Forbidden


class Registry:
    """Bots, sites, and the digests of secrets. A secret itself is never kept (specification 4.1)."""

    def __init__(
        self,
        bots: Iterable[Bot] = (),
        sites: Iterable[Site] = (),
        secrets: Mapping[bytes, str] | None = None,
        revoked: Iterable[tuple[str, str]] = (),
    ) -> None:
        """As `replace`."""
        self.replace(bots, sites, secrets or {}, revoked)

    def replace(
        self,
        bots: Iterable[Bot],
        sites: Iterable[Site],
        secrets: Mapping[bytes, str],
        revoked: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Know these from now on, and nothing else.

        `secrets` maps `core.tokens.digest(secret)` to the id of the site that the secret belongs to, `revoked` has
        pairs of a site's id and the `ski` whose descendants it refuses (4.5).
        """
        self._bots = {bot.id: bot for bot in bots}
        self._keys = {key: bot for bot in self._bots.values() for key in (bot.service_key, *bot.former_keys)}
        self._sites = {site.id: site for site in sites}
        self._secrets = dict(secrets)
        self._revoked = frozenset(revoked)

    def site_of_secret(self, secret: str) -> Site | None:
        """The site that `secret` opens, or None. Comparing digests leaks nothing about the secret by its timing."""
        digest = tokens.digest(secret)
        site_id = self._secrets.get(digest)
        return None if site_id is None else self.good_site(site_id, tokens.ski_of(digest))

    def good_site(self, site_id: str, ski: str) -> Site:
        """The site, if it exists, is enabled, and has not revoked what descends from `ski` (4.2, Validation order).

        Raises `Forbidden` (3.5: "Site missing or disabled")."""
        site = self._sites.get(site_id)
        if site is None or not site.enabled:
            raise Forbidden("Site missing or disabled")
        if (site_id, ski) in self._revoked:
            raise Forbidden
        return site

    def admits(self, site_id: str, ski: str) -> bool:
        """Whether a stream of such a credential may stay open (4.5)."""
        try:
            return self.good_site(site_id, ski).bot_id in self._bots
        except Forbidden:
            return False

    def any_ski(self, site_id: str) -> str | None:
        """The `ski` of a secret of that site, for a token that is made without presenting one; None if it has none."""
        skis = (tokens.ski_of(digest) for digest, site in self._secrets.items() if site == site_id)
        return next((ski for ski in skis if (site_id, ski) not in self._revoked), None)

    def bot(self, bot_id: str) -> Bot:
        """The bot with that id. Raises `BotGone`."""
        bot = self._bots.get(bot_id)
        if bot is None:
            raise BotGone
        return bot

    def bot_of_key(self, service_key: str) -> Bot | None:
        """The bot whose service URL carries this key (bot-side 3), or carried it and still may."""
        return self._keys.get(service_key)

    def bots(self) -> Collection[Bot]:
        """All bots."""
        return self._bots.values()
