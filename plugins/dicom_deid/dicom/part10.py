"""The DICOM file format: preamble, prefix and file meta information (PS3.10 section 7)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from pydicom.datadict import dictionary_has_tag

from dicom_deid import __version__
from dicom_deid.dicom.transfer_syntax import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Encoding,
    TransferSyntax,
    find_transfer_syntax,
)
from dicom_deid.dicom.vr import LONG_FORM_VRS, is_vr
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

PREFIX = b"DICM"
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
# Made from a UUID (PS3.5 annex B.2); identifies this implementation, must not change.
IMPLEMENTATION_CLASS_UID = "2.25.331701790846594433263834633613346444348"
IMPLEMENTATION_VERSION_NAME = f"DICOM_DEID_{__version__}"[:16]

_LONG_FORM = frozenset(vr.encode("ascii") for vr in LONG_FORM_VRS)
_SOP_CLASS_UID = 0x0002
_SOP_INSTANCE_UID = 0x0003
_TRANSFER_SYNTAX_UID = 0x0010
_GROUP_LENGTH_HEAD = b"\x02\x00\x00\x00UL\x04\x00"
_INSTANCE_UID_HEAD = b"\x02\x00\x03\x00UI"
_MAX_BEFORE_INSTANCE_UID = 256


_SYSTEM_FILES = (b"\x00\x05\x16\x07\x00\x02\x00\x00", b"\x00\x00\x00\x01Bud1")
"""The first bytes of AppleDouble files (RFC 1740) and of .DS_Store."""


class FileHeader(NamedTuple):
    """Positions of the parts of a file, in bytes from its beginning, and the encoding of its data set.

    The file meta information is in ``[meta_start, data_set_start)``; it is empty if the file has none.
    """

    meta_start: int
    data_set_start: int
    transfer_syntax: TransferSyntax
    media_storage_sop_class_uid: str
    media_storage_sop_instance_uid: str


def read_header(data: bytes, *, assumes_encoding: bool = False) -> FileHeader:
    """Find the data set of a file and its encoding.

    Files without a preamble, or without file meta information, are accepted if the first element is one of the standard
    and fits the file.

    Parameters
    ----------
    data
        The file, or its beginning.
    assumes_encoding
        Read an unknown transfer syntax as explicit VR little endian.

    Raises
    ------
    Quarantine
        With EMPTY_OBJECT, NOT_DICOM, SYSTEM_FILE, DICOMDIR, TRUNCATED, MALFORMED or UNSUPPORTED_TRANSFER_SYNTAX.
    """
    if not data:
        raise Quarantine(Reason.EMPTY_OBJECT)
    start = 132 if data[128:132] == PREFIX else 0
    if start == 0 and not _begins_like_dicom(data):
        raise Quarantine(Reason.SYSTEM_FILE if data.startswith(_SYSTEM_FILES) else Reason.NOT_DICOM)
    try:
        end, values = _read_meta(data, start)
    except struct.error:
        raise Quarantine(Reason.TRUNCATED, "file meta information", len(data)) from None
    sop_class_uid = _text(values.get(_SOP_CLASS_UID, b""))
    if sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        raise Quarantine(Reason.DICOMDIR)
    transfer_syntax_uid = _text(values.get(_TRANSFER_SYNTAX_UID, b"")) or _guess_transfer_syntax(data, end)
    transfer_syntax = find_transfer_syntax(transfer_syntax_uid)
    if transfer_syntax is None and assumes_encoding:
        assumed = find_transfer_syntax(EXPLICIT_VR_LITTLE_ENDIAN)
        transfer_syntax = assumed and assumed._replace(uid=transfer_syntax_uid)
    if transfer_syntax is None:
        raise Quarantine(Reason.UNSUPPORTED_TRANSFER_SYNTAX, "(0002,0010)")
    if not transfer_syntax.deflated:
        transfer_syntax = _as_found(data, end, transfer_syntax)
    return FileHeader(start, end, transfer_syntax, sop_class_uid, _text(values.get(_SOP_INSTANCE_UID, b"")))


def write_header(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return a new preamble, prefix and file meta information (PS3.10 table 7.1-1).

    Parameters
    ----------
    sop_class_uid, sop_instance_uid, transfer_syntax_uid
        The UIDs.

    Raises
    ------
    Quarantine
        MALFORMED if one of them is not ASCII text.
    """
    instance = _element(b"\x02\x00\x03\x00UI", sop_instance_uid)
    before, after = _meta_around(sop_class_uid, transfer_syntax_uid)
    length = struct.pack("<I", len(before) + len(instance) + len(after))
    return b"".join((_PREAMBLE, b"\x02\x00\x00\x00UL\x04\x00", length, before, instance, after))


_PREAMBLE = bytes(128) + PREFIX


@lru_cache(maxsize=512)
def _meta_around(sop_class_uid: str, transfer_syntax_uid: str) -> tuple[bytes, bytes]:
    before = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01" + _element(b"\x02\x00\x02\x00UI", sop_class_uid)
    after = (
        _element(b"\x02\x00\x10\x00UI", transfer_syntax_uid)
        + _element(b"\x02\x00\x12\x00UI", IMPLEMENTATION_CLASS_UID)
        + _element(b"\x02\x00\x13\x00SH", IMPLEMENTATION_VERSION_NAME)
    )
    return before, after


def _element(tag_and_vr: bytes, text: str) -> bytes:
    try:
        value = text.encode("ascii")
    except UnicodeEncodeError:
        raise Quarantine(Reason.MALFORMED, "a UID of the file meta information") from None
    if len(value) % 2:
        value += b"\0" if tag_and_vr.endswith(b"UI") else b" "
    return tag_and_vr + struct.pack("<H", len(value)) + value


def meta_is_implicit(data: bytes, start: int) -> bool:
    """Return whether the file meta information at `start` has implicit VRs, as some non-conformant writers do."""
    return not data[start + 4 : start + 6].isalpha()


def _read_meta(data: bytes, pos: int) -> tuple[int, Mapping[int, bytes]]:
    """Return where the file meta information ends, and its values by element number."""
    # Of the objects of a series only the instance UID differs.
    instance = data.find(_INSTANCE_UID_HEAD, pos, pos + _MAX_BEFORE_INSTANCE_UID)
    if instance >= 0 and data[pos : pos + 8] == _GROUP_LENGTH_HEAD:
        end = pos + 12 + int.from_bytes(data[pos + 8 : pos + 12], "little")
        start = instance + 8
        after = start + int.from_bytes(data[start - 2 : start], "little")
        values = _values_around(data[pos:instance], data[after:end]) if after <= end <= len(data) else None
        if values is not None and data[end : end + 2] != b"\x02\x00":
            return end, {**values, _SOP_INSTANCE_UID: data[start:after]}
    return _read_each(data, pos)


@lru_cache(maxsize=512)
def _values_around(before: bytes, after: bytes) -> Mapping[int, bytes] | None:
    """Return the values before and after the instance UID; None if either is not made of whole elements."""
    try:
        (before_end, values), (after_end, more) = _read_each(before, 0), _read_each(after, 0)
    except (Quarantine, struct.error):
        return None
    is_whole = before_end == len(before) and after_end == len(after)
    return {**values, **more} if is_whole and not {0, _SOP_INSTANCE_UID} & more.keys() else None


def _read_each(data: bytes, pos: int) -> tuple[int, dict[int, bytes]]:
    values: dict[int, bytes] = {}
    size, end = len(data), -1
    implicit = meta_is_implicit(data, pos)
    while data[pos : pos + 2] == b"\x02\x00":
        if implicit:
            (length,) = struct.unpack_from("<I", data, pos + 4)
            start = pos + 8
        elif data[pos + 4 : pos + 6] in _LONG_FORM:
            (length,) = struct.unpack_from("<I", data, pos + 8)
            start = pos + 12
        else:
            (length,) = struct.unpack_from("<H", data, pos + 6)
            start = pos + 8
        if start + length > size:
            raise Quarantine(Reason.TRUNCATED, "file meta information", pos)
        number = data[pos + 2] | data[pos + 3] << 8
        if number in values and pos == end:
            # The group length ends the file meta information; a second one is part of the data set.
            break
        values[number] = data[start : start + length]
        pos = start + length
        if number == 0 and length == 4:
            end = pos + int(struct.unpack("<I", values[0])[0])
    return pos, values


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")


def _begins_like_dicom(data: bytes) -> bool:
    if len(data) < 8:
        return False
    for order, little in (("<", True), (">", False)):
        group, element = struct.unpack_from(order + "HH", data)
        is_known = not element or dictionary_has_tag(group << 16 | element)
        if group not in (0x0002, 0x0004, 0x0008) or not is_known:
            continue
        vr = data[4:6]
        if vr.isalpha() and vr.isupper():
            return True
        if little and struct.unpack_from("<I", data, 4)[0] <= len(data) - 8:
            return True
    return False


def _guess_transfer_syntax(data: bytes, pos: int) -> str:
    # Without (0002,0010) the first element decides: letters in the position of an explicit VR, and which byte of the
    # group number is zero.
    vr = data[pos + 4 : pos + 6]
    if not (vr.isalpha() and vr.isupper()):
        return IMPLICIT_VR_LITTLE_ENDIAN
    return EXPLICIT_VR_BIG_ENDIAN if data[pos : pos + 1] == b"\0" else EXPLICIT_VR_LITTLE_ENDIAN


def begins_as(beginning: bytes, encoding: Encoding) -> bool:
    """Return whether the first element of a data set is encoded as the transfer syntax declares.

    Parameters
    ----------
    beginning
        The first six bytes of the data set.
    encoding
        The declared encoding; big endian is not checked.
    """
    vr = beginning[4:6]
    if len(vr) < 2 or encoding.big_endian:
        return True
    return encoding.implicit != is_vr(vr)


def _as_found(data: bytes, pos: int, declared: TransferSyntax) -> TransferSyntax:
    # Some files are not encoded as their file meta information declares; readers use the encoding that they find.
    if begins_as(data[pos : pos + 6], declared.encoding):
        return declared
    implicit = not declared.encoding.implicit
    if declared.encapsulated:
        # The frames are encoded as declared; only the elements are not.
        return declared._replace(encoding=Encoding(implicit, big_endian=False))
    found = find_transfer_syntax(IMPLICIT_VR_LITTLE_ENDIAN if implicit else EXPLICIT_VR_LITTLE_ENDIAN)
    return found or declared
