"""Edits applied to encoded elements: what no edit touches is copied in whole runs."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from dicom_deid.dicom.walk import LONG, SHORT, ByteOrder, Edit, Length
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

# Below this, copying a run costs less than making a view of it.
_VIEW_FROM = 4096


def splice(data: bytes, start: int, end: int, edits: Sequence[Edit], order: ByteOrder) -> list[bytes | memoryview]:
    """Return the pieces of ``data[start:end]`` with the edits applied, in order.

    Short pieces are joined; long runs are views of `data`, not copies. A `Length` edit becomes the right length of what
    it spans.
    """
    grown = [0]
    total = 0
    for first, last, new, _ in edits:
        if new.__class__ is not Length:
            total += len(new) - last + first
        grown.append(total)
    pieces: list[bytes | memoryview] = []
    short: list[bytes] = []
    add = short.append
    done = start
    for first, last, new, _ in edits:
        if new.__class__ is Length:
            growth = grown[new.last_edit] - grown[new.first_edit]
            if not growth:
                continue
            new = order.u32.pack(new.length + growth)
        if first > done:
            if first - done < _VIEW_FROM:
                add(data[done:first])
            else:
                pieces += (b"".join(short), memoryview(data)[done:first])
                short.clear()
        add(new)
        done = last
    if end - done < _VIEW_FROM:
        add(data[done:end])
        pieces.append(b"".join(short))
    else:
        pieces += (b"".join(short), memoryview(data)[done:end])
    return pieces


def element_bytes(head: bytes, form: int, value: bytes, order: ByteOrder) -> bytes:
    """Encode an element.

    Parameters
    ----------
    head
        The element's first bytes: tag and VR, or the tag alone in an implicit VR encoding.
    form
        How the header is laid out.
    value
        The encoded value, of even length.

    Raises
    ------
    Quarantine
        INVALID_REPLACEMENT where the value is longer than the VR can hold.
    """
    if form == SHORT:
        try:
            return head + order.u16.pack(len(value)) + value
        except struct.error:
            raise Quarantine(Reason.INVALID_REPLACEMENT) from None
    if form == LONG:
        return head + b"\0\0" + order.u32.pack(len(value)) + value
    return head[:4] + order.u32.pack(len(value)) + value
