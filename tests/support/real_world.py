"""Structures of real files that are unusual or against the standard: one builder per structure.

Each builder returns a whole object with the patient of `NAME` and `PATIENT_ID`, and with `LAST` in its last element but
pixel data. The decorator says which readers find these in the object (measured: pydicom 3.0, DCMTK 3.6, GDCM 3.0),
which find `LAST` in the output, and the reason if the engine does not de-identify it. A new structure is one builder.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from dicom_deid.reasons import Reason

NAME, PATIENT_ID, LAST = "Okonkwo^Adaeze", "MRN7788123", "1777"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
JPEG_LOSSLESS, JPEG_XL = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.110"
UNDEFINED = 0xFFFFFFFF
PYDICOM, DCMTK, GDCM = "pydicom", "dcmtk", "gdcm"
ALL = frozenset({PYDICOM, DCMTK, GDCM})
# gdcmdump 3.0 aborts when it prints the fragments of pixel data without an Image Pixel module.
_NOT_GDCMDUMP = frozenset({PYDICOM, DCMTK})
_LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}


class Structure(NamedTuple):
    """One structure.

    Parameters
    ----------
    name
        The builder's name.
    build
        Returns the object.
    readers
        The readers that find the patient and the last element in it.
    readers_of_output
        The readers that find the last element in what the engine writes.
    reason
        Why the engine quarantines it; None if it is de-identified.
    """

    name: str
    build: Callable[[], bytes]
    readers: frozenset[str]
    readers_of_output: frozenset[str]
    reason: Reason | None


STRUCTURES: list[Structure] = []


def structure(
    readers: frozenset[str] = ALL, output: frozenset[str] = ALL, reason: Reason | None = None
) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Register the builder of a structure."""

    def register(build: Callable[[], bytes]) -> Callable[[], bytes]:
        STRUCTURES.append(Structure(build.__name__, build, readers, output, reason))
        return build

    return register


# ------------------------------------------------------------------------------------------------------------ encoding


def el(tag: int, vr: str | None, value: str | bytes, order: str = "<") -> bytes:
    """Encode an element; with `vr` None in implicit VR."""
    data = value.encode("latin-1") if isinstance(value, str) else value
    if len(data) % 2:
        data += b"\0" if vr in ("UI", "OB", "UN", None) else b" "
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if vr is None:
        return head + struct.pack(order + "I", len(data)) + data
    if vr in _LONG:
        return head + vr.encode() + b"\0\0" + struct.pack(order + "I", len(data)) + data
    return head + vr.encode() + struct.pack(order + "H", len(data)) + data


def items(tag: int, vr: str | None, *bodies: bytes, order: str = "<", item_order: str | None = None) -> bytes:
    """Encode a sequence of undefined length, with items of undefined length."""
    inner = item_order or order
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF) + (b"" if vr is None else vr.encode() + b"\0\0")
    item, item_end, end = (struct.pack(inner + "HH", 0xFFFE, number) for number in (0xE000, 0xE00D, 0xE0DD))
    undefined = struct.pack(inner + "I", UNDEFINED)
    body = b"".join(item + undefined + one + item_end + bytes(4) for one in bodies)
    return head + struct.pack(order + "I", UNDEFINED) + body + end + bytes(4)


def item(body: bytes) -> bytes:
    """Encode an item of defined length."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body


def meta(syntax: str = EXPLICIT) -> bytes:
    """Return preamble, prefix and file meta information."""
    body = (
        el(0x00020001, "OB", b"\0\1")
        + el(0x00020002, "UI", CT_IMAGE)
        + el(0x00020003, "UI", "1.2.3.4.5.6")
        + el(0x00020010, "UI", syntax)
    )
    return bytes(128) + b"DICM" + el(0x00020000, "UL", struct.pack("<I", len(body))) + body


def data_set(*extra: bytes, explicit: bool = True, order: str = "<", last: bytes | None = None) -> bytes:
    """Return a data set with more elements, which are put in the order of their tags."""

    def put(tag: int, vr: str, value: str) -> bytes:
        return el(tag, vr if explicit else None, value, order)

    elements = [
        put(0x00080016, "UI", CT_IMAGE),
        put(0x00080018, "UI", "1.2.3.4.5.6"),
        put(0x00080060, "CS", "CT"),
        put(0x00100010, "PN", NAME),
        put(0x00100020, "LO", PATIENT_ID),
        put(0x0020000D, "UI", "1.2.3.4.5"),
        put(0x0020000E, "UI", "1.2.3.4.5.1"),
        put(0x00281050, "DS", LAST) if last is None else last,
        *extra,
    ]
    return b"".join(sorted(elements, key=lambda one: struct.unpack_from(order + "HH", one)))


def fragments() -> bytes:
    """Return encapsulated pixel data of one frame."""
    head = struct.pack("<HH", 0x7FE0, 0x0010) + b"OB\0\0" + struct.pack("<I", UNDEFINED)
    return head + item(b"") + item(b"abcd") + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


_CODE = (el(0x00080100, "SH", "NA"), el(0x00080102, "SH", "99HOLX"), el(0x00080104, "LO", "No Views"))
_EXPLICIT_ITEM = b"".join(_CODE)
_IMPLICIT_ITEM = el(0x00080100, None, "NA") + el(0x00080102, None, "99HOLX") + el(0x00080104, None, "No Views")


# ---------------------------------------------------------------------------------------------------------- structures


@structure()
def plain() -> bytes:
    """Nothing unusual."""
    return meta() + data_set()


@structure(frozenset({PYDICOM, GDCM}))
def un_of_undefined_length_with_explicit_items() -> bytes:
    """Hologic, after a gateway that does not know ProcedureCodeSequence (0040,0260)."""
    return meta() + data_set(items(0x00400260, "UN", _EXPLICIT_ITEM))


@structure()
def un_of_undefined_length_with_implicit_items() -> bytes:
    """PS3.5 section 6.2.2."""
    return meta() + data_set(items(0x00400260, "UN", _IMPLICIT_ITEM))


@structure()
def un_of_defined_length_that_is_a_sequence() -> bytes:
    """A gateway that turns sequences it does not know into UN."""
    return meta() + data_set(el(0x00400260, "UN", item(_IMPLICIT_ITEM)))


@structure(frozenset({DCMTK}), frozenset({DCMTK}))
def un_in_big_endian() -> bytes:
    """The items are of implicit VR little endian, whatever the transfer syntax is."""
    sequence = items(0x00082112, "UN", el(0x00081155, None, "1.2.3.9"), order=">", item_order="<")
    return meta(BIG_ENDIAN) + data_set(sequence, order=">")


@structure(frozenset({PYDICOM, GDCM}))
def implicit_items_in_an_explicit_sequence() -> bytes:
    """The items of a sequence copied from an object of implicit VR."""
    return meta() + data_set(items(0x00400260, "SQ", _IMPLICIT_ITEM))


@structure(frozenset({PYDICOM, GDCM}))
def an_implicit_element_in_an_explicit_data_set() -> bytes:
    """A writer that adds elements without their VR."""
    return meta() + data_set(el(0x00081030, None, "Some text here"))


@structure(frozenset({DCMTK, GDCM}))
def a_vr_of_two_blanks() -> bytes:
    """GE workstations, PixelPaddingValue."""
    return meta() + data_set(b"\x28\0\x20\x01  \x02\0\0\0")


@structure()
def a_group_length_of_vr_un() -> bytes:
    """The header has 12 bytes; the group is removed."""
    private = el(0x00090010, "LO", "GEMS_IDEN_01") + el(0x00091001, "LO", "GE_GENESIS_FF")
    return meta() + data_set(el(0x00090000, "UN", struct.pack("<I", len(private))), private)


@structure()
def group_lengths_in_a_sequence() -> bytes:
    """An outer group length that spans one in an item, both of which change."""
    private = el(0x300B0010, None, "ACME") + el(0x300B1001, None, "x ")
    nested = el(0x300A0082, None, "1") + el(0x300B0000, None, struct.pack("<I", len(private))) + private
    group = el(0x300A0002, None, "PLAN") + el(0x300A0010, None, item(nested))
    length = el(0x300A0000, None, struct.pack("<I", len(group)))
    return meta(IMPLICIT) + data_set(length + group, explicit=False)


@structure(frozenset({PYDICOM, DCMTK, GDCM}))
def no_preamble_and_a_group_length_first() -> bytes:
    """ACR-NEMA and early DICOM."""
    first = data_set(explicit=False)
    length = 8 + len(CT_IMAGE) + 1 + 8 + 12 + 8 + 2
    return el(0x00080000, None, struct.pack("<I", length)) + first


@structure(_NOT_GDCMDUMP, _NOT_GDCMDUMP)
def a_second_file_meta_information() -> bytes:
    """The group length ends the first one; its transfer syntax is right."""
    return meta(JPEG_LOSSLESS) + el(0x00020010, "UI", EXPLICIT) + data_set(fragments())


@structure(_NOT_GDCMDUMP, _NOT_GDCMDUMP)
def a_transfer_syntax_newer_than_pydicom() -> bytes:
    """JPEG XL; no pixel is touched."""
    return meta(JPEG_XL) + data_set(fragments())


@structure()
def a_sequence_at_the_tag_of_a_private_creator() -> bytes:
    """An element (gggg,0010-00FF) that is no text reserves no block."""
    return meta() + data_set(items(0x00070011, "SQ", el(0x00100010, "PN", NAME)))


@structure(reason=Reason.MALFORMED)
def a_known_sequence_written_as_text() -> bytes:
    """Rules apply to items, and the text has none."""
    return meta() + data_set(el(0x0040A073, "UT", f"Verified by {NAME}"))


@structure(reason=Reason.MALFORMED)
def pixel_data_that_is_a_sequence() -> bytes:
    """Rules do not look into pixel data."""
    return meta() + data_set(items(0x7FE00008, "SQ", el(0x00100010, "PN", NAME)))


@structure(reason=Reason.MALFORMED)
def overlay_data_that_is_a_sequence() -> bytes:
    """Rules do not look into overlay data."""
    return meta() + data_set(items(0x60003000, "SQ", el(0x00100010, "PN", NAME)))


@structure()
def a_name_in_a_voi_lut() -> bytes:
    """Rules skip the LUT, not what does not belong there."""
    lut = el(0x00100010, "PN", NAME) + el(0x00283002, "US", bytes(6)) + el(0x00283006, "OW", bytes(4))
    return meta() + data_set(items(0x00283010, "SQ", lut))


@structure()
def a_uid_in_another_text_vr() -> bytes:
    """ReferencedSOPInstanceUID as LO."""
    return meta() + data_set(items(0x00081140, "SQ", el(0x00081155, "LO", "1.2.3.4.5.6")))


@structure(frozenset({PYDICOM, DCMTK, GDCM}), reason=Reason.MISSING_IDENTIFIER)
def no_series() -> bytes:
    """SeriesInstanceUID is absent."""
    return meta() + data_set().replace(el(0x0020000E, "UI", "1.2.3.4.5.1"), b"")


@structure(frozenset({PYDICOM, GDCM}))
def an_implicit_data_set_under_an_explicit_transfer_syntax() -> bytes:
    """A gateway that converts the file meta information and not the data set."""
    return meta(EXPLICIT) + data_set(explicit=False)


@structure(frozenset({PYDICOM}))
def an_explicit_data_set_under_the_implicit_transfer_syntax() -> bytes:
    """The reverse; many old CT scanners' archives."""
    return meta(IMPLICIT) + data_set()


@structure(frozenset({PYDICOM}))
def padded_to_a_block() -> bytes:
    """Zeros up to the block of a tape or an optical disk."""
    whole = meta() + data_set()
    return whole + bytes(-len(whole) % 2048)


@structure()
def data_set_trailing_padding() -> bytes:
    """PS3.10 section 7.2."""
    return meta() + data_set(el(0xFFFCFFFC, "OB", bytes(200)))


@structure()
def no_group_length_in_the_file_meta_information() -> bytes:
    """Writers that leave out (0002,0000), which PS3.10 requires."""
    whole = meta() + data_set()
    return whole[:132] + whole[144:]


@structure()
def a_repeated_element() -> bytes:
    """A gateway that inserts an element where there is one: the name is in both."""
    twice = el(0x00100010, "PN", NAME)
    return meta() + data_set().replace(twice, twice + twice)


@structure()
def elements_out_of_order() -> bytes:
    """A writer that appends what it coerces, before the last element here."""
    name, last = el(0x00100010, "PN", NAME), el(0x00281050, "DS", LAST)
    whole = data_set()
    return meta() + whole.replace(name, b"").replace(last, name + last)


@structure()
def a_text_of_odd_length() -> bytes:
    """A value that is not padded."""
    return meta() + data_set(b"\x08\0\x30\x10LO\x05\0Thora")


@structure()
def utf_8_that_is_latin_1() -> bytes:
    """ISO_IR 192 was set, and the values were not converted."""
    return meta() + data_set(el(0x00080005, "CS", "ISO_IR 192"), el(0x00081030, "LO", "Sch\xe4del nativ"))


@structure()
def a_private_element_without_its_creator() -> bytes:
    """A workstation that removes text of private groups."""
    return meta() + data_set(el(0x00091002, "LO", NAME), el(0x00091003, "UN", b"\1\2"))


@structure(frozenset({PYDICOM}), reason=Reason.MALFORMED)
def an_item_delimiter_in_an_item_of_defined_length() -> bytes:
    """Items that have both a length and their delimiter."""
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    return meta() + data_set(el(0x00400260, "SQ", item(_EXPLICIT_ITEM) + end))


@structure(frozenset(), reason=Reason.TRUNCATED)
def fragments_without_their_end() -> bytes:
    """A transfer that lost the last bytes: the sequence delimiter of the pixel data is absent."""
    return meta(JPEG_LOSSLESS) + data_set(fragments()[:-8])
