"""Cut an object made of bytes and of ranges of its source into the parts of a multipart upload."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from dicom_deid.objects import SourceRange

Segment = bytes | memoryview | SourceRange

MIN_PART_BYTES = 5 * 2**20
"""S3 accepts no smaller part except the last."""
MAX_PARTS = 10_000
_COPIED_BYTES = 64 * 2**20


class UploadPart(NamedTuple):
    """One part: either bytes and ranges that the worker sends, or one range that the store copies."""

    number: int
    offset: int
    segments: tuple[Segment, ...]
    copied: SourceRange | None = None

    @property
    def size(self) -> int:
        """Length of the part in bytes."""
        return sum(length(segment) for segment in self.segments or (self.copied or b"",))


def length(segment: Segment) -> int:
    """Return the length of a segment in bytes."""
    return segment.end - segment.start if isinstance(segment, SourceRange) else len(segment)


def cut_to_stream(segments: Sequence[Segment], part_bytes: int) -> list[UploadPart]:
    """Cut into parts of one size, the last perhaps smaller, that the worker sends."""
    total = sum(length(segment) for segment in segments)
    size = max(part_bytes, MIN_PART_BYTES, -(-total // MAX_PARTS))
    groups: list[list[Segment]] = []
    room = 0
    for segment in segments:
        position = 0
        while position < length(segment):
            if not room:
                groups.append([])
                room = size
            taken = min(room, length(segment) - position)
            groups[-1].append(_slice(segment, position, position + taken))
            position += taken
            room -= taken
    return _number((tuple(group), None) for group in groups)


def cut_to_copy(segments: Sequence[Segment]) -> list[UploadPart]:
    """Cut so that the store copies as much as possible, and the other parts are as small as allowed.

    New bytes that are fewer than `MIN_PART_BYTES` are completed from the range that follows them.
    """
    total = sum(length(segment) for segment in segments)
    copied_bytes = max(_COPIED_BYTES, -(-total // (MAX_PARTS // 2)))
    return _number(_groups_to_copy(segments, copied_bytes))


def _groups_to_copy(
    segments: Sequence[Segment], copied_bytes: int
) -> Iterator[tuple[tuple[Segment, ...], SourceRange | None]]:
    held: list[Segment] = []
    held_bytes = 0
    for index, segment in enumerate(segments):
        rest = segment
        if isinstance(segment, SourceRange):
            filled = min(max(0, MIN_PART_BYTES - held_bytes), length(segment)) if held else 0
            if filled:
                held.append(_slice(segment, 0, filled))
                held_bytes += filled
                rest = _slice(segment, filled, length(segment))
            last = index == len(segments) - 1
            if isinstance(rest, SourceRange) and (length(rest) >= MIN_PART_BYTES or (last and length(rest))):
                if held:
                    yield tuple(held), None
                held, held_bytes = [], 0
                for part in _split(rest, copied_bytes):
                    yield (), part
                continue
        if length(rest):
            held.append(rest)
            held_bytes += length(rest)
    if held:
        yield tuple(held), None


def _split(whole: SourceRange, at_most: int) -> Iterator[SourceRange]:
    """Split evenly, so that no part is small."""
    count = -(-length(whole) // at_most)
    edges = [whole.start + length(whole) * index // count for index in range(count + 1)]
    for start, end in pairwise(edges):
        yield SourceRange(start, end)


def _slice(segment: Segment, start: int, end: int) -> Segment:
    if isinstance(segment, SourceRange):
        return SourceRange(segment.start + start, segment.start + end)
    return memoryview(segment)[start:end]


def _number(groups: Iterable[tuple[tuple[Segment, ...], SourceRange | None]]) -> list[UploadPart]:
    upload_parts: list[UploadPart] = []
    offset = 0
    for number, (segments, copied) in enumerate(groups, 1):
        upload_parts.append(UploadPart(number, offset, segments, copied))
        offset += upload_parts[-1].size
    return upload_parts
