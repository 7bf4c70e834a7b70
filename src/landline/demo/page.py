"""What the demo's page is served, and the three things it may ask for that no client may: a token, a cut, and how the
line to the bot stands.

The page itself is the real Web Chat, built from `web/` by Vite; it talks to the Direct Line API like any other. The
demo's secret stays in this process.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import msgspec
import structlog
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from landline.channel.streams import OpenStreams
from landline.channel.tokens import Grant, Tokens
from landline.core.bot import without_query
from landline.core.conversation import Account, is_conversation_id
from landline.core.log import ConversationId
from landline.core.tokens import TokenParameters
from landline.demo.watch import Standing, Watch
from landline.errors import BadArgument, BadSyntax, Forbidden
from landline.ports import Store
from landline.server.exchange import Exchange, HttpRules, Resource

STATIC = Path(__file__).parent / "static"
"""Where `web/` is built to. Not in the repository, but in the wheel."""

_HTML = (b"content-type", b"text/html; charset=utf-8")
_INDEX_HEADERS = (
    # A new build is seen at the next reload; what it refers to has a digest in its name.
    (b"cache-control", b"no-cache"),
    # Nothing from elsewhere, on nobody else's page. Web Chat makes its styles at run time; a file to be uploaded is a
    # blob, and so is the worker that draws a small copy of a picture.
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        b"media-src 'self' data: blob:; font-src 'self'; worker-src blob:; connect-src 'self' ws: blob:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_MISSING = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Landline: the page is not built</title>
<style>body { font: 1.05rem/1.6 system-ui, sans-serif; max-width: 38rem; margin: 12vh auto; padding: 0 1.5rem }</style>
<h1>The page is not built yet</h1>
<p>The server runs, and its Direct Line API answers at <code>/v3/directline</code>. What is missing is the page with Web
Chat. Building it takes Node 20.19 or newer and, in the directory of the sources, these commands:</p>
<pre>cd web
npm ci
npm run build</pre>
<p>Then load this page again; the server need not be restarted.</p>
</html>
"""

_log = structlog.get_logger(__name__)


class Asked(msgspec.Struct, frozen=True):
    """What the page says of itself: the conversation that it had, if any."""

    conversation_id: str = msgspec.field(name="conversationId", default="")
    ask: bool = False
    """Whether the bot is to be asked, rather than to be looked for."""


class Behind(msgspec.Struct, frozen=True):
    """The bot behind the page: where it is, whether it is the visitor's `own`, and what watches the line to it."""

    endpoint: str
    own: bool
    watch: Watch


class Shown(msgspec.Struct, frozen=True):
    """What the page is told of the bot."""

    endpoint: str
    own: bool
    standing: Standing


class Page:
    """The page of one demo server, and its endpoints."""

    def __init__(
        self,
        tokens: Tokens,
        store: Store,
        streams: OpenStreams,
        secret: str,
        behind: Behind,
        *,
        deadline_s: float,
        static: Path = STATIC,
    ) -> None:
        """`secret` opens the site in whose name the page gets its tokens."""
        self._tokens = tokens
        self._store = store
        self._streams = streams
        self._secret = secret
        self._behind = behind
        self._static = static
        self._rules = HttpRules(deadline_s=deadline_s, body_bytes=1024, cross_origin=False)

    def routes(self) -> list[BaseRoute]:
        """What is to be found where."""
        resources = (
            Resource("/", self._rules, GET=self.index),
            Resource("/demo/token", self._rules, POST=self.token),
            Resource("/demo/cut", self._rules, POST=self.cut),
            Resource("/demo/bot", self._rules, POST=self.bot),
        )
        # Starlette's files answer 404 by raising, which needs somebody around them.
        assets = ExceptionMiddleware(StaticFiles(directory=self._static / "assets", check_dir=False))
        guide = ExceptionMiddleware(StaticFiles(directory=self._static / "guide", check_dir=False, html=True))
        mounts = (Mount("/assets", assets), Mount("/guide", guide))
        return [*(Route(each.template, each) for each in resources), *mounts]

    async def index(self, exchange: Exchange) -> None:
        """The page, or what to do to have one."""
        try:
            html = await asyncio.to_thread((self._static / "index.html").read_bytes)
        except FileNotFoundError:
            await exchange.answer(503, _MISSING, _HTML)
            return
        await exchange.answer(200, html, _HTML, *_INDEX_HEADERS)

    async def token(self, exchange: Exchange) -> None:
        """A token for the conversation that the page had, or for a new one if that is gone or there was none."""
        _check_same_origin(exchange)
        grant = self._tokens.secret_grant(self._secret)
        kept = await self._kept(grant, await _asked(exchange))
        if kept is not None:
            conversation, user = kept
            issued = self._tokens.first(grant, conversation, user)
        else:
            # The server makes up the user: only a token can vouch for an id that begins with dl_ (spec 4.6).
            user = Account(f"dl_{secrets.token_hex(8)}")
            issued = self._tokens.generate(grant, TokenParameters(user=user))
        answer = {
            "token": issued.token,
            "conversationId": issued.conversation,
            "userId": user.id,
            "known": kept is not None,
        }
        await exchange.json(200, msgspec.json.encode(answer))

    async def _kept(self, grant: Grant, asked: Asked) -> tuple[ConversationId, Account] | None:
        if not is_conversation_id(asked.conversation_id):
            return None
        found = await self._store.conversation(ConversationId(asked.conversation_id))
        if found is None or found.bot_id != grant.bot.id or found.user is None:
            return None
        return found.id, found.user

    async def cut(self, exchange: Exchange) -> None:
        """Cut the page's streams, without a farewell; answer how many there were."""
        _check_same_origin(exchange)
        asked = await _asked(exchange)
        if not is_conversation_id(asked.conversation_id):
            raise BadArgument("conversationId is not valid")
        streams = self._streams.of(ConversationId(asked.conversation_id))
        for stream in streams:
            stream.abort()
        _log.info("line cut", conversation=asked.conversation_id, streams=len(streams))
        await exchange.json(200, msgspec.json.encode({"cut": len(streams)}))

    async def bot(self, exchange: Exchange) -> None:
        """How the line to the bot stands: at once, as it is known, or when the bot has answered."""
        _check_same_origin(exchange)
        watch = self._behind.watch
        if (await _asked(exchange)).ask:
            standing = await watch.ask()
        else:
            watch.look()
            standing = watch.standing
        shown = Shown(without_query(self._behind.endpoint), self._behind.own, standing)
        await exchange.json(200, msgspec.json.encode(shown))


def _check_same_origin(exchange: Exchange) -> None:
    """Only a page that was loaded from this listener may ask. Raises `Forbidden`.

    The name in Host is checked as well: a page from elsewhere whose name was made to resolve to this machine has the
    same origin as far as its browser knows.
    """
    host = exchange.header(b"host") or b""
    address, port = exchange.scope["server"]
    names = ("localhost", f"[{address}]" if ":" in address else address)
    if host.lower() not in [f"{name}:{port}".encode() for name in names]:
        raise Forbidden("This is answered on the listener's own address only")
    if exchange.header(b"origin") != b"http://" + host:
        raise Forbidden("This is answered to the demo's own page only")


async def _asked(exchange: Exchange) -> Asked:
    try:
        return msgspec.json.decode(await exchange.json_body() or b"{}", type=Asked)
    except msgspec.ValidationError as error:
        raise BadArgument(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSyntax from error
