"""Handlers for several steps on one element, or for a step whose value depends on the object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from pydicom import Dataset
from pydicom.sequence import Sequence

from dicom_deid.dicom.rewrite import element_bytes
from dicom_deid.dicom.tags import tag_text
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import cast_literal, decode_text, from_python, join_values, split_values, texts
from dicom_deid.dicom.vr import TEXT_VRS
from dicom_deid.dicom.walk import ElementHandler, ItemContext, RuleEdit, SearchedEdit, WrittenEdit
from dicom_deid.engine.element_refs import iter_item_elements
from dicom_deid.engine.functions import Field, call, call_deid_function, read_data_set
from dicom_deid.engine.handlers.basic import Context, ObjectWalk, PendingHandler, date_vr, shifted, undefined_end
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Action, DeidFunction, Step


class ElementContext(NamedTuple):
    """One element of one object: everything that its new value may depend on."""

    walk: ObjectWalk
    tag: int
    vr: str
    name: str
    original: bytes
    encoding: Encoding
    codecs: tuple[str, ...]
    identifiers: tuple[Identifier | None, ...]
    pseudonyms: Mapping[Identifier, str]
    private_creator: str | None

    def field(self, value: bytes) -> Field:
        """Return the element as functions see it, with its current value."""
        return Field(self.tag, self.vr, self.name, value, self.encoding, self.codecs, self.private_creator)

    def data_set(self) -> Dataset:
        """Return the object as pydicom reads it: the original for a condition, else as earlier rules left it."""
        walk = self.walk
        if walk.data_set is None:
            walk.data_set = walk.read_data_set() if walk.read_data_set is not None else read_data_set(walk.data)
        return walk.data_set


class Source(Protocol):
    """Source of the value of a rule."""

    def value_for(self, element: ElementContext, value: bytes) -> Any:
        """Return the Python value for an element whose current value is `value`; `None` if there is none."""


class LiteralSource:
    """A text of the recipe."""

    def __init__(self, text: str) -> None:
        self.text = text

    def value_for(self, element: ElementContext, value: bytes) -> Any:
        """Return the text in the Python type of the VR."""
        try:
            return cast_literal(self.text, element.vr)
        except ValueError:
            raise Quarantine(Reason.INVALID_REPLACEMENT) from None


class VariableSource:
    """A variable given by the caller."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def value_for(self, element: ElementContext, value: bytes) -> Any:
        """Return the variable."""
        return self.value


class FunctionSource:
    """A function given by the caller."""

    def __init__(self, name: str, function: Any, item: Mapping[str, Any]) -> None:
        self.name = name
        self.function = function
        self.item = item
        # See `descriptors.TextCleaner`.
        self.cleans = getattr(function, "cleans", False) is True
        self._unknown_words = getattr(function, "unknown_words", None) if self.cleans else None

    def value_for(self, element: ElementContext, value: bytes) -> Any:
        """Call the function."""
        if self._unknown_words is not None:
            element.walk.unknown_words |= self._unknown_words(element.field(value))
        data_set = None if self.cleans else element.data_set()
        return call(self.function, self.name, self.item, element.field(value), data_set)


class DeidFunctionSource:
    """One of the five functions of the recipe language."""

    def __init__(self, function: DeidFunction) -> None:
        self.function = function

    def value_for(self, element: ElementContext, value: bytes) -> Any:
        """Call the function."""
        return call_deid_function(self.function, element.field(value))


class PseudonymSource:
    """The pseudonym of the element's original value."""

    def __init__(self, kind: IdentifierKind) -> None:
        self.kind = kind

    def value_for(self, element: ElementContext, value: bytes) -> Any:
        """Return the pseudonyms of all values."""
        originals = element.identifiers
        return join_values(["" if original is None else element.pseudonyms[original] for original in originals])


class OffsetSource:
    """The shift of the patient's dates in days."""

    kind = IdentifierKind.DATE_OFFSET

    def value_for(self, element: ElementContext, value: bytes) -> Any:
        """Return the number of days."""
        original = next(one for one in element.identifiers if one is not None)
        return int(element.pseudonyms[original])


class BoundStep(NamedTuple):
    """A step with the source of its value or condition."""

    step: Step
    source: Source | None


class PendingValue(NamedTuple):
    """Original value and identifiers of an element that waits for pseudonyms."""

    value: bytes
    identifiers: tuple[Identifier | None, ...]


class MultiStepHandler(PendingHandler):
    """Applies several steps to an element, or steps that depend on the object.

    Steps whose value a function of the user returns are applied when all pseudonyms are known, so that the function
    sees the object as the rules before it left it.

    Parameters
    ----------
    name, private_creator
        The element's nested name, and the creator of its private block.
    bound_steps
        The steps, in order.
    untouched
        The handler of the element if no step changes it.
    """

    __slots__ = ("bound_steps", "cleans", "edit_class", "kind", "name", "private_creator", "stage", "untouched")

    def __init__(
        self,
        form: int,
        tag: int,
        vr: str,
        name: str,
        private_creator: str | None,
        bound_steps: tuple[BoundStep, ...],
        untouched: ElementHandler[ObjectWalk] | None,
    ) -> None:
        super().__init__(form, tag, vr, bound_steps[0].step.rule_index)
        self.name = name
        self.private_creator = private_creator
        self.bound_steps = bound_steps
        self.untouched = untouched
        sources = [bound_step.source for bound_step in bound_steps]
        kinds = [source.kind for source in sources if isinstance(source, PseudonymSource | OffsetSource)]
        self.kind = kinds[0] if kinds else None
        self.cleans = any(isinstance(source, FunctionSource) and source.cleans for source in sources)
        written = [one for one in bound_steps if one.step.action is not Action.REMOVE and _is_given(one.source)]
        called = [one.step.rule_index for one in written if isinstance(one.source, FunctionSource)]
        self.stage = called[0] if called else None
        self.edit_class = WrittenEdit if written else RuleEdit

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Apply the steps, now or when the pseudonyms are known."""
        if not self.change(walk, pos, end, walk.data[start:end], item_context) and self.untouched is not None:
            self.untouched.handle(walk, context, pos, start, end, item_context)

    def handle_undefined(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Apply the steps to an element of undefined length."""
        end = undefined_end(walk, context, pos, start, self.vr)
        if not self.change(walk, pos, end, walk.data[start:end], item_context) and self.untouched is not None:
            self.untouched.handle_undefined(walk, context, pos, start, item_context)
        return end

    def change(self, walk: ObjectWalk, pos: int, end: int, value: bytes, item_context: ItemContext) -> bool:
        """Record the edit of the element in ``[pos, end)`` (empty if it is inserted); return whether it changes."""
        if self.kind is not None and self.vr != "SQ":
            self.defer(walk, pos, end, self._pending_value(walk, value, item_context), item_context)
            return True
        if self.stage is not None:
            self.defer(walk, pos, end, PendingValue(value, ()), item_context)
            return True
        head = walk.data[pos : pos + 6] if end > pos else encode_head(self.tag, self.vr, item_context)
        new = self._apply_steps(walk, head, PendingValue(value, ()), item_context, {})
        if new is None:
            return False
        # What a cleaning function leaves of a text is searched for residuals as if no rule applied to the element.
        edit = self.edit_class(pos, end, new, item_context, self.rule)
        walk.edits.append(SearchedEdit(pos, end, new, item_context) if self.cleans else edit)
        return True

    def _pending_value(self, walk: ObjectWalk, value: bytes, item_context: ItemContext) -> PendingValue:
        kind = self.kind or IdentifierKind.UID
        components: list[str] = []
        if kind is not IdentifierKind.DATE_OFFSET:
            components = split_values(decode_text(value, self.vr, item_context.codecs), self.vr)
        if not any(components):
            walk.keyed_by_study.append((len(walk.edits), kind))
            return PendingValue(value, ())
        identifiers = tuple(Identifier(kind, text) if text else None for text in components)
        walk.identifiers.update(dict.fromkeys(original for original in identifiers if original is not None))
        return PendingValue(value, identifiers)

    def with_identifier(self, details: Any, original: Identifier) -> PendingValue:
        """Use the study's or the patient's identifier as the original."""
        return PendingValue(details.value, (original,))

    def render(
        self, walk: ObjectWalk, pos: int, details: Any, item_context: ItemContext, pseudonyms: Mapping[Identifier, str]
    ) -> bytes:
        """Apply the steps and return the whole element, or no bytes if it is removed."""
        head = encode_head(self.tag, self.vr, item_context)
        if walk.data[pos : pos + 4] == head[:4]:
            # The element exists: its VR may be another than the dictionary's, with another layout of the header.
            head = walk.data[pos : pos + 6]
        new = self._apply_steps(walk, head, details, item_context, pseudonyms)
        return element_bytes(head, self.form, details.value, item_context.context.order) if new is None else new

    def _apply_steps(
        self,
        walk: ObjectWalk,
        head: bytes,
        pending: PendingValue,
        item_context: ItemContext,
        pseudonyms: Mapping[Identifier, str],
    ) -> bytes | None:
        context = item_context.context
        encoding = items_encoding(context, head)
        element = ElementContext(
            walk,
            self.tag,
            self.vr,
            self.name,
            pending.value,
            encoding,
            item_context.codecs,
            pending.identifiers,
            pseudonyms,
            self.private_creator,
        )
        value, changed = pending.value, False
        for bound_step in self.bound_steps:
            step = bound_step.step
            if step.values_list is not None and not _is_hit(step.values_list, element, value, item_context):
                continue
            new = _apply_step(bound_step, element, value)
            if new is None:
                continue
            walk.rules[step.rule_index] += 1
            changed = True
            if step.action is Action.REMOVE:
                return b""
            value = new
        return element_bytes(head, self.form, value, context.order) if changed else None


def items_encoding(context: Context, head: bytes) -> Encoding:
    """Return the encoding of an element's value; items of VR UN are of implicit VR little endian."""
    is_unknown = not context.implicit and head[4:6] == b"UN"
    return Encoding(context.implicit or is_unknown, context.order.big_endian and not is_unknown)


def encode_head(tag: int, vr: str, item_context: ItemContext) -> bytes:
    """Encode the first bytes of an element: its tag and VR."""
    return item_context.context.order.tag.pack(tag >> 16, tag & 0xFFFF) + vr[:2].encode()


def _is_hit(name: str, element: ElementContext, value: bytes, item_context: ItemContext) -> bool:
    lists = element.walk.value_lists
    if lists is None:
        return False
    if element.vr == "SQ":
        found = iter_item_elements(value, element.encoding, item_context.codecs)
        return lists.hits(name, [text for one in found for text in one.texts(value)])
    return lists.hits(name, texts(element.field(value).element.value))


def _apply_step(bound_step: BoundStep, element: ElementContext, value: bytes) -> bytes | None:
    """Return the value after a step, or `None` if the step changes nothing."""
    step, source = bound_step
    if step.action is Action.REMOVE:
        return b"" if source is None or source.value_for(element, value) else None
    if step.action is Action.BLANK:
        return b""
    if step.action is Action.JITTER:
        if not value or element.vr == "SQ" or source is None:
            return None
        vr = date_vr(element.tag, element.vr)
        return shifted(element.walk, value, vr, _days(source, element, value), element.codecs)
    if step.action in (Action.ADD, Action.REPLACE):
        return _replacement(source, element, value)
    raise unsupported_action(step.action)


def unsupported_action(action: Action) -> ConfigurationError:
    """Return the error for an action of the recipe language that no handler implements."""
    return ConfigurationError(f"the engine does not implement the action {action}")


def _days(source: Source, element: ElementContext, value: bytes) -> int:
    days = source.text if isinstance(source, LiteralSource) else source.value_for(element, value)
    try:
        return int(days)
    except (TypeError, ValueError):
        raise Quarantine(Reason.FUNCTION_FAILED, tag_text(element.tag)) from None


def _replacement(source: Source | None, element: ElementContext, value: bytes) -> bytes:
    new = source.value_for(element, value) if source is not None else None
    if new is None:
        raise Quarantine(Reason.FUNCTION_FAILED, tag_text(element.tag))
    is_function = isinstance(source, FunctionSource)
    if element.vr == "SQ" and not (is_function and isinstance(new, Sequence | list)):
        raise Quarantine(Reason.INVALID_REPLACEMENT, tag_text(element.tag))
    if (
        is_function
        and value
        and element.vr in TEXT_VRS
        and new == join_values(texts(element.field(value).element.value))
    ):
        # Unchanged text keeps its bytes: several encodings of the same text are valid.
        return value
    return from_python(element.tag, element.vr, new, element.encoding, element.codecs)


def _is_given(source: Source | None) -> bool:
    """Return whether a value is the user's: of a variable, or of a function that does not just clean the original."""
    return isinstance(source, VariableSource) or (isinstance(source, FunctionSource) and not source.cleans)
