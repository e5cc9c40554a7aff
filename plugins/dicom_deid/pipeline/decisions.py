"""Decisions of reviewers as rules of the recipe language and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.quarantine import DecisionAction, HeldGroup, NewDecision, project_rules
from dicom_deid.database.text_layouts import layout_rules
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.pipeline.engine import FORMAT_LINE
from dicom_deid.reasons import Reason
from dicom_deid.recipe.criteria import criterion_line
from dicom_deid.recipe.filters import Rectangle

_ALWAYS = (DecisionAction.EXCLUDE, DecisionAction.HOLD, DecisionAction.RETRY)
_ACTIONS: Mapping[Reason, tuple[DecisionAction, ...]] = {
    Reason.PIXEL_RISK: (DecisionAction.MASK, DecisionAction.ALLOW),
    Reason.BURNED_IN_ANNOTATION: (DecisionAction.MASK, DecisionAction.ALLOW),
    Reason.TEXT_OUTSIDE_LAYOUT: (DecisionAction.MASK, DecisionAction.ALLOW),
    Reason.RECOGNIZABLE_VISUAL_FEATURES: (DecisionAction.ALLOW,),
    Reason.VIDEO: (DecisionAction.ALLOW,),
    Reason.ENCAPSULATED_DOCUMENT: (DecisionAction.ALLOW,),
    Reason.STRUCTURED_CONTENT: (DecisionAction.ALLOW,),
    Reason.GRAPHIC_CONTENT: (DecisionAction.ALLOW,),
    Reason.RESIDUAL_FOUND: (DecisionAction.REMOVE, DecisionAction.REDACT, DecisionAction.ALLOW),
}
_RULES = frozenset(
    {
        (Reason.PIXEL_RISK, DecisionAction.MASK),
        (Reason.PIXEL_RISK, DecisionAction.ALLOW),
        (Reason.BURNED_IN_ANNOTATION, DecisionAction.MASK),
        (Reason.BURNED_IN_ANNOTATION, DecisionAction.ALLOW),
        (Reason.RESIDUAL_FOUND, DecisionAction.REMOVE),
    }
)
_SETTINGS: Mapping[tuple[Reason, DecisionAction], Mapping[str, object]] = {
    **{
        (reason, action): {"pixel_risk": "allow"}
        for reason in (
            Reason.PIXEL_RISK,
            Reason.TEXT_OUTSIDE_LAYOUT,
            Reason.BURNED_IN_ANNOTATION,
            Reason.RECOGNIZABLE_VISUAL_FEATURES,
            Reason.VIDEO,
        )
        for action in (DecisionAction.MASK, DecisionAction.ALLOW)
    },
    **{
        (reason, DecisionAction.ALLOW): {"documents": "allow"}
        for reason in (Reason.ENCAPSULATED_DOCUMENT, Reason.STRUCTURED_CONTENT, Reason.GRAPHIC_CONTENT)
    },
    (Reason.RESIDUAL_FOUND, DecisionAction.ALLOW): {"residuals": "report"},
    (Reason.RESIDUAL_FOUND, DecisionAction.REDACT): {"residuals": "redact-token"},
    (Reason.RESIDUAL_FOUND, DecisionAction.REMOVE): {"residuals": "remove-element"},
}
_ELEMENT = re.compile(r"([A-Za-z][A-Za-z0-9_]+|\([0-9a-f]{4},[0-9a-f]{4}\))(?:[ ,]|$)")
_HOLDS = "holds the object"
_MAX_RECTANGLES = 50
_MAX_NOTE = 500


def exported_rules(connection: DatabaseConnection, project: str) -> str:
    """Return the rules of a project as a recipe: active device rules of reviewers, and learned text layouts."""
    learned = layout_rules(connection, project, Settings().layout_objects, "graylist")
    return f"{FORMAT_LINE}{project_rules(connection, project)}{learned}"


def possible_actions(reason: Reason) -> tuple[DecisionAction, ...]:
    """Return the actions that a reviewer can take on objects held for a reason."""
    return (*_ACTIONS.get(reason, ()), *_ALWAYS)


def can_be_rule(reason: Reason, action: DecisionAction) -> bool:
    """Return whether a decision can become a rule for later objects."""
    return (reason, action) in _RULES


def make_decision(
    group: HeldGroup,
    action: DecisionAction,
    *,
    person: str,
    note: str = "",
    rectangles: Sequence[Rectangle] = (),
    is_rule: bool = False,
    objects: Sequence[tuple[int, int]] | None = None,
    other_groups: Sequence[HeldGroup] = (),
) -> NewDecision:
    """Return a decision about the objects of a group, or of several.

    Parameters
    ----------
    group
        The held objects.
    action, person, note
        What was decided, by whom, and why. The note must not name a patient.
    rectangles
        The mask of `MASK`, in pixels of the image.
    is_rule
        Also apply it to later objects of the same device and size.
    objects
        Only these objects of the group, by link and number of their audit rows; None for all.
    other_groups
        Groups of the same project and reason that are decided alike. A mask and a rule are about one device.

    Raises
    ------
    ConfigurationError
        The action is not possible for the reason or for several groups, or a rectangle is outside the image.
    """
    reason = Reason(group.reason)
    if any((each.project, each.reason) != (group.project, group.reason) for each in other_groups):
        raise ConfigurationError("Groups of several projects or reasons cannot be decided at once.")
    if other_groups and (is_rule or action is DecisionAction.MASK):
        raise ConfigurationError("A mask or a rule is about one device: decide for each group.")
    if action not in possible_actions(reason):
        raise ConfigurationError(f"{action.value} is not possible for {reason.value}.")
    if is_rule and not can_be_rule(reason, action):
        raise ConfigurationError(f"{action.value} for {reason.value} cannot become a rule: decide for the objects.")
    if len(note) > _MAX_NOTE or not note.isprintable():
        raise ConfigurationError(f"The note must be one line of at most {_MAX_NOTE} characters.")
    rules = _rules(group, action, rectangles, is_rule)
    settings = {} if is_rule else _SETTINGS.get((reason, action), {})
    return NewDecision(
        project=group.project,
        action=action,
        person=person,
        group_ids=[group.group_id, *(each.group_id for each in other_groups)],
        rules=rules,
        settings=settings,
        note=note,
        is_rule=is_rule,
        objects=objects,
    )


def _rules(group: HeldGroup, action: DecisionAction, rectangles: Sequence[Rectangle], is_rule: bool) -> str:
    if action is DecisionAction.MASK:
        _check(rectangles, group)
        lines = [f"  coordinates {','.join(map(str, each))}" for each in rectangles]
        return _filter("%filter graylist", "LABEL reviewed mask", *_criteria(group, is_rule), *lines)
    if not is_rule:
        return ""
    if action is DecisionAction.ALLOW:
        return _filter("%filter whitelist", "LABEL reviewed, nothing found", *_criteria(group, is_rule))
    found = _ELEMENT.match(group.element)
    if found is None:
        raise ConfigurationError("A rule cannot name this element: decide for the objects.")
    return f"%header\nREMOVE {found[1]}\n"


def _filter(*lines: str) -> str:
    return "\n".join([*lines, "  clears pixel-risk", "  clears burned-in-annotation", ""])


def _check(rectangles: Sequence[Rectangle], group: HeldGroup) -> None:
    if not 1 <= len(rectangles) <= _MAX_RECTANGLES:
        raise ConfigurationError(f"A mask has 1 to {_MAX_RECTANGLES} rectangles.")
    columns, rows = group.columns or 0, group.rows or 0
    for left, top, right, bottom in rectangles:
        if not (0 <= left < right <= columns and 0 <= top < bottom <= rows):
            raise ConfigurationError(f"A rectangle is not inside the image of {columns} x {rows} pixels.")


def _criteria(group: HeldGroup, is_rule: bool) -> list[str]:
    """Return the lines that select the device; none for a decision about listed objects."""
    if not is_rule:
        return []
    if group.element.endswith(_HOLDS):
        raise ConfigurationError(
            f"A filter of the recipe {_HOLDS} ({group.element}): change it, or decide for the objects."
        )
    if not (group.manufacturer and group.model):
        raise ConfigurationError("A device rule needs Manufacturer and ManufacturerModelName: decide for the objects.")
    values = {
        "Manufacturer": group.manufacturer,
        "ManufacturerModelName": group.model,
        "SoftwareVersions": group.software,
        "SOPClassUID": group.sop_class_uid,
        "Modality": group.modality,
        "Rows": str(group.rows or ""),
        "Columns": str(group.columns or ""),
    }
    return [f"  {criterion_line(keyword, value)}" for keyword, value in values.items()]
