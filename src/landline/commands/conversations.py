"""What an operator does with conversations: offer again what a bot did not take, delete, forget a person."""

from __future__ import annotations

import click

from landline.commands.groups import Command
from landline.commands.office import Office, in_office
from landline.commands.options import as_json_option
from landline.commands.printing import print_json, print_rows


@click.command("redeliver", cls=Command)
@click.argument("activity", metavar="[ACTIVITY]", required=False)
@as_json_option
@in_office
def redeliver(office: Office, activity: str | None, as_json: bool) -> None:
    """Offer ACTIVITY to its bot again; without one, show what bots did not take, oldest first."""
    if activity is not None:
        office.ask("POST", "failures", activity, "redeliver")
        return
    failures = office.ask("GET", "failures")["failures"]
    if as_json:
        print_json(failures)
        return
    shown = [(each["activity"], each["bot_id"], each["at"], str(each["attempts"]), each["reason"]) for each in failures]
    print_rows([("ACTIVITY", "BOT", "LAST", "ATTEMPTS", "REASON"), *shown])


@click.command("delete", cls=Command)
@click.argument("conversation_id", metavar="CONVERSATION")
@in_office
def delete(office: Office, conversation_id: str) -> None:
    """Delete a conversation at once, whoever is using it."""
    office.ask("DELETE", "conversations", conversation_id)


@click.command("forget", cls=Command)
@click.argument("user_id", metavar="USER")
@in_office
def forget(office: Office, user_id: str) -> None:
    """Forget a person: delete every conversation in which USER took part, and print how many there were."""
    click.echo(office.ask("POST", "forget", body={"user": user_id})["conversations"])
