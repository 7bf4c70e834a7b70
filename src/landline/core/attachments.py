"""Uploads: which parts are what, what files are called, and how they become the attachments of an activity (5.6).

And what there is to say about bytes that somebody else put here: whether a browser may show them (5.8).
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import NewType
from urllib.parse import quote

import msgspec
from msgspec import Raw

from landline.core import disposition, json_text
from landline.core.links import DOWNLOADS, OUR_BASE
from landline.core.log import ConversationId
from landline.errors import BadArgument, MissingProperty

AttachmentId = NewType("AttachmentId", str)

ORIGINAL = "original"
THUMBNAIL = "thumbnail"
"""The views that an attachment can have (bot 3.6). What a client uploads has only the first."""

NAMELESS = "attachment"
NAME_CHARACTERS = 200
"""File names are cut to this many characters, from the left: what a file is stands at the end of its name."""
_GIVEN_CHARACTERS = 4 * NAME_CHARACTERS
"""What is looked at of a name, control characters and all."""

OCTETS = "application/octet-stream"
_ACTIVITY = "application/vnd.microsoft.activity"
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]++"
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*+"'
_MEDIA_TYPE = re.compile(
    rf"[\w!#$&^.+-]++/[\w!#$&^.+*-]++(?:[ \t]*+;[ \t]*+(?:{_WORD}=(?:{_WORD}|{_QUOTED}))?+)*+", re.ASCII
)
"""RFC 9110, 8.3.1, with parameters as 5.6.6 has them. Anything else is read in two ways by somebody: some take
`image/png;,text/html` for what stands behind the comma."""
_MEDIA_TYPE_CHARACTERS = 255

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NULL = Raw(b"null")
_EMPTY = Raw(b'""')
_encode = msgspec.json.Encoder().encode


class View(msgspec.Struct, frozen=True):
    """One form in which an attachment can be fetched."""

    id: str
    size: int


class Attachment(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of bytes that are kept. `made_ms`: UTC, milliseconds since 1970. `site`: by which a client brought
    them; what a bot uploads came by none."""

    conversation: ConversationId
    name: str
    content_type: str
    made_ms: int
    views: tuple[View, ...] = ()
    site: str | None = None

    def size_of(self, view: str) -> int | None:
        """How many bytes the view has, or None where there is no such view."""
        return next((each.size for each in self.views if each.id == view), None)


# What is said about a part.


class Role(Enum):
    """What a part of an upload is."""

    ACTIVITY = "activity"
    FILE = "file"
    NEITHER = "neither"


class Head(msgspec.Struct, frozen=True):
    """What stands above the bytes of a part, or of an upload that is one file."""

    content_type: str | None = None
    name: str | None = None
    filename: str | None = None

    @property
    def role(self) -> Role:
        """An activity by its media type, whatever it is called; a file by its name (5.6)."""
        if (self.content_type or "").partition(";")[0].strip().lower() == _ACTIVITY:
            return Role.ACTIVITY
        return Role.FILE if self.filename is not None or self.name == "file" else Role.NEITHER


def head(content_type: bytes | None, written: bytes | None, *, in_form: bool) -> Head:
    """Read Content-Type and Content-Disposition (`written`), which may lack its disposition type (5.6).

    `in_form`: whether this is the head of a part, as `disposition.filename` says.
    """
    given = disposition.parameters(written)
    return Head(
        content_type=None if not content_type else content_type.decode("latin-1").strip(),
        name=disposition.part_name(given),
        filename=disposition.filename(given, in_form=in_form),
    )


def file_name(given: str | None) -> str:
    """What a file is called: the last part of a path, whichever slashes it has, and never empty (5.6)."""
    given = given or ""
    name = given[max(given.rfind("/"), given.rfind("\\")) + 1 :][-_GIVEN_CHARACTERS:]
    name = _CONTROLS.sub("", name).strip()
    # A browser would take the dots for a way up when it builds the URL.
    return name[-NAME_CHARACTERS:] if name.strip(".") else NAMELESS


def media_type(given: str | None) -> str:
    """What can be said in a header, and be believed by nobody: anything that is no media type is plain bytes."""
    if given and len(given) <= _MEDIA_TYPE_CHARACTERS and _MEDIA_TYPE.fullmatch(given):
        return given
    return OCTETS


def may_be_shown(content_type: str) -> bool:
    """Whether a browser may show it in place: pictures, sound and films, but nothing that can hold a script (5.8), and
    nothing that is no media type, of which nobody knows what a browser makes."""
    if not _MEDIA_TYPE.fullmatch(content_type):
        return False
    kind, _, form = content_type.partition(";")[0].strip().lower().partition("/")
    return kind in ("image", "audio", "video") and "svg" not in form and "xml" not in form


# Parts become an activity.


class File(msgspec.Struct, frozen=True):
    """A file of an upload; `content_type` is what its part said, if anything."""

    id: AttachmentId
    name: str
    content_type: str | None = None


class Message(msgspec.Struct, frozen=True):
    """The activity of an upload, its members as `json_text.decode` answers them, and the type of each file in it."""

    members: dict[str, Raw]
    content_types: tuple[str, ...]


def message(written: bytes | None, files: Sequence[File], user_id: str | None) -> Message:
    """Put `files` into the activity that came with them, or into a new one (D-28); `user_id` speaks where that names
    nobody (5.6).

    Raises `RequestError`.
    """
    if not files:
        raise BadArgument("The upload has no file")
    members = {"type": Raw(b'"message"')} if written is None else json_text.decode(written)
    if user_id:
        account = json_text.members_of(members.get("from", _NULL), "from")
        if account.get("id", _NULL) in (_NULL, _EMPTY):
            others = {name: value for name, value in account.items() if name.lower() != "id"}
            members["from"] = Raw(_encode({"id": user_id, **others}))
    attached = json_text.items_of(members.get("attachments", _NULL), "attachments")
    merged, content_types = _merged(attached, files)
    members["attachments"] = Raw(b"[" + b",".join(merged) + b"]")
    return Message(members, content_types)


def _merged(attached: Sequence[Raw], files: Sequence[File]) -> tuple[list[bytes], tuple[str, ...]]:
    """Each file in the first template of its name that no other file has, or else behind everything that was there.

    Templates that got no file are left out."""
    unfilled: set[int] = set()
    waiting: dict[str, deque[int]] = {file.name: deque() for file in files}
    for number, item in enumerate(attached):
        template = _template(item)
        if template is None:
            continue
        unfilled.add(number)
        # Each is asked for its name once: there can be a thousand of them, and many files.
        name = json_text.lenient_string(template.name)
        if name is not None and (named := waiting.get(file_name(name))) is not None:
            named.append(number)
    filled: dict[int, bytes] = {}
    added: list[bytes] = []
    content_types: list[str] = []
    for file in files:
        named = waiting[file.name]
        number = named.popleft() if named else -1
        members = json_text.members_of(attached[number], "attachments") if number >= 0 else {}
        said = file.content_type or json_text.lenient_string(members.get("contentType", _NULL))
        content_types.append(media_type(said))
        one = _filled(members, file, content_types[-1])
        if number < 0:
            added.append(one)
        else:
            unfilled.remove(number)
            filled[number] = one
    kept = [filled.get(number, bytes(item)) for number, item in enumerate(attached) if number not in unfilled]
    return kept + added, tuple(content_types)


class _Template(msgspec.Struct, rename="camel"):
    """What is looked at in an attachment before it is known that a file belongs into it."""

    name: Raw = _NULL
    content: Raw = _NULL
    content_url: Raw = _NULL


_TEMPLATE = msgspec.json.Decoder(_Template)


def _template(attachment: Raw) -> _Template | None:
    """What waits for a file: an attachment without content."""
    if memoryview(attachment)[0] != ord("{"):
        return None
    try:
        found = _TEMPLATE.decode(attachment)
    except msgspec.DecodeError:  # for a lone surrogate somewhere in it
        members = json_text.members_of(attachment, "attachments")
        found = _Template(*(members.get(name, _NULL) for name in ("name", "content", "contentUrl")))
    return None if found.content != _NULL or found.content_url != _NULL else found


def _filled(template: dict[str, Raw], file: File, content_type: str) -> bytes:
    others = {name: value for name, value in template.items() if name.lower() not in ("contenttype", "contenturl")}
    url = OUR_BASE + f"{DOWNLOADS}/{file.id}/{quote(file.name, safe='')}".encode()
    return _encode({"name": file.name, **others, "contentType": content_type, "contentUrl": Raw(b'"' + url + b'"')})


# What a bot attaches.


class BotUpload(msgspec.Struct, frozen=True):
    """What a bot uploads (bot 3.6), with the bytes of each view."""

    name: str
    content_type: str
    views: dict[str, bytes]


def from_bot(body: bytes) -> BotUpload:
    """Read what a bot uploads. Raises `RequestError`."""
    given = json_text.decode(body)
    original = _base64(given, "originalBase64")
    if original is None:
        raise MissingProperty("'originalBase64' is missing")
    views = {ORIGINAL: original}
    thumbnail = _base64(given, "thumbnailBase64")
    if thumbnail:
        views[THUMBNAIL] = thumbnail
    name, kind = (json_text.lenient_string(given.get(each, _NULL)) for each in ("name", "type"))
    return BotUpload(file_name(name), media_type(kind), views)


def _base64(given: dict[str, Raw], name: str) -> bytes | None:
    """Either alphabet of base64, with or without padding (bot 3.6), in one line or in many: what encodes for mail
    breaks lines."""
    text = json_text.string(given.get(name, _NULL), name)
    if text is None:
        return None
    text = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise BadArgument(f"'{name}' is not base64") from None
