"""What an operator does with conversations: offer again what a bot did not take, delete, forget a person."""

from __future__ import annotations

import click

from landline.commands.groups import Command
from landline.commands.office import Office, in_office
from landline.commands.options import as_json_option, deleting, is_wanted
from landline.commands.printing import counted, print_json, print_rows


@click.command("redeliver", cls=Command)
@click.argument("activity", metavar="[ACTIVITY]", required=False)
@as_json_option
@in_office
def redeliver(office: Office, activity: str | None, as_json: bool) -> None:
    """Offer ACTIVITY to its bot again; without one, show what bots did not take, oldest first."""
    if activity is not None:
        office.ask("POST", "failures", activity, "redeliver")
        click.echo(f"The bot has taken {activity}.")
        return
    failures = office.ask("GET", "failures")["failures"]
    if as_json:
        print_json(failures)
        return
    shown = [
        (
            each["activity"],
            each["bot_id"],
            each["at"],
            str(each["attempts"]),
            str(each["status"] or "-"),
            each["reason"],
        )
        for each in failures
    ]
    print_rows([("ACTIVITY", "BOT", "LAST", "ATTEMPTS", "STATUS", "REASON"), *shown])


@click.command("delete", cls=Command)
@click.argument("conversation_id", metavar="CONVERSATION")
@deleting
@in_office
def delete(office: Office, conversation_id: str, yes: bool, dry_run: bool) -> None:
    """Delete a conversation at once, whoever is using it."""
    found = office.ask("GET", "conversations", conversation_id)
    said = counted(found["activities"], "activity", "activities")
    people = [str(each["id"]) for each in found["members"] if not each["bot"]]
    who = ", ".join(people) or "nobody"
    what = f"the conversation {conversation_id} of {who} with the bot {found['bot_id']!r}, {said}"
    if is_wanted(what, yes=yes, dry_run=dry_run):
        office.ask("DELETE", "conversations", conversation_id)
        click.echo(f"Deleted {what}.")


@click.command("forget", cls=Command)
@click.argument("user_id", metavar="USER")
@deleting
@in_office
def forget(office: Office, user_id: str, yes: bool, dry_run: bool) -> None:
    """Forget a person: delete every conversation in which USER took part, and say how many there were."""
    theirs = office.ask("POST", "forget", body={"user": user_id, "dry_run": True})["conversations"]
    if is_wanted(_of_user(theirs, user_id), yes=yes, dry_run=dry_run):
        deleted = office.ask("POST", "forget", body={"user": user_id})["conversations"]
        click.echo(f"Deleted {_of_user(deleted, user_id)}.")


def _of_user(conversations: int, user_id: str) -> str:
    return f"{counted(conversations, 'conversation', 'conversations')} in which {user_id!r} took part"
