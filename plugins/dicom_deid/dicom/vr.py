"""Value representations (PS3.5 section 6.2), and the VR that the dictionaries give a tag (PS3.6)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_VR, private_dictionary_VR

from dicom_deid.dicom.tags import is_private, is_private_creator

# Text in the character set of SpecificCharacterSet (PS3.5 section 6.1.2.3).
CHARACTER_SET_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
# Text in the default character repertoire.
DEFAULT_REPERTOIRE_VRS: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
TEXT_VRS: Final = CHARACTER_SET_VRS | DEFAULT_REPERTOIRE_VRS
# Text in which a backslash is a character of the value, not a delimiter of values.
SINGLE_VALUED_VRS: Final = frozenset({"LT", "ST", "UT", "UR"})
FLOAT_VRS: Final = frozenset({"FD", "FL"})
INTEGER_VRS: Final = frozenset({"SL", "SS", "SV", "UL", "US", "UV"})
# Bytes whose meaning the VR does not define.
BYTES_VRS: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
# VRs with a 32-bit length in explicit VR encodings (PS3.5 section 7.1.2).
LONG_FORM_VRS: Final = BYTES_VRS | {"SQ", "SV", "UC", "UR", "UT", "UV"}
KNOWN_VRS: Final = TEXT_VRS | FLOAT_VRS | INTEGER_VRS | BYTES_VRS | {"AT", "SQ"}

# The VR chosen where the dictionary leaves a choice that only other elements settle.
_CHOSEN_VR: Final = {"US or SS": "US", "US or OW": "US", "US or SS or OW": "US", "OB or OW": "OW", "NONE": "UN"}


def is_vr(raw: bytes) -> bool:
    """Return whether two bytes are capital letters, as a VR is."""
    return len(raw) == 2 and 0x40 < raw[0] < 0x5B and 0x40 < raw[1] < 0x5B


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
        Two letters. ``UN`` for a tag that no dictionary holds; of a choice such as ``US or SS`` the one that is read
        without other elements.
    """
    if is_private_creator(tag):
        return "LO"
    if is_private(tag):
        return _private_vr(tag, private_creator)
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return "UL" if tag & 0xFFFF == 0 else "UN"
    return _CHOSEN_VR.get(vr, vr)


def _private_vr(tag: int, private_creator: str | None) -> str:
    if not private_creator:
        return "UN"
    try:
        vr = private_dictionary_VR(tag, private_creator)
    except KeyError:
        return "UN"
    return _CHOSEN_VR.get(vr, vr)
