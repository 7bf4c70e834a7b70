"""Activities as a person reads them: the transcript, and what a failed expectation shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Activity = dict[str, Any]


class Transcript(list[Activity]):
    """What was seen so far, in order. As text: a line for each activity."""

    def __str__(self) -> str:
        return "\n".join(f"  {sender(each)}: {shown(each)}" for each in self) or "  (nothing was said)"


def sender(activity: Activity) -> str:
    """Who it comes from, by name or id."""
    account = activity.get("from") or {}
    return str(account.get("id") if account.get("role") != "bot" else account.get("name") or account.get("id"))


def shown(activity: Activity) -> str:
    """One line."""
    if activity.get("type") != "message":
        return " ".join(filter(None, (f"({activity.get('type')})", activity.get("name"))))
    parts = [repr(activity["text"])] if activity.get("text") else []
    if "value" in activity:
        parts.append(f"(value {activity['value']!r})")
    for attachment in activity.get("attachments") or ():
        title, buttons = title_of(attachment), [name for name, _ in actions_of(attachment)]
        if is_card(attachment):
            parts.append(f"[card {title!r}{': ' if buttons else ''}{', '.join(buttons)}]")
        else:
            parts.append(f"[{attachment.get('name') or attachment.get('contentType')}]")
    if suggested := (activity.get("suggestedActions") or {}).get("actions"):
        parts.append(f"[suggested: {', '.join(str(each.get('title')) for each in suggested)}]")
    return " ".join(parts) or "(an empty message)"


def is_card(attachment: Activity) -> bool:
    """Whether an attachment is a card and not a file."""
    return str(attachment.get("contentType", "")).startswith("application/vnd.microsoft.card.")


def title_of(attachment: Activity) -> str:
    """A card's title; of an Adaptive Card, which has none, the first text in it."""
    content = attachment.get("content") or {}
    if isinstance(content, dict):
        texts = (part.get("text") for part in _parts(content.get("body")))
        return str(content.get("title") or next(filter(None, texts), ""))
    return ""


def actions_of(attachment: Activity) -> list[tuple[str, Activity]]:
    """The buttons of a card with their titles."""
    content = attachment.get("content") or {}
    if not isinstance(content, dict):
        return []
    sets = [each for part in _parts(content.get("body")) for each in part.get("actions") or ()]
    found = [*(content.get("buttons") or ()), *sets, *(content.get("actions") or ())]
    return [(str(each.get("title", "")), each) for each in found]


def _parts(body: Any) -> Iterator[Activity]:
    """The elements of an Adaptive Card, with those inside containers and columns, in order."""
    for part in body if isinstance(body, list) else ():
        if isinstance(part, dict):
            yield part
            for inside in ("items", "columns"):
                yield from _parts(part.get(inside))
