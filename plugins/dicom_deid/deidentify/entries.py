"""What is done to an element: one small class a deed, visited by the walk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from dicom_deid.deidentify.dates import shift
from dicom_deid.dicom.dictionary import tag_text
from dicom_deid.dicom.rewrite import element_bytes
from dicom_deid.dicom.values import (
    DEFAULT_CHARACTER_SET,
    character_set,
    decode_text,
    encode_text,
    join_values,
    split_values,
)
from dicom_deid.dicom.walk import (
    ByteOrder,
    Entry,
    Level,
    Scope,
    Walk,
    skip_fragments,
    skip_items,
)
from dicom_deid.exceptions import Quarantine
from dicom_deid.originals import Kind, Original
from dicom_deid.reasons import Reason
from dicom_deid.recipe import ValueLists


class Touched:
    """An element whose value the rules removed or changed: where it stood, and how to read it."""

    __slots__ = ("codecs", "end", "implicit", "start", "tag", "vr")

    def __init__(self, tag: int, vr: str, start: int, end: int, codecs: tuple[str, ...], implicit: bool) -> None:
        self.tag = tag
        self.vr = vr
        self.start = start
        self.end = end
        self.codecs = codecs
        self.implicit = implicit


class Captured(NamedTuple):
    """Where the value of an element of the outermost data set lies, and which edit replaces it (-1 for none)."""

    start: int
    end: int
    codecs: tuple[str, ...]
    edit: int
    form: int


class Pending(Protocol):
    """The bytes of an element that are known once the pseudonyms are."""

    def key(self, study: str, patient: str) -> Original:
        """Name the original that only the end of the walk knows, from the study's and the patient's identifiers."""

    def render(self, walk: ObjectWalk, pseudonyms: Mapping[Original, str]) -> bytes:
        """Return the whole element, or nothing where it is removed."""


class ObjectWalk(Walk):
    """The walk over one object: what it needs, what was found, what was done."""

    __slots__ = (
        "added",
        "captured",
        "counts",
        "data_set",
        "noted",
        "originals",
        "pixel_data",
        "rules",
        "signatures",
        "to_key",
        "touched",
        "value_lists",
    )

    def __init__(self, data: bytes, rules: int, partial: bool = False) -> None:
        super().__init__(data, partial)
        # Identifiers that need a pseudonym; a dict keeps them in the order they were met.
        self.originals: dict[Original, None] = {}
        self.captured: dict[str, Captured] = {}
        # How often each rule acted, by its index.
        self.rules = [0] * rules
        # What was done without a rule.
        self.counts: dict[str, int] = {}
        self.noted: dict[Reason, int] = {}
        # Pending edits whose original is the study's or the patient's, known at the end of the walk.
        self.to_key: list[Pending] = []
        self.signatures: list[int] = []
        self.touched: list[Touched] = []
        # Where the value of the outermost PixelData lies; no end where it was not reached.
        self.pixel_data: tuple[int, int | None] | None = None
        # Whether the element that the level pauses at was there.
        self.added = False
        # The object as pydicom reads it, for functions that ask.
        self.data_set: Any = None
        # What the lists of %values collected, for recipes that have such.
        self.value_lists: ValueLists | None = None

    def note(self, reason: Reason) -> None:
        """Count something noteworthy."""
        self.noted[reason] = self.noted.get(reason, 0) + 1

    def count(self, deed: str) -> None:
        """Count something done without a rule."""
        self.counts[deed] = self.counts.get(deed, 0) + 1


def undefined_end(walk: Walk, level: Level, start: int, vr: str) -> int:
    """Return where an element of undefined length ends whose value begins at `start`."""
    if vr in ("SQ", "UN"):
        return skip_items(walk, level.implicit or vr == "UN", level.order, start)
    return skip_fragments(walk, level, start)


class RuleEntry(Entry):
    """An element that is changed as a whole.

    Parameters
    ----------
    form
        How the element's header is laid out.
    tag, vr
        Its tag, and the VR that a dictionary gives where its own says nothing.
    """

    __slots__ = ("tag", "vr")

    def __init__(self, form: int, tag: int, vr: str) -> None:
        super().__init__(form)
        self.tag = tag
        self.vr = vr

    def visit_undefined(self, walk: Any, level: Level, pos: int, start: int, scope: Scope) -> int:
        """See the element with the end that its delimitation gives it."""
        end = undefined_end(walk, level, start, self.vr)
        self.visit(walk, level, pos, start, end, scope)
        return end

    def head(self, walk: Walk, pos: int) -> bytes:
        """Return the element's tag and VR as they stand."""
        return walk.data[pos : pos + 6]

    def touch(self, walk: ObjectWalk, level: Level, start: int, end: int, scope: Scope) -> None:
        """Remember where the original value stood."""
        walk.touched.append(Touched(self.tag, self.vr, start, end, scope.codecs, level.implicit))


class RemoveEntry(RuleEntry):
    """An element that is removed by a rule."""

    __slots__ = ("rule",)

    def __init__(self, form: int, tag: int, vr: str, rule: int) -> None:
        super().__init__(form, tag, vr)
        self.rule = rule

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Take the element out."""
        walk.edits.append((pos, end, b""))
        walk.rules[self.rule] += 1
        walk.touched.append(Touched(self.tag, self.vr, start, end, scope.codecs, level.implicit))


class ConstantEntry(RuleEntry):
    """An element that a rule gives the same bytes everywhere."""

    __slots__ = ("rule", "value")

    def __init__(self, form: int, tag: int, vr: str, rule: int, value: bytes) -> None:
        super().__init__(form, tag, vr)
        self.rule = rule
        self.value = value

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Put the bytes in place of the value."""
        new = element_bytes(walk.data[pos : pos + 6], self.form, self.value, level.order)
        walk.edits.append((pos, end, new))
        walk.rules[self.rule] += 1
        self.touch(walk, level, start, end, scope)


class ShiftEntry(RuleEntry):
    """A date that a rule shifts by the same number of days everywhere."""

    __slots__ = ("days", "rule")

    def __init__(self, form: int, tag: int, vr: str, rule: int, days: int) -> None:
        super().__init__(form, tag, vr)
        self.rule = rule
        self.days = days

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Write the shifted date."""
        if start == end or self.vr == "SQ":
            return
        value = shifted(walk, walk.data[start:end], self.vr, self.days, scope.codecs)
        walk.edits.append((pos, end, element_bytes(walk.data[pos : pos + 6], self.form, value, level.order)))
        walk.rules[self.rule] += 1
        self.touch(walk, level, start, end, scope)


def shifted(walk: ObjectWalk, value: bytes, vr: str, days: int, codecs: tuple[str, ...]) -> bytes:
    """Shift every date of a value; one that cannot be parsed is emptied and noted."""
    if len(value) == 8 and vr == "DA" and value.isdigit():
        moved = shift(value.decode("ascii"), vr, days)
        if moved is not None:
            return moved.encode("ascii")
    components = []
    for component in split_values(decode_text(value, vr, codecs), vr):
        moved = shift(component, vr, days) if component else component
        if moved is None:
            walk.note(Reason.DATE_EMPTIED)
        components.append(moved or "")
    return encode_text(join_values(components), vr, DEFAULT_CHARACTER_SET)


class PseudonymEdit:
    """An identifier in place of which its pseudonym will stand; each value of several has its own."""

    __slots__ = ("codecs", "form", "head", "kind", "order", "originals", "tag", "vr")

    def __init__(
        self, head: bytes, form: int, tag: int, vr: str, kind: Kind, order: ByteOrder, codecs: tuple[str, ...]
    ) -> None:
        self.head = head
        self.form = form
        self.tag = tag
        self.vr = vr
        self.kind = kind
        self.order = order
        self.codecs = codecs
        self.originals: list[Original | None] = []

    def key(self, study: str, patient: str) -> Original:
        """Take the study's own identifier in place of an empty one."""
        keyed = Original(self.kind, study)
        self.originals = [keyed]
        return keyed

    def render(self, walk: ObjectWalk, pseudonyms: Mapping[Original, str]) -> bytes:
        """Write the pseudonyms."""
        text = join_values(["" if original is None else pseudonyms[original] for original in self.originals])
        try:
            return element_bytes(self.head, self.form, encode_text(text, self.vr, self.codecs), self.order)
        except Quarantine as problem:
            raise Quarantine(problem.reason, tag_text(self.tag)) from None


class PseudonymEntry(RuleEntry):
    """An identifier that a rule replaces by its pseudonym.

    Parameters
    ----------
    rule
        The rule's index, or -1 where the element follows a reference without a rule.
    kind
        The kind of pseudonym.
    empty_by_study
        Whether an empty value is keyed by the study; else an empty value stays empty.
    """

    __slots__ = ("empty_by_study", "kind", "rule")

    def __init__(self, form: int, tag: int, vr: str, rule: int, kind: Kind, empty_by_study: bool) -> None:
        super().__init__(form, tag, vr)
        self.rule = rule
        self.kind = kind
        self.empty_by_study = empty_by_study

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Ask for the pseudonym of each value."""
        raw = walk.data[start:end]
        edit = PseudonymEdit(
            walk.data[pos : pos + 6], self.form, self.tag, self.vr, self.kind, level.order, scope.codecs
        )
        if b"\\" in raw or not raw.isascii():
            texts = split_values(decode_text(raw, self.vr, scope.codecs), self.vr)
        else:
            texts = [raw.decode("ascii").strip("\0 ")]
        if not any(texts):
            if not self.empty_by_study:
                return
            walk.to_key.append(edit)
        for text in texts:
            if text:
                original = Original(self.kind, text)
                walk.originals[original] = None
                edit.originals.append(original)
            else:
                edit.originals.append(None)
        walk.edits.append((pos, end, edit))
        walk.rules[self.rule] += 1
        self.touch(walk, level, start, end, scope)


class ReferenceEntry(RuleEntry):
    """A UID that follows the mapping wherever it stands; a UID of the standard's own stays."""

    __slots__ = ("well_known",)

    def __init__(self, form: int, tag: int, well_known: frozenset[str]) -> None:
        super().__init__(form, tag, "UI")
        self.well_known = well_known

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Ask for the pseudonym of each UID that is not well known."""
        raw = walk.data[start:end]
        texts = [text.strip("\0 ") for text in raw.decode("ascii", "replace").split("\\")]
        if all(not text or text in self.well_known for text in texts):
            return
        edit = PseudonymEdit(walk.data[pos : pos + 6], self.form, self.tag, "UI", Kind.UID, level.order, scope.codecs)
        for text in texts:
            original = Original(Kind.UID, text) if text else None
            if original is not None:
                walk.originals[original] = None
            edit.originals.append(original)
        walk.edits.append((pos, end, edit))
        walk.count("uid-followed")
        self.touch(walk, level, start, end, scope)


class ShiftEdit:
    """A date that will be shifted by the patient's own number of days."""

    __slots__ = ("codecs", "form", "head", "order", "original", "value", "vr")

    def __init__(
        self, head: bytes, form: int, vr: str, value: bytes, order: ByteOrder, codecs: tuple[str, ...]
    ) -> None:
        self.head = head
        self.form = form
        self.vr = vr
        self.value = value
        self.order = order
        self.codecs = codecs
        self.original: Original | None = None

    def key(self, study: str, patient: str) -> Original:
        """Take the patient whose offset it is; without an identifier the study stands for the patient."""
        self.original = Original(Kind.DATE_OFFSET, patient or study)
        return self.original

    def render(self, walk: ObjectWalk, pseudonyms: Mapping[Original, str]) -> bytes:
        """Write the shifted date."""
        days = int(pseudonyms[self.original]) if self.original else 0
        return element_bytes(self.head, self.form, shifted(walk, self.value, self.vr, days, self.codecs), self.order)


class PatientShiftEntry(RuleEntry):
    """A date that a rule shifts by the patient's own number of days."""

    __slots__ = ("rule",)

    def __init__(self, form: int, tag: int, vr: str, rule: int) -> None:
        super().__init__(form, tag, vr)
        self.rule = rule

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Ask for the patient's offset."""
        if start == end or self.vr == "SQ":
            return
        data = walk.data
        edit = ShiftEdit(data[pos : pos + 6], self.form, self.vr, data[start:end], level.order, scope.codecs)
        walk.to_key.append(edit)
        walk.edits.append((pos, end, edit))
        walk.rules[self.rule] += 1
        self.touch(walk, level, start, end, scope)


class CharacterSetEntry(Entry):
    """SpecificCharacterSet (0008,0005): holds for what follows it in its data set, and beneath.

    Parameters
    ----------
    inner
        What a rule does to it.
    """

    __slots__ = ("inner",)

    def __init__(self, form: int, inner: Entry | None = None) -> None:
        super().__init__(form)
        self.inner = inner

    def visit(self, walk: Any, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Take the character set over."""
        scope.codecs = character_set(walk.data[start:end])
        if self.inner is not None:
            self.inner.visit(walk, level, pos, start, end, scope)


class GroupLengthEntry(Entry):
    """A group length (gggg,0000): as long as the group is after its changes."""

    __slots__ = ()

    def visit(self, walk: Any, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Hold a place among the edits; its span is found when all edits are known."""
        if end - start != 4:
            raise Quarantine(Reason.MALFORMED, level.where(walk.data, pos), pos)
        walk.edits.append((start, end, GroupLength(level.order.u32.unpack_from(walk.data, start)[0])))


class GroupLength:
    """The edit of a group length whose span is not known yet."""

    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length


class SignatureEntry(RuleEntry):
    """Digital signatures and what they need: no longer valid once anything else changes."""

    __slots__ = ()

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Take the element out, to be put back if nothing else changes."""
        walk.signatures.append(len(walk.edits))
        walk.edits.append((pos, end, b""))


class DropEntry(RuleEntry):
    """An element that a setting removes."""

    __slots__ = ("deed",)

    def __init__(self, form: int, tag: int, vr: str, deed: str) -> None:
        super().__init__(form, tag, vr)
        self.deed = deed

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Take the element out."""
        walk.edits.append((pos, end, b""))
        walk.count(self.deed)
        self.touch(walk, level, start, end, scope)


class PixelDataEntry(RuleEntry):
    """The outermost pixel data: stepped over, never copied here."""

    __slots__ = ()

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Remember where the value lies."""
        walk.pixel_data = (start, end)

    def visit_undefined(self, walk: ObjectWalk, level: Level, pos: int, start: int, scope: Scope) -> int:
        """Remember where the fragments lie; of the beginning of an object only where they begin."""
        if walk.partial:
            walk.pixel_data = (start, None)
            return len(walk.data)
        end = undefined_end(walk, level, start, "OB")
        walk.pixel_data = (start, end)
        return end

    def overrun(self, walk: ObjectWalk, level: Level, pos: int, start: int, stop: int, end: int) -> int:
        """Stop at pixel data that reaches beyond the given beginning of the object."""
        if not walk.partial:
            return super().overrun(walk, level, pos, start, stop, end)
        walk.pixel_data = (start, stop)
        return end


class CaptureEntry(Entry):
    """An element of the outermost data set whose value is asked for afterwards.

    Parameters
    ----------
    keyword
        Under which it is kept.
    inner
        Who else visits it.
    """

    __slots__ = ("inner", "keyword")

    def __init__(self, form: int, keyword: str, inner: Entry | None) -> None:
        super().__init__(form)
        self.keyword = keyword
        self.inner = inner

    def visit(self, walk: ObjectWalk, level: Level, pos: int, start: int, end: int, scope: Scope) -> None:
        """Remember where the value lies and which edit replaces it."""
        edits = len(walk.edits)
        if self.inner is not None:
            self.inner.visit(walk, level, pos, start, end, scope)
        edit = edits if len(walk.edits) > edits else -1
        walk.captured[self.keyword] = Captured(start, end, scope.codecs, edit, self.form)

    def visit_undefined(self, walk: Any, level: Level, pos: int, start: int, scope: Scope) -> int:
        """Refuse an identifier of undefined length."""
        raise Quarantine(Reason.MALFORMED, level.where(walk.data, pos), pos)
