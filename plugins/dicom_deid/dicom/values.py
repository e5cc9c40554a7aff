"""Encode and decode values: character sets, padding, and the bytes of a VR (PS3.5 section 6)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes, encode_string, python_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.values import convert_value

from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.vr import BYTES_VRS, CHARACTER_SET_VRS, FLOAT_VRS, INTEGER_VRS, SINGLE_VALUED_VRS, TEXT_VRS
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

_DELIMITERS = {0x0D, 0x0A, 0x09, 0x0C, 0x5C}
_PERSON_NAME_DELIMITERS = {0x5E, 0x3D, 0x5C}
_ESCAPE = b"\x1b"
# ISO 2022 IR 58.
_SIMPLIFIED_CHINESE, _SIMPLIFIED_CHINESE_ESCAPE = "iso_ir_58", b"\x1b$)A"
# ISO 2022 IR 100.
_LATIN = "latin_1"


_ASCII = bytes(range(0x20, 0x7F))
# Misspelled terms that pydicom repairs.
_SPELLINGS = ((re.compile("ISO[^_]IR"), "ISO_IR"), (re.compile("ISO.2022.IR."), "ISO 2022 IR "))


@lru_cache(maxsize=256)
def character_set(value: bytes) -> tuple[str, ...]:
    """Return the codecs that the value of SpecificCharacterSet (0008,0005) names.

    Raises
    ------
    Quarantine
        UNSUPPORTED_CHARACTER_SET if a term is unknown.
    """
    terms = [term.strip(" \0") for term in value.decode("ascii", "replace").split("\\")]
    try:
        for term in terms:
            _check_term(term)
        return tuple(convert_encodings(terms))
    except (LookupError, ValueError):
        raise Quarantine(Reason.UNSUPPORTED_CHARACTER_SET, "(0008,0005)") from None


def _check_term(term: str) -> None:
    """Raise LookupError for a term that pydicom neither knows nor repairs; it would decode as Latin-1."""
    if term in python_encoding:
        return
    for misspelled, right in _SPELLINGS:
        if found := misspelled.match(term):
            python_encoding[right + term[found.end() :]]
            return
    # Other terms may be names of Python codecs; only those that are supersets of ASCII are accepted.
    if _ASCII.decode(term) != _ASCII.decode("ascii"):
        raise LookupError


DEFAULT_CHARACTER_SET = character_set(b"")


def decode_text(value: bytes, vr: str, codecs: tuple[str, ...]) -> str:
    """Decode the value of a text VR, without its padding.

    Raises
    ------
    Quarantine
        UNSUPPORTED_CHARACTER_SET if the bytes are not text of the character set.
    """
    if value.isascii() and _ESCAPE not in value:
        return value.decode("ascii").rstrip("\0 ")
    if vr not in CHARACTER_SET_VRS:
        return value.decode("iso8859").rstrip("\0 ")
    delimiters = _PERSON_NAME_DELIMITERS if vr == "PN" else _DELIMITERS
    try:
        return _decode(value, codecs, delimiters).rstrip("\0 ")
    except (LookupError, UnicodeError):
        raise Quarantine(Reason.UNSUPPORTED_CHARACTER_SET) from None


def _decode(value: bytes, codecs: tuple[str, ...], delimiters: set[int]) -> str:
    if _ESCAPE in value and len(codecs) > 1:
        # Python's codec for simplified Chinese leaves the escape sequence in the text.
        return decode_bytes(value, list(codecs), delimiters).replace(_SIMPLIFIED_CHINESE_ESCAPE.decode(), "")
    return value.decode(codecs[0])


def split_values(text: str, vr: str) -> list[str]:
    """Split a decoded value into its components without surrounding blanks (PS3.5 section 6.4)."""
    if vr in SINGLE_VALUED_VRS:
        return [text]
    return [component.strip("\0 ") for component in text.split("\\")]


def encode_text(text: str, vr: str, codecs: tuple[str, ...]) -> bytes:
    """Encode text and pad it to an even length.

    Raises
    ------
    Quarantine
        NOT_ENCODABLE if the character set has no such character.
    """
    if text.isascii():
        value = text.encode("ascii")
    elif vr in CHARACTER_SET_VRS:
        value = _encode(text, vr, codecs)
    else:
        raise Quarantine(Reason.NOT_ENCODABLE)
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    return value


def _encode(text: str, vr: str, codecs: tuple[str, ...]) -> bytes:
    """Encode text that is not ASCII, with code extensions for several character sets (PS3.5 section 6.1.2.5)."""
    if len(codecs) == 1:
        try:
            return text.encode(codecs[0])
        except (LookupError, UnicodeError):
            raise Quarantine(Reason.NOT_ENCODABLE) from None
    # Delimiters reset to the first character set, so each part between them is encoded by itself.
    delimiters = _PERSON_NAME_DELIMITERS if vr == "PN" else _DELIMITERS
    pattern = "([" + "".join(re.escape(chr(delimiter)) for delimiter in sorted(delimiters)) + "])"
    try:
        encoded = b"".join(
            part.encode("ascii") if part.isascii() else _with_escapes(part, codecs) for part in re.split(pattern, text)
        )
        is_same = _decode(encoded, codecs, delimiters) == text
    except (LookupError, UnicodeError):
        is_same = False
    if not is_same:
        raise Quarantine(Reason.NOT_ENCODABLE)
    return encoded


def _with_escapes(part: str, codecs: tuple[str, ...]) -> bytes:
    """Encode a part of a text, which is not ASCII, with the escape sequences of its character sets."""
    if _SIMPLIFIED_CHINESE in codecs:
        with suppress(UnicodeError):
            return _SIMPLIFIED_CHINESE_ESCAPE + part.encode("gb2312")
    if codecs[0] == DEFAULT_CHARACTER_SET[0] and _LATIN in codecs:
        # The default repertoire is ASCII; pydicom takes it for Latin-1, which has an escape sequence of its own.
        codecs = ("ascii", *codecs[1:])
    return bytes(encode_string(part, list(codecs)))


def to_python(tag: int, vr: str, value: bytes, encoding: Encoding, codecs: tuple[str, ...]) -> Any:
    """Decode a value as pydicom does: a string, a number, bytes, or a list of them."""
    raw = RawDataElement(BaseTag(tag), vr, len(value), value, 0, encoding.implicit, not encoding.big_endian)
    converted = convert_value(vr, raw, list(codecs))
    if _SIMPLIFIED_CHINESE in codecs and _ESCAPE in value and vr in CHARACTER_SET_VRS and vr != "PN":
        parts = [part.replace(_SIMPLIFIED_CHINESE_ESCAPE.decode(), "") for part in texts(converted)]
        return parts if isinstance(converted, MultiValue) else parts[0]
    return converted


def texts(value: Any) -> list[str]:
    """Return the components of a value decoded by :func:`to_python`, as text."""
    if value is None:
        return [""]
    return [str(one) for one in value] if isinstance(value, MultiValue | list) else [str(value)]


def from_python(tag: int, vr: str, value: Any, encoding: Encoding, codecs: tuple[str, ...]) -> bytes:
    """Encode a Python value as pydicom does: the result of a function, or a literal of a VR that is not text.

    Raises
    ------
    Quarantine
        INVALID_REPLACEMENT if the VR cannot hold the value.
    """
    if vr in TEXT_VRS:
        parts = value if isinstance(value, list | tuple | MultiValue) else [value]
        if all(isinstance(part, str | int | float) for part in parts):
            return encode_text(join_values([str(part) for part in parts]), vr, codecs)
    buffer = DicomBytesIO()
    buffer.is_little_endian = not encoding.big_endian
    # The header is written in implicit VR, and so are the items of a sequence unless their encoding is explicit.
    buffer.is_implicit_VR = vr != "SQ" or encoding.implicit
    try:
        write_data_element(buffer, DataElement(Tag(tag), vr, value), list(codecs))
    except Exception:
        # pydicom's message may contain the value.
        raise Quarantine(Reason.INVALID_REPLACEMENT) from None
    return buffer.getvalue()[8 if buffer.is_implicit_VR else 12 :]


def cast_literal(text: str, vr: str) -> str | float | int | bytes:
    """Convert a literal of a recipe to the Python type of a VR.

    Raises
    ------
    ValueError
        If the VR cannot hold it.
    """
    if vr in FLOAT_VRS:
        return float(text)
    if vr in INTEGER_VRS:
        return int(text)
    if vr in BYTES_VRS:
        return text.encode()
    return text


def join_values(values: Sequence[str]) -> str:
    """Join components into one value (PS3.5 section 6.4)."""
    return "\\".join(values)
