"""Every setting, once: its name, unit, bounds, default, and one sentence. Only `cli` and `server/app.py` read them.

A setting is a flag (`--token-ttl-s`), an environment variable (`LANDLINE_TOKEN_TTL_S`) and a key in the TOML file, and
that order wins (docs/reference/settings.md). Secrets are never flags: a command line is public.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import Meta

from landline.core.bot import (
    MICROSOFT,
    AccountId,
    ChannelId,
    Concurrency,
    CreateConversations,
    DeliveryMode,
    DisplayName,
    Endpoint,
    Own,
    OwnAppId,
    PerSecond,
    Profile,
    SiteId,
    Turns,
    Url,
    connectable,
    key_sets,
    may_be_called,
)
from landline.core.origins import origin, trusted_origins
from landline.core.units import measured
from landline.core.wording import in_words
from landline.errors import BadArgument, ConfigurationError

_SECRET = re.compile(r"[A-Za-z0-9._-]{24,}", re.ASCII)
_APP_SECRET = re.compile(r"[A-Za-z0-9._~-]{24,}", re.ASCII)
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", re.ASCII)
_PREFIX = "LANDLINE_"
_NO_SETTINGS = ("LANDLINE_CONFIG",)
"""Variables that are read, and are no settings."""
_SMALLEST, _LARGEST = 1e-9, 1e12
DEFAULT_SITE = "default"
"""The site that there is where none is named."""

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Wait = Annotated[float, Meta(ge=0)]
Room = Annotated[int, Meta(ge=0)]


class SiteTable(Own, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[bots.sites]]` table."""

    id: SiteId
    enabled: bool = True
    trusted_origins: tuple[str, ...] = ()
    enhanced_authentication: bool = False
    secret: Annotated[
        str | None, Meta(description="An additional secret, never stored; at least 24 characters of A-Z a-z 0-9 . _ -")
    ] = None


AppSecrets = Annotated[tuple[str, ...], Meta(max_length=2)]


class BotTable(Profile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[bots]]` table: what an operator says about a bot, and its sites."""

    app_secret: Annotated[
        AppSecrets, Meta(description="Secret of its app id, or two while one replaces the other; never stored.")
    ] = ()
    sites: Annotated[
        tuple[SiteTable, ...],
        Meta(description="Its `[[bots.sites]]`. The first bot has one, `default`, if none is named."),
    ] = ()


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one server. Durations are seconds, sizes are bytes."""

    bot: Endpoint = None
    bot_id: AccountId = "bot"
    bot_name: DisplayName = "Bot"
    bot_channel_id: ChannelId = "directline"
    bot_concurrency: Concurrency = 64
    bot_delivery: DeliveryMode = "normal"
    bot_turns: Turns = "overlap"
    bot_create_conversations: CreateConversations = False
    bot_app_id: OwnAppId = None
    bot_app_secret: Annotated[
        AppSecrets, Meta(description="Secret of that app id, or two while one replaces the other; never stored.")
    ] = ()
    bot_allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(description="Hosts that bots may be on, such as bot.internal or *.example.org. Default: any."),
    ] = ()
    bots: Annotated[
        tuple[BotTable, ...],
        Meta(description="In the file only: `[[bots]]` tables, in place of the settings of the one bot and its site."),
    ] = ()
    bot_ca_file: Annotated[
        Path | None,
        Meta(description="PEM file with the authorities that may certify an https bot. Default: the system's."),
    ] = None
    host: Annotated[
        str, Meta(min_length=1, description="Address to listen on, or a name that stands for all its addresses.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 3000
    data: Annotated[Path, Meta(description="Directory of all data. Made at the first start, private to its owner.")] = (
        Path("landline-data")
    )
    store: Annotated[
        str,
        Meta(
            description="`sqlite`, in the data directory; or the `postgresql://` URL of a database, for several nodes."
        ),
    ] = "sqlite"
    store_listen: Annotated[
        str | None,
        Meta(description="URL past a pooler to the same database, by which a node hears of the others at once."),
    ] = None
    refresh_s: Annotated[
        Seconds,
        Meta(description="Longest time until a node follows a change of bots, sites or secrets on another node."),
    ] = 5
    public_url: Annotated[
        Url | None,
        Meta(description="Base of the URLs given to clients. Default: the address that the request was sent to."),
    ] = None
    service_url: Annotated[
        Url | None, Meta(description="Base of the URL that the bot calls back. Default: the listener's own address.")
    ] = None
    tls_cert: Annotated[
        Path | None,
        Meta(
            description="PEM file with the listener's certificate and its chain. With it, the listener speaks TLS only."
        ),
    ] = None
    tls_key: Annotated[Path | None, Meta(description="PEM file with the private key of that certificate.")] = None
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(description="IP addresses and networks whose X-Forwarded-Proto, -Host and -Prefix are trusted."),
    ] = ()
    cors_origins: Annotated[
        tuple[str, ...], Meta(description="Origins of pages that may use the API in a browser. Default: any.")
    ] = ()
    secret: Annotated[
        str | None,
        Meta(description="An additional secret, never stored; at least 24 characters of A-Z a-z 0-9 . _ -"),
    ] = None
    admin_secret: Annotated[
        str | None,
        Meta(
            description="Bearer credential of the admin API; at least 24 characters of A-Z a-z 0-9 . _ - Default: "
            "made at the first start, in `admin-secret` in the data directory."
        ),
    ] = None
    enhanced_authentication: Annotated[
        bool, Meta(description="Take users from tokens only, and enforce trusted origins.")
    ] = False
    trusted_origins: Annotated[
        tuple[str, ...],
        Meta(description="Origins of pages that may use the site. Origins in requests for tokens are then ignored."),
    ] = ()
    token_ttl_s: Annotated[int, Meta(ge=1, le=1_209_600, description="Lifetime of a token.")] = 3600
    token_chain_s: Annotated[
        Seconds,
        Meta(description="How long after its first token a client can still renew it: by refresh, reconnect or start."),
    ] = 1_209_600
    stream_url_ttl_s: Annotated[
        float, Meta(gt=0, le=86_400, description="How long a stream URL can be used to open a stream.")
    ] = 60
    bot_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=18,
            description="Deadline of a request. All that it waits for counts towards it, the bot included.",
        ),
    ] = 15
    bot_connect_timeout_s: Annotated[Seconds, Meta(description="Time limit of one attempt to connect to the bot.")] = 5
    join_wait_s: Annotated[
        Seconds, Meta(description="How long later activities wait for the bot's answer to a conversationUpdate.")
    ] = 5
    store_wait_s: Annotated[
        Seconds,
        Meta(description="How long a bot's call waits, while nothing can be stored, before it is answered 503."),
    ] = 5
    idempotency_ttl_s: Annotated[
        Seconds,
        Meta(description="How long the key of a send is remembered: an Idempotency-Key, or a bot's request id."),
    ] = 86_400
    keepalive_s: Annotated[
        float,
        Meta(gt=0, le=30, description="An empty frame is sent on a stream after this long without another frame."),
    ] = 30
    dead_peer_s: Annotated[
        Seconds, Meta(description="Drop a stream if nothing comes from its client for this long after a Ping.")
    ] = 60
    stall_s: Annotated[
        Seconds, Meta(description="Close a stream (1013) after its client has read nothing for this long.")
    ] = 30
    close_timeout_s: Annotated[
        Seconds, Meta(description="Time limit of a WebSocket close handshake; then the connection is cut.")
    ] = 5
    drain_s: Annotated[
        float, Meta(ge=0, description="At a stop, the open streams are closed one by one over this time.")
    ] = 10
    header_timeout_s: Annotated[
        Seconds, Meta(description="Time limit for the headers of a request, and for a TLS handshake.")
    ] = 10
    body_stall_s: Annotated[
        Seconds, Meta(description="Maximum silence within a request's body, or while a client reads the answer.")
    ] = 30
    clock_leeway_s: Annotated[
        float, Meta(ge=0, description="Tolerance for the times in tokens. Stream URLs have none.")
    ] = 5
    issuer: Annotated[
        Url | None,
        Meta(description="Landline's name in the tokens that it shows to bots. Default: the base of the service URL."),
    ] = None
    bot_token_ttl_s: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="Lifetime of the tokens that Landline shows to bots, and of those that it issues to them.",
        ),
    ] = 3600
    key_lead_s: Annotated[
        Seconds,
        Meta(description="How long a new signing key is published before it signs, and an old one afterwards."),
    ] = 90_000
    trusted_issuers: Annotated[
        tuple[str, ...],
        Meta(
            description="Other issuers whose tokens bots may show, each written as its name, `=` and the URL of "
            "its key set. A bot that names issuers of its own has only those."
        ),
    ] = ()
    issuer_keys_s: Annotated[
        Seconds,
        Meta(
            le=86_400,
            description="The keys of a trusted issuer are read again when they are older than this. A withdrawn "
            "key is refused from then on.",
        ),
    ] = 3600
    sends_per_s: Annotated[
        PerSecond,
        Meta(description="Maximum activities that clients send into one conversation; a burst may have twice as many."),
    ] = 20
    polls_per_s: Annotated[
        PerSecond,
        Meta(
            description="Maximum calls of Get Activities for one conversation; a burst may have four times as "
            "many, others wait."
        ),
    ] = 5
    starts_per_s: Annotated[
        PerSecond,
        Meta(description="Maximum starts and token calls of one site; a burst may have twice as many, others wait."),
    ] = 100
    poll_wait_s: Annotated[
        Wait,
        Meta(
            description="A Get Activities call that would have to wait longer than this for its rate is answered 429."
        ),
    ] = 5
    start_wait_s: Annotated[
        Wait,
        Meta(
            description="A start or token call that would have to wait longer than this for its rate is answered 429."
        ),
    ] = 10
    connections_per_address: Annotated[
        int,
        Meta(
            ge=0, description="Maximum open connections of one address; an IPv6 /64 counts as one address. 0: no limit."
        ),
    ] = 4096
    streams_per_conversation: Annotated[
        int,
        Meta(
            ge=1, le=32, description="Maximum open streams of one conversation. One more closes the oldest with 4409."
        ),
    ] = 8
    activity_bytes: Annotated[Count, Meta(description="Maximum size of an activity from a client.")] = 262_144
    connector_bytes: Annotated[Count, Meta(description="Maximum size of an activity from a bot.")] = 4_194_304
    upload_bytes: Annotated[
        Count, Meta(description="Maximum size of an upload, all its files together, from a client or a bot.")
    ] = 20_971_520
    upload_files: Annotated[
        Count, Meta(description="Maximum files per upload; up to 32 other form parts are allowed besides.")
    ] = 20
    upload_bytes_total: Annotated[
        Room, Meta(description="Maximum disk space of the stored uploads of one conversation. 0: no limit.")
    ] = 268_435_456
    upload_bytes_total_per_site: Annotated[
        Room, Meta(description="Maximum disk space of all uploads by clients of one site. 0: no limit.")
    ] = 10_737_418_240
    free_space_floor_bytes: Annotated[
        Room,
        Meta(description="Uploads are refused if less than this would be left free on the disk; messages are not."),
    ] = 268_435_456
    members_per_conversation: Annotated[
        int,
        Meta(ge=2, description="Maximum members of a conversation, the bot included. Further members are refused."),
    ] = 1000
    conversation_idle_ttl_s: Annotated[
        float,
        Meta(
            ge=0,
            description="An unused conversation is deleted, with its activities and files, after this long. 0: never.",
        ),
    ] = 1_209_600
    activity_ttl_s: Annotated[
        Seconds | None,
        Meta(description="How long an activity can be read after it was sent. Default: as long as its conversation."),
    ] = None
    upload_ttl_s: Annotated[
        Seconds | None,
        Meta(description="How long a file can be fetched after its upload. Default: as long as its conversation."),
    ] = None
    page_activities: Annotated[Count, Meta(description="Maximum activities in one answer of Get Activities.")] = 100
    page_bytes: Annotated[
        Count, Meta(description="Maximum size of one answer of Get Activities, which has at least one activity.")
    ] = 1_048_576
    inner_http_error: Annotated[
        bool,
        Meta(description="Show clients the status and body of the bot's error answer. Bots may print secrets there."),
    ] = False
    log_level: Annotated[
        str, Meta(pattern="^(debug|info|warning|error)$", description="Lowest level that is logged.")
    ] = "info"


def settings_from(flags: Mapping[str, object], environment: Mapping[str, str], config: Path | None = None) -> Settings:
    """Settle every setting: flag, else environment, else file, else default.

    Raises `ConfigurationError` with one line that names the key and the reason.
    """
    chosen: dict[str, object] = {}
    for source, given in (
        (f"in {config}", _from_file(config)),
        ("in the environment", _from_environment(environment)),
        ("on the command line", {name: value for name, value in flags.items() if value is not None}),
    ):
        for name, value in given.items():
            chosen[name] = _converted(name, value, source)
    _check_bots_alone(chosen)
    settings = Settings(**chosen)  # type: ignore[arg-type]  # each value was converted to its field's type
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    """What one value says of another."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigurationError("tls_key: a certificate and its key, tls_cert and tls_key, need each other")
    if settings.bot_app_id is None and settings.bot_app_secret:
        raise ConfigurationError("bot_app_secret: belongs to an app id, bot_app_id")
    if settings.bot is not None and not may_be_called(settings.bot, settings.bot_allowed_hosts):
        raise ConfigurationError("bot: its host is not one of bot_allowed_hosts")
    for bot in settings.bots:
        if bot.app_id is None and bot.app_secret:
            raise ConfigurationError("bots: an app_secret belongs to an app_id")
        if bot.endpoint is not None and not may_be_called(bot.endpoint, settings.bot_allowed_hosts):
            raise ConfigurationError("bots: the host of an endpoint is not one of bot_allowed_hosts")


_OF_THE_ONE_BOT = (
    "bot",
    "bot_id",
    "bot_name",
    "bot_channel_id",
    "bot_concurrency",
    "bot_delivery",
    "bot_turns",
    "bot_create_conversations",
    "bot_app_id",
    "bot_app_secret",
    "enhanced_authentication",
    "trusted_origins",
)
"""What `[[bots]]` tables replace."""


def _check_bots_alone(chosen: Mapping[str, object]) -> None:
    """There is one bot of the settings, or there are those of the tables. Raises `ConfigurationError`."""
    if chosen.get("bots"):
        for name in _OF_THE_ONE_BOT:
            if name in chosen:
                raise ConfigurationError(f"{name}: belongs into one of the [[bots]] tables, since there are such")


def description(name: str) -> str:
    """The one sentence about a setting."""
    meta = [part for part in _HINTS[name].__metadata__ if isinstance(part, Meta)]
    return next((part.description for part in meta if part.description), "")


_HINTS: dict[str, Any] = get_type_hints(Settings, include_extras=True)


def is_switch(name: str) -> bool:
    """Whether a setting is true or false."""
    return "bool" in str(_HINTS[name])


def choices(name: str) -> tuple[str, ...]:
    """What a setting can be, where that is one of a few words."""
    return choices_of(_HINTS[name])


def choices_of(hint: Any) -> tuple[str, ...]:
    """The words that a pattern such as `^(a|b)$` allows."""
    patterns = (part.pattern for part in getattr(hint, "__metadata__", ()) if isinstance(part, Meta) and part.pattern)
    return next((tuple(each[2:-2].split("|")) for each in patterns if re.fullmatch(r"\^\([A-Za-z|]+\)\$", each)), ())


def _from_file(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        return tomllib.loads(config.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"config: {config}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"config: {config}: {error}") from error


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{_PREFIX}{name.upper()}"


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    named = {variable(field): field for field in Settings.__struct_fields__}
    if "LANDLINE_BOTS" in environment:
        raise ConfigurationError("bots: are tables of the file, and cannot be given in the environment")
    return {named[key]: value for key, value in environment.items() if key in named and not _is_kubernetes(key, value)}


_OF_A_SERVICE = re.compile(r"LANDLINE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_ADDRESS_OF_A_SERVICE = re.compile(r"(tcp|udp|sctp)://.*", re.DOTALL)


def _is_kubernetes(key: str, value: str) -> bool:
    """Whether this is one of the variables that Kubernetes makes for a service whose name begins with `landline`."""
    return bool(
        _OF_A_SERVICE.fullmatch(key) or (key.endswith("_PORT") and _ADDRESS_OF_A_SERVICE.fullmatch(value.strip()))
    )


def unknown_variables(environment: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """The variables that look like settings and are none, each with the one that was probably meant."""
    known = [*map(variable, Settings.__struct_fields__), *_NO_SETTINGS]
    return [
        (key, next(iter(difflib.get_close_matches(key, known, 1, 0.8)), None))
        for key, value in sorted(environment.items())
        if key.startswith(_PREFIX) and key not in known and not _is_kubernetes(key, value)
    ]


def _converted(name: str, value: object, source: str) -> object:
    if name not in _HINTS:
        raise ConfigurationError(f"{name}: no such setting ({source})")
    hint = _HINTS[name]
    if isinstance(value, str):
        value = value.strip()  # what was read from a file into a variable ends with a newline
        if "\0" in value:
            raise ConfigurationError(f"{name}: has a null character in it ({source})")
        if "tuple" in str(hint):
            value = [part.strip() for part in value.split(",") if part.strip()]
    if value == "":
        raise ConfigurationError(f"{name}: is empty ({source})")
    try:
        value = _measured(name, value)
        settled = msgspec.convert(value, hint, strict=False, dec_hook=_decoded)
        _CHECKS.get(name, _finite)(settled)
    except (ValueError, TypeError) as error:  # msgspec's is a ValueError
        place, why = in_words(str(error))
        raise ConfigurationError(f"{name}{place}: {why} ({source})") from error
    return settled


def _decoded(kind: type[Any], given: object) -> Any:
    """What msgspec does not know: a path. Raises `ValueError`."""
    if not isinstance(given, str | Path):
        raise ValueError("must be a path")
    return kind(given)


def _measured(name: str, value: object) -> object:
    """`value` with durations and sizes as numbers, those in tables too. Raises `ValueError`."""
    if isinstance(value, str):
        return measured(name, value)
    if name == "bots" or name == "sites":
        tables = value if isinstance(value, list) else []
        return [
            {key: _measured(str(key), each) for key, each in table.items()} if isinstance(table, dict) else table
            for table in tables
        ] or value
    return value


# What a type cannot say. Each raises ValueError with the reason; no reason repeats a secret.


def _finite(value: object) -> None:
    """Numbers that can be calculated with: twice the largest, and one divided by the smallest, are numbers, too."""
    if not isinstance(value, float) or value == 0:
        return
    if not math.isfinite(value):
        raise ValueError("a finite number is expected")
    if not _SMALLEST <= abs(value) <= _LARGEST:
        raise ValueError(f"a number from {_SMALLEST:g} to {_LARGEST:g} is expected")


def _long_enough(secret: str) -> None:
    if not _SECRET.fullmatch(secret):
        raise ValueError("needs at least 24 characters of A-Z a-z 0-9 . _ -")


def _networks(networks: tuple[str, ...]) -> None:
    for network in networks:
        ipaddress.ip_network(network)


def _origins(origins: tuple[str, ...]) -> None:
    for each in origins:
        try:
            origin(each)
        except BadArgument as error:
            raise ValueError(f"{each!r} is not an origin such as https://www.example.org") from error


def _trusted_origins(origins: tuple[str, ...]) -> None:
    _origins(origins)
    try:
        trusted_origins(origins)
    except BadArgument as error:
        raise ValueError(error.message) from error


def _app_secrets(app_secrets: tuple[str, ...]) -> None:
    if not all(_APP_SECRET.fullmatch(secret) for secret in app_secrets):
        raise ValueError("an app secret needs at least 24 characters of A-Z a-z 0-9 . _ ~ -")


def _own_name(issuer: str) -> None:
    if issuer.rstrip("/").lower() == MICROSOFT:
        raise ValueError("bots would fetch Microsoft's keys instead of ours")
    connectable(issuer)


def _hosts(hosts: tuple[str, ...]) -> None:
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is no host such as bot.internal or *.example.org")


def _key_sets(trusted: tuple[str, ...]) -> None:
    try:
        key_sets(trusted)
    except BadArgument as error:
        raise ValueError(error.message) from error


def _database(url: str) -> None:
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("a postgresql:// URL is expected")


def _store(store: str) -> None:
    if store != "sqlite":
        _database(store)


def _distinct(what: str, given: list[str]) -> None:
    if len(set(given)) < len(given):
        raise ValueError(f"two {what}")


def _bots(bots: tuple[BotTable, ...]) -> None:
    sites = [site for bot in bots for site in bot.sites]
    site_ids = [site.id for site in sites]
    if bots and not bots[0].sites:
        site_ids.append(DEFAULT_SITE)
    _distinct("bots have the same id", [bot.id for bot in bots])
    _distinct("sites have the same id", site_ids)
    _distinct("sites have the same secret", [site.secret for site in sites if site.secret is not None])
    for bot in bots:
        if bot.endpoint is not None:
            connectable(bot.endpoint)
        _key_sets(bot.trusted_issuers or ())
        _app_secrets(bot.app_secret)
    for site in sites:
        _trusted_origins(site.trusted_origins)
        if site.secret is not None:
            _long_enough(site.secret)


_CHECKS: dict[str, Callable[[Any], None]] = {
    "secret": _long_enough,
    "admin_secret": _long_enough,
    "bots": _bots,
    "trusted_origins": _trusted_origins,
    "bot": connectable,
    "store": _store,
    "store_listen": _database,
    "public_url": connectable,
    "service_url": connectable,
    "trusted_proxies": _networks,
    "cors_origins": _origins,
    "bot_app_secret": _app_secrets,
    "issuer": _own_name,
    "trusted_issuers": _key_sets,
    "bot_allowed_hosts": _hosts,
}
