"""Several steps on one element, or one that depends on what the object holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from dicom_deid.deidentify.entries import ObjectWalk, RuleEntry, shifted
from dicom_deid.deidentify.functions import Field, call, call_deid_function, read_data_set
from dicom_deid.deidentify.inventory import texts_of_items
from dicom_deid.dicom.dictionary import tag_text
from dicom_deid.dicom.rewrite import element_bytes
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import cast_literal, decode_text, from_python, join_values, split_values
from dicom_deid.dicom.walk import Entry, Level, Scope
from dicom_deid.exceptions import Quarantine
from dicom_deid.originals import Kind, Original
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Action, DeidFunction, Step


class Place(NamedTuple):
    """One element in one object: everything that its new value may depend on."""

    walk: ObjectWalk
    tag: int
    vr: str
    name: str
    original: bytes
    encoding: Encoding
    codecs: tuple[str, ...]
    originals: tuple[Original | None, ...]
    pseudonyms: Mapping[Original, str]

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

    def python(self, place: Place, value: bytes) -> Any:
        """Return the value for an element that holds `value` by now; `None` where there is none."""


class LiteralSource:
    """A text of the recipe."""

    def __init__(self, text: str) -> None:
        self.text = text

    def python(self, place: Place, value: bytes) -> Any:
        """Return the text in the Python type of the VR."""
        try:
            return cast_literal(self.text, place.vr)
        except ValueError:
            raise Quarantine(Reason.INVALID_REPLACEMENT) from None


class VariableSource:
    """A variable that the caller gave."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def python(self, place: Place, value: bytes) -> Any:
        """Return it."""
        return self.value


class FunctionSource:
    """A function that the caller gave."""

    def __init__(self, name: str, function: Any, item: Mapping[str, Any]) -> None:
        self.name = name
        self.function = function
        self.item = item

    def python(self, place: Place, value: bytes) -> Any:
        """Call it."""
        return call(self.function, self.name, self.item, place.field(value), place.data_set())


class DeidFunctionSource:
    """One of the five functions of the language."""

    def __init__(self, function: DeidFunction) -> None:
        self.function = function

    def python(self, place: Place, value: bytes) -> Any:
        """Call it."""
        return call_deid_function(self.function, place.field(value))


class PseudonymSource:
    """The pseudonym of the element's original value."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def python(self, place: Place, value: bytes) -> Any:
        """Return the pseudonyms of all values."""
        return join_values(["" if original is None else place.pseudonyms[original] for original in place.originals])


class OffsetSource:
    """The days by which the patient's dates are shifted."""

    kind = Kind.DATE_OFFSET

    def python(self, place: Place, value: bytes) -> Any:
        """Return the days."""
        original = next(one for one in place.originals if one is not None)
        return int(place.pseudonyms[original])


class Link(NamedTuple):
    """A step with the source of its value or condition."""

    step: Step
    source: Source | None


class ChainEntry(RuleEntry):
    """An element on which several steps are taken, or steps that depend on the object.

    Parameters
    ----------
    name
        The element's nested name.
    links
        The steps, in order.
    untouched
        Who visits the element when no step changes it.
    empty_by_study
        Whether an empty identifier is keyed by the study.
    """

    __slots__ = ("empty_by_study", "links", "name", "untouched")

    def __init__(
        self,
        form: int,
        tag: int,
        vr: str,
        name: str,
        links: tuple[Link, ...],
        untouched: Entry | None,
        empty_by_study: bool,
    ) -> None:
        super().__init__(form, tag, vr)
        self.name = name
        self.links = links
        self.untouched = untouched
        self.empty_by_study = empty_by_study

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Take the steps, now or once the pseudonyms are known."""
        self._take(walk, level, pos, start, end, scope, undefined=False)

    def visit_undefined(self, walk: ObjectWalk, level: Level, pos: int, start: int, scope: Scope) -> int:
        """Take the steps on an element of undefined length."""
        if self.untouched is None:
            return super().visit_undefined(walk, level, pos, start, scope)
        edits = len(walk.edits)
        end = self.untouched.visit_undefined(walk, level, pos, start, scope)
        inner = walk.edits[edits:]
        del walk.edits[edits:]
        self._take(walk, level, pos, start, end, scope, undefined=True)
        if len(walk.edits) == edits:
            walk.edits += inner
        return end

    def _take(
        self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope, undefined: bool
    ) -> None:
        edit = ChainEdit(self, walk.data[pos : pos + 6], walk.data[start:end], level, scope)
        if edit.needs_pseudonyms:
            edit.ask(walk)
            walk.edits.append((pos, end, edit))
            self.touch(walk, level, start, end, scope)
            return
        new = edit.render(walk, {})
        if edit.changed:
            walk.edits.append((pos, end, new))
            self.touch(walk, level, start, end, scope)
        elif self.untouched is not None and not undefined:
            self.untouched.visit(walk, level, pos, start, end, scope)


class ChainEdit:
    """The steps on one element in one object."""

    __slots__ = ("changed", "codecs", "entry", "head", "level", "originals", "value")

    def __init__(self, entry: ChainEntry, head: bytes, value: bytes, level: Level, scope: Scope) -> None:
        self.entry = entry
        self.head = head
        self.value = value
        self.level = level
        self.codecs = scope.codecs
        self.originals: list[Original | None] = []
        self.changed = False

    @property
    def needs_pseudonyms(self) -> bool:
        """Whether a step asks for a pseudonym."""
        return any(isinstance(link.source, PseudonymSource | OffsetSource) for link in self.entry.links)

    def ask(self, walk: ObjectWalk) -> None:
        """Name the originals whose pseudonyms the steps need."""
        for link in self.entry.links:
            if isinstance(link.source, OffsetSource):
                walk.to_key.append(self)
                return
            if isinstance(link.source, PseudonymSource):
                self._ask_for(walk, link.source.kind)

    def _ask_for(self, walk: ObjectWalk, kind: Kind) -> None:
        texts = split_values(decode_text(self.value, self.entry.vr, self.codecs), self.entry.vr)
        if not any(texts):
            walk.to_key.append(self)
            return
        self.originals = [Original(kind, text) if text else None for text in texts]
        walk.originals.update(dict.fromkeys(original for original in self.originals if original is not None))

    def key(self, study: str, patient: str) -> Original:
        """Take the study's or the patient's identifier as the original."""
        kinds = [
            link.source.kind for link in self.entry.links if isinstance(link.source, PseudonymSource | OffsetSource)
        ]
        keyed = Original(kinds[0], (patient or study) if kinds[0] is Kind.DATE_OFFSET else study)
        self.originals = [keyed]
        return keyed

    def render(self, walk: ObjectWalk, pseudonyms: Mapping[Original, str]) -> bytes:
        """Take the steps and return the whole element, or nothing where it is removed."""
        entry = self.entry
        encoding = Encoding(self.level.implicit, self.level.order.big_endian)
        place = Place(
            walk, entry.tag, entry.vr, entry.name, self.value, encoding, self.codecs, tuple(self.originals), pseudonyms
        )
        value = self.value
        for link in entry.links:
            if link.step.values_list is not None and not self._hits(walk, link.step.values_list, place, value):
                continue
            try:
                taken = _take(link, place, value)
            except Quarantine as problem:
                raise Quarantine(problem.reason, problem.where or tag_text(entry.tag)) from None
            if taken is None:
                continue
            walk.rules[link.step.rule_index] += 1
            self.changed = True
            if link.step.action is Action.REMOVE:
                return b""
            value = taken
        return element_bytes(self.head, entry.form, value, self.level.order)

    def _hits(self, walk: ObjectWalk, name: str, place: Place, value: bytes) -> bool:
        if walk.value_lists is None:
            return False
        if place.vr == "SQ":
            texts = texts_of_items(self.value, self.level.implicit, self.level.order, Scope(self.codecs))
            return walk.value_lists.hits(name, texts)
        element = place.field(value).element.value
        values = list(element) if hasattr(element, "__iter__") and not isinstance(element, str | bytes) else [element]
        return walk.value_lists.hits(name, ["" if one is None else str(one) for one in values])


def _take(link: Link, place: Place, value: bytes) -> bytes | None:
    """Return the value after a step, or `None` where the step does nothing."""
    step, source = link
    if step.action is Action.REMOVE:
        return b"" if source is None or source.python(place, value) else None
    if step.action is Action.BLANK:
        return b""
    if step.action is Action.JITTER:
        if not value or place.vr == "SQ" or source is None:
            return None
        return shifted(place.walk, value, place.vr, _days(source, place, value), place.codecs)
    return _replacement(source, place, value)


def _days(source: Source, place: Place, value: bytes) -> int:
    days = source.text if isinstance(source, LiteralSource) else source.python(place, value)
    try:
        return int(days)
    except (TypeError, ValueError):
        raise Quarantine(Reason.FUNCTION_FAILED, tag_text(place.tag)) from None


def _replacement(source: Source | None, place: Place, value: bytes) -> bytes:
    if place.vr == "SQ":
        raise Quarantine(Reason.INVALID_REPLACEMENT, tag_text(place.tag))
    new = source.python(place, value) if source is not None else None
    if new is None:
        raise Quarantine(Reason.FUNCTION_FAILED, tag_text(place.tag))
    return from_python(place.tag, place.vr, new, place.encoding, place.codecs)
