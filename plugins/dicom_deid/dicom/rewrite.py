"""Apply edits to encoded elements: unchanged bytes are copied in runs."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from dicom_deid.dicom.walk import LONG, SHORT, ByteOrder, Edit, LengthEdit
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

# Below this size in bytes, copying a run costs less than making a view of it.
_VIEW_FROM = 4096


def splice(data: bytes, start: int, end: int, edits: Sequence[Edit], order: ByteOrder) -> list[bytes | memoryview]:
    """Return the pieces of ``data[start:end]`` with the edits applied, in order.

    Short pieces are joined; long runs are views of `data`, not copies. A `LengthEdit` becomes the new length
    of its element.
    """
    growth_before = _growth_before(edits) if LengthEdit in map(type, edits) else None
    pieces: list[bytes | memoryview] = []
    short: list[bytes] = []
    add = short.append
    done = start
    for edit in edits:
        if growth_before is not None and isinstance(edit, LengthEdit):
            growth = growth_before[edit.last_edit] - growth_before[edit.first_edit]
            if not growth:
                continue
            new = order.u32.pack(edit.length + growth)
        else:
            new = edit.new
        first = edit.start
        if first > done:
            if first - done < _VIEW_FROM:
                add(data[done:first])
            else:
                pieces += (b"".join(short), memoryview(data)[done:first])
                short.clear()
        add(new)
        done = edit.end
    if end - done < _VIEW_FROM:
        add(data[done:end])
        pieces.append(b"".join(short))
    else:
        pieces += (b"".join(short), memoryview(data)[done:end])
    return pieces


def _growth_before(edits: Sequence[Edit]) -> list[int]:
    """Return, for each edit, the number of bytes that the edits before it add; and the sum."""
    growth = [0]
    total = 0
    for edit in edits:
        if edit.__class__ is not LengthEdit:
            total += len(edit.new) - edit.end + edit.start
        growth.append(total)
    return growth


def element_bytes(head: bytes, form: int, value: bytes, order: ByteOrder) -> bytes:
    """Encode an element.

    Parameters
    ----------
    head
        The element's first bytes: tag and VR, or the tag alone in an implicit VR encoding.
    form
        Layout of the header.
    value
        The encoded value, of even length.

    Raises
    ------
    Quarantine
        INVALID_REPLACEMENT if the value is longer than the header's length field can express.
    """
    if form == SHORT:
        try:
            return head + order.u16.pack(len(value)) + value
        except struct.error:
            raise Quarantine(Reason.INVALID_REPLACEMENT) from None
    if form == LONG:
        return head + b"\0\0" + order.u32.pack(len(value)) + value
    return head[:4] + order.u32.pack(len(value)) + value
