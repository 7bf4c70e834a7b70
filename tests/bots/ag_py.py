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
from checks import INLINE, PICTURE, Sent, asked_for, fetched, kept_references, serve
from microsoft_agents.activity import (
    Activity,
    ActivityTypes,
    Attachment,
    AttachmentData,
    ConversationReference,
    HeroCard,
    InvokeResponse,
    load_configuration_from_env,
)
from microsoft_agents.authentication.msal import MsalConnectionManager
from microsoft_agents.hosting.aiohttp import CloudAdapter
from microsoft_agents.hosting.core import (
    ActivityHandler,
    AgentAuthConfiguration,
    CardFactory,
    ClaimsIdentity,
    MessageFactory,
    TurnContext,
)

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


class Bot(ActivityHandler):
    """The turns."""

    def __init__(self) -> None:
        self.references = kept_references()
        self.sent = Sent()
        configuration = load_configuration_from_env(os.environ)
        connections = MsalConnectionManager(**(configuration if configuration.get("CONNECTIONS") else ANONYMOUS))
        settings = connections.get_default_connection_configuration()
        self._app_id = settings.CLIENT_ID
        self._channel = Channel(settings) if self._app_id else None
        self._adapter = CloudAdapter(connection_manager=connections)
        self._later: set[asyncio.Task[str]] = set()

    async def turn(self, request: web.Request) -> web.StreamResponse:
        if self._channel is not None:
            request["claims_identity"] = await self._channel.identity(request)
        return await self._adapter.process(request, self) or web.Response()

    async def speak(self, reference: Any, text: str) -> str:
        ids: list[str] = []

        async def say(context: TurnContext) -> None:
            ids.append((await context.send_activity(text)).id)

        activity = ConversationReference.model_validate(reference).get_continuation_activity()
        identity = ClaimsIdentity({"aud": self._app_id} if self._app_id else {})
        await self._adapter.continue_conversation_with_claims(identity, activity, say)
        return ids[0]

    async def on_turn(self, turn_context: TurnContext) -> Any:
        reference = turn_context.activity.get_conversation_reference()
        kept = reference.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.references.save(reference.conversation.id, kept)
        return await super().on_turn(turn_context)

    async def on_members_added_activity(self, members_added: list[Any], turn_context: TurnContext) -> None:
        for member in members_added:
            if member.id != turn_context.activity.recipient.id:
                await turn_context.send_activity(f"hello {member.id}")

    async def on_event_activity(self, turn_context: TurnContext) -> None:
        await turn_context.send_activity(f"event: {turn_context.activity.name}")

    async def on_invoke_activity(self, turn_context: TurnContext) -> InvokeResponse:
        match turn_context.activity.name:
            case "ping":
                return InvokeResponse(status=200, body={"pong": turn_context.activity.value})
            case "refuse":
                return InvokeResponse(status=418, body={"reason": "teapot"})
            case "empty":
                return InvokeResponse(status=200)
        return InvokeResponse(status=501)

    async def on_message_activity(self, turn_context: TurnContext) -> None:
        context, text = turn_context, turn_context.activity.text or ""
        if context.activity.attachments:
            await context.send_activity(await fetched(context.activity.attachments[0].content_url))
        elif burst := asked_for(text, r"(steady )?burst (\d+)"):
            await self._burst(context, int(burst[2]), steady=bool(burst[1]))
        elif later := asked_for(text, r"later ([\d.]+) seconds (.+)"):
            reference = self.references.find(context.activity.conversation.id)
            task = asyncio.create_task(self._speak_later(float(later[1]), reference, later[2]))
            self._later.add(task)
            task.add_done_callback(self._later.discard)
        elif command := getattr(self, f"do_{text}", None):
            await command(context)
        else:
            await context.send_activity(f"echo: {text}")

    async def _burst(self, context: TurnContext, count: int, *, steady: bool) -> None:
        async def say(text: str) -> str:
            return (await context.send_activity(text)).id

        if steady:
            await self.sent.burst(context.activity.conversation.id, count, say)
            return
        for number in range(1, count + 1):
            await say(f"burst {number}")

    async def do_typing(self, context: TurnContext) -> None:
        await context.send_activity(Activity(type=ActivityTypes.typing))
        await context.send_activity("echo: typing")

    async def do_batch(self, context: TurnContext) -> None:
        typing = Activity(type=ActivityTypes.typing)
        await context.send_activities([MessageFactory.text("batch 1"), typing, MessageFactory.text("batch 2")])

    async def do_card(self, context: TurnContext) -> None:
        card = CardFactory.hero_card(HeroCard(title="A card"))
        picture = Attachment(content_type="image/png", content_url=INLINE, name="dot.png")
        await context.send_activity(MessageFactory.list([card, picture], text="a card"))

    async def do_members(self, context: TurnContext) -> None:
        conversation_id = context.activity.conversation.id
        conversations = self._connector(context).conversations
        members = await conversations.get_conversation_members(conversation_id)
        paged = await conversations.get_conversation_paged_members(conversation_id)
        assert [each.id for each in paged.members] == [each.id for each in members]
        one = await conversations.get_conversation_member(conversation_id, members[-1].id)
        assert one.id == members[-1].id
        await context.send_activity("members: " + " ".join(each.id for each in members))

    async def do_update(self, context: TurnContext) -> None:
        changed = MessageFactory.text("after")
        changed.id = (await context.send_activity("before")).id
        await context.update_activity(changed)

    async def do_delete(self, context: TurnContext) -> None:
        await context.delete_activity((await context.send_activity("gone")).id)
        await context.send_activity("deleted")

    async def do_attach(self, context: TurnContext) -> None:
        conversation_id = context.activity.conversation.id
        data = AttachmentData(name="dot.png", original_base64=base64.b64encode(PICTURE), type="image/png")
        uploaded = await self._connector(context).conversations.upload_attachment(conversation_id, data)
        url = f"{context.activity.service_url}/v3/attachments/{uploaded.id}/views/original"
        picture = Attachment(content_type="image/png", content_url=url, name="dot.png")
        await context.send_activity(MessageFactory.attachment(picture, text="attached"))

    async def do_stream(self, context: TurnContext) -> None:
        context.streaming_response.queue_informative_update("thinking")
        for chunk in ("one", " two", " three"):
            context.streaming_response.queue_text_chunk(chunk)
            await asyncio.sleep(0.6)  # the SDK sends what has gathered every half second
        await context.streaming_response.end_stream()

    async def do_end(self, context: TurnContext) -> None:
        await context.send_activity(Activity(type=ActivityTypes.end_of_conversation, code="completedSuccessfully"))

    async def _speak_later(self, seconds: float, reference: Any, text: str) -> str:
        await asyncio.sleep(seconds)
        return await self.speak(reference, text)

    def _connector(self, context: TurnContext) -> Any:
        return context.turn_state[self._adapter._AGENT_CONNECTOR_CLIENT_KEY]


if __name__ == "__main__":
    serve(Bot())
