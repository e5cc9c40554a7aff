"""Compile a recipe into the steps for an element of a given name.

Precedence follows the `deid` language: KEEP protects from every action but ADD; REPLACE and JITTER protect from
REMOVE; otherwise the order of the recipe decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from dicom_deid.recipe.concepts import Concept
from dicom_deid.recipe.element_names import ElementName
from dicom_deid.recipe.fields import ContentItem, Exact, FieldsList, ValuesList, lower_case_names
from dicom_deid.recipe.recipe import Recipe
from dicom_deid.recipe.rules import Action, ListEntry, Rule
from dicom_deid.recipe.types import AttributeTypes, types_of
from dicom_deid.recipe.values import DeidFunction, Literal, Value, Variable

SKIPPED = frozenset(
    {
        "PixelData",
        "RedPaletteColorLookupTableData",
        "GreenPaletteColorLookupTableData",
        "BluePaletteColorLookupTableData",
        "VOILUTSequence",
        "FileMetaInformationGroupLength",
        "FileMetaInformationVersion",
        "TransferSyntaxUID",
        "ImplementationClassUID",
    }
)
"""Keywords of the elements that only ADD can change, at any depth, including everything inside them."""

Presence = frozenset[tuple[str, int]]
"""Pairs of ``%fields`` list name and tag that the list selects in one object."""
NO_PRESENCE: Presence = frozenset()


class Step(NamedTuple):
    """One action on an element.

    Parameters
    ----------
    rule_index
        Index of the rule in the recipe.
    action
        ADD, BLANK, JITTER, REMOVE or REPLACE.
    value
        The value that ADD and REPLACE write, or the days of JITTER; None for BLANK and REMOVE.
    condition
        REMOVE only: the element is removed when this variable, or what this function returns, is true.
    values_list
        The step is taken only if a value of this ``%values`` list is found in the element as the previous steps
        have left it.
    """

    rule_index: int
    action: Action
    value: Value | None = None
    condition: Value | None = None
    values_list: str | None = None

    @property
    def is_certain(self) -> bool:
        """True if the step is taken in every object."""
        return self.condition is None and self.values_list is None


Steps = tuple[Step, ...]


class Addition(NamedTuple):
    """An element that ADD rules write at the root or in the file meta information.

    Parameters
    ----------
    rule_indices
        Indices of the ADD rules of the element, at least one.
    element
        The element by its dictionary names and VR (ST when the dictionary does not hold the tag).
    """

    rule_indices: tuple[int, ...]
    element: ElementName

    @property
    def rule_index(self) -> int:
        """Index of the first ADD rule of the element."""
        return self.rule_indices[0]


class ValueLists:
    """The values that ``%values`` lists collected from one object.

    Parameters
    ----------
    patterns
        For each list a pattern that finds any of its values; nothing when the list is empty.
    """

    __slots__ = ("_patterns",)

    def __init__(self, patterns: Mapping[str, re.Pattern[str] | None]) -> None:
        self._patterns = patterns

    def hits(self, name: str, values: Iterable[str]) -> bool:
        """Return whether a value of the list is found, in any case, in one of the texts."""
        pattern = self._patterns[name]
        return pattern is not None and any(pattern.search(value) for value in values)


class CompiledRecipe:
    """Steps of a recipe per element; deterministic, without side effects and thread-safe.

    Parameters
    ----------
    recipe
        The recipe, or several combined.
    types
        The types by which composite actions are resolved; the strictest of any SOP class if not given.

    Attributes
    ----------
    content_items
        Steps for content items, by concept: one unconditional REMOVE, or steps for the item's value that replace the
        steps for its elements; no steps if the value is kept.
    """

    def __init__(self, recipe: Recipe, types: AttributeTypes | None = None) -> None:
        self.recipe = recipe
        self.types = types or types_of("")
        for_elements = [index for index, rule in enumerate(recipe.rules) if not isinstance(rule.field, ContentItem)]
        self._keeps = tuple(recipe.rules[index] for index in for_elements if recipe.rules[index].action is Action.KEEP)
        self._additions = _additions(recipe.rules)
        acting = [index for index in for_elements if recipe.rules[index].action not in (Action.KEEP, Action.ADD)]
        # Most rules name one element and are looked up by name; the others are tried one after another.
        self._by_name: dict[str, list[int]] = {}
        self._others: list[int] = []
        for index in acting:
            field = recipe.rules[index].field
            (self._by_name.setdefault(field.lower, []) if isinstance(field, Exact) else self._others).append(index)
        used = [recipe.rules[index].field for index in acting]
        self._fields_used = tuple(dict.fromkeys(field.name for field in used if isinstance(field, FieldsList)))
        self._values_used = tuple(dict.fromkeys(field.name for field in used if isinstance(field, ValuesList)))

        self.content_items = self._content_items()
        self._actions = tuple(map(self._action, recipe.rules))

    # Properties of the recipe

    @property
    def additions(self) -> tuple[Addition, ...]:
        """Elements that ADD rules write, one per tag, in the order of the recipe."""
        return tuple(self._additions.values())

    @property
    def has_keeps(self) -> bool:
        """True if the recipe has KEEP rules."""
        return bool(self._keeps)

    @property
    def depends_on_sop_class(self) -> bool:
        """True if the recipe has composite actions, which depend on the SOP class of the object."""
        return any(rule.action.is_composite for rule in self.recipe.rules)

    @property
    def needs_presence(self) -> bool:
        """True if the steps depend on which other elements the object holds, see :meth:`presence`.

        A list of ``%fields`` selects all elements of the tags that its lines match in the object. If every line matches
        by tag alone, the name of an element is enough to decide.
        """
        entries = [entry for name in self._fields_used for entry in self.recipe.fields[name]]
        added = [addition.element for addition in self._additions.values()]
        return any(not entry.field.depends_on_tag_only or any(map(entry.field.selects, added)) for entry in entries)

    @property
    def needs_values(self) -> bool:
        """True if the steps depend on values that the object holds, see :meth:`collect_values`."""
        return bool(self._values_used)

    # Lists that depend on the object

    def presence(self, elements: Iterable[ElementName]) -> Presence:
        """Return what the ``%fields`` lists select in an object.

        Parameters
        ----------
        elements
            All elements of the original object that rules can see: neither skipped nor kept, nor inside such elements.
        """
        lists = [(name, self.recipe.fields[name]) for name in self._fields_used]
        return frozenset(
            (name, element.tag) for element in elements for name, entries in lists if _selected(entries, element)
        )

    def gives_values(self, element: ElementName) -> bool:
        """Return whether a ``%values`` list collects from elements of that name."""
        return any(_selected(self.recipe.values[name], element) for name in self._values_used)

    def collect_values(
        self, elements: Iterable[tuple[ElementName, Sequence[str]]], *, escape: Callable[[str], str] = re.escape
    ) -> ValueLists:
        """Collect the values of the ``%values`` lists from an object.

        Parameters
        ----------
        elements
            Elements of the original object that rules can see, with the components of their values as text;
            those for which :meth:`gives_values` is false may be left out.
        escape
            Makes a regular expression of a value; by default one that finds the value itself.
        """
        found: dict[str, dict[str, None]] = {name: {} for name in self._values_used}
        for element, values in elements:
            for name, parts in found.items():
                for entry in self.recipe.values[name]:
                    if entry.field.selects(element):
                        parts.update(dict.fromkeys(part for value in values for part in entry.parts(value)))
        return ValueLists(
            {
                name: re.compile("|".join(map(escape, parts)), re.IGNORECASE) if parts else None
                for name, parts in found.items()
            }
        )

    # Steps for an element

    @staticmethod
    def is_skipped(element: ElementName) -> bool:
        """Return whether only ADD can change the element and everything inside it."""
        return element.keyword in SKIPPED

    def is_kept(self, element: ElementName) -> bool:
        """Return whether a KEEP rule selects an element of the root data set or the file meta information.

        If an element of the tag exists at the root, the tag is protected at every depth, including everything inside.
        """
        return element.root and any(rule.field.selects(element) for rule in self._keeps)

    def is_retained(self, element: ElementName) -> bool:
        """Return whether a KEEP rule, or a fragment that took other rules away, keeps the element on purpose."""
        return self.is_kept(element) or not self.recipe.retained.isdisjoint(lower_case_names(element))

    def steps(self, element: ElementName, presence: Presence = NO_PRESENCE) -> Steps:
        """Return the steps, in order, for an element that exists in the object and is neither skipped nor kept.

        Steps that are always overridden are left out: nothing follows an unconditional REMOVE, and an ADD of the
        element at the root is the first step.

        Parameters
        ----------
        element
            The element's names.
        presence
            Result of :meth:`presence` for the object, if :attr:`needs_presence`.
        """
        return self._ordered(element, self._selected(element, presence, is_original=True))

    def steps_of_addition(self, addition: Addition, presence: Presence = NO_PRESENCE) -> Steps:
        """Return what happens to an added element that was not in the object, or was skipped or kept there.

        The first step is an ADD; only rules that follow it see the element, and one of them may remove it again.
        """
        chosen = self._selected(addition.element, presence, is_original=False)
        return self._ordered(addition.element, chosen)

    def action(self, rule_index: int) -> Action:
        """Return the action of a rule; a composite action unresolved if it differs between root and items."""
        return self._actions[rule_index]

    def _action(self, rule: Rule) -> Action:
        if not (rule.action.is_composite and isinstance(rule.field, Exact) and rule.field.tag is not None):
            return rule.action
        root = ElementName.of(rule.field.tag)
        resolved = [self._resolved(rule, element) for element in (root, root._replace(root=False))]
        done = {one.action for one in resolved if one is not None}
        return done.pop() if len(done) == 1 else rule.action

    def _selected(self, element: ElementName, presence: Presence, is_original: bool) -> list[int]:
        """Return the indices of the rules that select an element, but those of KEEP and ADD."""
        chosen = {index for name in lower_case_names(element) for index in self._by_name.get(name, ())}
        rules = self.recipe.rules
        chosen.update(index for index in self._others if self._selects(rules[index], element, presence, is_original))
        return sorted(chosen)

    def _selects(self, rule: Rule, element: ElementName, presence: Presence, is_original: bool) -> bool:
        field = rule.field
        if isinstance(field, FieldsList):
            by_itself = is_original and _selected(self.recipe.fields[field.name], element)
            return by_itself or (field.name, element.tag) in presence
        return isinstance(field, ValuesList) or field.selects(element)

    def _content_items(self) -> dict[Concept, Steps]:
        rules = self.recipe.rules
        chosen: dict[Concept, list[int]] = {}
        for index, rule in enumerate(rules):
            if isinstance(rule.field, ContentItem):
                chosen.setdefault(rule.field.concept, []).append(index)
        kept = {concept for concept, indices in chosen.items() if any(rules[i].action is Action.KEEP for i in indices)}
        return {
            concept: ()
            if concept in kept
            else _simplified(_unprotected([(index, rules[index]) for index in indices]), may_overwrite=True)
            for concept, indices in chosen.items()
        }

    def _ordered(self, element: ElementName, chosen: list[int]) -> Steps:
        resolved = [(index, self._resolved(self.recipe.rules[index], element)) for index in chosen]
        steps = _unprotected([(index, rule) for index, rule in resolved if rule is not None])
        if element.root and element.tag in self._additions:
            added = [_step(index, self.recipe.rules[index]) for index in self._additions[element.tag].rule_indices]
            steps = sorted([*steps, *added], key=lambda step: step.rule_index)
        # An intermediate value of a nested element may make an enclosing sequence match a values list.
        return _simplified(steps, may_overwrite=element.root or not self.needs_values)

    def _resolved(self, rule: Rule, element: ElementName) -> Rule | None:
        """Return the rule with its composite action resolved; None if the items of the sequence are kept."""
        if not rule.action.is_composite:
            return rule
        type_ = self.types.of(element.keyword, element.root)
        action = rule.action.resolved(type_, is_sequence=element.vr == "SQ")
        if action is None:
            return None
        return replace(rule, action=action, value=rule.value if action is Action.REPLACE else None)


def _additions(rules: Sequence[Rule]) -> dict[int, Addition]:
    additions: dict[int, Addition] = {}
    for index, rule in enumerate(rules):
        if rule.action is Action.ADD and isinstance(rule.field, Exact) and rule.field.tag is not None:
            element = ElementName.of(rule.field.tag)
            if element.vr == "UN":
                element = element._replace(vr="ST")
            earlier = additions.get(element.tag, Addition((), element))
            additions[element.tag] = earlier._replace(rule_indices=(*earlier.rule_indices, index))
    return additions


def _protects(rule: Rule) -> bool:
    """Return whether the rule protects the elements it selects from REMOVE; a rule with a list does not."""
    return rule.action in (Action.REPLACE, Action.JITTER) and not isinstance(rule.field, FieldsList | ValuesList)


def _unprotected(chosen: Sequence[tuple[int, Rule]]) -> list[Step]:
    """Return the steps of rules, without REMOVE if another rule protects from it."""
    is_protected = any(_protects(rule) for _, rule in chosen)
    return [_step(index, rule) for index, rule in chosen if not (is_protected and rule.action is Action.REMOVE)]


def _selected(entries: Iterable[ListEntry], element: ElementName) -> bool:
    return any(entry.field.selects(element) for entry in entries)


def _step(index: int, rule: Rule) -> Step:
    values_list = rule.field.name if isinstance(rule.field, ValuesList) else None
    if rule.action is Action.REMOVE:
        return Step(index, rule.action, None, rule.value, values_list)
    return Step(index, rule.action, rule.value, None, values_list)


def _simplified(candidates: Iterable[Step], may_overwrite: bool) -> Steps:
    steps: list[Step] = []
    for step in candidates:
        if step.action is Action.ADD:
            steps = [step]
        elif not (steps and steps[-1].is_certain and _makes_idle(steps[-1], step)):
            while may_overwrite and steps and step.is_certain and _overwrites(step, steps[-1]):
                steps.pop()
            steps.append(step)
    return tuple(steps)


def _makes_idle(last: Step, step: Step) -> bool:
    """Return whether `step` has no effect after `last`: any step after REMOVE, JITTER after BLANK."""
    return last.action is Action.REMOVE or (last.action is Action.BLANK and step.action is Action.JITTER)


def _overwrites(step: Step, last: Step) -> bool:
    """Return whether the result of `last` is always overwritten by `step`."""
    if last.action is Action.ADD:
        return False
    if step.action is Action.REMOVE:
        return True
    if last.action is Action.REMOVE:
        return False
    if step.action is Action.REPLACE:
        return isinstance(step.value, Literal | Variable) or (
            isinstance(step.value, DeidFunction) and step.value.name in ("dicom_uuid", "basic_uuid", "suffix_uuid")
        )
    return step.action is Action.BLANK
