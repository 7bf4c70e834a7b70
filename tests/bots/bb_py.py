"""The check bot on the Bot Framework SDK for Python. What it does stands in `checks.py`.

    python bb_py.py PORT

Its adapter fails (500) for every invoke that has an answer, and for every `expectReplies` turn: it takes a dictionary
for text. `STOCK_PROCESS=1` leaves it so; otherwise the bot writes those answers itself.

`CHECK_BOT_CONFIG` has the attributes of its configuration, as Python. Without it the bot has no app id.
"""

import asyncio
import os
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from botbuilder.core import ActivityHandler, CardFactory, InvokeResponse, MessageFactory, TurnContext
from botbuilder.integration.aiohttp import CloudAdapter, ConfigurationBotFrameworkAuthentication
from botbuilder.schema import (
    Activity,
    ActivityTypes,
    Attachment,
    AttachmentData,
    ChannelAccount,
    ConversationReference,
    HeroCard,
)
from checks import INLINE, PICTURE, Sent, asked_for, fetched, kept_references, serve


def configuration() -> SimpleNamespace:
    attributes: dict[str, Any] = {}
    exec(os.environ.get("CHECK_BOT_CONFIG", ""), {}, attributes)
    return SimpleNamespace(**attributes)


class Bot(ActivityHandler):
    """The turns."""

    def __init__(self) -> None:
        self.references = kept_references()
        self.sent = Sent()
        config = configuration()
        self._app_id = getattr(config, "APP_ID", "")  # anonymous bots have none; the SDK wants a text nevertheless
        self._adapter = CloudAdapter(ConfigurationBotFrameworkAuthentication(config))
        self._later: set[asyncio.Task[str]] = set()

    async def turn(self, request: web.Request) -> web.StreamResponse:
        if os.environ.get("STOCK_PROCESS"):
            return await self._adapter.process(request, self)
        activity = Activity().deserialize(await request.json())
        header = request.headers.get("Authorization", "")
        answer = await self._adapter.process_activity(header, activity, self.on_turn)
        if answer is None:
            return web.Response(status=201)
        status = int(answer.status)
        return web.json_response(answer.body, status=status) if answer.body else web.Response(status=status)

    async def speak(self, reference: Any, text: str) -> str:
        ids: list[str] = []

        async def say(context: TurnContext) -> None:
            ids.append((await context.send_activity(text)).id)

        await self._adapter.continue_conversation(ConversationReference().deserialize(reference), say, self._app_id)
        return ids[0]

    async def on_turn(self, turn_context: TurnContext) -> None:
        reference = TurnContext.get_conversation_reference(turn_context.activity)
        self.references.save(reference.conversation.id, reference.serialize())
        await super().on_turn(turn_context)

    async def on_members_added_activity(self, members_added: list[ChannelAccount], turn_context: TurnContext) -> None:
        for member in members_added:
            if member.id != turn_context.activity.recipient.id:
                await turn_context.send_activity(f"hello {member.id}")

    async def on_event_activity(self, turn_context: TurnContext) -> None:
        await turn_context.send_activity(f"event: {turn_context.activity.name}")

    async def on_invoke_activity(self, turn_context: TurnContext) -> InvokeResponse | None:
        match turn_context.activity.name:
            case "ping":
                return InvokeResponse(status=200, body={"pong": turn_context.activity.value})
            case "refuse":
                return InvokeResponse(status=418, body={"reason": "teapot"})
            case "empty":
                return InvokeResponse(status=200)
        return InvokeResponse(status=int(HTTPStatus.NOT_IMPLEMENTED))

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
        members = await self._connector(context).conversations.get_conversation_members(conversation_id)
        paged = await self._connector(context).conversations.get_conversation_paged_members(conversation_id)
        assert [each.id for each in paged.members] == [each.id for each in members]
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
        data = AttachmentData(name="dot.png", original_base64=PICTURE, type="image/png")
        uploaded = await self._connector(context).conversations.upload_attachment(conversation_id, data)
        url = f"{context.activity.service_url}/v3/attachments/{uploaded.id}/views/original"
        picture = Attachment(content_type="image/png", content_url=url, name="dot.png")
        await context.send_activity(MessageFactory.attachment(picture, text="attached"))

    async def do_end(self, context: TurnContext) -> None:
        await context.send_activity(Activity(type=ActivityTypes.end_of_conversation, code="completedSuccessfully"))

    async def _speak_later(self, seconds: float, reference: Any, text: str) -> str:
        await asyncio.sleep(seconds)
        return await self.speak(reference, text)

    def _connector(self, context: TurnContext) -> Any:
        return context.turn_state[self._adapter.BOT_CONNECTOR_CLIENT_KEY]


if __name__ == "__main__":
    serve(Bot())
