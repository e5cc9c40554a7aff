"""What a content item says of itself (PS3.3 sections 10.2 and C.17.3): value type, concept name, which values it holds.

An item is read before it is walked, as far as its rule must be known, and no further than its children.
"""

from __future__ import annotations

import struct
from functools import lru_cache

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
    item_level,
    skipped,
    walk_item,
    walk_level,
)
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import VALUE_TYPES, Concept


def tag_of_keyword(keyword: str) -> int:
    """Return the tag that a keyword of the dictionary names.

    Raises
    ------
    ValueError
        If none has it.
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
"""The sequences of PS3.3 whose items are content items: a report's tree, and those made of a content item macro."""

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
"""By value type: the sequence of the item that holds the value, if one does, and the elements of the value. A rule
writes the first of them, and what says the same in another form is removed."""

_REFERENCES = frozenset(("COMPOSITE", "IMAGE", "WAVEFORM"))
_NAMED = frozenset(("TEXT", "CODE", "NUM", "PNAME", "DATE", "TIME", "DATETIME", "UIDREF"))
"""Value types whose items must have a concept name (PS3.3 section C.17.3)."""
_OLDER_NAMES = {"NUMERIC": "NUM"}
"""Value types as acquisition contexts have them in earlier editions of PS3.3 section C.7.6.14."""

MAX_KNOWN = 4096
"""Concept names, and what follows from them, that are remembered."""


class Reading(Walk):
    """What was read of one content item."""

    __slots__ = ("code", "declared", "is_reference", "present", "scheme")

    def __init__(self, data: bytes, partial: bool) -> None:
        super().__init__(data, partial)
        self.begin()

    def begin(self) -> None:
        """Forget what was read of an item before."""
        self.declared = ""
        self.code = ""
        self.scheme = ""
        # The value types of the values that it holds, whatever it declares.
        self.present: frozenset[str] = frozenset()
        self.is_reference = False


class _TextHandler(ElementHandler):
    """Value type, code or coding scheme: there may be one in an item."""

    __slots__ = ("name",)

    def __init__(self, form: int, name: str) -> None:
        super().__init__(form)
        self.name = name

    def visit(
        self, walk: Reading, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        text = _word(walk.data[start:end])
        if text and getattr(walk, self.name):
            raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)
        if text:
            setattr(walk, self.name, text)


@lru_cache(maxsize=MAX_KNOWN)
def _word(value: bytes) -> str:
    return value.decode("iso8859").strip("\0 ").upper()


class _ValueHandler(UnknownHandler):
    """An element that holds the value of an item of these types."""

    __slots__ = ("value_types",)

    def __init__(self, form: int, items: DatasetContext, value_types: frozenset[str]) -> None:
        super().__init__(form, items)
        self.value_types = value_types

    def visit(
        self, walk: Reading, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        if start != end:
            walk.present |= self.value_types

    def visit_undefined(
        self, walk: Reading, context: DatasetContext, pos: int, start: int, item_context: ItemContext
    ) -> int:
        walk.present |= self.value_types
        return super().visit_undefined(walk, context, pos, start, item_context)


class _ReferenceHandler(ElementHandler):
    """The position of another item, which this item stands for."""

    __slots__ = ()

    def visit(
        self, walk: Reading, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        walk.is_reference = True


class _ConceptNameHandler(SequenceHandler):
    """The concept name: one item, once.

    The items of a report share few names: what the same bytes said before, they say again.
    """

    __slots__ = ("known",)

    def __init__(self, form: int, items: DatasetContext) -> None:
        super().__init__(form, items)
        self.known: dict[bytes, tuple[str, str]] = {}

    def visit(
        self, walk: Reading, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        if not self._is_known(walk, start, end):
            stop = start if start == end else walk_item(walk, self.items, start, end, item_context)
            self._learn(walk, context, pos, start, stop, end)

    def visit_undefined(
        self, walk: Reading, context: DatasetContext, pos: int, start: int, item_context: ItemContext
    ) -> int:
        delimitation = walk.data.find(context.order.sequence_delimitation, start)
        if not self._is_known(walk, start, delimitation):
            stop = start if start == delimitation else walk_item(walk, self.items, start, len(walk.data), item_context)
            self._learn(walk, context, pos, start, stop, delimitation)
        return delimitation + 8

    def _is_known(self, walk: Reading, start: int, end: int) -> bool:
        found = self.known.get(walk.data[start:end]) if not walk.code else None
        if found is None:
            return False
        walk.code, walk.scheme = found
        return True

    def _learn(self, walk: Reading, context: DatasetContext, pos: int, start: int, stop: int, end: int) -> None:
        if stop != end:
            raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)
        if len(self.known) >= MAX_KNOWN:
            self.known.clear()
        self.known[walk.data[start:end]] = walk.code, walk.scheme


_HELD: dict[int, frozenset[str]] = {}
for _value_type, (_holder, _keywords) in VALUES.items():
    for _keyword in (_holder,) if _holder else _keywords:
        _HELD[tag_of_keyword(_keyword)] = _HELD.get(tag_of_keyword(_keyword), frozenset()) | {_value_type}
_HELD[tag_of_keyword("NumericValue")] = frozenset(("NUM",))


class ContentItemContext(DatasetContext):
    """A content item, read as far as what stands beneath it."""

    __slots__ = ()

    def as_implicit(self) -> DatasetContext:
        """Return the same level for an item whose elements have implicit VRs."""
        if self.twin is None:
            self.twin = type(self)(self.path, True, self.order)
        twin: DatasetContext = self.twin
        return twin

    def decide(self, tag: int, vr: str | None, form: int) -> ElementHandler | None:
        """Read what tells the item's rule, and step over everything else."""
        if tag == CONTENT_SEQUENCE:
            # What is read stands before the children of an item; one that stands for another item has none.
            return STOP
        if tag == _VALUE_TYPE:
            return _TextHandler(form, "declared")
        if tag == _CONCEPT_NAME:
            return _ConceptNameHandler(form, _ConceptNameContext((*self.path, tag), self._is_implicit(vr), self.order))
        if tag == REFERENCED_CONTENT_ITEM:
            return _ReferenceHandler(form)
        beneath = skipped(form, vr, self.implicit, self.order)
        if tag in _HELD:
            items = beneath.items if isinstance(beneath, UnknownHandler) else self
            return _ValueHandler(form, items, _HELD[tag])
        return beneath

    def _is_implicit(self, vr: str | None) -> bool:
        return self.implicit or vr != "SQ"


class _ConceptNameContext(ContentItemContext):
    """The item of a concept name."""

    __slots__ = ()

    def decide(self, tag: int, vr: str | None, form: int) -> ElementHandler | None:
        if tag in _CODES:
            return _TextHandler(form, "code")
        if tag == _SCHEME:
            return _TextHandler(form, "scheme")
        return skipped(form, vr, self.implicit, self.order)


def read_item(
    reading: Reading, context: DatasetContext, pos: int, end: int, item_context: ItemContext, in_report: bool
) -> tuple[Concept, ...]:
    """Read the item at `pos` and return its concept, once for each type of value that it declares or holds.

    Raises
    ------
    Quarantine
        MALFORMED for an item whose rule cannot be told.
    """
    data = reading.data
    start = pos + 8
    length = context.order.u32.unpack_from(data, pos + 4)[0]
    here = item_level(context, data, start)
    reading.begin()
    try:
        walk_level(reading, here, start, end if length == UNDEFINED else min(start + length, end), item_context)
    except struct.error:
        raise reading.cut_short(context, pos, end + 8) from None
    if in_report:
        _check(reading)
    return _concepts(reading.declared, reading.present, reading.code, reading.scheme)


def _check(reading: Reading) -> None:
    """Refuse an item of a report whose rule cannot be told; outside of reports such items follow no rule of their own.

    An item that stands for another has neither value type nor value.
    """
    declared = reading.declared
    if reading.is_reference and not (declared or reading.present):
        return
    is_code = bool(reading.scheme) or reading.code.startswith("URN:")
    needs_name = not {declared, *reading.present}.isdisjoint(_NAMED)
    if declared not in VALUE_TYPES or (not is_code if reading.code else needs_name):
        raise Quarantine(Reason.MALFORMED)


@lru_cache(maxsize=MAX_KNOWN)
def _concepts(declared: str, present: frozenset[str], code: str, scheme: str) -> tuple[Concept, ...]:
    """Return the concept of an item, once for each type of value that it declares or holds; none without a name.

    What an acquisition context holds tells its type: earlier editions let it declare none.
    """
    if not code:
        return ()
    declared = _OLDER_NAMES.get(declared, declared)
    value_types = present - _REFERENCES | {declared} if declared in VALUE_TYPES else present
    return tuple(Concept(code, scheme, value_type) for value_type in sorted(value_types))
