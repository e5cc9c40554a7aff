"""An object cut into parts is the same object, and S3 accepts the parts."""

from hypothesis import given
from hypothesis import strategies as st

from dicom_deid.objects import SourceRange
from dicom_deid.objectstore.part_planner import MAX_PARTS, MIN_PART_BYTES, cut_to_copy, cut_to_stream, length

MEBIBYTE = 2**20


def zeros(count):
    return memoryview(bytes(count))


sizes = st.one_of(st.integers(0, 100), st.integers(0, 12 * MEBIBYTE))
ranges = st.builds(
    lambda start, count: SourceRange(start, start + count),
    st.integers(0, 2**40),
    st.one_of(sizes, st.integers(0, 2**33)),
)
objects = st.lists(st.one_of(sizes.map(zeros), ranges), max_size=7)


def run_lengths(segments):
    """The object as maximal runs: own bytes by count, ranges by their edges."""
    runs = []
    for segment in segments:
        if not length(segment):
            continue
        last = runs[-1] if runs else None
        if isinstance(segment, SourceRange):
            if isinstance(last, SourceRange) and last.end == segment.start:
                runs[-1] = SourceRange(last.start, segment.end)
            else:
                runs.append(segment)
        elif isinstance(last, int):
            runs[-1] = last + len(segment)
        else:
            runs.append(len(segment))
    return runs


def check(pieces, segments):
    flat = [segment for piece in pieces for segment in (piece.segments or (piece.copied,))]
    assert run_lengths(flat) == run_lengths(segments)
    assert [piece.number for piece in pieces] == list(range(1, len(pieces) + 1))
    position = 0
    for piece in pieces:
        assert piece.offset == position
        position += piece.size
    assert all(piece.size >= MIN_PART_BYTES for piece in pieces[:-1])
    assert all(piece.size for piece in pieces)
    assert len(pieces) <= MAX_PARTS


@given(objects, st.sampled_from([5 * MEBIBYTE, 8 * MEBIBYTE]))
def test_parts_to_stream_make_up_the_object(segments, part_bytes):
    # Would catch lost or doubled bytes, parts below 5 MiB, and more than 10,000 parts.
    pieces = cut_to_stream(segments, part_bytes)
    check(pieces, segments)
    assert not any(piece.copied for piece in pieces)
    assert all(piece.size == pieces[0].size for piece in pieces[:-1])


@given(objects)
def test_parts_to_copy_make_up_the_object(segments):
    # Would catch the same, and a small part in the middle, for which S3 refuses the whole upload at its end.
    check(cut_to_copy(segments), segments)


@given(st.integers(1, MEBIBYTE), st.integers(20 * MEBIBYTE, 2**40), st.integers(0, MEBIBYTE))
def test_of_a_large_object_little_goes_through_the_worker(header, pixels, tail):
    # Would catch a layout that reads what the store could copy.
    pieces = cut_to_copy([zeros(header), SourceRange(1000, 1000 + pixels), zeros(tail)])
    assert sum(piece.size for piece in pieces if piece.copied is None) <= max(header, MIN_PART_BYTES) + tail
