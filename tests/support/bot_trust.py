"""What a bot with an app id has, and what its attackers have: credentials, keys, tokens good and forged.

Forged tokens are made here and not by the product, so that a mistake in the product's signing cannot hide one in its
checking.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

from landline.channel.keys import SigningKeys
from landline.core.keys import SigningKey, key_set
from landline.server.app import SystemClock
from landline.stores.directory import Directory
from landline.stores.sqlite import SqliteStore

APP_ID = "11111111-2222-4333-8444-555555555555"
APP_SECRETS = ("app-secret-of-the-first-kind-012345~", "app-secret-of-the-second-kind-01234.")
CONNECTOR = "https://api.botframework.com"
SCOPE = f"{CONNECTOR}/.default"

ENVIRONMENT = {"LANDLINE_BOT_APP_SECRET": ",".join(APP_SECRETS)}
"""Secrets are no flags."""

Claims = dict[str, Any]


def new_key() -> rsa.RSAPrivateKey:
    """A key that nobody has heard of."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def claims(**changes: Any) -> Claims:
    """What a good token of the bot says; a change to None leaves the claim out."""
    now = int(time.time())
    good = {"aud": CONNECTOR, "appid": APP_ID, "azp": APP_ID, "nbf": now - 5, "exp": now + 3600}
    return {name: value for name, value in (good | changes).items() if value is not None}


def forged(header: Mapping[str, object], said: Claims, key: rsa.RSAPrivateKey | bytes | None = None) -> str:
    """A token with any header at all: signed RS256 by an RSA key, HMAC-SHA256 by bytes, not at all by None."""
    head = b".".join(_base64url(json.dumps(part).encode()) for part in ({"typ": "JWT"} | dict(header), said))
    if key is None:
        signature = b""
    elif isinstance(key, bytes):
        signature = hmac.digest(key, head, hashlib.sha256)
    else:
        signature = jwt.get_algorithm_by_name("RS256").sign(head, key)
    return (head + b"." + _base64url(signature)).decode()


def _base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


async def with_keys_of(data: Path, *, rotate: bool = False) -> list[SigningKey]:
    """The signing keys that a server has left in its data directory, after one more rotation if asked for. The server
    must not run."""
    clock = SystemClock()
    store = SqliteStore(Directory(data), clock)
    await store.open()
    try:
        keys = SigningKeys(store, clock, lead_s=90_000)
        if rotate:
            await keys.rotate()
        return list((await keys.ring()).keys)
    finally:
        await store.close()


class Authority:
    """Another issuer on 127.0.0.1: `async with Authority() as other:` serves its key set, and counts who asks."""

    def __init__(self) -> None:
        self.key = SigningKey.of(new_key(), 0)
        self.document: object = key_set([self.key], [])
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.05)
        self._port = 0

    async def __aenter__(self) -> Authority:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = site.port
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def issuer(self) -> str:
        """Its name in tokens. Nothing is to be found there."""
        return "https://issuer.example/tenant/v2.0"

    @property
    def url(self) -> str:
        """Where its keys are."""
        return f"http://127.0.0.1:{self._port}/keys"

    @property
    def setting(self) -> str:
        """What `trusted_issuers` says of it."""
        return f"{self.issuer}={self.url}"

    def token(self, **changes: Any) -> str:
        """A token of this issuer."""
        return forged({"alg": "RS256", "kid": self.key.kid}, claims(**{"iss": self.issuer} | changes), self.key.private)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(request.path)
        return web.json_response(self.document, status=self.status, headers=self.headers)


class Ear:
    """A listening socket that nobody has a reason to connect to. `heard` counts who did."""

    def __init__(self) -> None:
        self.heard = 0
        self._server: asyncio.Server

    async def __aenter__(self) -> Ear:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard += 1
        writer.close()
