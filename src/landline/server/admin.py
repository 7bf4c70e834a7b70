"""The admin API at the edge: what operators ask and change (docs/reference/admin.md). Parse, call one method, format.

Who has the admin credential may do everything here. No page of another origin can: there are no cookies, and no answer
has a CORS header (spec 3.3).
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Meta
from starlette.routing import Route

from landline import errors
from landline.channel.keys import SigningKeys
from landline.channel.records import Secret
from landline.channel.redelivery import Redelivery
from landline.channel.registered_bots import RegisteredBot
from landline.channel.registered_sites import RegisteredSite
from landline.channel.registrations import Registrations
from landline.channel.retention import Retention
from landline.channel.tokens import Tokens
from landline.core import activity, json_text, log
from landline.core.bot import Profile, Site
from landline.core.conversation import is_conversation_id
from landline.core.failure import FailedDelivery
from landline.core.keys import SigningKey
from landline.core.log import ConversationId
from landline.core.tokens import digest, read_parameters, ski_of
from landline.core.wording import in_words
from landline.errors import BadArgument, Forbidden, MissingProperty, NotServing, UnknownConversation, UnknownKey
from landline.ports import Store
from landline.server import openapi
from landline.server.exchange import Exchange, HttpRules, Resource

PREFIX = "/admin"

_encode = msgspec.json.Encoder().encode
T = TypeVar("T")
_operation = functools.partial(openapi.operation, "Admin", security=("admin",))


class Authority(NamedTuple):
    """What bots with an app id are told of us: what our addresses begin with, and our name in tokens."""

    base: str
    issuer: str


class _Revocation(msgspec.Struct):
    ski: Annotated[str, Meta(max_length=64)]


class _Person(msgspec.Struct):
    user: Annotated[str, Meta(min_length=1, max_length=activity.ID_CHARACTERS)]
    dry_run: bool = False


class Admin:
    """The endpoints under `/admin`."""

    def __init__(
        self,
        registrations: Registrations,
        tokens: Tokens,
        keys: SigningKeys,
        redelivery: Redelivery,
        store: Store,
        retention: Retention,
        authority: Authority | None,
        credential: str,
        rules: HttpRules,
    ) -> None:
        """Without `authority`, nobody knows yet where bots will find us."""
        self._registrations = registrations
        self._tokens = tokens
        self._keys = keys
        self._redelivery = redelivery
        self._store = store
        self._retention = retention
        self._authority = authority
        self._credential = digest(credential)
        self._rules = rules

    def routes(self) -> list[Route]:
        """What is to be found where."""
        rules = self._rules
        bot, site = PREFIX + "/bots/{bot}", PREFIX + "/sites/{site}"
        resources = (
            Resource(PREFIX + "/bots", rules, GET=self.bots, POST=self.add_bot),
            Resource(bot, rules, GET=self.bot, PATCH=self.change_bot, DELETE=self.remove_bot),
            Resource(bot + "/service-keys", rules, POST=self.add_service_key),
            Resource(bot + "/service-keys/{mark}", rules, DELETE=self.remove_service_key),
            Resource(bot + "/app-secrets/{number}", rules, DELETE=self.remove_app_secret),
            Resource(bot + "/app-secrets/{number}/rotate", rules, POST=self.rotate_app_secret),
            Resource(PREFIX + "/sites", rules, GET=self.sites, POST=self.add_site),
            Resource(site, rules, GET=self.site, PATCH=self.change_site, DELETE=self.remove_site),
            Resource(site + "/secrets/{number}", rules, DELETE=self.remove_secret),
            Resource(site + "/secrets/{number}/rotate", rules, POST=self.rotate),
            Resource(site + "/secrets/{number}/revoke", rules, POST=self.revoke),
            Resource(site + "/revocations", rules, POST=self.revoke_ski),
            Resource(site + "/tokens", rules, POST=self.make_token),
            Resource(
                PREFIX + "/conversations/{conversation}",
                rules,
                GET=self.conversation,
                DELETE=self.delete_conversation,
            ),
            Resource(PREFIX + "/forget", rules, POST=self.forget),
            Resource(PREFIX + "/failures", rules, GET=self.failures),
            Resource(PREFIX + "/failures/{activity}/redeliver", rules, POST=self.redeliver),
            Resource(PREFIX + "/authority", rules, GET=self.authority),
            Resource(PREFIX + "/signing-keys", rules, GET=self.signing_keys),
            Resource(PREFIX + "/signing-keys/rotate", rules, POST=self.rotate_signing_key),
            Resource(PREFIX + "/signing-keys/{kid}", rules, DELETE=self.withdraw_signing_key),
        )
        return [Route(resource.template, resource) for resource in resources]

    def admit(self, credential: str) -> None:
        """Be asked with this from now on."""
        self._credential = digest(credential)

    def _check(self, exchange: Exchange) -> None:
        """Raises `MissingCredential` or `Forbidden`. Digests are compared, in constant time."""
        if not hmac.compare_digest(digest(exchange.bearer()), self._credential):
            raise Forbidden("Invalid admin credential")

    # Bots

    @_operation({200: "Bots"})
    async def bots(self, exchange: Exchange) -> None:
        """List all bots."""
        self._check(exchange)
        await exchange.json(200, _encode({"bots": [_bot(each) for each in self._registrations.bots.all()]}))

    @_operation({200: "Bot"}, raises=(errors.UnknownBot,))
    async def bot(self, exchange: Exchange) -> None:
        """Get one bot."""
        self._check(exchange)
        await exchange.json(200, _encode(_bot(self._registrations.bots.get(exchange.path("bot")))))

    @_operation({201: "Bot"}, body="NewBot", raises=(errors.MissingProperty, errors.AlreadyThere))
    async def add_bot(self, exchange: Exchange) -> None:
        """Register a bot."""
        self._check(exchange)
        profile = _read(await exchange.json_body(), Profile)
        await exchange.json(201, _encode(_bot(await self._registrations.bots.add(profile))))

    @_operation(
        {200: "Bot"},
        body="BotChange",
        raises=(errors.MissingProperty, errors.UnknownBot, errors.ReadOnly),
    )
    async def change_bot(self, exchange: Exchange) -> None:
        """Change the properties of a bot that the body names."""
        self._check(exchange)
        body = await exchange.json_body()
        changed = await self._registrations.bots.change(exchange.path("bot"), lambda old: _merged(old, body))
        await exchange.json(200, _encode(_bot(changed)))

    @_operation({204: None}, raises=(errors.UnknownBot, errors.ReadOnly))
    async def remove_bot(self, exchange: Exchange) -> None:
        """Remove a bot and its sites."""
        self._check(exchange)
        await self._registrations.remove_bot(exchange.path("bot"))
        await exchange.answer(204, b"")

    @_operation({201: "Bot"}, raises=(errors.UnknownBot,))
    async def add_service_key(self, exchange: Exchange) -> None:
        """Give the bot a new service URL, from its next activity on."""
        self._check(exchange)
        await exchange.json(201, _encode(_bot(await self._registrations.bots.add_service_key(exchange.path("bot")))))

    @_operation({200: "Bot"}, raises=(errors.UnknownBot, errors.UnknownKey, errors.BadArgument))
    async def remove_service_key(self, exchange: Exchange) -> None:
        """Remove a former service key."""
        self._check(exchange)
        bot = await self._registrations.bots.remove_service_key(exchange.path("bot"), exchange.path("mark"))
        await exchange.json(200, _encode(_bot(bot)))

    @_operation({200: "Secret"}, raises=(errors.UnknownBot, errors.UnknownKey, errors.BadArgument))
    async def rotate_app_secret(self, exchange: Exchange) -> None:
        """Make a new secret of the bot's app id, in place of key 1 or 2."""
        self._check(exchange)
        secret = await self._registrations.bots.rotate_app_secret(exchange.path("bot"), _number(exchange))
        await exchange.json(200, _encode(_secret(secret)))

    @_operation({200: "Bot"}, raises=(errors.UnknownBot, errors.UnknownKey, errors.BadArgument))
    async def remove_app_secret(self, exchange: Exchange) -> None:
        """Remove a secret of the bot's app id."""
        self._check(exchange)
        bot = await self._registrations.bots.remove_app_secret(exchange.path("bot"), _number(exchange))
        await exchange.json(200, _encode(_bot(bot)))

    # What bots are told by

    @_operation({200: "OwnAuthority"}, raises=(errors.NotServing,))
    async def authority(self, exchange: Exchange) -> None:
        """Get the base address and the issuer that bots with an app id are configured with (bot 6.3)."""
        self._check(exchange)
        if self._authority is None:
            raise NotServing("Start the server first, or name its service_url: nobody knows its address yet")
        await exchange.json(200, _encode(self._authority._asdict()))

    @_operation({200: "SigningKeys"})
    async def signing_keys(self, exchange: Exchange) -> None:
        """List the keys that are published to bots, each with the time from which it signs."""
        self._check(exchange)
        await exchange.json(200, _encode(await self._signing_keys()))

    async def _signing_keys(self) -> dict[str, object]:
        return {"signing_keys": [_signing_key(key) for key in await self._keys.shown()]}

    @_operation({200: "SigningKey"})
    async def rotate_signing_key(self, exchange: Exchange) -> None:
        """Publish a new key, which signs once every bot has had the time to fetch it."""
        self._check(exchange)
        await exchange.json(200, _encode(_signing_key(await self._keys.rotate())))

    @_operation({200: "SigningKeys"}, raises=(errors.UnknownKey,))
    async def withdraw_signing_key(self, exchange: Exchange) -> None:
        """Withdraw a key at once: all that it signed is refused. Answers the keys that are left."""
        self._check(exchange)
        await self._keys.withdraw(exchange.path("kid"))
        await exchange.json(200, _encode(await self._signing_keys()))

    # Sites and secrets

    @_operation({200: "Sites"}, parameters=("of",), raises=(errors.UnknownBot,))
    async def sites(self, exchange: Exchange) -> None:
        """List all sites, or those of `?bot=`."""
        self._check(exchange)
        sites = self._registrations.sites.all(exchange.query("bot"))
        await exchange.json(200, _encode({"sites": [_site(each) for each in sites]}))

    @_operation({200: "Site"}, raises=(errors.UnknownSite,))
    async def site(self, exchange: Exchange) -> None:
        """Get one site."""
        self._check(exchange)
        await exchange.json(200, _encode(_site(self._registrations.sites.get(exchange.path("site")))))

    @_operation(
        {201: "NewSiteSecret"},
        body="NewSite",
        raises=(errors.MissingProperty, errors.AlreadyThere, errors.UnknownBot),
    )
    async def add_site(self, exchange: Exchange) -> None:
        """Register a site. Answers its first secret."""
        self._check(exchange)
        site = _read(await exchange.json_body(), Site)
        await self._registrations.sites.add(site)
        secret = await self._registrations.sites.rotate(site.id, 1)
        await exchange.json(201, _encode(_site(self._registrations.sites.get(site.id)) | {"secret": secret.secret}))

    @_operation(
        {200: "Site"},
        body="SiteChange",
        raises=(errors.MissingProperty, errors.UnknownSite, errors.ReadOnly),
    )
    async def change_site(self, exchange: Exchange) -> None:
        """Change the properties of a site that the body names."""
        self._check(exchange)
        body = await exchange.json_body()
        changed = await self._registrations.sites.change(exchange.path("site"), lambda old: _merged(old, body))
        await exchange.json(200, _encode(_site(changed)))

    @_operation({204: None}, raises=(errors.UnknownSite, errors.ReadOnly))
    async def remove_site(self, exchange: Exchange) -> None:
        """Remove a site. Its secrets and tokens are refused from then on."""
        self._check(exchange)
        await self._registrations.sites.remove(exchange.path("site"))
        await exchange.answer(204, b"")

    @_operation({200: "Secret"}, raises=(errors.UnknownSite, errors.UnknownKey))
    async def rotate(self, exchange: Exchange) -> None:
        """Make a new secret; tokens of the old one live on."""
        self._check(exchange)
        secret = await self._registrations.sites.rotate(exchange.path("site"), _number(exchange))
        await exchange.json(200, _encode(_secret(secret)))

    @_operation({200: "Secret"}, raises=(errors.UnknownSite, errors.UnknownKey))
    async def revoke(self, exchange: Exchange) -> None:
        """Make a new secret; tokens of the old one are refused."""
        self._check(exchange)
        secret = await self._registrations.sites.revoke(exchange.path("site"), _number(exchange))
        await exchange.json(200, _encode(_secret(secret)))

    @_operation(
        {200: "Site"},
        body="Revocation",
        raises=(errors.MissingProperty, errors.UnknownSite),
    )
    async def revoke_ski(self, exchange: Exchange) -> None:
        """Refuse a secret that is not one of the two keys, and its tokens."""
        self._check(exchange)
        ski = _read(await exchange.json_body(), _Revocation).ski
        await exchange.json(200, _encode(_site(await self._registrations.sites.revoke_ski(exchange.path("site"), ski))))

    @_operation({200: "Site"}, raises=(errors.UnknownSite, errors.UnknownKey))
    async def remove_secret(self, exchange: Exchange) -> None:
        """Remove a key; its tokens live on."""
        self._check(exchange)
        site = await self._registrations.sites.remove_secret(exchange.path("site"), _number(exchange))
        await exchange.json(200, _encode(_site(site)))

    @_operation({200: "Token"}, body="TokenParameters", raises=(errors.UnknownSite,))
    async def make_token(self, exchange: Exchange) -> None:
        """Make a token for a new conversation, as Generate Token does, without presenting a secret."""
        self._check(exchange)
        body = await exchange.json_body()
        parameters = read_parameters(json_text.decode(body) if body.strip() else {})
        self._registrations.sites.get(exchange.path("site"))
        issued = self._tokens.token_without_secret(exchange.path("site"), parameters)
        said = {"conversationId": issued.conversation, "token": issued.token, "expires_in": issued.expires_in}
        await exchange.json(200, _encode(said))

    # Conversations

    @_operation({200: "KnownConversation"}, raises=(errors.UnknownConversation,))
    async def conversation(self, exchange: Exchange) -> None:
        """Get where a conversation stands, and its members; not what was said."""
        self._check(exchange)
        name = exchange.path("conversation")
        found = await self._store.conversation(ConversationId(name)) if is_conversation_id(name) else None
        if found is None:
            raise UnknownConversation
        members = await self._store.members(found.id)
        said = {
            "id": found.id,
            "bot_id": found.bot_id,
            "activities": found.head,
            "last_activity": None if found.last_ms is None else log.timestamp(found.last_ms),
            "members": [{"id": each.account.id, "name": each.account.name, "bot": each.is_bot} for each in members],
        }
        await exchange.json(200, _encode(said))

    @_operation({204: None}, raises=(errors.UnknownConversation,))
    async def delete_conversation(self, exchange: Exchange) -> None:
        """Delete a conversation at once; its streams close with 4404 (spec 9)."""
        self._check(exchange)
        await self._retention.delete(exchange.path("conversation"))
        await exchange.answer(204, b"")

    @_operation({200: "Forgotten"}, body="Person", raises=(errors.MissingProperty,))
    async def forget(self, exchange: Exchange) -> None:
        """Forget a person: delete every conversation in which they took part (spec 9)."""
        self._check(exchange)
        person = _read(await exchange.json_body(), _Person)
        look = self._retention.count if person.dry_run else self._retention.forget
        await exchange.json(200, _encode({"conversations": await look(person.user)}))

    # What bots did not take

    @_operation({200: "Failures"})
    async def failures(self, exchange: Exchange) -> None:
        """List the activities that bots did not take, oldest first."""
        self._check(exchange)
        await exchange.json(200, _encode({"failures": [_failure(each) for each in await self._redelivery.failed()]}))

    @_operation({204: None}, raises=(errors.UnknownActivity, errors.NotServing, *openapi.DELIVERY))
    async def redeliver(self, exchange: Exchange) -> None:
        """Offer an activity that its bot did not take to the bot again."""
        self._check(exchange)
        await self._redelivery.offer(exchange.path("activity"), exchange.deadline)
        await exchange.answer(204, b"")


def _number(exchange: Exchange) -> int:
    number = exchange.path("number")
    if number not in ("1", "2"):
        raise UnknownKey
    return int(number)


def _read(body: bytes, kind: type[T]) -> T:
    """What a body says, all of it known to us. Raises `BadSyntax`, `MissingProperty`, `BadArgument`."""
    return _converted(_members(body), kind)


def _merged(old: T, body: bytes) -> T:
    """`old` with what the body says in place of what it names; null stands for the default."""
    given = _members(body)
    kept = {name: value for name, value in msgspec.to_builtins(old).items() if name not in given}
    return _converted(kept | {name: value for name, value in given.items() if value is not None}, type(old), given)


def _members(body: bytes) -> dict[str, object]:
    try:
        return {name: msgspec.json.decode(value) for name, value in json_text.decode(body).items()}
    except msgspec.DecodeError as error:
        raise BadArgument("A text is not well-formed") from error  # half a surrogate pair


def _converted(members: dict[str, object], kind: type[T], named: Sequence[str] | dict[str, object] = ()) -> T:
    fields: dict[str, bool] = {field.name: field.required for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]  # a Struct
    for name in (*members, *named):
        if name not in fields:
            raise BadArgument(f"There is no property {name!r}")
    for name, required in fields.items():
        if required and name not in members:
            raise MissingProperty(f"'{name}' is missing")
    try:
        return msgspec.convert(members, kind)
    except msgspec.ValidationError as error:
        place, why = in_words(str(error))
        raise BadArgument(f"'{place}' {why}" if place else why) from error


def _bot(bot: RegisteredBot) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(bot.profile),
        "service_keys": [{"mark": each.mark, "since": log.timestamp(each.since_ms)} for each in bot.service_keys],
        "app_secrets": [
            {"key": number, "ski": key.ski, "since": log.timestamp(key.since_ms)}
            for number, key in sorted(bot.app_secrets.items())
        ],
        "settings": [{"ski": ski_of(each)} for each in bot.settings],
        "read_only": bot.read_only,
    }


def _signing_key(key: SigningKey) -> dict[str, object]:
    return {"kid": key.kid, "signs_from": log.timestamp(key.signs_from_ms)}


def _site(site: RegisteredSite) -> dict[str, object]:
    keys = site.keys
    return {
        **msgspec.structs.asdict(site.site),
        "secrets": [
            {"key": number, "ski": key.ski, "since": log.timestamp(key.since_ms)}
            for number, key in sorted(keys.keys.items())
        ],
        "settings": [{"ski": ski, "revoked": ski in keys.revoked} for ski in site.settings],
        "former": [{"ski": each.ski, "until": log.timestamp(each.until_ms)} for each in keys.former],
        "revoked": list(keys.revoked),
        "read_only": site.read_only,
    }


def _failure(failure: FailedDelivery) -> dict[str, object]:
    return {
        "activity": log.activity_id(failure.conversation, failure.sequence),
        "bot_id": failure.bot_id,
        "conversation": failure.conversation,
        "at": log.timestamp(failure.at_ms),
        "reason": failure.reason,
        "status": failure.status,
        "attempts": failure.attempts,
    }


def _secret(secret: Secret) -> dict[str, object]:
    return {"key": secret.number, "secret": secret.secret, "ski": secret.ski}
