"""A bot, and the sites (client applications) that may talk to it (spec 1).

What an operator may say about either stands here with its bounds, once for the file, the admin API and the store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from landline.errors import BadArgument

URL = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"  # no user and password: URLs are shown and logged
Url = Annotated[str, Meta(pattern=URL)]
ENDPOINT = r"^(?i:https?)://[^\s/?#@]+(/[^\s?#]*)?(\?[^\s#]*)?$"
"""Where somebody else's server is, which may know its callers by a secret in the query: see `without_query`."""
CONNECTOR = "https://api.botframework.com"
"""The audience of what bots show to us; SDKs ask for it by this name, whoever the issuer is."""
MICROSOFT = CONNECTOR
"""An issuer of this name makes the Agents SDKs fetch keys from Microsoft, so ours must never have it (bot 5.1)."""
_KEY_SET = re.compile(r"(https://|http://(localhost|127\.0\.0\.1|\[::1\])[:/])[^\s#@]+", re.ASCII)
_HOST_NAME = re.compile(r"[A-Za-z0-9._~-]+")
BotId = Annotated[str, Meta(min_length=1, max_length=256)]
SITE_ID = "^[A-Za-z0-9_-]{1,64}$"
SiteId = Annotated[str, Meta(pattern=SITE_ID)]
Text = Annotated[str, Meta(min_length=1, max_length=256)]
APP_ID = "^[A-Za-z0-9._-]{1,128}$"
AppId = Annotated[str, Meta(pattern=APP_ID)]
Origins = Annotated[tuple[str, ...], Meta(max_length=256)]
SHORT_LIFE_S = 300
"""Below this a life of tokens is for tests (D-19)."""
SHORT_LIFE = "tokens live less than 5 min: clients that refresh every 15 min will lose theirs"
Life = Annotated[int, Meta(ge=1, le=1_209_600)]
PerSecond = Annotated[float, Meta(gt=0)]
Patience = Annotated[float, Meta(gt=0, le=18)]


class Own(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a bot or a site may have of its own in place of the server's setting; the site's wins."""

    token_ttl_s: Annotated[Life | None, Meta(description="Lifetime of its tokens.")] = None
    sends_per_s: Annotated[
        PerSecond | None, Meta(description="Maximum activities that clients send into one conversation.")
    ] = None
    polls_per_s: Annotated[
        PerSecond | None, Meta(description="Maximum calls of Get Activities for one conversation.")
    ] = None
    starts_per_s: Annotated[PerSecond | None, Meta(description="Maximum starts and token calls of one site.")] = None


# What a setting and a property of a bot say in the same words.

DisplayName = Annotated[Text, Meta(description="The bot's display name, unless the bot gives one itself.")]
AccountId = Annotated[BotId, Meta(description="The bot's account id: the sender of its messages.")]
Endpoint = Annotated[
    Annotated[str, Meta(pattern=ENDPOINT)] | None,
    Meta(description="The bot's messaging endpoint. Without one, every send is answered 502."),
]
ChannelId = Annotated[
    Text, Meta(description="The channelId in what the bot receives. Clients always see `directline`.")
]
Concurrency = Annotated[int, Meta(ge=1, description="Maximum requests to the bot at the same time; further ones wait.")]
DeliveryMode = Annotated[
    str,
    Meta(
        pattern="^(normal|expectReplies|stream)$",
        description="How the bot replies: by calls (`normal`), or in its HTTP answer; `stream` is for .NET on "
        "the Agents SDK.",
    ),
]
Turns = Annotated[
    str,
    Meta(
        pattern="^(overlap|serial)$",
        description="When the bot gets the next activity of a conversation: at once (`overlap`), or after it "
        "has answered (`serial`).",
    ),
]
CreateConversations = Annotated[
    bool, Meta(description="Let a bot with an app id start conversations and list its own.")
]
OwnAppId = Annotated[
    AppId | None,
    Meta(description="The bot's app id. With one, Landline and the bot authenticate to each other with tokens."),
]
TrustedIssuers = Annotated[
    Annotated[tuple[str, ...], Meta(max_length=32)] | None,
    Meta(
        description="Other issuers whose tokens the bot may show, each written as its name, `=` and the URL "
        "of its key set. Default: the server's `trusted_issuers`."
    ),
]


class Profile(Own, frozen=True, kw_only=True, omit_defaults=True):
    """What an operator says about a bot."""

    id: AccountId
    name: DisplayName = "Bot"
    endpoint: Endpoint = None
    channel_id: ChannelId = "directline"
    concurrency: Concurrency = 64
    timeout_s: Annotated[
        Patience | None,
        Meta(description="Time limit for the bot's answer, if it is shorter than what the request has left."),
    ] = None
    delivery: DeliveryMode = "normal"
    turns: Turns = "overlap"
    create_conversations: CreateConversations = False
    app_id: OwnAppId = None
    trusted_issuers: TrustedIssuers = None


class Bot(Own, frozen=True):
    """A registered endpoint. Durations are seconds.

    `service_url` is what this bot calls back: base, `/b/`, the bot's key and a slash (bot 2.2); the key alone
    makes an anonymous bot recognisable, so it is a secret (bot 3). `former_keys` were given out before and still
    work. A bot with `app_id` is not known by that alone: it shows a token, which it gets for a secret whose digest is
    one of `app_secrets` (bot 6), or from one of `trusted_issuers`, for which no other bot's stand in.
    """

    id: str
    name: str
    endpoint: str | None
    service_url: str
    service_key: str
    reference_grammar_id: str
    channel_id: str = "directline"
    concurrency: int = 64
    timeout_s: float | None = None
    delivery: str = "normal"
    turns: str = "overlap"
    create_conversations: bool = False
    app_id: str | None = None
    trusted_issuers: tuple[str, ...] = ()
    former_keys: tuple[str, ...] = ()
    app_secrets: tuple[bytes, ...] = ()

    @property
    def delivery_mode(self) -> str | None:
        """What its activities say of where its replies go; normally nothing (bot 2.6)."""
        return None if self.delivery == "normal" else self.delivery

    @property
    def serial(self) -> bool:
        """Whether it hears the next activity of a conversation only when it has answered the one before."""
        return self.turns == "serial"

    @property
    def service_urls(self) -> tuple[str, ...]:
        """Every service URL of it that works. Each works without its last slash, too, as bots were given it before."""
        base = self.service_url.removesuffix("/").removesuffix(self.service_key)
        return (self.service_url, *(f"{base}{key}/" for key in self.former_keys))

    @property
    def link_base(self) -> str:
        """What the links to files begin with that the bot is shown; each link goes on with a slash."""
        return self.service_url.removesuffix("/")


class Site(Own, frozen=True, omit_defaults=True):
    """A client application of one bot (spec 1). Its origins are normalised."""

    id: Annotated[SiteId, Meta(description="Its name, unique among the sites of all bots.")]
    bot_id: Annotated[BotId, Meta(description="The bot that it talks to.")]
    enabled: Annotated[bool, Meta(description="Whether its secrets and tokens are accepted.")] = True
    trusted_origins: Annotated[
        Origins,
        Meta(description="Origins of the pages that may use it. Origins in requests for tokens are then ignored."),
    ] = ()
    enhanced_authentication: Annotated[
        bool, Meta(description="Take users from tokens only, and enforce trusted origins.")
    ] = False


def without_query(endpoint: str) -> str:
    """An endpoint as it is shown and logged: what stands in its query may be a secret (bot 8, 94)."""
    where, asks, _ = endpoint.partition("?")
    return f"{where}?***" if asks else where


def check_profile(profile: Profile) -> None:
    """What the types of a profile cannot say. Raises `BadArgument` for an endpoint that nobody can connect to, and for
    trusted issuers as `key_sets` does."""
    if profile.endpoint is not None:
        try:
            connectable(profile.endpoint)
        except ValueError as error:
            raise BadArgument(f"'endpoint' is no URL that can be connected to: {error}") from error
    key_sets(profile.trusted_issuers or ())


def connectable(url: str) -> None:
    """Raises `ValueError` for a URL of the right form that nobody can connect to, such as `http://[` or port 0."""
    parts = urlsplit(url)
    if parts.port == 0:  # the property itself refuses what is no port
        raise ValueError("port 0 cannot be connected to")
    try:
        host = (parts.hostname or "").encode("idna").decode()
    except UnicodeError as error:
        raise ValueError("its host is no name") from error
    if ":" not in host and not _HOST_NAME.fullmatch(host):
        raise ValueError("its host is no name")


def key_sets(trusted_issuers: Iterable[str]) -> dict[str, str]:
    """The address of the key set of each issuer: https, unless on this machine. Raises `BadArgument`."""
    found: dict[str, str] = {}
    for each in trusted_issuers:
        issuer, _, url = each.partition("=")
        if not issuer or not _KEY_SET.fullmatch(url):
            raise BadArgument(f"{each!r} is not ISSUER=URL, https unless on this machine")
        try:
            connectable(url)
        except ValueError as error:
            raise BadArgument(f"{each!r} is not ISSUER=URL: {error}") from error
        if issuer in found:
            raise BadArgument(f"The issuer {issuer!r} is named twice")
        found[issuer] = url
    return found


def key_set_of(issuer: str, trusted_issuers: Iterable[str]) -> str | None:
    """Where the keys of `issuer` are, if it is one of these."""
    return next((url for name, _, url in (each.partition("=") for each in trusted_issuers) if name == issuer), None)


def may_be_called(endpoint: str, hosts: Sequence[str]) -> bool:
    """Whether `endpoint` lies on one of `hosts`: names, addresses, or `*.example.org` for every name below that one.
    No hosts at all allow any."""
    if not hosts:
        return True
    try:
        host = (urlsplit(endpoint).hostname or "").rstrip(".")
    except ValueError:
        return False
    return any(_is_host(host, allowed.lower()) for allowed in hosts)


def _is_host(host: str, allowed: str) -> bool:
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed
