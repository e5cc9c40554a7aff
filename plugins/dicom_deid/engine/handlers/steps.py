"""Several steps on one element, or one that depends on what the object holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from dicom_deid.dicom.dictionary import tag_text
from dicom_deid.dicom.rewrite import element_bytes
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import cast_literal, decode_text, from_python, join_values, split_values, texts
from dicom_deid.dicom.walk import DatasetContext, ElementHandler, ItemContext
from dicom_deid.engine.element_refs import inventory_of_items
from dicom_deid.engine.functions import Field, call, call_deid_function, read_data_set
from dicom_deid.engine.handlers.basic import ObjectWalk, PendingHandler, date_vr, shifted, undefined_end
from dicom_deid.exceptions import Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Action, DeidFunction, Step


class ElementContext(NamedTuple):
    """One element in one object: everything that its new value may depend on."""

    walk: ObjectWalk
    tag: int
    vr: str
    name: str
    original: bytes
    encoding: Encoding
    codecs: tuple[str, ...]
    identifiers: tuple[Identifier | None, ...]
    pseudonyms: Mapping[Identifier, str]

    def field(self, value: bytes) -> Field:
        """Return the element as functions see it, with the value it has by now."""
        return Field(self.tag, self.vr, self.name, value, self.encoding, self.codecs)

    def data_set(self) -> Any:
        """Return the object as pydicom reads it, once an object."""
        if self.walk.data_set is None:
            self.walk.data_set = read_data_set(self.walk.data)
        return self.walk.data_set


class Source(Protocol):
    """Where the value of a rule comes from."""

    def python(self, place: ElementContext, value: bytes) -> Any:
        """Return the value for an element that holds `value` by now; `None` where there is none."""


class LiteralSource:
    """A text of the recipe."""

    def __init__(self, text: str) -> None:
        self.text = text

    def python(self, place: ElementContext, value: bytes) -> Any:
        """Return the text in the Python type of the VR."""
        try:
            return cast_literal(self.text, place.vr)
        except ValueError:
            raise Quarantine(Reason.INVALID_REPLACEMENT) from None


class VariableSource:
    """A variable that the caller gave."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def python(self, place: ElementContext, value: bytes) -> Any:
        """Return it."""
        return self.value


class FunctionSource:
    """A function that the caller gave."""

    def __init__(self, name: str, function: Any, item: Mapping[str, Any]) -> None:
        self.name = name
        self.function = function
        self.item = item
        # See `descriptors.TextCleaner`.
        self.cleans = getattr(function, "cleans", False) is True

    def python(self, place: ElementContext, value: bytes) -> Any:
        """Call it."""
        data_set = None if self.cleans else place.data_set()
        return call(self.function, self.name, self.item, place.field(value), data_set)


class DeidFunctionSource:
    """One of the five functions of the language."""

    def __init__(self, function: DeidFunction) -> None:
        self.function = function

    def python(self, place: ElementContext, value: bytes) -> Any:
        """Call it."""
        return call_deid_function(self.function, place.field(value))


class PseudonymSource:
    """The pseudonym of the element's original value."""

    def __init__(self, kind: IdentifierKind) -> None:
        self.kind = kind

    def python(self, place: ElementContext, value: bytes) -> Any:
        """Return the pseudonyms of all values."""
        return join_values(["" if original is None else place.pseudonyms[original] for original in place.identifiers])


class OffsetSource:
    """The days by which the patient's dates are shifted."""

    kind = IdentifierKind.DATE_OFFSET

    def python(self, place: ElementContext, value: bytes) -> Any:
        """Return the days."""
        original = next(one for one in place.identifiers if one is not None)
        return int(place.pseudonyms[original])


class BoundStep(NamedTuple):
    """A step with the source of its value or condition."""

    step: Step
    source: Source | None


class PendingValue(NamedTuple):
    """What a chain needs once the pseudonyms are known."""

    value: bytes
    identifiers: tuple[Identifier | None, ...]


class MultiStepHandler(PendingHandler):
    """An element on which several steps are taken, or steps that depend on the object.

    Parameters
    ----------
    name
        The element's nested name.
    links
        The steps, in order.
    untouched
        Who visits the element when no step changes it.
    """

    __slots__ = ("bound_steps", "cleans", "kind", "name", "untouched")

    def __init__(
        self,
        form: int,
        tag: int,
        vr: str,
        name: str,
        bound_steps: tuple[BoundStep, ...],
        untouched: ElementHandler | None,
    ) -> None:
        super().__init__(form, tag, vr)
        self.name = name
        self.bound_steps = bound_steps
        self.untouched = untouched
        kinds = [link.source.kind for link in bound_steps if isinstance(link.source, PseudonymSource | OffsetSource)]
        self.kind = kinds[0] if kinds else None
        self.cleans = any(isinstance(link.source, FunctionSource) and link.source.cleans for link in bound_steps)

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Take the steps, now or once the pseudonyms are known."""
        if not self.change(walk, pos, end, walk.data[start:end], item_context) and self.untouched is not None:
            self.untouched.visit(walk, context, pos, start, end, item_context)

    def visit_undefined(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Take the steps on an element of undefined length."""
        end = undefined_end(walk, context, start, self.vr)
        if not self.change(walk, pos, end, walk.data[start:end], item_context) and self.untouched is not None:
            self.untouched.visit_undefined(walk, context, pos, start, item_context)
        return end

    def change(self, walk: ObjectWalk, pos: int, end: int, value: bytes, item_context: ItemContext) -> bool:
        """Edit the element in ``[pos, end)`` (empty where it is to be inserted); tell whether it changes."""
        if self.kind is not None and self.vr != "SQ":
            needs = self._needs(walk, value, item_context)
            walk.pending.append(len(walk.edits))
            walk.edits.append((pos, end, (self, needs), item_context))
            return True
        head = walk.data[pos : pos + 6] if end > pos else encode_head(self.tag, self.vr, item_context)
        new = self._taken(walk, head, PendingValue(value, ()), item_context, {})
        if new is None:
            return False
        # What a cleaning function leaves of a text is searched for residuals as if no rule had reached the element.
        walk.edits.append((pos, end, new, None if self.cleans else item_context))
        return True

    def _needs(self, walk: ObjectWalk, value: bytes, item_context: ItemContext) -> PendingValue:
        components: list[str] = []
        if self.kind is not IdentifierKind.DATE_OFFSET:
            components = split_values(decode_text(value, self.vr, item_context.codecs), self.vr)
        if not any(components):
            walk.to_key.append((len(walk.edits), self.kind or IdentifierKind.UID))
            return PendingValue(value, ())
        identifiers = tuple(Identifier(self.kind or IdentifierKind.UID, text) if text else None for text in components)
        walk.identifiers.update(dict.fromkeys(original for original in identifiers if original is not None))
        return PendingValue(value, identifiers)

    def keyed(self, needs: Any, original: Identifier) -> PendingValue:
        """Take the study's or the patient's identifier as the original."""
        return PendingValue(needs.value, (original,))

    def render(
        self, walk: ObjectWalk, pos: int, needs: Any, item_context: ItemContext, pseudonyms: Mapping[Identifier, str]
    ) -> bytes:
        """Take the steps and return the whole element, or nothing where it is removed."""
        head = encode_head(self.tag, self.vr, item_context)
        new = self._taken(walk, head, needs, item_context, pseudonyms)
        return element_bytes(head, self.form, needs.value, item_context.context.order) if new is None else new

    def _taken(
        self,
        walk: ObjectWalk,
        head: bytes,
        needs: PendingValue,
        item_context: ItemContext,
        pseudonyms: Mapping[Identifier, str],
    ) -> bytes | None:
        context = item_context.context
        encoding = Encoding(context.implicit, context.order.big_endian)
        place = ElementContext(
            walk,
            self.tag,
            self.vr,
            self.name,
            needs.value,
            encoding,
            item_context.codecs,
            needs.identifiers,
            pseudonyms,
        )
        value, changed = needs.value, False
        for link in self.bound_steps:
            if link.step.values_list is not None and not _hits(link.step.values_list, place, value, item_context):
                continue
            taken = _take(link, place, value)
            if taken is None:
                continue
            walk.rules[link.step.rule_index] += 1
            changed = True
            if link.step.action is Action.REMOVE:
                return b""
            value = taken
        return element_bytes(head, self.form, value, context.order) if changed else None


def encode_head(tag: int, vr: str, item_context: ItemContext) -> bytes:
    """Encode the first bytes of an element: its tag and VR."""
    return item_context.context.order.tag.pack(tag >> 16, tag & 0xFFFF) + vr[:2].encode()


def _hits(name: str, place: ElementContext, value: bytes, item_context: ItemContext) -> bool:
    lists = place.walk.value_lists
    if lists is None:
        return False
    if place.vr == "SQ":
        listed = inventory_of_items(value, place.encoding, item_context.codecs)
        return lists.hits(name, [text for one in listed for text in one.texts(value)])
    return lists.hits(name, texts(place.field(value).element.value))


def _take(link: BoundStep, place: ElementContext, value: bytes) -> bytes | None:
    """Return the value after a step, or `None` where the step does nothing."""
    step, source = link
    if step.action is Action.REMOVE:
        return b"" if source is None or source.python(place, value) else None
    if step.action is Action.BLANK:
        return b""
    if step.action is Action.JITTER:
        if not value or place.vr == "SQ" or source is None:
            return None
        vr = date_vr(place.tag, place.vr)
        return shifted(place.walk, value, vr, _days(source, place, value), place.codecs)
    return _replacement(source, place, value)


def _days(source: Source, place: ElementContext, value: bytes) -> int:
    days = source.text if isinstance(source, LiteralSource) else source.python(place, value)
    try:
        return int(days)
    except (TypeError, ValueError):
        raise Quarantine(Reason.FUNCTION_FAILED, tag_text(place.tag)) from None


def _replacement(source: Source | None, place: ElementContext, value: bytes) -> bytes:
    if place.vr == "SQ":
        raise Quarantine(Reason.INVALID_REPLACEMENT, tag_text(place.tag))
    new = source.python(place, value) if source is not None else None
    if new is None:
        raise Quarantine(Reason.FUNCTION_FAILED, tag_text(place.tag))
    return from_python(place.tag, place.vr, new, place.encoding, place.codecs)
