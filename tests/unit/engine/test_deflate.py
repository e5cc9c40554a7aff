"""Deflated data sets are inflated once, into exactly the memory that they need."""

from __future__ import annotations

import zlib

import pytest

from dicom_deid.dicom.deflate import deflate, inflate
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

PIECE = 2**20


def compressed(content: bytes) -> bytes:
    deflater = zlib.compressobj(9, wbits=-15)
    return deflater.compress(content) + deflater.flush()


@pytest.mark.parametrize("size", [0, 1, PIECE, 2 * PIECE, *range(2 * PIECE - 8192, 2 * PIECE, 259)])
def test_every_size_is_inflated_as_a_whole(size: int) -> None:
    """Catches the end of an object, taken for truncated, whose last bits make the last kilobytes of output."""
    body = compressed(bytes(size))
    assert inflate(b"head" + body + b"\0tail", 4, 3 * PIECE) == (bytes(size), 4 + len(body))


def test_the_limit_is_the_largest_accepted_size() -> None:
    body = compressed(bytes(PIECE))
    assert len(inflate(body, 0, PIECE)[0]) == PIECE
    with pytest.raises(Quarantine) as caught:
        inflate(body, 0, PIECE - 1)
    assert caught.value.reason is Reason.INFLATED_TOO_LARGE


@pytest.mark.parametrize(("change", "reason"), [(slice(0, 40), Reason.TRUNCATED), (slice(9, None), Reason.MALFORMED)])
def test_what_is_no_deflated_data_set_has_a_reason(change: slice, reason: Reason) -> None:
    body = compressed(bytes(range(256)))
    damaged = body[change] if change.start == 0 else b"\xff" * 9 + body[change]
    with pytest.raises(Quarantine) as caught:
        inflate(damaged, 0, PIECE)
    assert caught.value.reason is reason


def test_what_is_deflated_has_an_even_length() -> None:
    for count in range(20):
        body = deflate([bytes(range(count)), b"x"])
        assert len(body) % 2 == 0
        assert inflate(body, 0, PIECE)[0] == bytes(range(count)) + b"x"
