"""A mutator without instrumentation, for millions of inputs where the extra `fuzz` is not installed."""

from __future__ import annotations

import random
from collections.abc import Sequence

_LENGTHS = [number.to_bytes(4, "little") for number in (0, 1, 2, 2**16 - 1, 2**16, 2**31, 2**32 - 2, 2**32 - 1)]
_WORDS = [*_LENGTHS, b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"SQ\0\0", b"UN\0\0", b"OB\0\0"]


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
