"""The check bot on the Microsoft 365 Agents SDK for Python. What it does stands in `checks.py`.

python ag_py.py PORT

Its configuration is the environment. Without a connection there it has no app id.
"""

import asyncio
import base64
import os
from typing import Any

import jwt
from aiohttp import web
from checks import PICTURE, CheckBot, serve
from microsoft_agents import activity as schema
from microsoft_agents.activity import ConversationReference, load_configuration_from_env
from microsoft_agents.authentication.msal import MsalConnectionManager
from microsoft_agents.hosting import core
from microsoft_agents.hosting.aiohttp import CloudAdapter
from microsoft_agents.hosting.core import ActivityHandler, AgentAuthConfiguration, ClaimsIdentity, TurnContext

ANONYMOUS = {"CONNECTIONS": {"SERVICE_CONNECTION": {"SETTINGS": {"ANONYMOUS_ALLOWED": "true"}}}}


class Channel:
    """Whom this bot listens to. The SDK itself takes the tokens of Microsoft's services only."""

    def __init__(self, settings: AgentAuthConfiguration) -> None:
        self._settings = settings
        self._keys = jwt.PyJWKClient(f"{settings.AUTHORITY}/discovery/v2.0/keys")

    async def identity(self, request: web.Request) -> ClaimsIdentity:
        """Raises `HTTPUnauthorized` for everybody else."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            key = await asyncio.to_thread(self._keys.get_signing_key_from_jwt, token)
            claims = jwt.decode(
                token,
                key.key,
                algorithms=["RS256"],
                audience=self._settings.CLIENT_ID,
                issuer=self._settings.ISSUERS,
                leeway=300,
            )
        except jwt.PyJWTError as error:
            raise web.HTTPUnauthorized from error
        return ClaimsIdentity(claims, "Bearer", token)


class Bot(CheckBot, ActivityHandler):
    """What the SDK says in its own words."""

    core, schema, InvokeResponse, oneself = core, schema, schema.InvokeResponse, "agent"

    def __init__(self) -> None:
        super().__init__()
        configuration = load_configuration_from_env(os.environ)
        connections = MsalConnectionManager(**(configuration if configuration.get("CONNECTIONS") else ANONYMOUS))
        settings = connections.get_default_connection_configuration()
        self.app_id = settings.CLIENT_ID
        self._channel = Channel(settings) if self.app_id else None
        endpoint = os.environ.get("TOKEN_SERVICE_ENDPOINT")
        told = {"token_service_endpoint": endpoint} if endpoint else {}
        factory = core.RestChannelServiceClientFactory(connections, **told)
        self.adapter = CloudAdapter(connection_manager=connections, channel_service_client_factory=factory)

    async def turn(self, request: web.Request) -> web.StreamResponse:
        if self._channel is not None:
            request["claims_identity"] = await self._channel.identity(request)
        return await self.adapter.process(request, self) or web.Response()

    async def speak(self, reference: Any, text: str) -> str:
        ids: list[str] = []

        async def say(context: TurnContext) -> None:
            ids.append((await context.send_activity(text)).id)

        activity = ConversationReference.model_validate(reference).get_continuation_activity()
        identity = ClaimsIdentity({"aud": self.app_id} if self.app_id else {})
        await self.adapter.continue_conversation_with_claims(identity, activity, say)
        return ids[0]

    async def on_turn(self, turn_context: TurnContext) -> Any:
        reference = turn_context.activity.get_conversation_reference()
        kept = reference.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.references.save(reference.conversation.id, kept)
        return await super().on_turn(turn_context)

    async def do_stream(self, context: TurnContext) -> None:
        context.streaming_response.queue_informative_update("thinking")
        for chunk in ("one", " two", " three"):
            context.streaming_response.queue_text_chunk(chunk)
            await asyncio.sleep(0.6)  # the SDK sends what has gathered every half second
        await context.streaming_response.end_stream()

    async def do_signin(self, context: TurnContext) -> None:
        card = schema.OAuthCard(
            text="Sign in",
            connection_name="github",
            buttons=[schema.CardAction(type="signin", title="Sign in", value="https://issuer.example/authorize")],
        )
        await context.send_activity(core.MessageFactory.attachment(core.CardFactory.oauth_card(card), text="sign in"))
        tokens = context.turn_state[self.adapter.USER_TOKEN_CLIENT_KEY]
        activity = context.activity
        token = await tokens.get_user_token(activity.from_property.id, "github", activity.channel_id)
        await context.send_activity("token: " + (token.token if token and token.token else "none"))

    def connector(self, context: TurnContext) -> Any:
        return context.turn_state[self.adapter._AGENT_CONNECTOR_CLIENT_KEY]

    def picture(self) -> str:
        return base64.b64encode(PICTURE).decode()


if __name__ == "__main__":
    serve(Bot())
