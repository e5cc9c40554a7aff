"""What a recipe reaches, what in it can never act, and what it leaves alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from dicom_deid.recipe.compiler import CompiledRecipe, Steps
from dicom_deid.recipe.concepts import Concept
from dicom_deid.recipe.dictionary import DICTIONARY_TAGS, ElementName, dictionary_vr, keywords_in_any_case
from dicom_deid.recipe.errors import nearest
from dicom_deid.recipe.fields import ContentItem, Exact, FieldExpression, FieldsList, Search, ValuesList
from dicom_deid.recipe.profile_attributes import ProfileAttribute, profile_attributes
from dicom_deid.recipe.recipe import Recipe
from dicom_deid.recipe.rules import Action, ListEntry, Rule
from dicom_deid.recipe.types import all_optional, sop_classes, types_of
from dicom_deid.recipe.values import Variable

_PRIVATE_FORM = re.compile(r"""\(?([0-9a-f]{4}),"([^"]+)",([0-9a-f]{2})\)?""", re.IGNORECASE)
_DATES = ("DA", "DT")


@dataclass(frozen=True, slots=True)
class RuleReport:
    """What became of one rule.

    Parameters
    ----------
    rule
        The rule.
    reaches
        The elements of the dictionary, at the root, that the rule selects, by keyword or else by tag; for a private
        or nested name and for content items, that name. Nothing when the values of an object decide.
    shadowed
        Why the rule can never act; empty when it can.
    warnings
        What may not be meant.
    by_type
        Of a composite action, what it does at the root and in how many SOP classes: `BLANK 12, REMOVE 168`.
    """

    rule: Rule
    reaches: tuple[str, ...] | None
    shadowed: str
    warnings: tuple[str, ...]
    by_type: str = ""


@dataclass(frozen=True, slots=True)
class RecipeReport:
    """What a recipe does, told from the dictionary alone.

    Parameters
    ----------
    rules
        One report a rule, in order.
    untouched
        The attributes of PS3.15 Table E.1-1 that the recipe leaves alone at the root of every object, for certain or
        unless a condition holds, in the order of their tags.
    """

    rules: tuple[RuleReport, ...]
    untouched: tuple[ProfileAttribute, ...]

    @property
    def direct_identifiers_untouched(self) -> tuple[ProfileAttribute, ...]:
        """Those that no option of the standard lets stay."""
        return tuple(attribute for attribute in self.untouched if attribute.is_direct_identifier)


def check(recipe: Recipe) -> RecipeReport:
    """Say what a recipe reaches, what in it can never act, and what it leaves alone."""
    inspector = _Inspector(recipe)
    return RecipeReport(
        tuple(inspector.report(index, rule) for index, rule in enumerate(recipe.rules)),
        tuple(attribute for attribute in profile_attributes() if not inspector.touches(attribute.example_tag)),
    )


@cache
def _dictionary() -> tuple[ElementName, ...]:
    return tuple(ElementName.of(tag) for tag in DICTIONARY_TAGS)


class _Inspector:
    """A recipe and its plan, with what was already asked of it."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.plan = CompiledRecipe(recipe)
        self.optional_plan = CompiledRecipe(recipe, all_optional())
        self.steps_known: dict[ElementName, Steps] = {}

    def report(self, index: int, rule: Rule) -> RuleReport:
        if isinstance(rule.field, ContentItem):
            shadowed = self.content_shadow(index, rule, rule.field.concept)
            return RuleReport(rule, (str(rule.field),), shadowed, tuple(_content_warnings(rule.field.concept)))
        elements = self.elements(rule.field)
        names = None if isinstance(rule.field, ValuesList) else tuple(map(_shown, elements))
        shadowed = self.shadow(index, rule, elements)
        return RuleReport(rule, names, shadowed, tuple(self.warnings(rule, elements)), _by_type(rule, elements))

    def elements(self, expression: FieldExpression) -> list[ElementName]:
        """Return the elements that an expression reaches: of the dictionary, or made after its own words."""
        if isinstance(expression, FieldsList):
            entries: Iterable[ListEntry] = self.recipe.fields[expression.name]
            return list(dict.fromkeys(element for entry in entries for element in self.elements(entry.field)))
        if isinstance(expression, Exact):
            return [_element_of(expression)]
        parent = _parent_in(expression)
        beneath = () if parent is None else (ElementName.of(tag, parent=parent) for tag in DICTIONARY_TAGS)
        return [element for element in (*_dictionary(), *beneath) if expression.selects(element)]

    def steps(self, element: ElementName) -> Steps:
        if element not in self.steps_known:
            presence = self.plan.presence([element])
            self.steps_known[element] = self.plan.steps(element, presence)
        return self.steps_known[element]

    def touches(self, tag: int) -> bool:
        element = ElementName.of(tag)
        if self.plan.is_skipped(element) or self.plan.is_kept(element):
            return element.tag in {addition.element.tag for addition in self.plan.additions}
        return any(
            step.is_certain and (step.action is not Action.JITTER or element.vr in _DATES)
            for step in self.steps(element)
        )

    # Rules that can never act

    def shadow(self, index: int, rule: Rule, elements: list[ElementName]) -> str:
        if rule.action is Action.KEEP:
            return _idle_keep(rule, elements)
        if isinstance(rule.field, ValuesList) or (isinstance(rule.field, Search) and not elements):
            return ""
        reasons = [self.reason(index, rule, element) for element in elements]
        return "" if not all(reasons) else reasons[0] if reasons else "its list is empty"

    def reason(self, index: int, rule: Rule, element: ElementName) -> str:
        """Say why the rule never acts on an element; empty when it does."""
        is_addition = rule.action is Action.ADD
        if not is_addition and self.plan.is_skipped(element):
            return "no rule but ADD can touch this element"
        kept = next(
            (one for one in self.recipe.rules if one.action is Action.KEEP and one.field.selects(element)), None
        )
        if not is_addition and kept is not None and element.root:
            return f"{_place(kept)} keeps the element"
        steps = self.steps(element)
        if rule.action.is_composite:
            # Where the strictest type holds, the items of a sequence stay.
            steps = (*steps, *self.optional_plan.steps(element))
        if any(step.rule_index == index for step in steps):
            return ""
        if rule.action is Action.REMOVE:
            protecting = [one for one in self.recipe.rules if one.action in (Action.REPLACE, Action.JITTER)]
            found = next((one for one in protecting if one.field.selects(element)), None)
            if found is not None:
                return f"{_place(found)} changes the element, which protects it from REMOVE"
        if not steps:
            return "it selects no element of an object"
        later = next((step for step in steps if step.rule_index > index), steps[-1])
        return f"{_place(self.recipe.rules[later.rule_index])} has the last word on the element"

    def content_shadow(self, index: int, rule: Rule, concept: Concept) -> str:
        """Say why the rule never acts on a content item; empty when it does."""
        steps = self.plan.content_items[concept]
        if rule.action is Action.KEEP or any(step.rule_index == index for step in steps):
            return ""
        rivals = [one for one in self.recipe.rules if isinstance(one.field, ContentItem) and one is not rule]
        rivals = [one for one in rivals if one.field.text.lower() == rule.field.text.lower()]
        keeping = next((one for one in rivals if one.action is Action.KEEP), None)
        if keeping is not None:
            return f"{_place(keeping)} keeps the item"
        return f"{_place(self.recipe.rules[steps[-1].rule_index])} has the last word on the item"

    # What may not be meant

    @staticmethod
    def warnings(rule: Rule, elements: list[ElementName]) -> Iterable[str]:
        if isinstance(rule.field, Search) and not elements:
            yield "reaches no element of the dictionary"
        if rule.action is Action.JITTER and isinstance(rule.field, Exact):
            vr = dictionary_vr(elements[0].tag)
            if vr not in (*_DATES, "UN"):
                yield f"shifts dates, and {rule.field} is no date but {vr}"
        if rule.action is Action.REMOVE and isinstance(rule.value, Variable):
            yield "removes nothing, or all that it selects, as the variable is false or true"


def _by_type(rule: Rule, elements: list[ElementName]) -> str:
    if not rule.action.is_composite:
        return ""
    (element,) = elements
    types = (types_of(uid).of(element.keyword, True) for uid in sop_classes())
    actions = (rule.action.resolved(type_, is_sequence=element.vr == "SQ") for type_ in types)
    counts = Counter("nothing to the sequence itself" if action is None else str(action) for action in actions)
    return ", ".join(f"{action} {count}" for action, count in sorted(counts.items()))


def _content_warnings(concept: Concept) -> Iterable[str]:
    if concept.scheme == "DCM" and concept.code not in _dicom_codes():
        near = nearest(concept.code, _dicom_codes())
        hint = f"; did you mean {near}?" if near else ""
        yield f"{concept.code} is no code of the DICOM controlled terminology (PS3.16) that is known here{hint}"


@cache
def _dicom_codes() -> frozenset[str]:
    # It costs a quarter of a second, and only a check asks.
    from pydicom.sr.codedict import codes

    return frozenset(code.value.upper() for code in codes.DCM.concepts.values())


def _idle_keep(rule: Rule, elements: list[ElementName]) -> str:
    if isinstance(rule.field, FieldsList | ValuesList):
        return "KEEP does not apply to lists"
    if isinstance(rule.field, Exact) and not elements[0].root:
        return "KEEP applies to elements at the root only"
    return ""


def _parent_in(expression: FieldExpression) -> str | None:
    """Return the nested name of a sequence that an expression such as ``endswith:A__B__c`` names before its end."""
    parent = expression.text.rpartition(":")[2].rpartition("__")[0]
    known = bool(parent) and all(part.lower() in keywords_in_any_case() for part in parent.split("__"))
    return parent if known else None


def _place(rule: Rule) -> str:
    return f"{rule.source}:{rule.line}"


def _shown(element: ElementName) -> str:
    if not element.root:
        return element.nested_name
    return element.keyword or f"({element.tag >> 16:04x},{element.tag & 0xFFFF:04x})"


def _element_of(expression: Exact) -> ElementName:
    """Make an element that the expression selects."""
    if expression.tag is not None:
        return ElementName.of(expression.tag)
    private = _PRIVATE_FORM.fullmatch(expression.text)
    if private is not None:
        tag = int(f"{private[1]}10{private[3]}", 16)
        return ElementName.of(tag, private_creator=private[2])
    parent, separator, keyword = expression.text.rpartition("__")
    if not separator:
        return ElementName.of(0)._replace(name=expression.text)
    nested = Exact(keyword).tag if keyword else None
    return ElementName.of(nested or 0, parent=parent)._replace(nested_name=expression.text)
