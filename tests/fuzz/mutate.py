"""Mutators without instrumentation, for millions of inputs where the extra `fuzz` is not installed.

Of objects with changed bytes most are truncated or malformed; those with changed elements are mostly de-identified.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from dicom_deid.dicom.part10 import read_header
from dicom_deid.dicom.vr import KNOWN_VRS, LONG_FORM_VRS
from dicom_deid.dicom.walk import MixedVRsError
from dicom_deid.engine.element_refs import iter_elements
from dicom_deid.exceptions import Quarantine

_LENGTHS = [number.to_bytes(4, "little") for number in (0, 1, 2, 2**16 - 1, 2**16, 2**31, 2**32 - 2, 2**32 - 1)]
_WORDS = [*_LENGTHS, b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"SQ\0\0", b"UN\0\0", b"OB\0\0"]
_LONG = sorted(vr.encode() for vr in LONG_FORM_VRS)
_SHORT = sorted(vr.encode() for vr in KNOWN_VRS - LONG_FORM_VRS)


def mutate(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Return an object of the corpus with one to four changes, behind the preamble if it has one."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(132, len(data)), len(data) + 1)
        count = rng.choice((1, 1, 2, 4, 8, 24))
        change = rng.randrange(6)
        if change == 0:
            data[at : at + count] = rng.randbytes(count)
        elif change == 1:
            word = rng.choice(_WORDS)
            data[at : at + len(word)] = word
        elif change == 2:
            del data[at : at + count]
        elif change == 3:
            data[at:at] = data[at : at + count * 8]
        elif change == 4:
            other = rng.choice(corpus)
            start = rng.randrange(len(other) + 1)
            data[at:at] = other[start : start + count * 8]
        elif at < len(data):
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def rearrange(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Return an object of the corpus with one to four changes of whole elements: its order, tags, VRs and values."""
    head, *elements = elements_of(rng.choice(corpus))
    for _ in range(rng.randint(1, 4)):
        if not elements:
            break
        at, other = rng.randrange(len(elements)), rng.randrange(len(elements))
        one = elements[at]
        change = rng.randrange(7)
        if change == 0:
            del elements[at]
        elif change == 1:
            elements.insert(other, one)
        elif change == 2:
            elements[at], elements[other] = elements[other], one
        elif change == 3:
            _, *others = elements_of(rng.choice(corpus))
            elements[at : at + rng.randint(0, 1)] = others and [rng.choice(others)]
        elif change == 4 and (one[4:6] in _SHORT or one[4:6] in _LONG):
            elements[at] = one[:4] + rng.choice(_SHORT if one[4:6] in _SHORT else _LONG) + one[6:]
        elif change == 5:
            elements[at] = elements[other][:4] + one[4:]
        elif len(one) > _HEAD:
            value = bytearray(one)
            start = rng.randrange(_HEAD, len(value))
            count = min(rng.choice((1, 2, 8, 24)), len(value) - start)
            value[start : start + count] = rng.randbytes(count)
            elements[at] = bytes(value)
    return head + b"".join(elements)


_HEAD = 12


@lru_cache(maxsize=1024)
def elements_of(data: bytes) -> tuple[bytes, ...]:
    """Return what is before the data set, and the elements of its root; the whole object if it cannot be read."""
    try:
        header = read_header(data)
        encoding = header.transfer_syntax.encoding
        listed = iter_elements(data, header.data_set_start, encoding, nested=False)
    except (Quarantine, MixedVRsError):
        return (data,)
    if header.transfer_syntax.deflated:
        return (data,)
    starts = [
        one.start - (12 if not encoding.implicit and data[one.start - 8 : one.start - 6] in _LONG else 8)
        for one in listed
    ]
    parts = zip([0, *starts], [*starts, len(data)], strict=True)
    return tuple(data[start:end] for start, end in parts)
