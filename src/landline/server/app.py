"""The composition root: settings become parts, parts become a server; and the order in which it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import math
import secrets
import shlex
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cache

import msgspec
import structlog
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from landline.blobs.totals import Bounds
from landline.bots.credentials import Credentials
from landline.bots.http import HttpBotTransport
from landline.bots.issuers import HttpIssuers
from landline.channel.activities import PageBounds
from landline.channel.attachments import UploadBounds
from landline.channel.bot_tokens import BotTokens
from landline.channel.channel import Channel, Rules
from landline.channel.keys import SigningKeys
from landline.channel.registrations import Registrations
from landline.channel.registry import Registry
from landline.channel.retention import RetentionPolicy
from landline.channel.streams import OpenStreams
from landline.channel.throttle import Rates, Throttle
from landline.channel.tokens import Lifetimes
from landline.config import Settings
from landline.core.bot import without_query
from landline.core.origins import ANY_ORIGIN, origin
from landline.core.rate import Rate
from landline.core.stream import Timing
from landline.core.tokens import Keys
from landline.errors import ConfigurationError, Draining, StoreUnavailable
from landline.ports import BotTransport, Store
from landline.server import admin, attachments, connector, directline, openapi, openapi_page
from landline.server.certificates import fingerprint
from landline.server.configured import configured
from landline.server.exchange import GRACE_S, Exchange, HttpRules, Resource
from landline.server.issuer import Issuer
from landline.server.paths import Paths
from landline.server.reload import Reload
from landline.server.storage import SQLITE, storage
from landline.server.stream import Streaming
from landline.server.user_tokens import UserTokens
from landline.stores.directory import ADDRESS_FILE, ADMIN_SECRET_FILE, Directory
from landline.wire.answers import JSON
from landline.wire.connection import ConnectionContext, Limits
from landline.wire.crowd import Network, crowd_of
from landline.wire.listener import Listener, listening_sockets, tls_context
from landline.wire.websocket import Accept, Upgrade
from landline.wire.wheel import Wheel

_FORM_BYTES = 65_536

_ANY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104  # compared with, never listened on

_log = structlog.get_logger(__name__)

ShowSecret = Callable[[str], bool]
"""Shows a new secret to a person, once; answers False where there is nobody to see it."""


class SystemClock:
    """Implements `landline.ports.Clock`."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class Server:
    """One Landline server. `start`, then `stop`; both on one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        show_secret: ShowSecret = lambda secret: False,
        more: Callable[[Server], Sequence[BaseRoute]] = lambda server: (),
        carry: Callable[[HttpBotTransport], BotTransport] = lambda transport: transport,
        listening: socket.socket | None = None,
    ) -> None:
        """`more` adds routes of its own to a server that is complete but does not answer yet. `carry` may
        put something in front of what carries activities to bots. `listening` is a socket that listens already, in
        place of one for the settings' host and port."""
        self.settings = settings
        self.streams = OpenStreams(settings.streams_per_conversation)
        self.clock = SystemClock()
        self._show_secret = show_secret
        self._more = more
        self._carry = carry
        self._listening = listening
        self._directory = Directory(settings.data)
        self._ready = False
        self._hear_until = 0.0  # once it stops: when it waits for bots no longer
        self._closers = contextlib.AsyncExitStack()
        self._reloads: set[asyncio.Task[None]] = set()

    # What others may use of a server that was started.

    store: Store
    registry: Registry
    registrations: Registrations
    channel: Channel
    keys: SigningKeys
    listener: Listener
    routes: list[BaseRoute]

    @property
    def url(self) -> str:
        """The listener's own address, as somebody on this machine reaches it."""
        host, port = self.listener.addresses[0]
        return _url(self._scheme, host, port)

    @property
    def _scheme(self) -> str:
        return "http" if self.settings.tls_cert is None else "https"

    def _address(self, settings: Settings) -> str:
        """For those who know the data directory, and so need nobody to vouch for our certificate."""
        certificate = settings.tls_cert
        return self.url if certificate is None else f"{self.url} {fingerprint(certificate)}"

    # Life

    async def start(self) -> None:
        """Listen, open the store, serve. Raises `StartupError`; then nothing is left open."""
        async with contextlib.AsyncExitStack() as closers:
            await self._build(self._listen(closers), closers)
            self._closers = closers.pop_all()
        self._ready = True
        bot = self.settings.bot and without_query(self.settings.bot)
        _log.info("listening", url=self.url, bot=bot, data=str(self.settings.data))

    async def stop(self) -> None:
        """Go away without losing anything: refuse new connections, close the streams spread over `drain_s`, answer what
        is under way, see to the end what bots are being told, then close the store (spec 11). May be repeated.
        """
        try:
            if self._ready:
                self._ready = False
                _log.info("stopping", streams=len(self.streams))
                self.listener.stop_listening()
                await self.streams.drain(self.settings.drain_s)
                self._hear_until = self.clock.monotonic() + min(self.settings.join_wait_s, self._request_s)
        finally:  # a stop that is cut short still lets go of everything
            await self._closers.aclose()

    def reload(self, read: Callable[[], Settings]) -> None:
        """Take over what `read` answers as far as it can change while the server runs (`server/reload.py`), soon. Does
        nothing while the server starts or stops."""
        if self._ready:
            reloading = asyncio.create_task(self._reload.reload(read))
            self._reloads.add(reloading)
            reloading.add_done_callback(self._reloads.discard)

    def _show(self, settings: Settings) -> None:
        """Show another certificate. Raises `ConfigurationError`."""
        tls = _tls(settings)
        assert tls is not None
        address = self._address(settings)
        self.listener.show(tls)
        self._directory.write(ADDRESS_FILE, address)

    def _admit(self, settings: Settings) -> None:
        self._operators.admit(admin_secret(settings, self._directory))

    @property
    def _request_s(self) -> float:
        """The longest that a request can take (8.6)."""
        return self.settings.bot_timeout_s + GRACE_S

    def _listen(self, closers: contextlib.AsyncExitStack) -> Sequence[socket.socket]:
        """First of all, so that clients of a server that comes back wait in the kernel rather than being refused."""
        host, port = self.settings.host, self.settings.port
        try:
            listening = [self._listening] if self._listening else listening_sockets(host, port)
        except (OSError, UnicodeError) as error:
            if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
                raise ConfigurationError(f"host: {host!r} is no address of this machine") from error
            raise ConfigurationError(f"port: cannot listen on {host}:{port}: {error.strerror}") from error
        for each in listening:
            closers.callback(each.close)
        return listening

    async def _build(self, sockets: Sequence[socket.socket], closers: contextlib.AsyncExitStack) -> None:
        settings, clock = self.settings, self.clock
        tls = _tls(settings)
        wheel = Wheel(asyncio.get_running_loop())
        closers.callback(wheel.close)
        store, blobs = storage(settings, self._directory, clock, _stored_bounds(settings))
        self.store = store
        if settings.store != SQLITE:  # which takes it by itself
            self._directory.take()
            closers.callback(self._directory.release)
        closers.push_async_callback(store.close)
        await store.open()
        _warn_of_other_users(self._directory)
        closers.push_async_callback(blobs.close)
        await blobs.open()
        self.registry = registry = Registry()
        authority = authority_of(settings, _url(self._scheme, *sockets[0].getsockname()[:2]))
        base, issuer = authority
        self.registrations = registrations = Registrations(
            store, registry, self.streams, clock, configured(settings), base + connector.PREFIX
        )
        await registrations.load()
        registrations.warn_of_short_lives()
        if settings.store != SQLITE:
            following = asyncio.create_task(registrations.follow(settings.refresh_s))
            closers.callback(following.cancel)
        await registrations.sites.first_secret(self._show_first_secret)
        derived = await keys_of(store)
        self.keys = keys = SigningKeys(store, clock, lead_s=settings.key_lead_s)
        if any(bot.app_id for bot in registry.bots()):
            await keys.ring()  # rather now than in somebody's request
        for bot in registry.bots():
            if bot.app_id is not None and not (bot.app_secrets or bot.trusted_issuers):
                _log.warning("the bot has an app id and no secret: it cannot call back", bot=bot.id)
        transport = self._carry(
            HttpBotTransport(
                connect_timeout_s=settings.bot_connect_timeout_s,
                ca_file=settings.bot_ca_file,
                credentials=Credentials(keys, clock, issuer=issuer, life_s=settings.bot_token_ttl_s),
                allowed_hosts=settings.bot_allowed_hosts,
            )
        )
        self.channel = channel = Channel(
            store, blobs, transport, registry, self.streams, derived, clock, rules(settings)
        )

        async def close_channel() -> None:
            await channel.close(self._hear_until)

        async def hear_bots_out() -> None:
            await channel.finish(self._hear_until)

        closers.push_async_callback(close_channel)
        channel.start()
        streaming = Streaming(store, self.streams, _timing(settings), wheel)
        closers.push_async_callback(streaming.finish)
        throttle = Throttle(_rates(settings), clock)
        direct_line = directline.DirectLine(
            channel.tokens,
            throttle,
            channel.conversations,
            channel.activities,
            channel.attachments,
            streaming,
            _client_rules(settings),
        )
        trusted = HttpIssuers(settings.issuer_keys_s)
        closers.push_async_callback(trusted.close)
        bot_tokens = BotTokens(registry, keys, trusted, clock, issuer=issuer, life_s=settings.bot_token_ttl_s)
        paths = self._paths(
            direct_line,
            connector.Connector(
                registry,
                bot_tokens,
                channel.bots,
                channel.bot_conversations,
                channel.members,
                channel.attachments,
                _bot_rules(settings),
            ),
            attachments.Downloads(registry, channel.attachments, _client_rules(settings)),
            Issuer(registry, keys, bot_tokens, _issuer_rules(settings), issuer=issuer, base=base),
            authority,
        )

        def on_upgrade(request: Upgrade) -> Accept | Awaitable[Accept] | None:
            return direct_line.on_upgrade(paths.within(request.path), request)

        address = None if settings.trusted_proxies else sockets[0].getsockname()[:2]
        crowd = crowd_of(settings.connections_per_address, _proxies(settings))
        self.listener = Listener(
            paths, sockets, ConnectionContext(_limits(settings), wheel, on_upgrade, address, crowd), tls
        )
        closers.push_async_callback(self.listener.stop, self._request_s)
        await self.listener.start()
        closers.push_async_callback(hear_bots_out)  # a bot that greets may do so over a connection that is open
        # Where the commands of this machine find us.
        self._directory.write(ADDRESS_FILE, self._address(settings))
        closers.callback(self._directory.remove, ADDRESS_FILE)
        self._reload = Reload(settings, show=self._show, admit=self._admit, configure=registrations.configure)
        closers.push_async_callback(self._finish_reloads)

    async def _finish_reloads(self) -> None:
        await asyncio.gather(*self._reloads, return_exceptions=True)

    def _paths(
        self,
        direct_line: directline.DirectLine,
        calls: connector.Connector,
        downloads: attachments.Downloads,
        issuer: Issuer,
        authority: admin.Authority,
    ) -> Paths:
        settings = self.settings
        ours, bots = _client_rules(settings), _bot_rules(settings)
        unknown, unknown_elsewhere = Resource("unknown", ours), Resource("unknown", bots)

        async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
            in_api = scope["path"] == directline.PREFIX or scope["path"].startswith(directline.PREFIX + "/")
            await (unknown if in_api else unknown_elsewhere)(scope, receive, send)

        credential = admin_secret(settings, self._directory)
        self._operators = operators = admin.Admin(
            self.registrations,
            self.channel.tokens,
            self.keys,
            self.channel.redelivery,
            self.store,
            self.channel.retention,
            authority,
            credential,
            bots,
        )
        routes: list[BaseRoute] = [*direct_line.routes(), *calls.routes(), *downloads.routes(), *operators.routes()]
        for path, endpoint in (("/live", self._live), ("/ready", self._is_ready)):
            routes.append(Route(path, Resource(path, bots, GET=endpoint, HEAD=endpoint)))
        routes += issuer.routes()
        routes += UserTokens(_issuer_rules(settings)).routes()
        for path, endpoint in (("/openapi.json", self._openapi), ("/docs/api", self._api_page)):
            routes.append(Route(path, Resource(path, bots, GET=endpoint)))
        documented = tuple(routes)  # described when somebody asks: that would take a fifth of a start
        self._document = cache(lambda: openapi.document(documented, settings.public_url or "/"))
        self._document_page = cache(lambda: openapi_page.page(msgspec.json.decode(self._document())))
        routes += self._more(self)
        routes.append(Route("/", Resource("/", bots, GET=self._welcome)))
        self.routes = routes
        return Paths(routes, nowhere, (settings.public_url, settings.service_url))

    def _show_first_secret(self, secret: str) -> None:
        if not self._show_secret(secret):
            path = self._directory.write("first-secret", f"{secret}\n")
            _log.warning(
                "the first secret was written to a file; keep it elsewhere and remove the file", path=str(path)
            )

    # The few paths that are neither clients' nor bots'

    @openapi.operation("Health", {200: "Status"})
    async def _live(self, exchange: Exchange) -> None:
        """Alive: 200 while the process runs."""
        await exchange.json(200, b'{"status":"live"}')

    @openapi.operation("Health", {200: "Status"}, raises=(Draining, StoreUnavailable))
    async def _is_ready(self, exchange: Exchange) -> None:
        """Ready for traffic: 503 while draining, or while storage cannot be written."""
        if not self._ready:
            raise Draining
        await self.store.check()
        await exchange.json(200, b'{"status":"ready"}')

    async def _openapi(self, exchange: Exchange) -> None:
        """The OpenAPI document."""
        await exchange.answer(200, self._document(), JSON)

    async def _api_page(self, exchange: Exchange) -> None:
        """The OpenAPI document for people."""
        await exchange.answer(200, self._document_page(), *openapi_page.HEADERS)

    async def _welcome(self, exchange: Exchange) -> None:
        places = f"Clients: {directline.PREFIX}\nHealth:  /live  /ready\nAPI:     /docs/api  /openapi.json\n"
        lines = f"Landline, a Direct Line 3.0 channel.\n\n{places}"
        await exchange.answer(200, lines.encode(), (b"content-type", b"text/plain; charset=utf-8"))


async def keys_of(store: Store) -> Keys:
    """The signing keys: made at the first start, the same ever after (4.1)."""
    return Keys.derive(await store.put_if_absent("deployment-key", secrets.token_bytes(32)))


def admin_secret(settings: Settings, directory: Directory) -> str:
    """The bearer credential of the admin API. Unless it is a setting it stands in a file, where commands find it."""
    if settings.admin_secret is not None:
        return settings.admin_secret
    secret = directory.read(ADMIN_SECRET_FILE)
    if secret is None:
        secret = secrets.token_urlsafe(32)
        directory.write(ADMIN_SECRET_FILE, f"{secret}\n")
    return secret


def _client_rules(settings: Settings) -> HttpRules:
    return HttpRules(
        deadline_s=settings.bot_timeout_s,
        body_bytes=settings.activity_bytes,
        public_url=settings.public_url and settings.public_url.rstrip("/"),
        trusted_proxies=_proxies(settings),
        cors_origins=_origins(settings),
        show_inner=settings.inner_http_error,
        upload_bytes=settings.upload_bytes,
    )


def _proxies(settings: Settings) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, settings.trusted_proxies))


def _bot_rules(settings: Settings) -> HttpRules:
    return HttpRules(
        deadline_s=settings.bot_timeout_s,
        body_bytes=settings.connector_bytes,
        cross_origin=False,
        upload_bytes=settings.upload_bytes,
    )


def _issuer_rules(settings: Settings) -> HttpRules:
    return HttpRules(deadline_s=settings.bot_timeout_s, body_bytes=_FORM_BYTES, cross_origin=False)


def _warn_of_other_users(directory: Directory) -> None:
    """Of those who may look into the data directory, or put another one in its place."""
    data = str(directory.path)
    if mend := directory.open_to_others():
        _log.warning("other users may look into the data directory", data=data, mend=mend)
    if place := directory.replaceable_in():
        mend = f"chmod go-w {shlex.quote(str(place))}"
        _log.warning("other users may replace the data directory", data=data, mend=mend)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return tls_context(settings.tls_cert, settings.tls_key)


def authority_of(settings: Settings, own_url: str) -> admin.Authority:
    """What every address that bots are told begins with, and our name. Never from a request (bot 3)."""
    base = (settings.service_url or own_url).rstrip("/")
    return admin.Authority(base, settings.issuer or base)


def _url(scheme: str, host: str, port: int) -> str:
    """The loopback name if the listener is bound to all addresses (bot 3)."""
    if host in _ANY_ADDRESS:
        host = "localhost"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _stored_bounds(settings: Settings) -> Bounds:
    return Bounds(settings.upload_bytes_total, settings.upload_bytes_total_per_site, settings.free_space_floor_bytes)


def rules(settings: Settings) -> Rules:
    """How the use cases behave."""
    return Rules(
        lifetimes=lifetimes(settings),
        pages=PageBounds(settings.page_activities, settings.page_bytes),
        uploads=UploadBounds(settings.upload_files, settings.activity_bytes, settings.upload_ttl_s),
        retention=retention_policy(settings),
        join_wait_s=settings.join_wait_s,
        store_wait_s=settings.store_wait_s,
        members=settings.members_per_conversation,
    )


def retention_policy(settings: Settings) -> RetentionPolicy:
    """How long things are kept."""
    longest_token_s = 14 * 86_400
    return RetentionPolicy(
        idle_s=settings.conversation_idle_ttl_s or None,
        activity_s=settings.activity_ttl_s,
        keys_s=settings.idempotency_ttl_s,
        # A chain can be renewed until its end, and the last token then has its whole life; a shorter setting may have
        # been a longer one when it was issued.
        tombstone_s=max(settings.token_chain_s, longest_token_s) + longest_token_s + 86_400,
    )


def lifetimes(settings: Settings) -> Lifetimes:
    """How long credentials live."""
    return Lifetimes(settings.token_ttl_s, settings.token_chain_s, settings.stream_url_ttl_s, settings.clock_leeway_s)


def _rates(settings: Settings) -> Rates:
    """Bursts are twice the rate, for polls four times (spec 10)."""

    def rate(per_s: float, burst_s: int, longest_wait_s: float = 0.0) -> Rate:
        return Rate(per_s, max(1, math.ceil(burst_s * per_s)), longest_wait_s)

    return Rates(
        sends=rate(settings.sends_per_s, 2),
        polls=rate(settings.polls_per_s, 4, settings.poll_wait_s),
        starts=rate(settings.starts_per_s, 2, settings.start_wait_s),
    )


def _timing(settings: Settings) -> Timing:
    return Timing(settings.keepalive_s, settings.dead_peer_s, settings.stall_s)


def _limits(settings: Settings) -> Limits:
    return Limits(
        header_timeout_s=settings.header_timeout_s,
        body_stall_s=settings.body_stall_s,
        close_timeout_s=settings.close_timeout_s,
        cors_origins=_origins(settings),
    )


def _origins(settings: Settings) -> frozenset[str]:
    """Empty means any."""
    origins = frozenset(map(origin, settings.cors_origins))
    return frozenset() if ANY_ORIGIN in origins else origins
