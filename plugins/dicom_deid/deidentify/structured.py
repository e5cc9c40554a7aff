"""Structured content by concept name: which content item is removed, and what becomes of the value of another.

Before an item is walked it is read as far as its rule must be known: value type, concept name (PS3.3 sections 10.2 and
C.17.3). An item whose rule cannot be told is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydicom.datadict import tag_for_keyword

from dicom_deid.deidentify.functions import GENERATE_VALUE
from dicom_deid.dicom.walk import (
    STOP,
    UNDEFINED,
    ByteOrder,
    Entry,
    Level,
    Scope,
    SequenceEntry,
    UnknownEntry,
    Walk,
    close_length,
    item_level,
    skip_item,
    skipped,
    walk_item,
    walk_items,
    walk_level,
)
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import VALUE_TYPES, Action, Concept, Function, Literal, Step, Steps, Value


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"no keyword: {keyword}")
    return tag


CONTENT_SEQUENCE = _tag("ContentSequence")
CONTENT_SEQUENCES = frozenset(
    map(
        _tag,
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

_VALUE_TYPE = _tag("ValueType")
_CONCEPT_NAME = _tag("ConceptNameCodeSequence")
_CODES = frozenset(map(_tag, ("CodeValue", "LongCodeValue", "URNCodeValue")))
_SCHEME = _tag("CodingSchemeDesignator")
_REFERENCED_CONTENT_ITEM = _tag("ReferencedContentItemIdentifier")

_REFERENCE = ("ReferencedSOPSequence", ("ReferencedSOPInstanceUID",))
_VALUES = {
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
"""Value types whose items must have a concept name (PS3.3 Table C.17.3-6)."""
_OLDER_NAMES = {"NUMERIC": "NUM"}
"""Value types as acquisition contexts have them in earlier editions of PS3.3 section C.7.6.14."""

_PSEUDONYM = Function(GENERATE_VALUE)
_DUMMIES: Mapping[str, Value | None] = {
    "TextValue": Literal("Anonymized"),
    "PersonName": Literal("Anonymous"),
    "Date": Literal("19000101"),
    "Time": Literal("000000"),
    "DateTime": Literal("19000101000000"),
    "UID": _PSEUDONYM,
    "ReferencedSOPInstanceUID": _PSEUDONYM,
    "CodeValue": Literal("ANONYMIZED"),
    "LongCodeValue": Literal("ANONYMIZED"),
    "URNCodeValue": Literal("urn:anonymized"),
    "CodingSchemeDesignator": Literal("99ANON"),
    "CodeMeaning": Literal("Anonymized"),
    "NumericValue": Literal("0"),
    "FloatingPointValue": None,
    "RationalNumeratorValue": None,
    "RationalDenominatorValue": None,
}
"""What is written in place of a value that cannot be removed with its item; nothing where the element is removed."""


class Treatment(NamedTuple):
    """What becomes of the value of an item, in place of what is done with its elements elsewhere.

    Parameters
    ----------
    key
        What tells one treatment from another.
    steps
        By tag; no steps where the element is kept.
    holders
        Sequences of the item to which the treatment extends.
    """

    key: tuple[object, ...]
    steps: Mapping[int, Steps]
    holders: frozenset[int]

    @classmethod
    def of(cls, rules: Iterable[tuple[Concept, Steps]]) -> Treatment:
        """Return the treatment of an item to which the rules of these concepts apply."""
        chosen = tuple(rules)
        steps: dict[int, Steps] = {}
        holders = set()
        for concept, of_concept in chosen:
            holder, keywords = _VALUES.get(concept.value_type, ("", ()))
            if holder:
                holders.add(_tag(holder))
            for index, keyword in enumerate(keywords):
                is_written = index == 0 or not of_concept
                steps[_tag(keyword)] = of_concept if is_written else _removal(of_concept[-1].rule_index)
        return cls(tuple(concept for concept, _ in chosen), steps, frozenset(holders))

    @classmethod
    def dummy(cls, rule_index: int) -> Treatment:
        """Return the treatment of an item that a rule would remove: it keeps its place, and all values are dummies."""
        steps = {
            _tag(keyword): _removal(rule_index) if value is None else (Step(rule_index, Action.REPLACE, value),)
            for keyword, value in _DUMMIES.items()
        }
        holders = {_tag(holder) for holder, _ in _VALUES.values() if holder}
        return cls((rule_index,), steps, CONTENT_SEQUENCES | holders)


def _removal(rule_index: int) -> Steps:
    return (Step(rule_index, Action.REMOVE),)


class ContentRules:
    """The rules of a recipe for content items.

    Parameters
    ----------
    steps
        What is done with the items of each concept, as the plan has it.
    """

    def __init__(self, steps: Mapping[Concept, Steps]) -> None:
        self._steps = steps
        self._removing = {
            concept: taken[-1].rule_index
            for concept, taken in steps.items()
            if taken and taken[-1].action is Action.REMOVE
        }
        self._treatments: dict[tuple[Concept, ...], Treatment] = {}
        self._dummies: dict[int, Treatment] = {}

    def __bool__(self) -> bool:
        return bool(self._steps)

    def removes(self, concepts: tuple[Concept, ...]) -> int | None:
        """Return the index of the rule that removes an item; nothing where none does."""
        for concept in concepts:
            if concept in self._removing:
                return self._removing[concept]
        return None

    def treatment(self, concepts: tuple[Concept, ...]) -> Treatment | None:
        """Return what becomes of the value of an item; nothing where no rule for content items says so."""
        chosen = tuple(concept for concept in concepts if concept in self._steps)
        if not chosen:
            return None
        if chosen not in self._treatments:
            self._treatments[chosen] = Treatment.of((concept, self._steps[concept]) for concept in chosen)
        return self._treatments[chosen]

    def dummy(self, rule_index: int) -> Treatment:
        """Return what becomes of an item that a rule removes and that must keep its place."""
        if rule_index not in self._dummies:
            self._dummies[rule_index] = Treatment.dummy(rule_index)
        return self._dummies[rule_index]


# What an item says of itself

# Concept names that are remembered.
_MAX_KNOWN = 4096


class _Reading(Walk):
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


class _TextEntry(Entry):
    """Value type, code or coding scheme: there may be one in an item."""

    __slots__ = ("name",)

    def __init__(self, form: int, name: str) -> None:
        super().__init__(form)
        self.name = name

    def visit(self, walk: _Reading, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        text = _word(walk.data[start:end])
        if text and getattr(walk, self.name):
            raise Quarantine(Reason.MALFORMED, level.where(walk.data, pos), pos)
        if text:
            setattr(walk, self.name, text)


@lru_cache(maxsize=_MAX_KNOWN)
def _word(value: bytes) -> str:
    return value.decode("iso8859").strip("\0 ").upper()


class _ValueEntry(UnknownEntry):
    """An element that holds the value of an item of these types."""

    __slots__ = ("value_types",)

    def __init__(self, form: int, items: Level, value_types: frozenset[str]) -> None:
        super().__init__(form, items)
        self.value_types = value_types

    def visit(self, walk: _Reading, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        if start != end:
            walk.present |= self.value_types

    def visit_undefined(self, walk: _Reading, level: Level, pos: int, start: int, scope: Scope) -> int:
        walk.present |= self.value_types
        return super().visit_undefined(walk, level, pos, start, scope)


class _ReferenceEntry(Entry):
    """The position of another item, which this item stands for."""

    __slots__ = ()

    def visit(self, walk: _Reading, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        walk.is_reference = True


class _ConceptNameEntry(SequenceEntry):
    """The concept name: one item, once.

    The items of a report share few names: what the same bytes said before, they say again.
    """

    __slots__ = ("known",)

    def __init__(self, form: int, items: Level) -> None:
        super().__init__(form, items)
        self.known: dict[bytes, tuple[str, str]] = {}

    def visit(self, walk: _Reading, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        if not self._is_known(walk, start, end):
            stop = start if start == end else walk_item(walk, self.items, start, end, scope)
            self._learn(walk, level, pos, start, stop, end)

    def visit_undefined(self, walk: _Reading, level: Level, pos: int, start: int, scope: Scope) -> int:
        delimitation = walk.data.find(level.order.sequence_delimitation, start)
        if not self._is_known(walk, start, delimitation):
            stop = start if start == delimitation else walk_item(walk, self.items, start, len(walk.data), scope)
            self._learn(walk, level, pos, start, stop, delimitation)
        return delimitation + 8

    def _is_known(self, walk: _Reading, start: int, end: int) -> bool:
        found = self.known.get(walk.data[start:end]) if not walk.code else None
        if found is None:
            return False
        walk.code, walk.scheme = found
        return True

    def _learn(self, walk: _Reading, level: Level, pos: int, start: int, stop: int, end: int) -> None:
        if stop != end:
            raise Quarantine(Reason.MALFORMED, level.where(walk.data, pos), pos)
        if len(self.known) >= _MAX_KNOWN:
            self.known.clear()
        self.known[walk.data[start:end]] = walk.code, walk.scheme


_HELD: dict[int, frozenset[str]] = {}
for _value_type, (_holder, _keywords) in _VALUES.items():
    for _keyword in (_holder,) if _holder else _keywords:
        _HELD[_tag(_keyword)] = _HELD.get(_tag(_keyword), frozenset()) | {_value_type}
_HELD[_tag("NumericValue")] = frozenset(("NUM",))


class _ReadingLevel(Level):
    """A content item, read as far as what stands beneath it."""

    __slots__ = ()

    def as_implicit(self) -> Level:
        if self.twin is None:
            self.twin = type(self)(self.path, True, self.order)
        twin: Level = self.twin
        return twin

    def decide(self, tag: int, vr: str | None, form: int) -> Entry | None:
        if tag == CONTENT_SEQUENCE:
            # What is read stands before the children of an item; one that stands for another item has none.
            return STOP
        if tag == _VALUE_TYPE:
            return _TextEntry(form, "declared")
        if tag == _CONCEPT_NAME:
            return _ConceptNameEntry(form, _NameLevel((*self.path, tag), self._is_implicit(vr), self.order))
        if tag == _REFERENCED_CONTENT_ITEM:
            return _ReferenceEntry(form)
        beneath = skipped(form, vr, self.implicit, self.order)
        if tag in _HELD:
            items = beneath.items if isinstance(beneath, UnknownEntry) else self
            return _ValueEntry(form, items, _HELD[tag])
        return beneath

    def _is_implicit(self, vr: str | None) -> bool:
        return self.implicit or vr != "SQ"


class _NameLevel(_ReadingLevel):
    """The item of a concept name."""

    __slots__ = ()

    def decide(self, tag: int, vr: str | None, form: int) -> Entry | None:
        if tag in _CODES:
            return _TextEntry(form, "code")
        if tag == _SCHEME:
            return _TextEntry(form, "scheme")
        return skipped(form, vr, self.implicit, self.order)


def _read(reading: _Reading, level: Level, pos: int, end: int, scope: Scope, in_report: bool) -> tuple[Concept, ...]:
    """Read the item at `pos` and return its concept, once for each type of value that it declares or holds.

    Raises
    ------
    Quarantine
        MALFORMED for an item whose rule cannot be told.
    """
    data = reading.data
    start = pos + 8
    length = level.order.u32.unpack_from(data, pos + 4)[0]
    here = item_level(level, data, start)
    reading.begin()
    try:
        walk_level(reading, here, start, end if length == UNDEFINED else min(start + length, end), scope)
    except struct.error:
        raise reading.cut_short(level, pos, end + 8) from None
    if in_report:
        _check(reading)
    return _concepts(reading.declared, reading.present, reading.code, reading.scheme)


def _check(reading: _Reading) -> None:
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


@lru_cache(maxsize=_MAX_KNOWN)
def _concepts(declared: str, present: frozenset[str], code: str, scheme: str) -> tuple[Concept, ...]:
    """Return the concept of an item, once for each type of value that it declares or holds; none without a name.

    What an acquisition context holds tells its type: earlier editions let it declare none.
    """
    if not code:
        return ()
    declared = _OLDER_NAMES.get(declared, declared)
    value_types = present - _REFERENCES | {declared} if declared in VALUE_TYPES else present
    return tuple(Concept(code, scheme, value_type) for value_type in sorted(value_types))


def _refers_to_items(walk: Any, order: ByteOrder) -> bool:
    """Tell whether an object may refer to content items by their positions, which a removal would shift."""
    if walk.content_references is None:
        tag = order.tag.pack(_REFERENCED_CONTENT_ITEM >> 16, _REFERENCED_CONTENT_ITEM & 0xFFFF)
        walk.content_references = tag in walk.data
    found: bool = walk.content_references
    return found


class ContentSequenceEntry(SequenceEntry):
    """A sequence of content items: each is removed, or walked with the treatment of its concept.

    Parameters
    ----------
    tag
        Of the sequence.
    items
        The level of items to which no rule for content items applies; it tells that of the others (``treated``).
    rules
        The rules for content items.
    """

    __slots__ = ("decisions", "in_report", "level", "rules", "treated")

    def __init__(self, form: int, tag: int, items: Any, rules: ContentRules) -> None:
        super().__init__(form, items)
        self.rules = rules
        self.treated = items.treated
        self.decisions: dict[tuple[Concept, ...], tuple[int | None, Level]] = {}
        self.in_report = tag == CONTENT_SEQUENCE
        self.level = _ReadingLevel(items.path, items.implicit, items.order)

    def visit(self, walk: Any, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Decide over each item of a sequence of defined length."""
        if start == end:
            return
        edits = walk.edits
        mark = len(edits)
        edits.append(None)
        reached, is_empty = self._walk(walk, start, end, scope, False)
        if reached != end:
            raise Quarantine(Reason.MALFORMED, level.where(walk.data, pos), pos)
        if is_empty:
            edits[mark] = (pos, start, b"", None)
        else:
            close_length(edits, mark, start - 4, end - start)

    def visit_undefined(self, walk: Any, level: Level, pos: int, start: int, scope: Scope) -> int:
        """Decide over each item of a sequence of undefined length."""
        mark = len(walk.edits)
        walk.edits.append((start, start, b"", None))
        reached, is_empty = self._walk(walk, start, len(walk.data), scope, True)
        if is_empty:
            walk.edits[mark] = (pos, start, b"", None)
            walk.edits.append((reached - 8, reached, b"", None))
        return reached

    def _walk(self, walk: Any, pos: int, end: int, scope: Scope, delimited: bool) -> tuple[int, bool]:
        """Return where the items end, and whether the sequence is left without any and must go.

        A report has no empty tree (PS3.3 section C.17.3); contexts may be empty.
        """
        data, item, removed, left = walk.data, self.items.order.item, 0, 0
        reading = _Reading(data, walk.partial)
        while pos + 8 <= end and data[pos : pos + 4] == item:
            removing, here = self._decision(_read(reading, self.level, pos, end, scope, self.in_report))
            if removing is not None and not (self.in_report and _refers_to_items(walk, self.items.order)):
                stop = skip_item(walk, self.items, pos, end)
                # What is taken out with its sequence is searched as what is taken out alone.
                walk.edits.append((pos, stop, b"", scope))
                walk.rules[removing] += 1
                removed += 1
            else:
                stop = walk_item(walk, here, pos, end, scope)
                left += 1
            pos = stop
        return walk_items(walk, self.items, pos, end, scope, delimited), self.in_report and removed > 0 and not left

    def _decision(self, concepts: tuple[Concept, ...]) -> tuple[int | None, Level]:
        """Return the rule that removes an item, if one does, and the level of the item where it stays."""
        found = self.decisions.get(concepts)
        if found is None:
            removing = self.rules.removes(concepts)
            treatment = self.rules.treatment(concepts) if removing is None else self.rules.dummy(removing)
            found = removing, self.items if treatment is None else self.treated(treatment)
            if len(self.decisions) >= _MAX_KNOWN:
                self.decisions.clear()
            self.decisions[concepts] = found
        return found
