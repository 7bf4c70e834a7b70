"""What the settings name: bots, their sites, and secrets that are never stored (spec 4.1)."""

from __future__ import annotations

import msgspec

from landline.channel.records import Configured
from landline.config import DEFAULT_SITE, BotTable, Settings, SiteTable
from landline.core.bot import Profile, Site
from landline.core.origins import trusted_origins
from landline.core.tokens import digest


def configured(settings: Settings) -> Configured:
    """The bots of the `[[bots]]` tables, or else the one bot of the other settings.

    The first site of the first bot is the one that `secret` opens.
    """
    if not settings.bots:
        site = SiteTable(
            id=DEFAULT_SITE,
            enhanced_authentication=settings.enhanced_authentication,
            trusted_origins=settings.trusted_origins,
        )
        bot = BotTable(
            **msgspec.structs.asdict(_the_one_bot(settings)), app_secret=settings.bot_app_secret, sites=(site,)
        )
        tables: tuple[BotTable, ...] = (bot,)
    else:
        first = settings.bots[0]
        sites = first.sites or (SiteTable(id=DEFAULT_SITE),)
        tables = (msgspec.structs.replace(first, sites=sites), *settings.bots[1:])
    secrets = {digest(site.secret): site.id for bot in tables for site in bot.sites if site.secret is not None}
    if settings.secret is not None:
        secrets[digest(settings.secret)] = tables[0].sites[0].id
    return Configured(
        profiles=tuple(_profile(bot) for bot in tables),
        sites=tuple(_site(site, bot.id) for bot in tables for site in bot.sites),
        secrets=secrets,
        app_secrets={bot.id: tuple(map(digest, bot.app_secret)) for bot in tables},
        default=None if settings.bots and settings.bots[0].sites else DEFAULT_SITE,
        bot_hosts=settings.bot_allowed_hosts,
        trusted_issuers=settings.trusted_issuers,
    )


def _the_one_bot(settings: Settings) -> Profile:
    return Profile(
        id=settings.bot_id,
        name=settings.bot_name,
        endpoint=settings.bot,
        channel_id=settings.bot_channel_id,
        concurrency=settings.bot_concurrency,
        delivery=settings.bot_delivery,
        turns=settings.bot_turns,
        create_conversations=settings.bot_create_conversations,
        app_id=settings.bot_app_id,
    )


def _profile(table: BotTable) -> Profile:
    return Profile(**{name: getattr(table, name) for name in Profile.__struct_fields__})


def _site(table: SiteTable, bot_id: str) -> Site:
    said = msgspec.structs.asdict(table)
    del said["secret"]
    return Site(bot_id=bot_id, **said | {"trusted_origins": trusted_origins(table.trusted_origins)})
