"""What the standard and the vendors' dictionaries say of a tag (PS3.6, and pydicom's private dictionary)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from pydicom.datadict import dictionary_VR, private_dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.tag import Tag


class Definition(NamedTuple):
    """VR, keyword and name of a tag; the keyword is empty for private and repeating elements."""

    vr: str
    keyword: str
    name: str


@lru_cache(maxsize=32768)
def define(tag: int, private_creator: str | None = None) -> Definition:
    """Look a tag up.

    Parameters
    ----------
    tag
        The tag as a number, group in the upper 16 bits.
    private_creator
        The private creator that reserved the block of a private element (PS3.5 section 7.8.1).

    Returns
    -------
    Definition
        With the VR ``UN`` for a tag that no dictionary holds.
    """
    element = DataElement(Tag(tag), "UN", b"")
    element.private_creator = private_creator
    return Definition(_vr(tag, private_creator), element.keyword, element.name)


def _vr(tag: int, private_creator: str | None) -> str:
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


def tag_text(tag: int) -> str:
    """Write a tag as ``(gggg,eeee)``, lower case."""
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
