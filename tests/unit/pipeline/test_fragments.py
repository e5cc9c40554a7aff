"""The end of encapsulated pixel data is found exactly, with few bytes read, and never past the object."""

import struct
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_deid.exceptions import Quarantine
from dicom_deid.pipeline.fragments import end_of_fragments
from dicom_deid.reasons import Reason

DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"


def item(length, fill=b"\xfe"):
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", length) + fill * length


class Source:
    def __init__(self, data):
        self.data, self.read_bytes, self.requests = data, 0, 0

    def __call__(self, start, end):
        assert 0 <= start < end <= len(self.data)
        self.requests += 1
        self.read_bytes += end - start
        return self.data[start:end]


@given(st.lists(st.sampled_from([0, 2, 10, 600, 70_000, 1_100_000]), max_size=6), st.binary(max_size=50))
def test_end_is_just_after_the_delimiter_wherever_fragments_fall(lengths, tail):
    before = b"header" + b"".join(map(item, lengths)) + DELIMITER
    assert end_of_fragments(Source(before + tail), 6, len(before) + len(tail))[0] == len(before)


def test_large_fragments_are_skipped_and_small_ones_read_together():
    large = Source(b"".join(item(500_000) for _ in range(20)) + DELIMITER)
    end_of_fragments(large, 0, len(large.data))
    assert large.read_bytes < 0.01 * len(large.data)
    small = Source(b"".join(item(1000) for _ in range(5000)) + DELIMITER)
    end_of_fragments(small, 0, len(small.data))
    assert small.requests < 12


@pytest.mark.parametrize(
    "beginning", [b"\xff\xd8\xff\xda\0\x02", b"\xff\x4f\xff\x51", b"\2\0\0\0\x40\0\0\0", b"picture"]
)
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_of_many_frames_the_text_at_the_end_is_kept_alone(beginning, end):
    """Catches memory that grows with the number of frames: some bytes of each may be picture."""
    random = Random(7)
    frames = [beginning + random.randbytes(66_000).replace(b"\xff", b"\xfe") + end for _ in range(300)]
    frames[-1] += b"for Maria Hansen"
    data = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(one)) + one for one in frames) + DELIMITER
    pieces = end_of_fragments(Source(data), 0, len(data))[1]
    assert sum(len(piece.data) for piece in pieces) < 200_000
    assert pieces[-1].data.endswith(b"for Maria Hansen")
    assert pieces[-1].is_apart
    assert data[pieces[-1].position :].startswith(pieces[-1].data)


@given(st.integers(0, 40))
def test_cut_anywhere_is_truncated_not_an_end(cut):
    whole = item(2) + item(10) + DELIMITER
    data = whole[: min(cut, len(whole) - 1)]
    with pytest.raises(Quarantine) as caught:
        end_of_fragments(Source(data), 0, len(data))
    assert caught.value.reason is Reason.TRUNCATED


@pytest.mark.parametrize("wrong", [b"\x08\x00\x18\x00\0\0\0\0", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"])
def test_anything_but_an_item_is_malformed_with_its_offset(wrong):
    data = item(4) + wrong + DELIMITER
    with pytest.raises(Quarantine) as caught:
        end_of_fragments(Source(data), 0, len(data))
    assert (caught.value.reason, caught.value.offset) == (Reason.MALFORMED, 12)
