"""Text of held objects for a reviewer: residuals, content trees, and what is wrong with an unreadable object."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import BinaryIO, NamedTuple

from pydicom.dataset import Dataset
from pydicom.filereader import dcmread, read_partial
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from dicom_deid.database.quarantine import OFFSET
from dicom_deid.dicom.tags import tag_text
from dicom_deid.dicom.vr import is_vr
from dicom_deid.engine import Deidentifier
from dicom_deid.exceptions import DicomDeidError, Quarantine
from dicom_deid.objects import SourceObject, SourceRange
from dicom_deid.objectstore import ObjectStore
from dicom_deid.pipeline.changes import ChangeKind, Elements, changes_between, read_elements
from dicom_deid.pipeline.configuration import RunConfiguration
from dicom_deid.pipeline.engine import make_deidentifier
from dicom_deid.pipeline.fetch import fetch_object
from dicom_deid.pipeline.object_file import open_object
from dicom_deid.pipeline.preview_pseudonyms import PreviewPseudonyms
from dicom_deid.reasons import Reason

_TOKEN = re.compile(r"[^\W_]+")
_SHORTEST = 3
_MASK = "█"
_MAX_TEXT = 2000
_MAX_ITEMS = 2000


_VIEWS = {
    Reason.PIXEL_RISK: "image",
    Reason.BURNED_IN_ANNOTATION: "image",
    Reason.RECOGNIZABLE_VISUAL_FEATURES: "image",
    Reason.FACE_POSSIBLE: "image",
    Reason.VIDEO: "image",
    Reason.GRAPHIC_CONTENT: "image",
    Reason.ENCAPSULATED_DOCUMENT: "document",
    Reason.STRUCTURED_CONTENT: "report",
    Reason.RESIDUAL_FOUND: "residual",
}

_FILE = "PS3.10 section 7.1: a file begins with a preamble of 128 bytes and the prefix DICM."
_STANDARD = {
    Reason.EMPTY_OBJECT: _FILE,
    Reason.NOT_DICOM: _FILE,
    Reason.DICOMDIR: "PS3.10 section 8.6: a DICOMDIR holds the directory of a file-set, no SOP instance.",
    Reason.TRUNCATED: (
        "PS3.5 section 7.1: as many bytes of value follow as Value Length says; section 7.5: a sequence or item of "
        "undefined length ends with a delimitation item."
    ),
    Reason.MALFORMED: (
        "PS3.5 section 7.1: an element is a tag, a VR if the transfer syntax is explicit, a length and a value of that "
        "length, in ascending order of tags; section 6.2: which values a VR allows; section 7.5: how sequences nest."
    ),
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: "PS3.5 section 10 and annex A: the transfer syntaxes of the standard.",
    Reason.UNSUPPORTED_CHARACTER_SET: "PS3.3 section C.12.1.1.2: the character sets of the standard.",
    Reason.PIXEL_DATA_UNREADABLE: "PS3.5 section 8 and annex A.4: native and encapsulated pixel data.",
    Reason.MISSING_IDENTIFIER: (
        "PS3.3 sections C.12.1, C.7.2.1 and C.7.3.1: SOPInstanceUID, StudyInstanceUID and SeriesInstanceUID have a "
        "value (type 1)."
    ),
}
_PIXEL_DATA = 0x7FE00008
_UNDEFINED = 0xFFFFFFFF


def kind_of_view(reason: Reason) -> str:
    """Return how objects held for a reason are shown: `image`, `document`, `report`, `residual` or `unreadable`."""
    return _VIEWS.get(reason, "unreadable")


def review_deidentifier(configuration: RunConfiguration) -> Deidentifier:
    """Return the engine of a run with the policies for residuals, pixels and documents off."""
    settings = configuration.settings.replace(
        residuals="off", pixel_risk="allow", check_masks="none", documents="allow", faces="allow"
    )
    return make_deidentifier(configuration.replace(settings=settings))


class NotReviewable(DicomDeidError):
    """The object cannot be shown; the message says why, without a value."""


@dataclass(frozen=True, slots=True)
class ResidualText:
    """An element that the rules leave and that holds text of a value which they remove or replace.

    Parameters
    ----------
    path, name
        The element.
    sources
        Names of the elements whose values it repeats.
    masked
        Its text with these values masked.
    text
        Its text: PHI.
    """

    path: str
    name: str
    sources: tuple[str, ...]
    masked: str
    text: str = field(repr=False)


class ContentLine(NamedTuple):
    """One content item of a structured report, as the rules would leave it."""

    level: int
    value_type: str
    concept: str
    text: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What is wrong with an object that the engine cannot read, and how far pydicom reads it.

    Parameters
    ----------
    offset
        Byte at which the engine stopped; None if the object as a whole is refused.
    element
        The beginning of the element there, as it is encoded: tag, VR, length, and how many bytes follow.
    standard
        What the standard says, with the section; empty if the limit is ours.
    elements
        Elements of the root data set that pydicom read.
    last
        Tag and VR of the last one, and the byte where its value begins.
    error
        Type of the exception that pydicom raised; empty if it read the header without one.
    message
        Message of the exception: may hold values, PHI.
    """

    offset: int | None
    element: str
    standard: str
    elements: int
    last: str
    error: str
    message: str = field(repr=False)


def residual_texts(deidentifier: Deidentifier, storage: ObjectStore, stored: SourceObject) -> list[ResidualText]:
    """Return the elements of an object that repeat values which the rules remove or replace.

    Parameters
    ----------
    deidentifier
        See `review_deidentifier`.
    storage, stored
        The object.

    Raises
    ------
    NotReviewable
        The object cannot be read or rewritten.
    """
    before, header = _rewritten(deidentifier, storage, stored)
    after = read_elements(header, before)
    changed = [change for change in changes_between(before, after) if change.kind is not ChangeKind.ADDED]
    sources: dict[str, set[str]] = {}
    for change in changed:
        for text in before[change.path].texts:
            for token in _TOKEN.findall(text):
                if len(token) >= _SHORTEST:
                    sources.setdefault(token.casefold(), set()).add(change.name)
    touched = {change.path for change in changed}
    return list(_residuals(before, touched, sources))


def _residuals(before: Elements, touched: set[str], sources: Mapping[str, set[str]]) -> Iterator[ResidualText]:
    for path, element in before.items():
        text = "\\".join(element.texts)[:_MAX_TEXT]
        if path in touched or element.vr == "UI" or not text:
            continue
        found: set[str] = set()

        def mask(token: re.Match[str], found: set[str] = found) -> str:
            named = sources.get(token[0].casefold(), set())
            found.update(named)
            return _MASK * len(token[0]) if named else token[0]

        masked = _TOKEN.sub(mask, text)
        if found:
            yield ResidualText(path, element.name, tuple(sorted(found)), masked, text)


def content_tree(deidentifier: Deidentifier, storage: ObjectStore, stored: SourceObject) -> list[ContentLine]:
    """Return the content items of a structured report as the rules would leave them (PS3.3 section C.17.3).

    Parameters
    ----------
    deidentifier
        As for `residual_texts`.
    storage, stored
        The object.

    Raises
    ------
    NotReviewable
        The object cannot be read or rewritten, or has no content tree.
    """
    _, header = _rewritten(deidentifier, storage, stored)
    try:
        report = dcmread(io.BytesIO(header), stop_before_pixels=True, force=True)
    except Exception:
        # Messages of pydicom may hold values.
        raise NotReviewable("The header cannot be read by pydicom.") from None
    lines = list(islice(_content(report, 0), _MAX_ITEMS + 1))
    if len(lines) > _MAX_ITEMS:
        lines[-1] = ContentLine(0, "", f"More items follow; only the first {_MAX_ITEMS:,} are shown.", "")
    return lines


def _content(item: Dataset, level: int) -> Iterator[ContentLine]:
    if "ValueType" in item:
        yield ContentLine(level, str(item.ValueType), _meaning(item, "ConceptNameCodeSequence"), _value_text(item))
    for each in item.get("ContentSequence") or ():
        yield from _content(each, level + 1)


def _value_text(item: Dataset) -> str:
    for keyword in ("TextValue", "PersonName", "DateTime", "Date", "Time", "UID"):
        if item.get(keyword):
            return str(item.get(keyword))[:_MAX_TEXT]
    for measured in item.get("MeasuredValueSequence") or ():
        return f"{measured.get('NumericValue', '')} {_meaning(measured, 'MeasurementUnitsCodeSequence')}".strip()
    return _meaning(item, "ConceptCodeSequence")


def _meaning(item: Dataset, keyword: str) -> str:
    for each in item.get(keyword) or ():
        return str(each.get("CodeMeaning") or each.get("CodeValue") or "")
    return ""


def read_unreadable(storage: ObjectStore, stored: SourceObject, reason: Reason, detail: str = "") -> Unreadable:
    """Return what is wrong with an object, and how far pydicom reads its header.

    Parameters
    ----------
    storage, stored
        The object.
    reason, detail
        Why it is held, and where, as in the audit.

    Raises
    ------
    NotReviewable
        The object is gone, or another by now.
    """
    found = OFFSET.search(detail)
    offset = int(found[1]) if found else None
    reached: list[tuple[int, str | None, int]] = []
    error = message = ""
    try:
        file = open_object(storage, stored)
        element = "" if offset is None else _encoded_element(file, offset, stored.size)
        file.seek(0)

        def reach(tag: int, vr: str | None, _length: int) -> bool:
            reached.append((int(tag), vr, file.tell()))
            return int(tag) >= _PIXEL_DATA

        read_partial(file, stop_when=reach, force=True)
    except Quarantine as quarantine:
        raise NotReviewable(f"The object cannot be read: {quarantine.reason.advice.meaning}") from None
    except DicomDeidError:
        raise
    except Exception as problem:
        error, message = type(problem).__name__, str(problem)[:_MAX_TEXT]
    last = ""
    if reached:
        tag, vr, position = reached[-1]
        last = f"{tag_text(tag)}{f' {vr}' if vr else ''}, its value at byte {position}"
    return Unreadable(offset, element, _STANDARD.get(reason, ""), len(reached), last, error, message)


def _encoded_element(file: BinaryIO, offset: int, size: int) -> str:
    """Return tag, VR and length of the element at an offset, in little endian; empty where no element begins."""
    file.seek(offset)
    start = file.read(12)
    if len(start) < 8:
        return f"{len(start)} bytes are left of {size}, too few for an element"
    group, element = struct.unpack_from("<HH", start)
    vr, length = "", struct.unpack_from("<I", start, 4)[0]
    if is_vr(start[4:6]):
        vr = f" {start[4:6].decode('ascii')}"
        is_long = length >> 16 == 0 and len(start) == 12 and start[4:6].decode("ascii") in EXPLICIT_VR_LENGTH_32
        length = struct.unpack_from("<I", start, 8)[0] if is_long else length >> 16
    text = "undefined" if length == _UNDEFINED else f"{length} bytes"
    return f"({group:04x},{element:04x}){vr}, length {text}; {size - offset} of {size} bytes are left"


def _rewritten(deidentifier: Deidentifier, storage: ObjectStore, stored: SourceObject) -> tuple[Elements, bytes]:
    """Return the header of an object as it is, and encoded as the rules would leave it."""
    try:
        fetched = fetch_object(
            deidentifier, storage, stored.key, size=stored.size, etag=stored.etag, version_id=stored.version_id
        )
        pseudonyms = PreviewPseudonyms().resolve(fetched.analysis.identifiers)
        result = deidentifier.rewrite(fetched.analysis, pseudonyms)
        header = b"".join(part for part in result.parts if not isinstance(part, SourceRange))
        return read_elements(bytes(fetched.data)), header
    except Quarantine as quarantine:
        raise NotReviewable(f"The object cannot be shown: {quarantine.reason.advice.meaning}") from None
