"""Report which elements a recipe changes, which of its rules never apply and what it leaves unchanged."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from dicom_deid.dicom.vr import vr_of
from dicom_deid.recipe.compiler import CompiledRecipe, Steps
from dicom_deid.recipe.concepts import Concept
from dicom_deid.recipe.element_names import DICTIONARY_TAGS, ElementName, keywords_in_any_case
from dicom_deid.recipe.errors import nearest
from dicom_deid.recipe.fields import ContentItem, Exact, FieldExpression, FieldsList, Search, ValuesList
from dicom_deid.recipe.profile_attributes import ProfileAttribute, profile_attributes
from dicom_deid.recipe.recipe import Recipe
from dicom_deid.recipe.rules import Action, ListEntry, Rule
from dicom_deid.recipe.types import all_optional, sop_classes, types_of
from dicom_deid.recipe.values import Function, Variable

_PRIVATE_FORM = re.compile(r"""\(?([0-9a-f]{4}),"([^"]+)",([0-9a-f]{2})\)?""", re.IGNORECASE)
_DATES = ("DA", "DT")
_CHARACTER_SET = 0x00080005
# Codes of PS3.15 Table E.3.4-1 that pydicom 3.0.2 does not know.
_NEWER_CODES = frozenset(("130884", "130885", "131561", "131562", "131563"))


@dataclass(frozen=True, slots=True)
class RuleReport:
    """Report on one rule.

    Parameters
    ----------
    rule
        The rule.
    reaches
        Keywords (or tags) of the dictionary elements that the rule selects at the root; for a private or nested name
        and for content items, that name. None if it depends on the values of an object.
    shadowed
        Why the rule never applies; empty if it does.
    warnings
        Likely mistakes.
    by_type
        For a composite action, the number of SOP classes by resolved action at the root: `BLANK 12, REMOVE 168`.
    """

    rule: Rule
    reaches: tuple[str, ...] | None
    shadowed: str
    warnings: tuple[str, ...]
    by_type: str = ""


@dataclass(frozen=True, slots=True)
class RecipeReport:
    """Report on a recipe, derived from the dictionary alone.

    Parameters
    ----------
    rules
        One report per rule, in order.
    untouched
        Attributes of PS3.15 Table E.1-1, ordered by tag, that the recipe leaves unchanged at the root, always or
        depending on a condition.
    warnings
        Likely mistakes in the recipe as a whole.
    """

    rules: tuple[RuleReport, ...]
    untouched: tuple[ProfileAttribute, ...]
    warnings: tuple[str, ...] = ()

    @property
    def direct_identifiers_untouched(self) -> tuple[ProfileAttribute, ...]:
        """Attributes among `untouched` that no option of the standard retains."""
        return tuple(attribute for attribute in self.untouched if attribute.is_direct_identifier)


def check(recipe: Recipe) -> RecipeReport:
    """Return the report on a recipe."""
    inspector = _Inspector(recipe)
    return RecipeReport(
        tuple(inspector.report(index, rule) for index, rule in enumerate(recipe.rules)),
        tuple(attribute for attribute in profile_attributes() if not inspector.touches(attribute.example_tag)),
        (*map(str, recipe.warnings), *inspector.unshifted_date_times(), *inspector.changed_character_set()),
    )


@cache
def _dictionary() -> tuple[ElementName, ...]:
    return tuple(ElementName.of(tag) for tag in DICTIONARY_TAGS)


class _Inspector:
    """A compiled recipe with a cache of steps."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.compiled = CompiledRecipe(recipe)
        self.compiled_all_optional = CompiledRecipe(recipe, all_optional())
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
        """Return the elements that an expression selects: from the dictionary, or the one that it names."""
        if isinstance(expression, FieldsList):
            entries: Iterable[ListEntry] = self.recipe.fields[expression.name]
            return list(dict.fromkeys(element for entry in entries for element in self.elements(entry.field)))
        if isinstance(expression, Exact):
            return [_element_of(expression)]
        parent = _parent_in(expression)
        children = () if parent is None else (ElementName.of(tag, parent=parent) for tag in DICTIONARY_TAGS)
        return [element for element in (*_dictionary(), *children) if expression.selects(element)]

    def steps(self, element: ElementName) -> Steps:
        if element not in self.steps_known:
            presence = self.compiled.presence([element])
            self.steps_known[element] = self.compiled.steps(element, presence)
        return self.steps_known[element]

    def touches(self, tag: int) -> bool:
        element = ElementName.of(tag)
        if self.compiled.is_skipped(element) or self.compiled.is_kept(element):
            return element.tag in {addition.element.tag for addition in self.compiled.additions}
        return any(
            step.is_certain and (step.action is not Action.JITTER or element.vr in _DATES)
            for step in self.steps(element)
        )

    # Rules that never apply

    def shadow(self, index: int, rule: Rule, elements: list[ElementName]) -> str:
        if rule.action is Action.KEEP:
            return _idle_keep(rule, elements)
        if isinstance(rule.field, ValuesList) or (isinstance(rule.field, Search) and not elements):
            return ""
        reasons = [self.reason(index, rule, element) for element in elements]
        return "" if not all(reasons) else reasons[0] if reasons else "its list is empty"

    def reason(self, index: int, rule: Rule, element: ElementName) -> str:
        """Return why the rule never applies to an element; empty if it does."""
        is_addition = rule.action is Action.ADD
        if not is_addition and self.compiled.is_skipped(element):
            return "no rule but ADD can touch this element"
        kept = next(
            (one for one in self.recipe.rules if one.action is Action.KEEP and one.field.selects(element)), None
        )
        if not is_addition and kept is not None and element.root:
            return f"{_place(kept)} keeps the element"
        steps = self.steps(element)
        if rule.action.is_composite:
            # With the strictest type the items of a sequence are kept.
            steps = (*steps, *self.compiled_all_optional.steps(element))
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
        return f"{_place(self.recipe.rules[later.rule_index])} overrides it"

    def content_shadow(self, index: int, rule: Rule, concept: Concept) -> str:
        """Return why the rule never applies to a content item; empty if it does."""
        steps = self.compiled.content_items[concept]
        if rule.action is Action.KEEP or any(step.rule_index == index for step in steps):
            return ""
        rivals = [one for one in self.recipe.rules if isinstance(one.field, ContentItem) and one is not rule]
        rivals = [one for one in rivals if one.field.text.lower() == rule.field.text.lower()]
        keeping = next((one for one in rivals if one.action is Action.KEEP), None)
        if keeping is not None:
            return f"{_place(keeping)} keeps the item"
        return f"{_place(self.recipe.rules[steps[-1].rule_index])} overrides it"

    # Likely mistakes

    def unshifted_date_times(self) -> Iterable[str]:
        """Warn if the recipe shifts dates (DA) and leaves dates with time (DT) of Table E.1-1 unshifted."""
        shifting = [rule for rule in self.recipe.rules if rule.action is Action.JITTER]
        dates = [element for element in _dictionary() if element.vr == "DA"]
        if not any(step.action is Action.JITTER for element in dates for step in self.steps(element)):
            return
        tags = (attribute.example_tag for attribute in profile_attributes())
        elements = [element for element in map(ElementName.of, tags) if element.vr == "DT"]
        left = [element.keyword for element in elements if not self.touches(element.tag)]
        if left:
            shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
            yield (
                f"dates (VR DA) are shifted, but dates with time (VR DT) keep the original day: {shown}; "
                f"to shift them, add: JITTER select:VR:DT {shifting[0].value}"
            )

    def changed_character_set(self) -> Iterable[str]:
        """Warn if the recipe changes what text is read by: text that stays keeps its bytes."""
        if self.touches(_CHARACTER_SET):
            yield (
                "SpecificCharacterSet is removed or replaced, and text that stays would be read as other characters; "
                "to keep it, add: KEEP SpecificCharacterSet"
            )

    @staticmethod
    def warnings(rule: Rule, elements: list[ElementName]) -> Iterable[str]:
        if isinstance(rule.field, Search) and not elements:
            yield "selects no element of the dictionary"
        if rule.action is Action.JITTER and isinstance(rule.field, Exact):
            vr = vr_of(elements[0].tag)
            if vr not in (*_DATES, "UN"):
                yield f"JITTER shifts dates, but {rule.field} has VR {vr}"
        if rule.action is Action.REMOVE and isinstance(rule.value, Variable):
            yield "removes every selected element if the variable is true, and none if it is false"
        is_name = any(element.vr == "PN" for element in elements)
        if rule.value == Function("generate_value") and is_name:
            yield (
                "a name becomes a pseudonym that looks like a UID, another one for each spelling; "
                "write a fixed text, or use a function that returns the new PatientID"
            )


def _by_type(rule: Rule, elements: list[ElementName]) -> str:
    if not rule.action.is_composite:
        return ""
    (element,) = elements
    types = (types_of(uid).of(element.keyword, True) for uid in sop_classes())
    actions = (rule.action.resolved(type_, is_sequence=element.vr == "SQ") for type_ in types)
    counts = Counter("items kept" if action is None else str(action) for action in actions)
    return ", ".join(f"{action} {count}" for action, count in sorted(counts.items()))


def _content_warnings(concept: Concept) -> Iterable[str]:
    if concept.scheme == "DCM" and concept.code not in _dicom_codes():
        near = nearest(concept.code, _dicom_codes())
        hint = f"; did you mean {near}?" if near else ""
        yield f"{concept.code} is not a code of the DICOM controlled terminology (PS3.16){hint}"


@cache
def _dicom_codes() -> frozenset[str]:
    # Imported here because it takes a quarter of a second and only `recipe check` needs it.
    from pydicom.sr.codedict import codes

    return _NEWER_CODES | {code.value.upper() for code in codes.DCM.concepts.values()}


def _idle_keep(rule: Rule, elements: list[ElementName]) -> str:
    if isinstance(rule.field, FieldsList | ValuesList):
        return "KEEP does not apply to lists"
    if isinstance(rule.field, Exact) and not elements[0].root:
        return "KEEP applies to elements at the root only"
    return ""


def _parent_in(expression: FieldExpression) -> str | None:
    """Return the nested name of the sequence in an expression such as ``endswith:A__B__c``; None without one."""
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
    """Return an element that the expression selects."""
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
