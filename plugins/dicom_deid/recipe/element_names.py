"""Names of elements as recipes use them: keywords, element names and tags of the DICOM dictionary (PS3.6)."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from pydicom import datadict
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom._private_dict import private_dictionaries

from dicom_deid.dicom.tags import is_private
from dicom_deid.dicom.vr import vr_of
from dicom_deid.recipe.errors import nearest

PRIVATE_CREATOR_NAME = "Private Creator"
PRIVATE_NAME = "Private tag data"
GROUP_LENGTH_NAME = "Group Length"

DICTIONARY_TAGS = tuple(sorted({*DicomDictionary, *(int(mask.replace("x", "0"), 16) for mask in RepeatersDictionary)}))
"""Every tag of the dictionary, in order; for a repeating group (60xx) the first group."""

_TAG = re.compile(r"\(([0-9a-f]{4}),([0-9a-f]{4})\)|([0-9a-f]{8})", re.IGNORECASE)
_PRIVATE = re.compile(r"""(\(?)([0-9a-f]{4}),"([^"]+)",([0-9a-f]{2})(\)?)""", re.IGNORECASE)


class ElementName(NamedTuple):
    """Names of an element that rules can use.

    Parameters
    ----------
    tag
        Group and element number as one integer.
    vr
        Value representation, two letters.
    keyword
        Keyword of the dictionary (PS3.6), empty for private elements and repeating groups.
    name
        Name of the dictionary; `[name]` for known private elements, else as :func:`describe` says.
    nested_name
        Keywords of the sequences that hold the element and its own, joined by two underscores.
    private_creator
        Private creator of the block of a private element; None for a private creator itself.
    file_meta
        Whether the element is in the file meta information.
    root
        Whether the element is in the root data set or in the file meta information.
    """

    tag: int
    vr: str
    keyword: str
    name: str
    nested_name: str
    private_creator: str | None = None
    file_meta: bool = False
    root: bool = True

    @classmethod
    def of(
        cls,
        tag: int,
        *,
        vr: str | None = None,
        parent: str | None = None,
        private_creator: str | None = None,
    ) -> ElementName:
        """Name an element by the dictionary.

        Parameters
        ----------
        tag
            Group and element number as one integer.
        vr
            Value representation; by default the dictionary's.
        parent
            Nested name of the sequence that holds the element (empty for a private sequence at the root);
            nothing for an element of the root data set or of the file meta information.
        private_creator
            Creator of the block of a private element.
        """
        keyword, name = describe(tag, private_creator)
        nested_name = keyword if parent is None else f"{parent}__{keyword}"
        root = parent is None
        return cls(
            tag,
            vr or vr_of(tag),
            keyword,
            name,
            nested_name,
            private_creator,
            root and tag >> 16 == 0x0002,
            root,
        )

    @property
    def is_private(self) -> bool:
        """True if the group number is odd (PS3.5 section 7.8)."""
        return is_private(self.tag)


@cache
def keywords() -> dict[str, int]:
    """Return the tag of every keyword, both as the dictionary writes them."""
    return {entry[4]: tag for tag, entry in DicomDictionary.items() if entry[4]}


@cache
def keywords_in_any_case() -> dict[str, int]:
    """Return the tag of every keyword in lower case."""
    return {keyword.lower(): tag for keyword, tag in keywords().items()}


@cache
def names_in_any_case() -> dict[str, int | None]:
    """Return every element name in lower case with its tag; repeating groups and private elements have none."""
    private = {f"[{entry[2]}]": None for block in private_dictionaries.values() for entry in block.values()}
    repeating = {entry[2]: None for entry in RepeatersDictionary.values()}
    special = dict.fromkeys((PRIVATE_CREATOR_NAME, PRIVATE_NAME, GROUP_LENGTH_NAME))
    standard = {entry[2]: tag for tag, entry in DicomDictionary.items() if entry[2]}
    return {name.lower(): tag for name, tag in {**private, **repeating, **special, **standard}.items()}


def nearest_field(text: str, *, quoted: bool) -> str | None:
    """Return the field that an unknown word probably means; None if none is near.

    Attributes of repeating groups (60xx) have no keyword in the language: their name (`quoted`) or tag is returned.
    """
    mask = _repeating_keywords().get(text.lower())
    if mask is None:
        return nearest(text, keywords())
    if quoted:
        return f'"{RepeatersDictionary[mask][2]}"'
    first = mask.replace("x", "0").lower()
    return f"({first[:4]},{first[4:]})"


@cache
def _repeating_keywords() -> dict[str, str]:
    return {entry[4].lower(): mask for mask, entry in RepeatersDictionary.items() if entry[4]}


def describe(tag: int, private_creator: str | None = None) -> tuple[str, str]:
    """Return keyword and name of an element, as pydicom gives them.

    Elements of repeating groups (60xx) have a name and no keyword.
    """
    if tag & 0x10000:
        return "", _private_name(tag, private_creator)
    entry = DicomDictionary.get(tag)
    if entry is not None:
        return entry[4], entry[2]
    mask = datadict.mask_match(tag)
    if mask is not None:
        return "", RepeatersDictionary[mask][2]
    return "", "" if tag & 0xFFFF else GROUP_LENGTH_NAME


def _private_name(tag: int, private_creator: str | None) -> str:
    if not private_creator:
        return PRIVATE_CREATOR_NAME if tag & 0xFF00 == 0 else PRIVATE_NAME
    try:
        return f"[{datadict.private_dictionary_description(tag, private_creator)}]"
    except KeyError:
        return PRIVATE_NAME


def parse_tag(text: str) -> int | None:
    """Read ``(gggg,eeee)`` or ``ggggeeee``, hexadecimal digits in any case; return None if it is neither."""
    match = _TAG.fullmatch(text)
    return None if match is None else int("".join(group for group in match.groups() if group), 16)


class PrivateElement(NamedTuple):
    """A private element, whatever block its private creator reserved (PS3.5 section 7.8)."""

    group: int
    creator: str
    element: int

    def __str__(self) -> str:
        return f'({self.group:04x},"{self.creator}",{self.element:02x})'


def parse_private_element(text: str) -> PrivateElement | None:
    """Read ``(gggg,"CREATOR",ee)`` or the same without parentheses; return None if it is neither."""
    match = _PRIVATE.fullmatch(text)
    if match is None or bool(match[1]) != bool(match[5]) or int(match[2], 16) % 2 == 0:
        return None
    return PrivateElement(int(match[2], 16), match[3], int(match[4], 16))


def is_private_form(text: str) -> bool:
    """Return whether the text is ``(gggg,"CREATOR",ee)`` or ``gggg,"CREATOR",ee`` with an odd group."""
    return parse_private_element(text) is not None


def tag_of(text: str) -> int | None:
    """Return the tag for a keyword, an element name or a tag, in any case; None if unknown."""
    tag = parse_tag(text)
    if tag is None:
        tag = keywords_in_any_case().get(text.lower())
    if tag is None:
        tag = names_in_any_case().get(text.lower())
    return tag
