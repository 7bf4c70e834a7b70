"""A page of one's own with Web Chat in it: the one of docs/howto/web-chat.md, word for word, with the published bundle.

It lives on an origin other than Landline's, so the browser minds everything that pages elsewhere depend on.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType

from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]
WEB_CHAT = ROOT / "web" / "node_modules" / "botframework-webchat" / "dist" / "webchat.js"

_HOWTO = ROOT / "docs" / "howto" / "web-chat.md"
_STORE = ROOT / "web" / "src" / "store.js"
_DOMAIN = "http://127.0.0.1:3000/v3/directline"
_OPTIONS = "{ directLine, store }"


class OwnSite:
    """`async with OwnSite(domain, token) as site:` serves the page at `site.url`.

    The page reaches Landline at `domain`, and gets `token` from this site, as from a backend. `options` is what it
    gives Web Chat, if it is something else than in the documentation.
    """

    def __init__(self, domain: str, token: str, options: str = _OPTIONS) -> None:
        self._domain = domain
        self._token = token
        self._options = options
        application = web.Application()
        application.router.add_get("/", self._page)
        application.router.add_get("/chat.js", self._chat)
        application.router.add_get("/webchat.js", self._file)
        application.router.add_get("/store.js", self._file)
        application.router.add_post("/token", self._give)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)

    async def __aenter__(self) -> OwnSite:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=_block("html"), content_type="text/html")

    async def _chat(self, request: web.Request) -> web.Response:
        script = _block("js")
        assert _DOMAIN in script
        assert _OPTIONS in script
        script = script.replace(_DOMAIN, self._domain).replace(_OPTIONS, self._options)
        return web.Response(text=script, content_type="text/javascript")

    async def _file(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(WEB_CHAT if request.path == "/webchat.js" else _STORE)

    async def _give(self, request: web.Request) -> web.Response:
        return web.json_response({"token": self._token})


def _block(language: str) -> str:
    """The first code block of that language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", _HOWTO.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]
