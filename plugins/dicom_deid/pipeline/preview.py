"""Preview what a recipe does to one object; nothing is written and no pseudonym is stored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dicom_deid.dicom.tags import tag_text
from dicom_deid.engine import Deidentifier, DeidentifyResult
from dicom_deid.exceptions import Quarantine
from dicom_deid.objects import SourceRange
from dicom_deid.objectstore import ObjectStore
from dicom_deid.pipeline.changes import Change, ChangeKind, Elements, changes_between, count_unchanged, read_elements
from dicom_deid.pipeline.fetch import FetchedObject, fetch_object
from dicom_deid.pipeline.preview_pseudonyms import PreviewPseudonyms
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

ITEM_NUMBER = re.compile(r"\[\d+\]")
"""The number of an item in a tag path."""
_TAG_LENGTH = len(tag_text(0))


@dataclass(frozen=True, slots=True)
class ObjectPreview:
    """Changes that a recipe would make to one object.

    Parameters
    ----------
    changes
        The elements that change, in the order of their paths.
    unchanged
        Number of elements that stay as they are.
    modality
        The object's modality, empty when it could not be read.
    actions, rules, notes
        Counts by action, by index of the rule, and of notes.
    rule_texts
        The rules that act on elements, by tag paths without numbers of items.
    reason, where
        Why the object would be quarantined, and at which element; None and empty if it would not.
    """

    changes: tuple[Change, ...]
    unchanged: int
    modality: str = ""
    actions: dict[str, int] = field(default_factory=dict)
    rules: dict[int, int] = field(default_factory=dict)
    notes: dict[Reason, int] = field(default_factory=dict)
    rule_texts: Mapping[str, str] = field(default_factory=dict)
    reason: Reason | None = None
    where: str = ""

    def treatment(self, path: str, change: Change | None) -> Treatment:
        """Return what is done to the element of a tag path, given its change."""
        if change is None:
            return Treatment(None)
        place = ITEM_NUMBER.sub("", path)
        if change.kind is ChangeKind.REMOVED:
            # Its own rule, or that of a sequence around it which is removed.
            while place and place not in self.rule_texts:
                place = place[:-_TAG_LENGTH]
        return Treatment(change.kind, self.rule_texts.get(place, ""))


class Treatment(NamedTuple):
    """The change that a recipe makes to an element, and the rule for it.

    Parameters
    ----------
    kind
        The change, None if the element stays as it is.
    rule
        The rule that makes it; empty for a setting.
    """

    kind: ChangeKind | None
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.rule or 'setting'}" if self.kind else "stays"


class Difference(NamedTuple):
    """An element that two recipes treat differently."""

    path: str
    name: str
    one: Treatment
    other: Treatment


def preview_object(
    deidentifiers: Sequence[Deidentifier], store: ObjectStore, key: str, *, size: int, etag: str | None = None
) -> list[ObjectPreview]:
    """Return what would be done to one object by each of several recipes, with the same pseudonyms.

    Parameters
    ----------
    deidentifiers
        Recipes and settings.
    store, key, size, etag
        The object; of a large one only the elements before its pixel data are read.
    """
    pseudonyms = PreviewPseudonyms()
    fetched: FetchedObject | None = None
    before: Elements | None = None
    previews = []
    for deidentifier in deidentifiers:
        try:
            if fetched is None or fetched.sha256 is None:
                fetched = fetch_object(deidentifier, store, key, size=size, etag=etag)
                analysis = fetched.analysis
            else:
                analysis = deidentifier.analyse(bytes(fetched.data))
            result = deidentifier.rewrite(analysis, pseudonyms.resolve(analysis.identifiers))
        except Quarantine as quarantine:
            previews.append(ObjectPreview((), 0, reason=quarantine.reason, where=quarantine.where))
            continue
        header = b"".join(part for part in result.parts if not isinstance(part, SourceRange))
        if before is None:
            before = read_elements(bytes(fetched.data))
        changes = tuple(changes_between(before, read_elements(header, before)))
        previews.append(
            ObjectPreview(
                changes,
                unchanged=count_unchanged(before, changes),
                modality=analysis.modality,
                actions=dict(result.actions),
                rules=dict(result.rules),
                notes=dict(result.notes),
                rule_texts=_rule_texts(deidentifier.recipe, result),
            )
        )
    return previews


def _rule_texts(recipe: Recipe, result: DeidentifyResult) -> dict[str, str]:
    texts = {}
    for path, indices in result.rules_by_path().items():
        first, *others = sorted(indices)
        more = f" and {len(others)} more" if others else ""
        texts["".join(map(tag_text, path))] = f"{recipe.rules[first]}{more}"
    return texts


def differences(one: ObjectPreview, other: ObjectPreview) -> tuple[Difference, ...]:
    """Return the elements that two recipes treat differently, of two previews of one object."""
    first = {change.path: change for change in one.changes}
    second = {change.path: change for change in other.changes}
    found = []
    for path in sorted({*first, *second}):
        left, right = first.get(path), second.get(path)
        known = left or right
        if known is not None and (
            left is None or right is None or (left.kind, left.after) != (right.kind, right.after)
        ):
            found.append(Difference(path, known.name, one.treatment(path, left), other.treatment(path, right)))
    return tuple(found)


def by_treatment(found: Iterable[Difference]) -> dict[tuple[Treatment, Treatment], Counter[str]]:
    """Return the names of elements, and how many have that name, by what two recipes do to them."""
    groups: dict[tuple[Treatment, Treatment], Counter[str]] = {}
    for each in found:
        groups.setdefault((each.one, each.other), Counter())[each.name] += 1
    return groups


def names_text(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


@dataclass(slots=True)
class SampleSummary:
    """Counts of the changes that a recipe would make to a sample of objects.

    Parameters
    ----------
    objects
        Objects previewed, by modality.
    rules
        Elements that each rule acted on, by the rule's index.
    actions, notes, reasons
        Counts by action, of notes, and of objects that would be quarantined by reason.
    differences
        With two recipes: the number of objects with elements that are treated differently, by what is done to them.
    names
        Names of these elements.
    """

    objects: Counter[str] = field(default_factory=Counter)
    rules: Counter[int] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    notes: Counter[Reason] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)
    differences: Counter[tuple[Treatment, Treatment]] = field(default_factory=Counter)
    names: dict[tuple[Treatment, Treatment], Counter[str]] = field(default_factory=dict)

    def add(self, preview: ObjectPreview, other: ObjectPreview | None) -> None:
        """Count one object."""
        self.objects[preview.modality] += 1
        self.rules.update(preview.rules)
        self.actions.update(preview.actions)
        self.notes.update(preview.notes)
        if preview.reason is not None:
            self.reasons[preview.reason] += 1
        if other is not None:
            for treatments, names in by_treatment(differences(preview, other)).items():
                self.differences[treatments] += 1
                self.names.setdefault(treatments, Counter()).update(names)
