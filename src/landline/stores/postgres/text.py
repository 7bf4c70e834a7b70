"""Text that strangers write, as bytes: it may hold a NUL or half of a surrogate pair, and PostgreSQL's text may not."""

from __future__ import annotations

from typing import overload


@overload
def to_bytes(text: str) -> bytes: ...
@overload
def to_bytes(text: None) -> None: ...


def to_bytes(text: str | None) -> bytes | None:
    """As it is kept."""
    return None if text is None else text.encode("utf-8", "surrogatepass")


@overload
def to_text(kept: bytes) -> str: ...
@overload
def to_text(kept: None) -> None: ...


def to_text(kept: bytes | None) -> str | None:
    """As it was."""
    return None if kept is None else kept.decode("utf-8", "surrogatepass")


def is_storable(text: str) -> bool:
    """Whether it can be asked for as text. What cannot is the name of nothing."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
