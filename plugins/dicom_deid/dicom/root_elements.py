"""Read some elements of the root data set without parsing what follows the last of them.

The elements are found by the parser of the engine, so that what they say holds for the object that it processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Literal, NamedTuple

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicom_deid.dicom.deflate import inflate_beginning
from dicom_deid.dicom.mixed_vrs import parse_with_uniform_vrs
from dicom_deid.dicom.part10 import FileHeader, read_header
from dicom_deid.dicom.values import character_set, decode_text
from dicom_deid.dicom.walk import (
    BIG_ENDIAN,
    LITTLE_ENDIAN,
    STOP,
    ByteOrder,
    DatasetContext,
    ElementHandler,
    ItemContext,
    NeedMoreDataError,
    TrailingBytesError,
    Walk,
    skipping_handler,
    walk_elements,
)
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

_CHARACTER_SET = 0x00080005
_US_BYTES = 2
_DELIMITATION_BYTES = 8
_MAX_INFLATED_BYTES = 16 * 2**20
"""Bound of the inflated elements; many objects are read at a time."""


class RootElement(NamedTuple):
    """One element as it is encoded."""

    vr: str | None
    value: bytes
    implicit: bool


class RootElements:
    """Elements of the root data set of an object. PHI.

    Parameters
    ----------
    header
        The file meta information.
    elements
        Those that were wanted and found, by tag.
    codecs
        The character set.
    lenient
        Read text that is not in the character set as Latin-1.
    """

    def __init__(
        self, header: FileHeader, elements: Mapping[int, RootElement], codecs: tuple[str, ...], *, lenient: bool
    ) -> None:
        self.header = header
        self._elements = elements
        self._codecs = codecs
        self._lenient = lenient
        self._big_endian = header.transfer_syntax.encoding.big_endian

    def original(self, keyword: str) -> str:
        """Return the value of a text element without padding, or an empty string.

        Raises
        ------
        Quarantine
            It is not in the character set of the object, and the elements are not read leniently.
        """
        found = self._elements.get(tag_for_keyword(keyword) or 0)
        if found is None:
            return ""
        try:
            text = decode_text(found.value, "LO", self._codecs)
        except Quarantine:
            if not self._lenient:
                raise
            text = found.value.decode("iso8859")
        return text.strip("\0 ")

    def number(self, keyword: str) -> int | None:
        """Return the value of an element of VR US, or None if it is missing or malformed."""
        found = self._elements.get(tag_for_keyword(keyword) or 0)
        if found is None or len(found.value) != _US_BYTES:
            return None
        order: Literal["big", "little"] = "big" if self._big_endian else "little"
        return int.from_bytes(found.value, order)

    def dataset(self) -> Dataset:
        """Return the elements for pydicom, which decodes them when they are used."""
        little = not self._big_endian
        return Dataset(
            {
                BaseTag(tag): RawDataElement(BaseTag(tag), vr, len(value), value, 0, implicit, little)
                for tag, (vr, value, implicit) in self._elements.items()
            }
        )


class _RootWalk(Walk):
    __slots__ = ("found", "lenient")

    def __init__(self, data: bytes, partial: bool, lenient: bool) -> None:
        super().__init__(data, partial)
        self.lenient = lenient
        self.found: dict[int, RootElement] = {}


class _RootContext(DatasetContext[_RootWalk]):
    __slots__ = ("last", "tags")

    def __init__(self, tags: frozenset[int], implicit: bool, order: ByteOrder) -> None:
        super().__init__((), implicit, order)
        self.tags = tags | {_CHARACTER_SET}
        self.last = max(tags)

    def resolve_handler(self, tag: int, vr: str | None, form: int) -> ElementHandler[_RootWalk] | None:
        if tag > self.last:
            return STOP
        skipping = skipping_handler(form, vr, self.implicit, self.order)
        return _Capture(form, tag, vr, skipping) if tag in self.tags else skipping


class _Capture(ElementHandler[_RootWalk]):
    __slots__ = ("skipping", "tag", "vr")

    def __init__(self, form: int, tag: int, vr: str | None, skipping: ElementHandler[_RootWalk] | None) -> None:
        super().__init__(form)
        self.tag = tag
        self.vr = vr
        self.skipping = skipping

    def handle(
        self,
        walk: _RootWalk,
        context: DatasetContext[_RootWalk],
        pos: int,
        start: int,
        end: int,
        item_context: ItemContext,
    ) -> None:
        value = walk.data[start:end]
        if self.tag == _CHARACTER_SET:
            with suppress(*((Quarantine,) if walk.lenient else ())):
                item_context.codecs = character_set(value)
        walk.found[self.tag] = RootElement(self.vr, value, context.implicit)

    def handle_undefined(
        self, walk: _RootWalk, context: DatasetContext[_RootWalk], pos: int, start: int, item_context: ItemContext
    ) -> int:
        if self.skipping is None:
            return super().handle_undefined(walk, context, pos, start, item_context)
        end = self.skipping.handle_undefined(walk, context, pos, start, item_context)
        implicit = context.implicit or self.vr == "UN"
        walk.found[self.tag] = RootElement("SQ", walk.data[start : end - _DELIMITATION_BYTES], implicit)
        return end


@lru_cache(maxsize=64)
def _context(tags: frozenset[int], implicit: bool, order: ByteOrder) -> _RootContext:
    # Handlers cached in a context do not depend on the object.
    return _RootContext(tags, implicit, order)


def read_root_elements(data: bytes, tags: frozenset[int], *, size: int, lenient: bool = False) -> RootElements:
    """Return elements of the root data set.

    Parameters
    ----------
    data
        The object, or its beginning.
    tags
        Those that are wanted. What follows the last of them is not looked at.
    size
        Size of the whole object in bytes.
    lenient
        Return what comes before an element that cannot be read, in whatever character set and transfer syntax.

    Raises
    ------
    Quarantine
        The elements cannot be read; also of a lenient call, if it is no DICOM.
    NeedMoreDataError
        If `data` ends before the last wanted element.
    """
    partial = len(data) < size
    try:
        header = read_header(data, assumes_encoding=lenient)
    except Quarantine as problem:
        if partial and problem.reason is Reason.TRUNCATED:
            raise NeedMoreDataError(2 * len(data)) from None
        raise
    start = header.data_set_start
    if header.transfer_syntax.deflated:
        data = inflate_beginning(data, start, _MAX_INFLATED_BYTES)
        start, partial = 0, partial or len(data) == _MAX_INFLATED_BYTES
    encoding = header.transfer_syntax.encoding
    context = _context(tags, encoding.implicit, BIG_ENDIAN if encoding.big_endian else LITTLE_ENDIAN)

    def read(data: bytes) -> RootElements:
        return _read(header, data, start, context, partial, lenient)

    return parse_with_uniform_vrs(read, data, start, encoding, partial=partial)


def _read(
    header: FileHeader, data: bytes, start: int, context: _RootContext, partial: bool, lenient: bool
) -> RootElements:
    walk = _RootWalk(data, partial, lenient)
    item_context = ItemContext(context)
    end = len(data) + 1
    try:
        end = walk_elements(walk, context, start, len(data), item_context)
    except TrailingBytesError:
        pass
    except Quarantine:
        if not lenient:
            raise
    if partial and end == len(data):
        raise NeedMoreDataError(2 * len(data))
    return RootElements(header, walk.found, item_context.codecs, lenient=lenient)
