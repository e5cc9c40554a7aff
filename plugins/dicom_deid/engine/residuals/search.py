"""The residual search: originals that the rules removed or replaced, searched in what they left.

A hit counts where it is a word of its own ("Ann" is not in "Annular") and stands in text: the text VRs, codes and
titles, UN, bytes, and private elements. What a rule wrote is not searched.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from dicom_deid.dicom.tags import is_private, tag_text
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.vr import CHARACTER_SET_VRS, LONG_FORM_VRS, vr_of
from dicom_deid.dicom.walk import BIG_ENDIAN, LITTLE_ENDIAN, RuleEdit
from dicom_deid.engine.element_refs import ElementRef, iter_elements
from dicom_deid.engine.handlers.basic import ObjectWalk
from dicom_deid.engine.residuals.patterns import Changed, TermMatcher, WordBoundary, matcher_for_removed, vr_of_original

# Of an instance there is one; its UID would make every object's patterns its own.
_INSTANCE_UIDS = frozenset(
    tag for order in (LITTLE_ENDIAN, BIG_ENDIAN) for tag in (order.tag.pack(8, 0x0018), order.tag.pack(8, 0x1155))
)
_SEARCHED_VRS = CHARACTER_SET_VRS | {"AE", "CS", "OB", "OW", "UN", "UR"}
# The VRs in which originals stand.
_ORIGINAL_VRS = CHARACTER_SET_VRS | {"DA", "UI"}
# Longer values are no names, identifiers or addresses.
_MAX_ORIGINAL = 1024
_MIN_UID = 9
# So many UIDs are found sooner one by one than by patterns that have to be made first.
_FEW_UIDS = 32
_LONE_UID = LITTLE_ENDIAN.tag.pack(0x0008, 0x0018) + b"UI\0\0"
_STRUCTURED_VRS = frozenset({"DA", "DT", "TM", "UI"})

Hit = tuple[int, int, WordBoundary]


class Residual(NamedTuple):
    """An original that stands where no rule reached.

    Parameters
    ----------
    listed
        The element that holds it.
    start, end
        Where it stands, in bytes of the object.
    """

    listed: ElementRef
    start: int
    end: int


class RemovedValues(NamedTuple):
    """What the rules took out of an object.

    Parameters
    ----------
    matcher
        Finds the originals that objects of a study share.
    uids
        The UIDs of its own: of the instance, and of those that its sequences refer to. They are searched one by one,
        so that a study keeps its matcher.
    """

    matcher: TermMatcher
    uids: frozenset[bytes]


def removed_values(*walks: ObjectWalk) -> RemovedValues:
    """Return what the rules take out of the walked parts of an object."""
    changed: list[Changed] = []
    uids: set[bytes] = set()
    for walk in walks:
        _collect(walk, changed, uids)
    if len(uids) > _FEW_UIDS:
        changed += [(_LONE_UID + uid, False, False, ()) for uid in sorted(uids)]
        uids = set()
    return RemovedValues(matcher_for_removed(tuple(changed)), frozenset(uids))


def find_residuals(
    walk: ObjectWalk,
    start: int,
    end: int,
    encoding: Encoding,
    matcher: TermMatcher,
    uids: frozenset[bytes] = frozenset(),
) -> list[Residual]:
    """Search originals in what the rules left of a walked object.

    Parameters
    ----------
    walk
        The walk, whose edits say what changes.
    start, end
        Where the data set lies.
    encoding
        How its elements are encoded.
    matcher, uids
        What is searched, see `RemovedValues`.

    Returns
    -------
    list of Residual
        Each in an element that holds text, in the order of the bytes.
    """
    data = walk.data
    pieces = _left(walk, start, end)
    searched = b"\0".join([data[first:last] for first, last in pieces]).lower()
    hits = matcher.matches(searched)
    hits += _uid_hits(searched, uids)
    if not hits:
        return []
    placed = [hit for hit in _placed(sorted(hits), pieces) if not _is_structured(walk, hit[0], encoding)]
    return list(_in_text(walk, start, end, encoding, placed)) if placed else []


def redacted(data: bytes, residuals: Iterable[Residual]) -> bytes:
    """Return an object with an asterisk in place of each character of the residuals."""
    new = bytearray(data)
    for residual in residuals:
        for index in range(residual.start, residual.end):
            if new[index]:
                new[index] = 0x2A
    return bytes(new)


def _collect(walk: ObjectWalk, changed: list[Changed], uids: set[bytes]) -> None:
    """Add the changed elements that hold originals, and the UIDs that are the object's own."""
    data = walk.data
    for edit in walk.edits:
        start, end = edit.start, edit.end
        if not isinstance(edit, RuleEdit) or end - start < 10:
            continue
        item_context = edit.item_context
        context = item_context.context
        big_endian = context.order.big_endian
        if data[start + big_endian] & 1:
            # A private element is removed for what it is, not for what it holds.
            continue
        vr, value = _vr_of(data[start : start + (4 if context.implicit else 6)], context.implicit, big_endian)
        if data[start : start + 4] == context.order.item:
            # An item of structured content is removed with all that it holds, as a sequence is.
            vr = "SQ"
        value += start
        if vr == "UI" and (context.path or data[start : start + 4] in _INSTANCE_UIDS):
            uids.update(uid for uid in data[value:end].rstrip(b"\0 ").split(b"\\") if len(uid) >= _MIN_UID)
        elif vr == "DT":
            # Of a time only the day is searched, which a study's objects share.
            changed.append((data[start : min(value + 8, end)], context.implicit, big_endian, item_context.codecs))
        elif vr == "SQ" or (vr in _ORIGINAL_VRS and end - start < _MAX_ORIGINAL):
            changed.append((data[start:end], context.implicit, big_endian, item_context.codecs))


@lru_cache(maxsize=4096)
def _vr_of(head: bytes, implicit: bool, big_endian: bool) -> tuple[str, int]:
    """Return the VR by which an original is read, and where its value begins after the head of its element."""
    order: Literal["big", "little"] = "big" if big_endian else "little"
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
    said = "" if implicit else head[4:].decode("iso8859")
    return vr_of_original(tag, said), 12 if said in LONG_FORM_VRS else 8


def _left(walk: ObjectWalk, start: int, end: int) -> list[tuple[int, int]]:
    """Return where the bytes lie, in order, that no edit reaches and that are no pixels."""
    cuts = [(edit.start, edit.end) for edit in walk.edits if isinstance(edit, RuleEdit) and edit.end > edit.start]
    if walk.pixel_data is not None:
        first, until = walk.pixel_data
        insort(cuts, (first, end if until is None else until))
    left = []
    for first, last in cuts:
        if first > start:
            left.append((start, min(first, end)))
        start = max(start, last)
    if start < end:
        left.append((start, end))
    return left


def _uid_hits(span: bytes, uids: frozenset[bytes]) -> Iterator[Hit]:
    """Yield where UIDs stand in bytes, and in UTF-16 where that begins to look like one of them."""
    patterns = [*uids, *map(_wide, uids)] if _has_wide(span, uids) else uids
    for pattern in patterns:
        at = span.find(pattern)
        while at >= 0:
            yield at, at + len(pattern), WordBoundary.WORD
            at = span.find(pattern, at + 1)


def _has_wide(span: bytes, uids: frozenset[bytes]) -> bool:
    return any(_wide(beginning) in span for beginning in {uid[:_MIN_UID] for uid in uids})


def _wide(uid: bytes) -> bytes:
    # The same bytes stand in both orders of UTF-16.
    return uid.decode("iso8859").encode("utf-16-le")[:-1]


# Which hits count


def _placed(hits: Sequence[Hit], pieces: Sequence[tuple[int, int]]) -> Iterator[Hit]:
    """Yield the hits that lie in one piece, where they stand in the object.

    Parameters
    ----------
    hits
        In order, where they stand in the pieces joined by a byte.
    pieces
        Where these lie in the object.
    """
    begin = index = 0
    for start, end, border in hits:
        while start > begin + pieces[index][1] - pieces[index][0]:
            begin += pieces[index][1] - pieces[index][0] + 1
            index += 1
        first, last = pieces[index]
        if end <= begin + last - first:
            yield start - begin + first, end - begin + first, border


def _is_structured(walk: ObjectWalk, start: int, encoding: Encoding) -> bool:
    """Tell whether a hit is the beginning of a date, time or UID, which rules address by their element."""
    data = walk.data
    order: Literal["big", "little"] = "big" if encoding.big_endian else "little"
    tag = int.from_bytes(data[start - 8 : start - 6], order) << 16 | int.from_bytes(data[start - 6 : start - 4], order)
    vr = vr_of(tag)
    if vr not in _STRUCTURED_VRS or any(first <= start < last for first, last in walk.opaque):
        return False
    return encoding.implicit or data[start - 4 : start - 2] == vr.encode()


def _in_text(walk: ObjectWalk, start: int, end: int, encoding: Encoding, hits: Sequence[Hit]) -> Iterator[Residual]:
    """Yield the hits that are words of their own in an element of text."""
    data = walk.data if end == len(walk.data) else walk.data[:end]
    wanted = sorted({first for first, _, _ in hits})
    leaves = iter_elements(data, start, encoding, partial=walk.partial, wanted=wanted)
    index = 0
    seen = set()
    for first, last, border in hits:
        while index < len(leaves) and leaves[index].end <= first:
            index += 1
        if index == len(leaves):
            return
        holding = leaves[index]
        if not (holding.start <= first and last <= holding.end) or (first, last) in seen or not _is_text(holding):
            continue
        if _is_free(data, first, last, holding.start, holding.end, border):
            seen.add((first, last))
            yield Residual(holding, first, last)


def _is_text(listed: ElementRef) -> bool:
    element = listed.element
    # Tables and pixels are numbers.
    is_numbers = element.vr in ("OB", "OW") and element.keyword.endswith("Data")
    return (element.vr in _SEARCHED_VRS or is_private(element.tag)) and not is_numbers


def _is_free(data: bytes, start: int, end: int, first: int, last: int, border: WordBoundary) -> bool:
    """Tell whether nothing stands beside a hit that makes it a part of another word.

    Parameters
    ----------
    first, last
        Where the value lies in which the hit stands.
    """
    if border is WordBoundary.NONE:
        return True
    wide = b"\0" in data[start:end]
    step = 2 if wide else 1
    before = data[max(start - step, first) : start].strip(b"\0")[-1:]
    after_start = end + step - 1 if wide else end
    after = data[after_start : min(after_start + step, last)].strip(b"\0")[:1]
    if border is WordBoundary.LETTERS:
        return not (_is_letter(before) or _is_letter(after))
    return not (_is_letter(before) or before.isdigit()) and (
        border is WordBoundary.LEFT or not (_is_letter(after) or after.isdigit())
    )


def _is_letter(character: bytes) -> bool:
    return character.isalpha() or (character >= b"\x80" and character != b"")


def where(residual: Residual) -> str:
    """Say in which element a residual stands."""
    element = residual.listed.element
    return element.nested_name or tag_text(element.tag)
