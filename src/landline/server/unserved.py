"""The admin API where no server runs: the same endpoints on a store that is opened for one call."""

from __future__ import annotations

import asyncio
import secrets

from starlette.types import Message

from landline.channel.keys import SigningKeys
from landline.channel.redelivery import Redelivery
from landline.channel.registrations import Registrations
from landline.channel.registry import Registry
from landline.channel.retention import Retention
from landline.channel.streams import OpenStreams
from landline.channel.tokens import Tokens
from landline.config import Settings
from landline.server.admin import Admin
from landline.server.app import SystemClock, authority_of, keys_of, lifetimes, retention_policy
from landline.server.configured import configured
from landline.server.exchange import HttpRules, Resource
from landline.server.paths import Paths
from landline.server.storage import storage
from landline.stores.directory import ADDRESS_FILE, Directory
from landline.wire.answers import EXTENSION, Arrival
from landline.wire.wheel import Wheel


async def ask(settings: Settings, method: str, path: str, query: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of one call. Raises `DirectoryInUse` where a server runs after all, `DataDirectoryError`."""
    clock, registry, credential = SystemClock(), Registry(), secrets.token_urlsafe(32)
    directory = Directory(settings.data)
    store, blobs = storage(settings, directory, clock)
    await store.open()
    try:
        # Nobody is served here, so no bot is told a service URL.
        registrations = Registrations(store, registry, OpenStreams(), clock, configured(settings), "")
        await registrations.load()
        tokens = Tokens(registry, await keys_of(store), clock, lifetimes(settings))
        rules = HttpRules(settings.bot_timeout_s, settings.activity_bytes, cross_origin=False)
        keys = SigningKeys(store, clock, lead_s=settings.key_lead_s)
        retention = Retention(store, blobs, OpenStreams(), clock, retention_policy(settings))
        redelivery = Redelivery(store, registry, None)
        # A server that was killed has left its address behind, and will most likely be found there again.
        own = (directory.read(ADDRESS_FILE) or "").partition(" ")[0]
        authority = authority_of(settings, own) if own or settings.service_url else None
        admin = Admin(registrations, tokens, keys, redelivery, store, retention, authority, credential, rules)
        paths = Paths(admin.routes(), Resource("unknown", rules))
        return await _call(paths, method, path, query, body, credential)
    finally:
        await store.close()


async def _call(app: Paths, method: str, path: str, query: str, body: bytes, credential: str) -> tuple[int, bytes]:
    headers = {b"authorization": f"Bearer {credential}".encode()}
    answers: list[tuple[int, bytes]] = []

    async def answer(status: int, lines: bytes, body: bytes) -> None:
        answers.append((status, body))

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        raise AssertionError("the admin API answers in one piece")

    wheel = Wheel(asyncio.get_running_loop())
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": list(headers.items()),
        "extensions": {EXTENSION: Arrival(headers, wheel, answer)},
    }
    await app(scope, receive, send)
    wheel.close()
    return answers[0]
