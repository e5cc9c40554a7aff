"""What the dictionaries say of a tag (PS3.6, and pydicom's private dictionary)."""

from __future__ import annotations

from functools import lru_cache

from pydicom.datadict import dictionary_VR, private_dictionary_VR


@lru_cache(maxsize=32768)
def vr_of(tag: int, private_creator: str | None = None) -> str:
    """Return the VR that the dictionary gives a tag.

    Parameters
    ----------
    tag
        The tag as a number, group in the upper 16 bits.
    private_creator
        The private creator that reserved the block of a private element (PS3.5 section 7.8.1).

    Returns
    -------
    str
        ``UN`` for a tag that no dictionary holds; a choice such as ``US or SS`` where only other elements tell.
    """
    if not is_private(tag):
        try:
            return dictionary_VR(tag)
        except KeyError:
            return "UL" if tag & 0xFFFF == 0 else "UN"
    if is_private_creator(tag):
        return "LO"
    if private_creator:
        try:
            return private_dictionary_VR(tag, private_creator)
        except KeyError:
            pass
    return "UN"


def is_private(tag: int) -> bool:
    """Whether the group is odd (PS3.5 section 7.8)."""
    return bool(tag & 0x10000)


def is_private_creator(tag: int) -> bool:
    """Whether the element reserves a block of private elements, (gggg,0010-00FF)."""
    return bool(tag & 0x10000) and 0x10 <= tag & 0xFFFF <= 0xFF


def reserved_block(tag: int) -> int:
    """Return the tag of the first element of the block that a private creator reserves."""
    return (tag & 0xFFFF0000) | (tag & 0xFF) << 8


@lru_cache(maxsize=1024)
def creator_of(value: bytes) -> str:
    """Decode the value of a private creator."""
    return value.decode("iso8859").strip("\0 ")


def tag_text(tag: int) -> str:
    """Write a tag as ``(gggg,eeee)``, lower case."""
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
