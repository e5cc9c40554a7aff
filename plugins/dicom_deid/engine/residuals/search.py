"""The residual search: values that the rules removed or replaced, searched in what they left.

A hit counts where it is a word of its own ("Ann" does not match "Annular") in free text, in an identifier, or in
private or unknown bytes. The recipe decides on coded values, and on dates and UIDs in elements of their own VR. What a
rule wrote is not searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from pydicom.datadict import keyword_for_tag

from dicom_deid.dicom.tags import is_private, tag_text
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.vr import CHARACTER_SET_VRS, LONG_FORM_VRS, vr_of
from dicom_deid.dicom.walk import ItemContext, RuleEdit
from dicom_deid.engine.element_refs import ROOT, ElementRef, Within, iter_elements
from dicom_deid.engine.handlers.basic import ObjectWalk
from dicom_deid.engine.handlers.private import NotInSegmentError
from dicom_deid.engine.pixels.codestream import beside_pictures
from dicom_deid.engine.residuals.boundaries import Hit, extent
from dicom_deid.engine.residuals.matcher import MAX_HITS, matches
from dicom_deid.engine.residuals.spellings import ESCAPES, WordBoundary
from dicom_deid.engine.residuals.terms import (
    SearchTerm,
    SearchTerms,
    TermKind,
    kind_of,
    terms_of,
    vr_of_original,
)
from dicom_deid.engine.segments import Segment
from dicom_deid.engine.shared_headers import SharedHeader
from dicom_deid.recipe import ElementName

# How a changed element is searched: not at all, as one value, as a sequence or an item of structured content, by the
# day of a date and time, as a UID, or as the UID of an instance.
_NONE, _VALUE, _SEQUENCE, _DATE_TIME, _UID, _INSTANCE_UID = range(6)
# Of an instance there is one; its UID would give every object patterns of its own.
_INSTANCE_UIDS = frozenset((0x00080018, 0x00081155))
_ITEM = 0xFFFEE000
_STANDARD_ROOT = b"1.2.840.10008."
_FREE_TEXT_VRS = CHARACTER_SET_VRS | {"AE", "OB", "OW", "UN", "UR"}
# Longer values are no names, identifiers or addresses; longer sequences are read again for each object.
_MAX_ORIGINAL, _MAX_CACHED = 1024, 4096
_MIN_UID = 9
# A search copies this many bytes at a time; the longest original and the words beside it are shorter than the overlap.
_BLOCK, _OVERLAP = 2**24, 2**16
_CHARACTER_SET, _SOP_INSTANCE_UID, _PIXEL_DATA = 0x00080005, 0x00080018, 0x7FE00010
# UIDs with so many beginnings are found sooner by these than by an automaton that has to be built first.
_FEW_BEGINNINGS = 32
_STRUCTURED_VRS = frozenset({"DA", "DT", "TM", "UI"})
_CODED_VRS = frozenset({"AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"})
# The characters that these may have (PS3.5 section 6.2), with those of older editions and common mistakes in case and
# delimiters; a value with any other is text.
_CODE_CHARACTERS = {
    vr: re.compile(rb"[\\ \0%b]*" % characters)
    for vr, characters in {
        "AS": rb"0-9DWMY",
        "CS": rb"A-Za-z0-9_./-",
        "DA": rb"0-9.-",
        "DS": rb"0-9+.eE-",
        "DT": rb"0-9+.&TZ:-",
        "IS": rb"0-9+-",
        "TM": rb"0-9.:-",
        "UI": rb"0-9.",
    }.items()
}
# Values of binary numbers, in which a short name is a coincidence.
_NUMBER_VRS = frozenset({"AT", "FD", "FL", "OD", "OF", "OL", "OV", "SL", "SS", "SV", "UL", "US", "UV"})
_MIN_IN_NUMBERS, _MAX_TEXT_IN_NUMBERS = 6, 1024
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\xa0-\xff]{4,}[\0 ]*")
# Text in other bytes, in UTF-16 too, and how far beside a hit it is looked for.
_TEXT_WITHIN, _BESIDE = re.compile(rb"\0?(?:[\t\n\r\x20-\x7e\xa0-\xff]\0?){8,}"), 16
_CODED_KEYWORDS = frozenset(
    (
        *("CodeValue", "LongCodeValue", "URNCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion"),
        *("CodingSchemeName", "CodingSchemeResponsibleOrganization", "CodingSchemeExternalID", "MappingResource"),
        *("MappingResourceName", "ContextIdentifier", "TemplateIdentifier"),
    )
)
_DEVICE_KEYWORDS = frozenset(("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber"))
_DEVICE_TAGS = {
    "little": (b"\x08\0\x70\0", b"\x08\0\x90\x10", b"\x18\0\0\x10", b"\x18\0\x20\x10"),
    "big": (b"\0\x08\0\x70", b"\0\x08\x10\x90", b"\0\x18\x10\0", b"\0\x18\x10\x20"),
}
_MIN_WHOLE_IDENTIFIER = 6
_PATIENT_GROUP = 0x0010
_IDENTIFYING = (TermKind.IDENTIFIER, TermKind.PLACE, TermKind.NAME)
# So many searches are kept per segment.
_MAX_FOUND = 16
# A character that masks another in the two-byte modes of ISO 2022, by the escape sequence before it.
_TWO_BYTE_MASKS = {b"\x1b$B": b"\x21\x76", b"\x1b$@": b"\x21\x76", b"\x1b$(D": b"\x22\x37"}


# Elements of one item that changed, whether their VRs are implicit, whether their byte order is big endian, codecs.
ChangedElements = tuple[Sequence[bytes], bool, bool, tuple[str, ...]]


class ChangedInSegment:
    """Elements that changed in a segment, their size in bytes, and the UIDs that are the object's own.

    It is the key of what is read from them, compared by identity.
    """

    __slots__ = ("elements", "size", "uids")

    def __init__(self, elements: tuple[ChangedElements, ...], uids: frozenset[bytes]) -> None:
        self.elements = elements
        self.size = _size(elements)
        self.uids = uids


class FoundInSegment(NamedTuple):
    """Hits of terms in what the rules left of a segment, and those of them that count."""

    hits: tuple[Hit, ...] = ()
    residuals: tuple[Residual, ...] = ()


_NOTHING = FoundInSegment()


class FoundInSegments(NamedTuple):
    """Hits in each of several segments, their number, and the residuals of the segments that have any."""

    each: Sequence[FoundInSegment]
    number: int
    residuals: Mapping[Segment, tuple[Residual, ...]]

    @classmethod
    def of(cls, segments: Iterable[Segment], each: Sequence[FoundInSegment]) -> FoundInSegments:
        """Return what was found in segments, given what was found in each."""
        residuals = {one: found.residuals for one, found in zip(segments, each, strict=True) if found.residuals}
        return cls(each, sum([len(found.hits) for found in each]), residuals)


_NOTHING_IN_SEGMENTS = FoundInSegments((), 0, {})


class Residual(NamedTuple):
    """An original value that is found where no rule reached.

    Parameters
    ----------
    listed
        The element that holds it.
    start, end
        Where it is, in bytes of the object.
    term
        What was found, and the element that it came from.
    """

    listed: ElementRef
    start: int
    end: int
    term: SearchTerm


class RemovedValues(NamedTuple):
    """Values that the rules removed from an object, and the terms that are searched for.

    Parameters
    ----------
    terms
        The search terms.
    patient_terms
        Those that the patient's other objects are searched for too.
    codecs
        The object's character sets.
    uids
        The UIDs of its own: of the instance, and of those that its sequences refer to. They are searched apart, so
        that the objects of a study share their automaton.
    """

    terms: SearchTerms
    patient_terms: SearchTerms = frozenset()
    codecs: tuple[str, ...] = ()
    uids: frozenset[bytes] = frozenset()


def removed_values(*walks: ObjectWalk) -> RemovedValues:
    """Return the search terms and the UIDs that the rules remove from the walked parts of an object."""
    changed: list[ChangedElements] = []
    segments: list[ChangedInSegment] = []
    uids: set[bytes] = set()
    for walk in walks:
        in_segments = _changed_in_segments(walk)
        segments += in_segments
        uids.update(*[one.uids for one in in_segments])
        _collect(walk, changed, uids)
    is_long = _size(changed) + sum([one.size for one in segments]) > _MAX_CACHED
    read = _joined if is_long else _removed_of_study
    removed = read(tuple([(tuple(one[0]), *one[1:]) for one in changed if one[0]]), tuple(segments))
    if len(uids) > _FEW_BEGINNINGS and len(_beginnings(uids)) > _FEW_BEGINNINGS:
        more = {SearchTerm(TermKind.UID, uid.decode("iso8859"), _SOP_INSTANCE_UID) for uid in uids}
        return removed._replace(terms=removed.terms | more)
    return removed._replace(uids=frozenset(uids)) if uids else removed


def find_residuals(
    walk: ObjectWalk, start: int, end: int, encoding: Encoding, removed: RemovedValues, within: Within = ROOT
) -> list[Residual]:
    """Search original values in what the rules left of a walked object.

    Parameters
    ----------
    walk
        The walk, whose edits say what changes.
    start, end
        Where the data set lies.
    encoding
        How its elements are encoded.
    removed
        What is searched for.
    within
        The sequence that the elements are in.

    Returns
    -------
    list of Residual
        In the order of the bytes; those in pixel data follow. The search stops after `MAX_HITS`.
    """
    if walk.segments or walk.shared:
        found = _with_segments(walk, (start, end), encoding, removed)
    else:
        found = _in_data_set(walk, start, end, encoding, removed, within)
    return found + in_pixel_data(walk, encoding, removed) if walk.encapsulated else found


def _in_data_set(
    walk: ObjectWalk, start: int, end: int, encoding: Encoding, removed: RemovedValues, within: Within
) -> list[Residual]:
    found: dict[tuple[int, int], Residual] = {}
    for pieces in _blocks(_left(walk, start, end)):
        searched = b"\0".join([walk.data[first:last] for first, last in pieces]).lower()
        uid_hits = list(_uid_hits(searched, removed.uids))
        hits = matches(searched, removed.terms, removed.codecs, MAX_HITS)
        verified = _verified(walk, start, end, encoding, hits + uid_hits, pieces, within)
        if len(hits) > MAX_HITS >= len(verified):
            # Most are parts of other words: those behind them count.
            hits = matches(searched, removed.terms, removed.codecs)
            verified = _verified(walk, start, end, encoding, hits + uid_hits, pieces, within)
        found |= {(residual.start, residual.end): residual for residual in verified}
        if len(found) > MAX_HITS:
            break
    return list(found.values())


def in_pixel_data(walk: ObjectWalk, encoding: Encoding, removed: RemovedValues) -> list[Residual]:
    """Search the comments of compressed frames, and what follows their codestreams; see `beside_pictures`.

    Parameters
    ----------
    walk
        The walk over the object.
    encoding
        How its elements are encoded.
    removed
        What is searched for.

    Returns
    -------
    list of Residual
        Each is a whole comment, which no reader needs, or what was found in bytes that may be picture.
    """
    pieces, (start, end) = walk.beside_pictures, walk.pixel_data or (0, 0)
    if pieces is None:
        if end is None or any(edit.start <= start < edit.end and not edit.is_searched for edit in walk.edits):
            return []
        pieces = walk.beside_pictures = beside_pictures(walk.data, start, end)
    element = ElementName.of(_PIXEL_DATA, vr="OB")
    found: dict[tuple[bytes, bool], list[Hit]] = {}
    residuals = []
    for at, data, is_apart in pieces:
        if (data, is_apart) not in found:
            found[data, is_apart] = _hits_in_piece(data, removed, is_apart=is_apart)
        hits, listed = found[data, is_apart], ElementRef(element, at, at + len(data), encoding, removed.codecs)
        if hits and is_apart:
            residuals.append(Residual(listed, at, at + len(data), hits[0].term))
        else:
            residuals += [Residual(listed, at + hit.start, at + hit.end, hit.term) for hit in hits]
    return residuals


def _hits_in_piece(piece: bytes, removed: RemovedValues, *, is_apart: bool) -> list[Hit]:
    """Return the hits in a piece of pixel data that count, with their extents; short ones only in text of a comment."""
    text = piece.lower()
    found = []
    for hit in [*matches(text, removed.terms, removed.codecs, MAX_HITS), *_uid_hits(text, removed.uids)]:
        if hit.end - hit.start < _MIN_IN_NUMBERS and not (is_apart and _is_in_text(piece, hit)):
            continue
        reach = extent(piece, hit, 0, len(piece), removed.codecs)
        if reach is not None:
            found.append(hit._replace(start=reach[0], end=reach[1]))
    return found


def _is_in_text(piece: bytes, hit: Hit) -> bool:
    """Return whether a hit is in bytes that read as text, as all of a piece or within it."""
    first, last = max(hit.start - _BESIDE, 0), hit.end + _BESIDE
    texts = _TEXT_WITHIN.finditer(piece, first, last)
    return _TEXT.fullmatch(piece) is not None or any(
        text.start() <= hit.start and hit.end <= text.end() for text in texts
    )


def _with_segments(
    walk: ObjectWalk, span: tuple[int, int], encoding: Encoding, removed: RemovedValues
) -> list[Residual]:
    """Search an object with segments.

    Raises
    ------
    NotInSegmentError
        If there are so many hits, or so many bytes, that the search goes on in parts.
    """
    blocks = list(_blocks(_left(walk, *span)))
    if len(blocks) > 1:
        raise NotInSegmentError
    pieces = blocks[0] if blocks else []
    own = b"\0".join([walk.data[first:last] for first, last in pieces]).lower()
    key = removed.terms, removed.codecs
    header = None if walk.shared is None else walk.shared[0]
    of_header = [] if header is None else header.segments
    segments = [*of_header, *dict.fromkeys([edit.segment for edit in walk.segments or ()])]
    number = len(of_header)
    known = _NOTHING_IN_SEGMENTS if header is None else header.found.get(key)
    hits, in_segments = _term_hits(own, segments if known is None else segments[number:], key)
    if header is not None and known is None:
        known = FoundInSegments.of(of_header, in_segments[:number])
        in_segments = in_segments[number:]
        _keep(header.found, key, known)
    others = FoundInSegments.of(segments[number:], in_segments)
    if len(hits) + known.number + others.number > MAX_HITS:
        raise NotInSegmentError
    verified: Mapping[Segment, Sequence[Residual]] = {**known.residuals, **others.residuals}
    if removed.uids:
        left = () if header is None else (_left_of_header(header),)
        text = b"\0".join([own, *left, *map(_left_of, segments[number:])])
        more = list(_uid_hits(text, removed.uids))
        if more:
            of_own, *of_segments = _divided(more, [own, *map(_left_of, segments)])
            hits += of_own
            both = zip(segments, [*known.each, *in_segments], of_segments, strict=True)
            with_uids = [_found_in(one, [*found.hits, *uids]) if uids else found for one, found, uids in both]
            verified = FoundInSegments.of(segments, with_uids).residuals
    residuals = _verified(walk, *span, encoding, hits, pieces)
    return sorted(residuals + _of_object(verified, walk, span, encoding), key=_position) if verified else residuals


def _term_hits(
    own: bytes, segments: Sequence[Segment], key: tuple[SearchTerms, tuple[str, ...]]
) -> tuple[list[Hit], list[FoundInSegment]]:
    """Return where terms are found in the bytes of an object, and in those of each of its segments.

    The objects of a series have the same segments and terms: what is found in these is kept.

    Raises
    ------
    NotInSegmentError
        If there are so many hits that the search goes on in parts.
    """
    new = [segment for segment in segments if key not in segment.found]
    texts = [own, *map(_left_of, new)]
    hits = matches(b"\0".join(texts), *key, MAX_HITS)
    in_new: dict[Segment, FoundInSegment] = {}
    if new and len(hits) <= MAX_HITS:
        hits, *of_segments = _divided(hits, texts)
        in_new = {one: _found_in(one, hits) for one, hits in zip(new, of_segments, strict=True)}
    # Other threads may have removed what was there before.
    in_segments = [in_new.get(one) or one.found.get(key) for one in segments]
    found = [one for one in in_segments if one is not None]
    if len(found) < len(segments) or len(hits) > MAX_HITS:
        raise NotInSegmentError
    for segment in new:
        _keep(segment.found, key, in_new[segment])
    return hits, found


def _keep(found: dict[Any, Any], key: Any, value: Any) -> None:
    if len(found) >= _MAX_FOUND:
        found.clear()
    found[key] = value


def _divided(hits: Iterable[Hit], texts: Sequence[bytes]) -> list[list[Hit]]:
    """Return the hits in texts joined by one byte, by the text that they lie in, with their position in it."""
    divided, begin = [], 0
    for text in texts:
        end = begin + len(text)
        inside = [hit for hit in hits if begin <= hit.start and hit.end <= end]
        divided.append([hit._replace(start=hit.start - begin, end=hit.end - begin) for hit in inside])
        begin = end + 1
    return divided


def _position(residual: Residual) -> tuple[int, int]:
    return residual.start, residual.end


def _of_object(
    in_segments: Mapping[Segment, Sequence[Residual]], walk: ObjectWalk, span: tuple[int, int], encoding: Encoding
) -> list[Residual]:
    """Return what was found in segments with its position in the object."""
    edits = [*(walk.segments or ()), *(() if walk.shared is None else walk.shared[1])]
    residuals = [_shifted(one, edit.start) for edit in edits for one in in_segments.get(edit.segment, ())]
    devices = _device_names(walk, *span, encoding, [one.term for one in residuals])
    return [one for one in residuals if one.term.kind is not TermKind.PLACE or one.term.text.casefold() not in devices]


def _left_of(segment: Segment) -> bytes:
    """Return the bytes that the rules left of a segment, in lower case."""
    if segment.left is None:
        pieces = _left(segment.walk, 0, segment.length)
        segment.left = b"\0".join([segment.walk.data[first:last] for first, last in pieces]).lower()
    return segment.left


def _left_of_header(header: SharedHeader) -> bytes:
    """Return the bytes that the rules left of the segments of a shared header, in lower case."""
    if header.left is None:
        header.left = b"\0".join(map(_left_of, header.segments))
    return header.left


def _found_in(segment: Segment, hits: Sequence[Hit]) -> FoundInSegment:
    """Verify hits in what the rules left of a segment."""
    if not hits:
        return _NOTHING
    walk, context = segment.walk, segment.context
    encoding = Encoding(context.implicit, context.order.big_endian)
    pieces, within = _left(walk, 0, segment.length), Within(context.path, context.name, segment.codecs)
    return FoundInSegment(tuple(hits), tuple(_verified(walk, 0, segment.length, encoding, hits, pieces, within)))


def _shifted(residual: Residual, by: int) -> Residual:
    (element, start, end, encoding, codecs), first, last, term = residual
    return Residual(ElementRef(element, start + by, end + by, encoding, codecs), first + by, last + by, term)


def redacted(data: bytes, residuals: Iterable[Residual]) -> bytes:
    """Return an object with an asterisk in place of each character of the residuals.

    Escape sequences stay: what follows a residual is read by them. In the two-byte modes of ISO 2022 (JIS X 0208 and
    0212) a pair of bytes is a character: it becomes another of the same set, so that the text stays valid.
    """
    new = bytearray(data)
    for residual in residuals:
        start, end = residual.start, residual.end
        new[start:end] = _masked(data[residual.listed.start : start], data[start:end])
    return bytes(new)


def _masked(before: bytes, text: bytes) -> bytes:
    """Return what takes the place of a text, given what is before it in its value."""
    escape = before.rfind(b"\x1b")
    found = ESCAPES.match(before, escape) if escape >= 0 else None
    mode, pieces = found[0] if found else b"", []
    for piece in re.split(b"(%b)" % ESCAPES.pattern, text):
        if ESCAPES.fullmatch(piece):
            mode = piece
            pieces.append(piece)
            continue
        pair = _TWO_BYTE_MASKS.get(mode)
        pieces.append((pair * len(piece))[: len(piece)] if pair else bytes(byte and 0x2A for byte in piece))
    return b"".join(pieces)


def repeats_identifier(residual: Residual) -> bool:
    """Tell whether a residual is what an identifier is made of: redacted, it leaves nothing of the person.

    Information systems write the accession number into each identifier of an order, users the name of the station as
    that of the operator, and devices the date into the identifier of a procedure step. The whole value of an element
    for the same kind of value counts, a name that is a whole identifier or place, and a date in an identifier.
    """
    found, kind = residual.listed, residual.term.kind
    of_element = kind_of(found.element.tag, found.element.vr)
    if of_element in _IDENTIFYING and kind in (of_element, TermKind.NAME):
        return found.end - found.start - (residual.end - residual.start) < 2
    return kind is TermKind.DATE and of_element is TermKind.IDENTIFIER


def is_in_pixel_data(residual: Residual) -> bool:
    """Tell whether a residual is in a comment of a compressed frame, or after its codestream."""
    return residual.listed.element.tag == _PIXEL_DATA and residual.listed.element.root


def where(residual: Residual) -> str:
    """Say in which element a residual is, and which element it came from."""
    element = residual.listed.element
    origin = keyword_for_tag(residual.term.tag) or tag_text(residual.term.tag)
    return f"{element.nested_name or tag_text(element.tag)}, original value of {origin}"


# Search terms, and the places that are searched


def _changed_in_segments(walk: ObjectWalk) -> list[ChangedInSegment]:
    changed = [edit.segment.removed or _of_segment(edit.segment) for edit in walk.segments or ()]
    if walk.shared is not None:
        header = walk.shared[0]
        changed.append(header.removed or _of_header(header))
    return changed


def _collect(walk: ObjectWalk, changed: list[ChangedElements], uids: set[bytes]) -> None:
    """Add the changed elements that hold search terms, but in segments, and the UIDs that are the object's own."""
    data = walk.data
    last: ItemContext | None = None
    elements: list[bytes] = []
    for edit in walk.edits:
        start, end = edit.start, edit.end
        if end - start < 10 or edit.is_searched or not isinstance(edit, RuleEdit):
            continue
        item_context = edit.item_context
        if item_context is not last:
            last, elements = item_context, []
            context = item_context.context
            big_endian, head_length = context.order.big_endian, 4 if context.implicit else 6
            changed.append((elements, context.implicit, big_endian, item_context.codecs))
        if data[start + big_endian] & 1:
            # A private element is removed for what it is, not for what it holds.
            continue
        role, value = _role(data[start : start + head_length], context.implicit, big_endian)
        if role == _NONE:
            continue
        if role == _DATE_TIME:
            # Of a time only the day is searched, which a study's objects share.
            end = min(start + value + 8, end)
        if role == _INSTANCE_UID or (role == _UID and context.path):
            uids.update(uid for uid in data[start + value : end].rstrip(b"\0 ").split(b"\\") if _is_own_uid(uid))
        elif role == _SEQUENCE or end - start < _MAX_ORIGINAL:
            elements.append(data[start:end])


def _of_segment(segment: Segment) -> ChangedInSegment:
    changed: list[ChangedElements] = []
    uids: set[bytes] = set()
    _collect(segment.walk, changed, uids)
    elements = tuple([(tuple(one[0]), *one[1:]) for one in changed if one[0]])
    segment.removed = found = _changed_in_segment(elements, frozenset(uids))
    return found


def _of_header(header: SharedHeader) -> ChangedInSegment:
    of_segments = [segment.removed or _of_segment(segment) for segment in header.segments]
    elements = tuple([each for one in of_segments for each in one.elements])
    header.removed = found = _changed_in_segment(elements, frozenset().union(*[one.uids for one in of_segments]))
    return found


# Segments that are made again change the same.
_changed_in_segment = lru_cache(maxsize=1024)(ChangedInSegment)


def _size(changed: Iterable[ChangedElements]) -> int:
    return sum([len(one) for elements, *_ in changed for one in elements])


@lru_cache(maxsize=8192)
def _role(head: bytes, implicit: bool, big_endian: bool) -> tuple[int, int]:
    """Return how an element is searched that begins so, and where its value begins."""
    order: Literal["big", "little"] = "big" if big_endian else "little"
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
    if tag == _ITEM:
        return _SEQUENCE, 8
    explicit_vr = "" if implicit else head[4:].decode("iso8859")
    vr = vr_of_original(tag, explicit_vr)
    value = 12 if explicit_vr in LONG_FORM_VRS else 8
    kind = kind_of(tag, vr)
    if tag in _INSTANCE_UIDS:
        return _INSTANCE_UID, value
    roles = {"SQ": _SEQUENCE, "DT": _DATE_TIME, "UI": _UID}
    return roles.get(vr, _NONE if kind is None else _VALUE), value


def _is_own_uid(uid: bytes) -> bool:
    return len(uid) >= _MIN_UID and not uid.startswith(_STANDARD_ROOT)


def _joined(changed: tuple[ChangedElements, ...], segments: tuple[ChangedInSegment, ...]) -> RemovedValues:
    """Return the search terms in changed elements, and the character sets of these."""
    changed = (*changed, *(elements for one in segments for elements in one.elements))
    terms: set[SearchTerm] = set()
    for elements, implicit, big_endian, codecs in changed:
        for one in elements:
            read = _terms_of_element if len(one) <= _MAX_ORIGINAL else terms_of
            terms.update(read((one, implicit, big_endian, codecs)))
    codecs = tuple(dict.fromkeys(codec for *_, codecs in changed for codec in codecs))
    return RemovedValues(_same(frozenset(terms)), _same(frozenset(filter(_is_of_patient, terms))), codecs)


@lru_cache(maxsize=1024)
def _same(terms: SearchTerms) -> SearchTerms:
    """Return the first of equal sets: caches find their key soonest by its identity."""
    return terms


def _is_of_patient(term: SearchTerm) -> bool:
    """Tell whether a term says something of the patient in other objects too."""
    return term.kind is not TermKind.UID and (term.kind is not TermKind.PLACE or term.tag >> 16 == _PATIENT_GROUP)


# The objects of a study change the same values.
_removed_of_study = lru_cache(maxsize=1024)(_joined)
_terms_of_element = lru_cache(maxsize=4096)(terms_of)


def _left(walk: ObjectWalk, start: int, end: int) -> list[tuple[int, int]]:
    """Return where the bytes lie, in order, that no edit reaches and that are no pixels."""
    left = []
    for edit in walk.edits:
        if edit.is_searched:
            continue
        last = edit.end
        if last > start and (first := edit.start) < last:
            if first > start:
                left.append((start, min(first, end)))
            start = last
    if start < end:
        left.append((start, end))
    if walk.pixel_data is None:
        return left
    first, until = walk.pixel_data
    return list(_without(left, first, end if until is None else until))


def _blocks(pieces: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield pieces in groups of bounded size, of which copies are made; parts of a cut piece overlap.

    What is cut at the end of one part is whole in the next.
    """
    block: list[tuple[int, int]] = []
    size = 0
    for start, last in pieces:
        first = start
        while size + last - first > _BLOCK:
            block.append((first, first + _BLOCK - size))
            yield block
            first += max(_BLOCK - size - _OVERLAP, 0)
            block, size = [], 0
        block.append((first, last))
        size += last - first
    if block:
        yield block


def _without(pieces: Iterable[tuple[int, int]], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield pieces without the bytes in ``[first, last)``."""
    for start, end in pieces:
        if end <= first or start >= last:
            yield start, end
            continue
        if start < first:
            yield start, first
        if last < end:
            yield last, end


def _uid_hits(span: bytes, uids: frozenset[bytes]) -> Iterator[Hit]:
    """Yield where UIDs are found in bytes, also in UTF-16 if the bytes hold the beginning of one of them in it."""
    beginnings = _beginnings(uids)
    yield from _hits_from(span, beginnings, {uid: uid for uid in uids})
    wide = [_wide(one) for one in beginnings]
    if any(one in span for one in wide):
        yield from _hits_from(span, wide, {_wide(uid): uid for uid in uids})


def _hits_from(span: bytes, beginnings: Iterable[bytes], uids: Mapping[bytes, bytes]) -> Iterator[Hit]:
    """Yield where encoded UIDs are found, given how they begin."""
    lengths = {len(one) for one in uids}
    for beginning in beginnings:
        at = span.find(beginning)
        while at >= 0:
            for length in lengths:
                found = span[at : at + length]
                if found in uids:
                    term = SearchTerm(TermKind.UID, uids[found].decode("iso8859"), _SOP_INSTANCE_UID)
                    yield Hit(at, at + len(found), WordBoundary.WORD, term)
            at = span.find(beginning, at + 1)


def _beginnings(uids: Iterable[bytes]) -> set[bytes]:
    return {uid[:_MIN_UID] for uid in uids}


@lru_cache(maxsize=1024)
def _wide(uid: bytes) -> bytes:
    # The same bytes in both byte orders of UTF-16.
    return uid.decode("iso8859").encode("utf-16-le")[:-1]


# Selection of hits


def _verified(
    walk: ObjectWalk,
    start: int,
    end: int,
    encoding: Encoding,
    hits: Iterable[Hit],
    pieces: Sequence[tuple[int, int]],
    within: Within = ROOT,
) -> list[Residual]:
    """Return the hits that count."""
    if not hits:
        return []
    placed = [hit for hit in _placed(sorted(hits), pieces) if not _is_structured(walk, hit, encoding)]
    return _in_text(walk, start, end, encoding, placed, within) if placed else []


def _placed(hits: Sequence[Hit], pieces: Sequence[tuple[int, int]]) -> Iterator[Hit]:
    """Yield the hits that lie in one piece, with their position in the object.

    Parameters
    ----------
    hits
        In order, with their position in the pieces joined by one byte.
    pieces
        Where these lie in the object.
    """
    begin = index = 0
    for hit in hits:
        while hit.start > begin + pieces[index][1] - pieces[index][0]:
            begin += pieces[index][1] - pieces[index][0] + 1
            index += 1
        first, last = pieces[index]
        if hit.end <= begin + last - first:
            yield hit._replace(start=hit.start - begin + first, end=hit.end - begin + first)


def _is_structured(walk: ObjectWalk, hit: Hit, encoding: Encoding) -> bool:
    """Tell whether a hit is the beginning of a date, time or UID, which rules address by their element."""
    vr = _structured_vr(walk.data[hit.start - 8 : hit.start - 2], *encoding)
    return (
        vr != ""
        and _CODE_CHARACTERS[vr].fullmatch(walk.data, hit.start, hit.end) is not None
        and not any(first <= hit.start < last for first, last in walk.opaque)
    )


@lru_cache(maxsize=8192)
def _structured_vr(head: bytes, implicit: bool, big_endian: bool) -> str:
    """Return the VR of an element that begins so, if it is that of a date, time or UID; else an empty string."""
    order: Literal["big", "little"] = "big" if big_endian else "little"
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
    vr = vr_of(tag)
    return vr if vr in _STRUCTURED_VRS and (implicit or head[4:6] == vr.encode()) else ""


def _in_text(
    walk: ObjectWalk,
    start: int,
    end: int,
    encoding: Encoding,
    hits: Sequence[Hit],
    within: Within,
) -> list[Residual]:
    """Return the hits that are words of their own in an element that is searched, one at each place.

    A hit of a place gives way to one of another kind: it does not count if the place is the name of the device, which
    may be in another part of the object.
    """
    data = walk.data if end == len(walk.data) else walk.data[:end]
    wanted = sorted({hit.start for hit in hits})
    leaves = iter_elements(data, start, encoding, partial=walk.partial, wanted=wanted, within=within)
    # The elements of an item do not name the object's device.
    terms = [] if within.path else [hit.term for hit in hits]
    devices = _device_names(walk, start, end, encoding, terms)
    index = 0
    found: dict[tuple[int, int], Residual] = {}
    for hit in hits:
        while index < len(leaves) and leaves[index].end <= hit.start:
            index += 1
        if index == len(leaves):
            break
        holding = leaves[index]
        if not (holding.start <= hit.start and hit.end <= holding.end) or not _is_searched(holding, hit, data, devices):
            continue
        reach = extent(data, hit, holding.start, holding.end, holding.codecs)
        if reach is None:
            continue
        is_first = reach not in found
        if is_first or (found[reach].term.kind is TermKind.PLACE and hit.term.kind is not TermKind.PLACE):
            found[reach] = Residual(holding, *reach, hit.term)
    return list(found.values())


def _device_names(
    walk: ObjectWalk, start: int, end: int, encoding: Encoding, terms: Iterable[SearchTerm]
) -> frozenset[str]:
    """Return the names of the object's device if a place may be one: many sites use them as the station name too."""
    places = {term.text.lower() for term in terms if term.kind is TermKind.PLACE}
    if not places:
        return frozenset()
    data = walk.data[:end]
    header = data if walk.pixel_data is None else data[: walk.pixel_data[0]]
    values = b"\0".join(_after_device_tags(header, start, encoding)).lower()
    if all(place.isascii() and place.encode() not in values for place in places):
        return frozenset()
    roots = iter_elements(data, start, encoding, nested=False, partial=walk.partial)
    return frozenset(
        text.casefold() for found in roots if found.element.keyword in _DEVICE_KEYWORDS for text in found.texts(data)
    )


def _after_device_tags(header: bytes, start: int, encoding: Encoding) -> Iterator[bytes]:
    """Yield what may be the values of the names of a device: the bytes after each occurrence of their tags."""
    order: Literal["big", "little"] = "big" if encoding.big_endian else "little"
    for tag in _DEVICE_TAGS[order]:
        at = header.find(tag, start)
        while at >= 0:
            length = int.from_bytes(header[at + 4 if encoding.implicit else at + 6 : at + 8], order)
            if not encoding.implicit and header[at + 4 : at + 6].decode("iso8859") in LONG_FORM_VRS:
                length = _MAX_ORIGINAL
            yield header[at + 8 : at + 8 + length]
            at = header.find(tag, at + 1)


def _is_searched(holding: ElementRef, hit: Hit, data: bytes, devices: frozenset[str]) -> bool:
    """Tell whether a term is searched for in an element."""
    element, term = holding.element, hit.term
    if element.tag == _CHARACTER_SET:
        return False
    if term.kind is TermKind.PLACE and (element.keyword in _DEVICE_KEYWORDS or term.text.casefold() in devices):
        return False
    if is_private(element.tag) or element.vr == "UN":
        return True
    value = data[holding.start : holding.end]
    characters = _CODE_CHARACTERS.get(element.vr)
    is_code = characters is not None and characters.fullmatch(value) is not None
    # An attribute of text that is written with the VR of a code is text.
    if (is_code and vr_of(element.tag) in _CODED_VRS) or element.keyword in _CODED_KEYWORDS:
        # A code is no text: a whole identifier alone is no coincidence.
        is_whole = value.strip(b"\0 ") == data[hit.start : hit.end]
        return is_whole and term.kind is TermKind.IDENTIFIER and hit.end - hit.start >= _MIN_WHOLE_IDENTIFIER
    if element.vr in _NUMBER_VRS or (element.vr in ("OB", "OW") and element.keyword.endswith("Data")):
        is_text = len(value) <= _MAX_TEXT_IN_NUMBERS and _TEXT.fullmatch(value) is not None
        return is_text or hit.end - hit.start >= _MIN_IN_NUMBERS
    return element.vr in _FREE_TEXT_VRS or element.vr == "CS" or (element.vr in _CODED_VRS and not is_code)
