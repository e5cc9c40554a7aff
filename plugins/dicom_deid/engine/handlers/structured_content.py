"""Structured content by concept name: remove content items, or replace their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from dicom_deid.dicom.walk import (
    ByteOrder,
    ItemContext,
    RuleEdit,
    SearchedEdit,
    SequenceHandler,
    close_length_edit,
    reserve_length_edit,
    skip_item,
    walk_item,
    walk_items,
)
from dicom_deid.engine.functions import GENERATE_VALUE
from dicom_deid.engine.handlers.basic import Context, ObjectWalk
from dicom_deid.engine.handlers.content_items import (
    CONTENT_SEQUENCE,
    CONTENT_SEQUENCES,
    MAX_CACHED,
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
"""Value written if an item cannot be removed; `None` if the element is removed."""


class ContentItemRule(NamedTuple):
    """Steps for the elements that hold the value of a content item, in place of the rules for these elements.

    Parameters
    ----------
    key
        Identifies the rule.
    steps
        By tag; no steps if the element is kept.
    holders
        Sequences of the item to whose items the rule extends.
    """

    key: tuple[object, ...]
    steps: Mapping[int, Steps]
    holders: frozenset[int]

    @classmethod
    def of(cls, rules: Iterable[tuple[Concept, Steps]]) -> ContentItemRule:
        """Return the rule for an item that the rules of these concepts apply to."""
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
    def dummy(cls, rule_index: int) -> ContentItemRule:
        """Return the rule for an item that cannot be removed as a rule asks: all its values become dummies."""
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
        The steps for the items of each concept, from the compiled recipe.
    """

    def __init__(self, steps: Mapping[Concept, Steps]) -> None:
        self._steps = steps
        self._removing = {
            concept: of_concept[-1].rule_index
            for concept, of_concept in steps.items()
            if of_concept and of_concept[-1].action is Action.REMOVE
        }
        self._item_rules: dict[tuple[Concept, ...], ContentItemRule] = {}
        self._dummies: dict[int, ContentItemRule] = {}

    def __bool__(self) -> bool:
        return bool(self._steps)

    def removes(self, concepts: tuple[Concept, ...]) -> int | None:
        """Return the index of the rule that removes an item, or `None`."""
        for concept in concepts:
            if concept in self._removing:
                return self._removing[concept]
        return None

    def item_rule(self, concepts: tuple[Concept, ...]) -> ContentItemRule | None:
        """Return the rule for the value of an item, or `None` if no rule selects content items like it."""
        chosen = tuple(concept for concept in concepts if concept in self._steps)
        if not chosen:
            return None
        if chosen not in self._item_rules:
            self._item_rules[chosen] = ContentItemRule.of((concept, self._steps[concept]) for concept in chosen)
        return self._item_rules[chosen]

    def dummy(self, rule_index: int) -> ContentItemRule:
        """Return the rule for an item that should be removed and must keep its position."""
        if rule_index not in self._dummies:
            self._dummies[rule_index] = ContentItemRule.dummy(rule_index)
        return self._dummies[rule_index]


def refers_to_items(walk: ObjectWalk, order: ByteOrder) -> bool:
    """Return whether an object may refer to content items by position, which a removal would shift."""
    if walk.content_references is None:
        tag = order.tag.pack(REFERENCED_CONTENT_ITEM >> 16, REFERENCED_CONTENT_ITEM & 0xFFFF)
        walk.content_references = tag in walk.data
    return walk.content_references


class ContentSequenceHandler(SequenceHandler[ObjectWalk]):
    """A sequence of content items: each is removed, or parsed with the rule for its concept.

    Parameters
    ----------
    tag
        Of the sequence.
    items
        The context of items to which no rule for content items applies.
    with_item_rule
        Returns the context of items whose value a rule replaces.
    rules
        The rules for content items.
    """

    __slots__ = ("decisions", "in_report", "reading_context", "rules", "with_item_rule")

    def __init__(
        self,
        form: int,
        tag: int,
        items: Context,
        with_item_rule: Callable[[ContentItemRule], Context],
        rules: ContentRules,
    ) -> None:
        super().__init__(form, items)
        self.rules = rules
        self.with_item_rule = with_item_rule
        self.decisions: dict[tuple[Concept, ...], tuple[int | None, Context]] = {}
        self.in_report = tag == CONTENT_SEQUENCE
        self.reading_context = ContentItemContext(items.path, items.implicit, items.order)

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Handle each item of a sequence of defined length."""
        if start == end:
            return
        edits = walk.edits
        mark = reserve_length_edit(edits)
        reached, is_empty = self._walk(walk, start, end, item_context, False)
        if reached != end:
            raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)
        if is_empty:
            edits[mark] = SearchedEdit(pos, start, b"")
        else:
            close_length_edit(edits, mark, start - 4, end - start)

    def handle_undefined(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Handle each item of a sequence of undefined length."""
        mark = len(walk.edits)
        walk.edits.append(SearchedEdit(start, start, b""))
        reached, is_empty = self._walk(walk, start, len(walk.data), item_context, True)
        if is_empty:
            walk.edits[mark] = SearchedEdit(pos, start, b"")
            walk.edits.append(SearchedEdit(reached - 8, reached, b""))
        return reached

    def _walk(
        self, walk: ObjectWalk, pos: int, end: int, item_context: ItemContext, delimited: bool
    ) -> tuple[int, bool]:
        """Return where the items end, and whether no item is left so that the sequence must be removed.

        A report has no empty tree (PS3.3 section C.17.3); contexts may be empty.
        """
        data, item, removed, left = walk.data, self.items.order.item, 0, 0
        reading = Reading(data, walk.partial)
        while pos + 8 <= end and data[pos : pos + 4] == item:
            removing, here = self._decision(
                read_item(reading, self.reading_context, pos, end, item_context, self.in_report)
            )
            if removing is not None and not (self.in_report and refers_to_items(walk, self.items.order)):
                stop = skip_item(walk, self.items, pos, end)
                # The values in the item become search terms, as those of any removed element.
                walk.edits.append(RuleEdit(pos, stop, b"", item_context))
                walk.rules[removing] += 1
                removed += 1
            else:
                stop = walk_item(walk, here, pos, end, item_context)
                left += 1
            pos = stop
        return walk_items(
            walk, self.items, pos, end, item_context, delimited
        ), self.in_report and removed > 0 and not left

    def _decision(self, concepts: tuple[Concept, ...]) -> tuple[int | None, Context]:
        """Return the rule that removes an item, if one does, and the context of the item if it stays."""
        found = self.decisions.get(concepts)
        if found is None:
            removing = self.rules.removes(concepts)
            item_rule = self.rules.item_rule(concepts) if removing is None else self.rules.dummy(removing)
            found = removing, self.items if item_rule is None else self.with_item_rule(item_rule)
            if len(self.decisions) >= MAX_CACHED:
                self.decisions.clear()
            self.decisions[concepts] = found
        return found
