"""Decisions of reviewers as rules of the recipe language and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.quarantine import DecisionAction, HeldGroup, NewDecision, project_rules
from dicom_deid.database.text_layouts import layout_rules
from dicom_deid.engine.pixels import SEARCHED
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
    Reason.FACE_POSSIBLE: (DecisionAction.ALLOW,),
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
        (reason, DecisionAction.ALLOW): {"documents": "allow"}
        for reason in (Reason.ENCAPSULATED_DOCUMENT, Reason.STRUCTURED_CONTENT, Reason.GRAPHIC_CONTENT)
    },
    (Reason.FACE_POSSIBLE, DecisionAction.ALLOW): {"faces": "report"},
    (Reason.RESIDUAL_FOUND, DecisionAction.ALLOW): {"residuals": "report"},
    (Reason.RESIDUAL_FOUND, DecisionAction.REDACT): {"residuals": "redact-token"},
    (Reason.RESIDUAL_FOUND, DecisionAction.REMOVE): {"residuals": "remove-element"},
}
_PIXELS = frozenset(
    {Reason.PIXEL_RISK, Reason.TEXT_OUTSIDE_LAYOUT, Reason.BURNED_IN_ANNOTATION}
    | {Reason.RECOGNIZABLE_VISUAL_FEATURES, Reason.VIDEO}
)
_ELEMENT = re.compile(r"([A-Za-z][A-Za-z0-9_]+|\([0-9a-f]{4},[0-9a-f]{4}\))(?:[ ,]|$)")
_HOLDS = "holds the object"
_MAX_RECTANGLES = 50
_MAX_NOTE = 500


def exported_rules(connection: DatabaseConnection, project: str, layout_objects: int) -> str:
    """Return the rules of a project as a recipe: active device rules of reviewers, and learned text layouts.

    `layout_objects` is that of `Settings`.
    """
    learned = layout_rules(connection, project, layout_objects, "graylist")
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
    text: Sequence[Rectangle] = (),
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
    text
        Where images of the group may show text, for `MASK` and `ALLOW`.
    is_rule
        Also apply it to later objects of the same device and size.
    objects
        Only these objects of the group, by link and number of their audit rows; None for all. Listed objects are
        released as the reviewer has seen them; of the others, those that show other text are held again
        (`Settings.check_masks`).
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
    if text and (other_groups or action not in (DecisionAction.MASK, DecisionAction.ALLOW)):
        raise ConfigurationError("Places of text are about one device, and go with a mask or an allowance.")
    if action not in possible_actions(reason):
        raise ConfigurationError(f"{action.value} is not possible for {reason.value}.")
    if is_rule and not can_be_rule(reason, action):
        raise ConfigurationError(f"{action.value} for {reason.value} cannot become a rule: decide for the objects.")
    if len(note) > _MAX_NOTE or not note.isprintable():
        raise ConfigurationError(f"The note must be one line of at most {_MAX_NOTE} characters.")
    is_about_text = reason is Reason.TEXT_OUTSIDE_LAYOUT or SEARCHED.search(group.element) is not None
    if is_about_text and is_rule and action is DecisionAction.ALLOW and not text:
        raise ConfigurationError(
            "A search for text holds these objects, and would hold the next ones: draw rectangles around the text "
            "that may stay, or decide for the objects."
        )
    # The reviewer knows of the text that a search has found.
    is_seen = objects is not None or (is_about_text and action is DecisionAction.ALLOW and not text)
    rules = _rules(group, action, rectangles, text, is_rule=is_rule, is_seen=is_seen)
    settings = {} if is_rule and not is_seen else _settings(group, action, is_seen=is_seen)
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


def _settings(group: HeldGroup, action: DecisionAction, *, is_seen: bool) -> Mapping[str, object]:
    """Return the settings for the objects of a decision; `is_seen` if none of them is searched for text."""
    reason = Reason(group.reason)
    if reason not in _PIXELS or action not in (DecisionAction.MASK, DecisionAction.ALLOW):
        return _SETTINGS.get((reason, action), {})
    if is_seen:
        return {"pixel_risk": "allow", "check_masks": "none"}
    # A mask clears what it is about, except where a filter of the recipe holds the object.
    is_cleared = action is DecisionAction.MASK and not group.element.endswith(_HOLDS)
    return {} if is_cleared else {"pixel_risk": "allow"}


def _rules(
    group: HeldGroup,
    action: DecisionAction,
    rectangles: Sequence[Rectangle],
    text: Sequence[Rectangle],
    *,
    is_rule: bool,
    is_seen: bool,
) -> str:
    if action is DecisionAction.MASK:
        _check(rectangles, group, least=1)
        return _filter("%filter graylist", "LABEL reviewed mask", group, text, rectangles, is_rule=is_rule)
    is_searched = Reason(group.reason) in _PIXELS - {Reason.VIDEO} and not is_seen
    if action is DecisionAction.ALLOW and (is_rule or is_searched):
        return _filter("%filter whitelist", "LABEL reviewed, nothing found", group, text, is_rule=is_rule)
    if not is_rule:
        return ""
    found = _ELEMENT.match(group.element)
    if found is None:
        raise ConfigurationError("A rule cannot name this element: decide for the objects.")
    return f"%header\nREMOVE {found[1]}\n"


def _filter(
    section: str,
    label: str,
    group: HeldGroup,
    text: Sequence[Rectangle],
    mask: Sequence[Rectangle] = (),
    *,
    is_rule: bool,
) -> str:
    _check(text, group)
    places = [
        f"  {word} {','.join(map(str, each))}"
        for word, rectangles in (("textcoordinates", text), ("coordinates", mask))
        for each in rectangles
    ]
    lines = [section, label, *_criteria(group, is_rule), *places]
    return "\n".join([*lines, "  clears pixel-risk", "  clears burned-in-annotation", ""])


def _check(rectangles: Sequence[Rectangle], group: HeldGroup, least: int = 0) -> None:
    if not least <= len(rectangles) <= _MAX_RECTANGLES:
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
