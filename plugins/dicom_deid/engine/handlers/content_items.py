"""Read value type, concept name and kinds of values of a content item (PS3.3 sections 10.2 and C.17.3).

An item is read before its elements are handled, up to its children, to select the rule for it.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from pydicom.datadict import tag_for_keyword

from dicom_deid.dicom.walk import (
    STOP,
    UNDEFINED,
    DatasetContext,
    ElementHandler,
    ItemContext,
    SequenceHandler,
    UnknownHandler,
    Walk,
    check_item,
    skipping_handler,
    walk_item,
    walk_unchecked,
)
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import VALUE_TYPES, Concept


def tag_of_keyword(keyword: str) -> int:
    """Return the tag of a keyword of the dictionary.

    Raises
    ------
    ValueError
        If the dictionary does not hold the keyword.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"no keyword: {keyword}")
    return tag


CONTENT_SEQUENCE = tag_of_keyword("ContentSequence")
CONTENT_SEQUENCES = frozenset(
    map(
        tag_of_keyword,
        (
            *("ContentSequence", "AcquisitionContextSequence", "ContentItemModifierSequence"),
            *("ProtocolContextSequence", "SpecimenPreparationStepContentItemSequence"),
            *("SpecimenLocalizationContentItemSequence", "PerformedProcessingParametersSequence"),
            *("ScheduledProcessingParametersSequence", "ProcedureStepProgressParametersSequence"),
            *("QuantityDefinitionSequence", "ProductParameterSequence", "DataObservationSequence"),
            *("SubstanceAdministrationParameterSequence", "SegmentCharacteristicsSequence"),
            *("DevicePositionParameterSequence", "PatientSupportPositionParameterSequence"),
            *("PatientSupportPositionToleranceSequence", "PatientTreatmentPreparationProcedureParameterSequence"),
            *("RadiationDeviceConfigurationAndCommissioningKeySequence", "PrescriptionNotesSequence"),
            *("DosimetricObjectiveParameterSequence", "DeviceSpecificAcquisitionParameterSequence"),
            *("AcquisitionInitiationSequence", "AlternateValueSequence"),
        ),
    )
)
"""Sequences of PS3.3 whose items are content items: the tree of a report, and those that use a content item macro."""

_VALUE_TYPE = tag_of_keyword("ValueType")
_CONCEPT_NAME = tag_of_keyword("ConceptNameCodeSequence")
_CODES = frozenset(map(tag_of_keyword, ("CodeValue", "LongCodeValue", "URNCodeValue")))
_SCHEME = tag_of_keyword("CodingSchemeDesignator")
REFERENCED_CONTENT_ITEM = tag_of_keyword("ReferencedContentItemIdentifier")

_REFERENCE = ("ReferencedSOPSequence", ("ReferencedSOPInstanceUID",))
VALUES: dict[str, tuple[str, tuple[str, ...]]] = {
    "TEXT": ("", ("TextValue",)),
    "CODE": (
        "ConceptCodeSequence",
        ("CodeValue", "LongCodeValue", "URNCodeValue", "CodingSchemeDesignator", "CodeMeaning"),
    ),
    "NUM": (
        "MeasuredValueSequence",
        ("NumericValue", "FloatingPointValue", "RationalNumeratorValue", "RationalDenominatorValue"),
    ),
    "PNAME": ("", ("PersonName",)),
    "DATE": ("", ("Date",)),
    "TIME": ("", ("Time",)),
    "DATETIME": ("", ("DateTime",)),
    "UIDREF": ("", ("UID",)),
    "COMPOSITE": _REFERENCE,
    "IMAGE": _REFERENCE,
    "WAVEFORM": _REFERENCE,
}
"""By value type: the sequence that holds the value, if any, and the elements of the value. A rule writes the first of
them; the others, which say the same in another form, are removed."""

_REFERENCES = frozenset(("COMPOSITE", "IMAGE", "WAVEFORM"))
_NAMED = frozenset(("TEXT", "CODE", "NUM", "PNAME", "DATE", "TIME", "DATETIME", "UIDREF"))
"""Value types whose items must have a concept name (PS3.3 section C.17.3)."""
_OLDER_NAMES = {"NUMERIC": "NUM"}
"""Value types of acquisition contexts in earlier editions of PS3.3 section C.7.6.14."""

MAX_CACHED = 4096
"""Limit on cached concept names and decisions about them."""


class Reading(Walk):
    """Values read from one content item."""

    __slots__ = ("code", "declared", "is_reference", "present", "scheme")

    def __init__(self, data: bytes, partial: bool) -> None:
        super().__init__(data, partial)
        self.begin()

    def begin(self) -> None:
        """Reset before the next item."""
        self.declared = ""
        self.code = ""
        self.scheme = ""
        # The value types of the values that it holds, independent of the type that it declares.
        self.present: frozenset[str] = frozenset()
        self.is_reference = False


class _TextHandler(ElementHandler[Reading]):
    """Value type, code or coding scheme: at most one in an item."""

    __slots__ = ("name",)

    def __init__(self, form: int, name: str) -> None:
        super().__init__(form)
        self.name = name

    def handle(
        self, walk: Reading, context: DatasetContext[Reading], pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        text = _word(walk.data[start:end])
        if text and getattr(walk, self.name):
            raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)
        if text:
            setattr(walk, self.name, text)


@lru_cache(maxsize=MAX_CACHED)
def _word(value: bytes) -> str:
    return value.decode("iso8859").strip("\0 ").upper()


class _ValueHandler(UnknownHandler[Reading]):
    """An element that holds the value of an item of one of these value types."""

    __slots__ = ("value_types",)

    def __init__(self, form: int, items: DatasetContext[Any], value_types: frozenset[str]) -> None:
        super().__init__(form, items)
        self.value_types = value_types

    def handle(
        self, walk: Reading, context: DatasetContext[Reading], pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        if start != end:
            walk.present |= self.value_types

    def handle_undefined(
        self, walk: Reading, context: DatasetContext[Reading], pos: int, start: int, item_context: ItemContext
    ) -> int:
        walk.present |= self.value_types
        return super().handle_undefined(walk, context, pos, start, item_context)


class _ReferenceHandler(ElementHandler[Reading]):
    """The position of the item that this item refers to."""

    __slots__ = ()

    def handle(
        self, walk: Reading, context: DatasetContext[Reading], pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        walk.is_reference = True


class _ConceptNameHandler(SequenceHandler[Reading]):
    """The concept name: exactly one item.

    Decoded names are cached by their bytes, because the items of a report share few names.
    """

    __slots__ = ("cache",)

    def __init__(self, form: int, items: DatasetContext[Reading]) -> None:
        super().__init__(form, items)
        self.cache: dict[bytes, tuple[str, str]] = {}

    def handle(
        self, walk: Reading, context: DatasetContext[Reading], pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        if not self._use_cached(walk, start, end):
            stop = start if start == end else walk_item(walk, self.items, start, end, item_context)
            self._store(walk, context, pos, start, stop, end)

    def handle_undefined(
        self, walk: Reading, context: DatasetContext[Reading], pos: int, start: int, item_context: ItemContext
    ) -> int:
        delimitation = walk.data.find(context.order.sequence_delimitation, start)
        if not self._use_cached(walk, start, delimitation):
            stop = start if start == delimitation else walk_item(walk, self.items, start, len(walk.data), item_context)
            self._store(walk, context, pos, start, stop, delimitation)
        return delimitation + 8

    def _use_cached(self, walk: Reading, start: int, end: int) -> bool:
        found = self.cache.get(walk.data[start:end]) if not walk.code else None
        if found is None:
            return False
        walk.code, walk.scheme = found
        return True

    def _store(
        self, walk: Reading, context: DatasetContext[Reading], pos: int, start: int, stop: int, end: int
    ) -> None:
        if stop != end:
            raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)
        if len(self.cache) >= MAX_CACHED:
            self.cache.clear()
        self.cache[walk.data[start:end]] = walk.code, walk.scheme


_HELD: dict[int, frozenset[str]] = {}
for _value_type, (_holder, _keywords) in VALUES.items():
    for _keyword in (_holder,) if _holder else _keywords:
        _HELD[tag_of_keyword(_keyword)] = _HELD.get(tag_of_keyword(_keyword), frozenset()) | {_value_type}
_HELD[tag_of_keyword("NumericValue")] = frozenset(("NUM",))


class ContentItemContext(DatasetContext[Reading]):
    """A content item, read up to its children."""

    __slots__ = ()

    def resolve_handler(self, tag: int, vr: str | None, form: int) -> ElementHandler[Reading] | None:
        """Read the elements that select the item's rule, and skip all others."""
        if tag == CONTENT_SEQUENCE:
            # All that is read precedes the children of an item; an item that refers to another has no children.
            return STOP
        if tag == _VALUE_TYPE:
            return _TextHandler(form, "declared")
        if tag == _CONCEPT_NAME:
            return _ConceptNameHandler(form, _ConceptNameContext((*self.path, tag), self._is_implicit(vr), self.order))
        if tag == REFERENCED_CONTENT_ITEM:
            return _ReferenceHandler(form)
        skipping = skipping_handler(form, vr, self.implicit, self.order)
        if tag in _HELD:
            items: DatasetContext[Any] = self if skipping is None else skipping.items
            return _ValueHandler(form, items, _HELD[tag])
        return skipping

    def _is_implicit(self, vr: str | None) -> bool:
        return self.implicit or vr != "SQ"


class _ConceptNameContext(ContentItemContext):
    """The item of a concept name."""

    __slots__ = ()

    def resolve_handler(self, tag: int, vr: str | None, form: int) -> ElementHandler[Reading] | None:
        if tag in _CODES:
            return _TextHandler(form, "code")
        if tag == _SCHEME:
            return _TextHandler(form, "scheme")
        return skipping_handler(form, vr, self.implicit, self.order)


def read_item(
    reading: Reading, context: DatasetContext[Reading], pos: int, end: int, item_context: ItemContext, in_report: bool
) -> tuple[Concept, ...]:
    """Read the item at `pos` and return its concept, once per type of value that it declares or holds.

    Raises
    ------
    Quarantine
        MALFORMED for an item whose rule cannot be determined.
    """
    data = reading.data
    start = pos + 8
    length = context.order.u32.unpack_from(data, pos + 4)[0]
    check_item(context, data, start, end if length == UNDEFINED else min(start + length, end))
    reading.begin()
    try:
        walk_unchecked(reading, context, start, end if length == UNDEFINED else min(start + length, end), item_context)
    except struct.error:
        raise reading.truncation_error(context, pos, end + 8) from None
    if in_report:
        _check(reading)
    return _concepts(reading.declared, reading.present, reading.code, reading.scheme)


def _check(reading: Reading) -> None:
    """Refuse an item of a report whose rule cannot be determined; outside of reports such items have no rule.

    An item that refers to another has neither value type nor value.
    """
    declared = reading.declared
    if reading.is_reference and not (declared or reading.present):
        return
    is_code = bool(reading.scheme) or reading.code.startswith("URN:")
    needs_name = not {declared, *reading.present}.isdisjoint(_NAMED)
    if declared not in VALUE_TYPES or (not is_code if reading.code else needs_name):
        raise Quarantine(Reason.MALFORMED)


@lru_cache(maxsize=MAX_CACHED)
def _concepts(declared: str, present: frozenset[str], code: str, scheme: str) -> tuple[Concept, ...]:
    """Return the concept of an item, once per type of value that it declares or holds; none without a name.

    Earlier editions let the items of an acquisition context declare no type; the value determines it.
    """
    if not code:
        return ()
    declared = _OLDER_NAMES.get(declared, declared)
    value_types = present - _REFERENCES | {declared} if declared in VALUE_TYPES else present
    return tuple(Concept(code, scheme, value_type) for value_type in sorted(value_types))
