"""Tags: private elements and their creators (PS3.5 section 7.8), and how a tag is written."""

from __future__ import annotations

from functools import lru_cache


def is_private(tag: int) -> bool:
    """Return whether the group is odd (PS3.5 section 7.8)."""
    return bool(tag & 0x10000)


def is_private_creator(tag: int) -> bool:
    """Return whether the element reserves a block of private elements, (gggg,0010-00FF)."""
    return bool(tag & 0x10000) and 0x10 <= tag & 0xFFFF <= 0xFF


def reserved_block(tag: int) -> int:
    """Return the tag of the first element of the block that a private creator reserves."""
    return (tag & 0xFFFF0000) | (tag & 0xFF) << 8


@lru_cache(maxsize=1024)
def creator_of(value: bytes) -> str:
    """Decode the value of a private creator."""
    return value.decode("iso8859").strip("\0 ")


def tag_text(tag: int) -> str:
    """Return a tag as ``(gggg,eeee)``, in lower case."""
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
