"""The authority of bots with an app id, at the edge: metadata, public keys, and the endpoint that gives tokens
(bot 5.2, 6.1).

SDKs build the addresses of an authority in different ways, so the same things are found under the plain base of the
service URL, under `/adfs`, and under `/{tenant}` for any name there. Every address given out begins with that base,
which is configured; none is taken from a request.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import unquote_plus

import msgspec
from starlette.routing import Route

from landline.channel.bot_tokens import BotToken, BotTokens
from landline.channel.keys import SigningKeys
from landline.channel.registry import Registry
from landline.core import keys, percent
from landline.errors import BadArgument, Forbidden, NotFound
from landline.server.exchange import Exchange, HttpRules, Resource
from landline.server.openapi import operation
from landline.wire.answers import JSON, Header

METADATA = "/v1/.well-known/openidconfiguration"
KEYS = "/discovery/v2.0/keys"
TOKEN = "/oauth2/v2.0/token"  # noqa: S105  # a path

_DOCUMENTS = ("/.well-known/openid-configuration", "/v2.0/.well-known/openid-configuration")
"""Where SDKs look: behind `/adfs` the first, behind a tenant the second."""

_AUTHORIZE = "/oauth2/v2.0/authorize"
_LOGOUT = "/oauth2/v2.0/logout"
"""Named because documents have to name them. Nobody signs in here."""

_TENANT = "/{tenant}"
_TENANT_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PUBLIC = (b"cache-control", b"public, max-age=3600")
_NEVER_KEPT = (b"pragma", b"no-cache")
_CHALLENGE = (b"www-authenticate", b'Basic realm="landline"')
_ALWAYS_ENDORSED = ("directline", "webchat")
_FIELDS = (b"grant_type", b"client_id", b"client_secret", b"scope")
"""What is read of a form."""
_MOST_FIELDS = 1_000
_FORM_BYTES = 32 * 1024
"""The largest form: whoever is nobody yet may send it."""
_TAG = "Authority"

_encode = msgspec.json.Encoder().encode


class _Refused(Exception):
    """The token endpoint's own kind of problem (RFC 6749, section 5.2)."""

    def __init__(self, status: int, error: str, description: str, *headers: Header) -> None:
        super().__init__(description)
        self.status = status
        self.headers = headers
        self.body = _encode({"error": error, "error_description": description})


class Issuer:
    """The endpoints of the authority."""

    def __init__(
        self, registry: Registry, keys: SigningKeys, tokens: BotTokens, rules: HttpRules, *, issuer: str, base: str
    ) -> None:
        """`issuer` is our name in tokens, `base` what the addresses begin with."""
        self._registry = registry
        self._keys = keys
        self._tokens = tokens
        self._rules = rules
        self._issuer = issuer
        self._base = base

    def routes(self) -> list[Route]:
        """What is to be found where."""
        rules = self._rules
        for_forms = msgspec.structs.replace(rules, body_bytes=min(_FORM_BYTES, rules.body_bytes))
        resources = [Resource(METADATA, rules, GET=self.document)]
        for authority in ("", _TENANT):
            resources += [Resource(authority + path, rules, GET=self.document) for path in _DOCUMENTS]
            resources.append(Resource(authority + KEYS, rules, GET=self.key_set))
            resources.append(Resource(authority + TOKEN, for_forms, POST=self.token))
        return [Route(resource.template, resource) for resource in resources]

    @operation(_TAG, {200: "Authority"}, raises=(NotFound,))
    async def document(self, exchange: Exchange) -> None:
        """OpenID configuration (bot 5.2, 6.1)."""
        authority = self._base + _authority(exchange)
        document = {
            "issuer": self._issuer,
            "authorization_endpoint": authority + _AUTHORIZE,
            "token_endpoint": authority + TOKEN,
            "jwks_uri": authority + KEYS,
            "end_session_endpoint": authority + _LOGOUT,
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        }
        await exchange.answer(200, _encode(document), JSON, _PUBLIC)

    @operation(_TAG, {200: "KeySet"}, raises=(NotFound,))
    async def key_set(self, exchange: Exchange) -> None:
        """Signing keys, as a JWKS with their endorsements (bot 5.2)."""
        _authority(exchange)
        endorsements = sorted({*_ALWAYS_ENDORSED, *(bot.channel_id for bot in self._registry.bots())})
        await exchange.answer(200, _encode(keys.key_set(await self._keys.shown(), endorsements)), JSON, _PUBLIC)

    @operation(
        _TAG,
        {200: "GrantedToken"},
        body="TokenRequest",
        raises=(NotFound,),
        refusals={400: ("invalid_request", "unsupported_grant_type", "invalid_scope"), 401: ("invalid_client",)},
    )
    async def token(self, exchange: Exchange) -> None:
        """Get a token for a client id and its secret (bot 6.1)."""
        _authority(exchange)
        try:
            granted = await self._granted(exchange)
        except _Refused as refused:
            await exchange.json(refused.status, refused.body, _NEVER_KEPT, *refused.headers)
            return
        answer = {
            "token_type": "Bearer",
            "expires_in": granted.expires_in,
            "ext_expires_in": granted.expires_in,
            "access_token": granted.token,
        }
        await exchange.json(200, _encode(answer), _NEVER_KEPT)

    async def _granted(self, exchange: Exchange) -> BotToken:
        form = form_fields(exchange.header(b"content-type"), await exchange.body())
        if form.get("grant_type") != "client_credentials":
            known = "grant_type" in form
            raise _Refused(400, "unsupported_grant_type" if known else "invalid_request", "Ask for client_credentials")
        basic = _basic(exchange.header(b"authorization"))
        if basic is not None and "client_secret" in form:
            raise _Refused(400, "invalid_request", "The client authenticates in two ways")
        app_id, secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
        try:
            return await self._tokens.grant(app_id, secret, form.get("scope"))
        except Forbidden as error:
            challenge = (_CHALLENGE,) if basic else ()
            raise _Refused(401, "invalid_client", error.message, *challenge) from error
        except BadArgument as error:
            raise _Refused(400, "invalid_scope", error.message) from error


def _authority(exchange: Exchange) -> str:
    """The path of the authority that was asked, as it is given out again. Raises `NotFound` for an odd one."""
    if "tenant" not in exchange.scope["path_params"]:
        return ""
    tenant = exchange.path("tenant")
    if not _TENANT_NAME.fullmatch(tenant):
        raise NotFound
    return f"/{tenant}"


def form_fields(content_type: bytes | None, body: bytes) -> Mapping[str, str]:
    """The fields that we know, those without a value left out; whatever else SDKs send along is ignored (8, 89).
    Raises `_Refused` for one that is given twice."""
    kind = (content_type or b"").split(b";", 1)[0].strip().lower()
    if kind != b"application/x-www-form-urlencoded":
        raise _Refused(400, "invalid_request", "The body must be a form")
    if body.count(b"&") >= _MOST_FIELDS:
        raise _Refused(400, "invalid_request", f"The form has more than {_MOST_FIELDS} fields")
    form: dict[str, str] = {}
    try:
        for name, value in percent.fields(body, _FIELDS, _MOST_FIELDS):
            if value and form.setdefault(name.decode(), value.decode()) != value.decode():
                raise _Refused(400, "invalid_request", "A field is given twice")
    except UnicodeDecodeError as error:
        raise _Refused(400, "invalid_request", "The form cannot be read") from error
    return form


def _basic(authorization: bytes | None) -> tuple[str, str] | None:
    """Client id and secret of HTTP Basic, each form-encoded (RFC 6749, section 2.3.1); None for any other scheme."""
    scheme, _, credentials = (authorization or b"").strip().partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        app_id, _, secret = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise _Refused(401, "invalid_client", "Malformed Basic credentials", _CHALLENGE) from error
    return unquote_plus(app_id), unquote_plus(secret)
