"""Structured content by concept name: which content item is removed, and what becomes of the value of another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from dicom_deid.dicom.walk import (
    ByteOrder,
    DatasetContext,
    ItemContext,
    SequenceHandler,
    close_length,
    skip_item,
    walk_item,
    walk_items,
)
from dicom_deid.engine.functions import GENERATE_VALUE
from dicom_deid.engine.handlers.content_items import (
    CONTENT_SEQUENCE,
    CONTENT_SEQUENCES,
    MAX_KNOWN,
    REFERENCED_CONTENT_ITEM,
    VALUES,
    ContentItemContext,
    Reading,
    read_item,
    tag_of_keyword,
)
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Action, Concept, Function, Literal, Step, Steps, Value

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
            holder, keywords = VALUES.get(concept.value_type, ("", ()))
            if holder:
                holders.add(tag_of_keyword(holder))
            for index, keyword in enumerate(keywords):
                is_written = index == 0 or not of_concept
                steps[tag_of_keyword(keyword)] = of_concept if is_written else _removal(of_concept[-1].rule_index)
        return cls(tuple(concept for concept, _ in chosen), steps, frozenset(holders))

    @classmethod
    def dummy(cls, rule_index: int) -> Treatment:
        """Return the treatment of an item that a rule would remove: it keeps its place, and all values are dummies."""
        steps = {
            tag_of_keyword(keyword): _removal(rule_index)
            if value is None
            else (Step(rule_index, Action.REPLACE, value),)
            for keyword, value in _DUMMIES.items()
        }
        holders = {tag_of_keyword(holder) for holder, _ in VALUES.values() if holder}
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


def _refers_to_items(walk: Any, order: ByteOrder) -> bool:
    """Tell whether an object may refer to content items by their positions, which a removal would shift."""
    if walk.content_references is None:
        tag = order.tag.pack(REFERENCED_CONTENT_ITEM >> 16, REFERENCED_CONTENT_ITEM & 0xFFFF)
        walk.content_references = tag in walk.data
    found: bool = walk.content_references
    return found


class ContentSequenceHandler(SequenceHandler):
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

    __slots__ = ("context", "decisions", "in_report", "rules", "treated")

    def __init__(self, form: int, tag: int, items: Any, rules: ContentRules) -> None:
        super().__init__(form, items)
        self.rules = rules
        self.treated = items.treated
        self.decisions: dict[tuple[Concept, ...], tuple[int | None, DatasetContext]] = {}
        self.in_report = tag == CONTENT_SEQUENCE
        self.context = ContentItemContext(items.path, items.implicit, items.order)

    def visit(
        self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Decide over each item of a sequence of defined length."""
        if start == end:
            return
        edits = walk.edits
        mark = len(edits)
        edits.append(None)
        reached, is_empty = self._walk(walk, start, end, item_context, False)
        if reached != end:
            raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)
        if is_empty:
            edits[mark] = (pos, start, b"", None)
        else:
            close_length(edits, mark, start - 4, end - start)

    def visit_undefined(
        self, walk: Any, context: DatasetContext, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Decide over each item of a sequence of undefined length."""
        mark = len(walk.edits)
        walk.edits.append((start, start, b"", None))
        reached, is_empty = self._walk(walk, start, len(walk.data), item_context, True)
        if is_empty:
            walk.edits[mark] = (pos, start, b"", None)
            walk.edits.append((reached - 8, reached, b"", None))
        return reached

    def _walk(self, walk: Any, pos: int, end: int, item_context: ItemContext, delimited: bool) -> tuple[int, bool]:
        """Return where the items end, and whether the sequence is left without any and must go.

        A report has no empty tree (PS3.3 section C.17.3); contexts may be empty.
        """
        data, item, removed, left = walk.data, self.items.order.item, 0, 0
        reading = Reading(data, walk.partial)
        while pos + 8 <= end and data[pos : pos + 4] == item:
            removing, here = self._decision(read_item(reading, self.context, pos, end, item_context, self.in_report))
            if removing is not None and not (self.in_report and _refers_to_items(walk, self.items.order)):
                stop = skip_item(walk, self.items, pos, end)
                # What is taken out with its sequence is searched as what is taken out alone.
                walk.edits.append((pos, stop, b"", item_context))
                walk.rules[removing] += 1
                removed += 1
            else:
                stop = walk_item(walk, here, pos, end, item_context)
                left += 1
            pos = stop
        return walk_items(
            walk, self.items, pos, end, item_context, delimited
        ), self.in_report and removed > 0 and not left

    def _decision(self, concepts: tuple[Concept, ...]) -> tuple[int | None, DatasetContext]:
        """Return the rule that removes an item, if one does, and the level of the item where it stays."""
        found = self.decisions.get(concepts)
        if found is None:
            removing = self.rules.removes(concepts)
            treatment = self.rules.treatment(concepts) if removing is None else self.rules.dummy(removing)
            found = removing, self.items if treatment is None else self.treated(treatment)
            if len(self.decisions) >= MAX_KNOWN:
                self.decisions.clear()
            self.decisions[concepts] = found
        return found
