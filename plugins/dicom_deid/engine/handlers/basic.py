"""What is done to an element: one small class a deed, visited by the walk."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from dicom_deid.dicom.dictionary import vr_of
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
    SHORT,
    DatasetContext,
    ElementHandler,
    ItemContext,
    NeedMoreDataError,
    UnknownHandler,
    Walk,
    skip_fragments,
    skip_items,
)
from dicom_deid.engine.dates import shift
from dicom_deid.exceptions import Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.reasons import Reason
from dicom_deid.recipe import ValueLists

# Of an element of the outermost data set: where its value lies, its codecs, the edit that replaces it (-1 for none) and
# how its header is laid out.
Captured = tuple[int, int, tuple[str, ...], int, int]


class ObjectWalk(Walk):
    """The walk over one object: what it needs, what was found, what was done."""

    __slots__ = (
        "added",
        "captured",
        "codecs",
        "content_references",
        "counts",
        "data_set",
        "encapsulated",
        "followed",
        "group_lengths",
        "identifiers",
        "noted",
        "opaque",
        "overlays",
        "pending",
        "pixel_data",
        "planes_removed",
        "rules",
        "signatures",
        "to_key",
        "value_lists",
    )

    def __init__(self, data: bytes, rules: int, partial: bool = False) -> None:
        super().__init__(data, partial)
        # Identifiers that need a pseudonym; a dict keeps them in the order they were met.
        self.identifiers: dict[Identifier, None] = {}
        self.captured: dict[str, Captured] = {}
        # How often each rule acted, by its index.
        self.rules = [0] * rules
        # What was done without a rule, and how many references followed the mapping.
        self.counts: dict[str, int] = {}
        self.followed = 0
        self.noted: dict[Reason, int] = {}
        # Indices of edits whose bytes only the pseudonyms, or all other edits, tell.
        self.pending: list[int] = []
        self.group_lengths: list[int] = []
        # Index and kind of pending edits whose original is the study's or the patient's, known at the end of the walk.
        self.to_key: list[tuple[int, IdentifierKind]] = []
        self.signatures: list[int] = []
        # Where the value of the outermost PixelData lies; no end where it was not reached.
        self.pixel_data: tuple[int, int | None] | None = None
        # Where the values of OverlayData lie that stay in the object, and their VR, by tag.
        self.overlays: dict[int, tuple[int, int, str]] = {}
        # Groups of overlay planes whose bits may stand in PixelData, and do not stay in the object.
        self.planes_removed: set[int] = set()
        # Where values lie that stay and may be data sets themselves, which nobody walks over.
        self.opaque: list[tuple[int, int]] = []
        # Whether the element that the level pauses at was there.
        self.added = False
        # The character set of the outermost data set.
        self.codecs = DEFAULT_CHARACTER_SET
        # Whether the transfer syntax allows pixel data of undefined length.
        self.encapsulated = False
        # The object as pydicom reads it, for functions that ask.
        self.data_set: Any = None
        # What the lists of %values collected, for recipes that have such.
        self.value_lists: ValueLists | None = None
        # Whether the object may refer to content items by their positions, once somebody asked.
        self.content_references: bool | None = None

    def share(self, other: ObjectWalk) -> None:
        """Count and collect together with the walk over another part of the same object."""
        self.identifiers = other.identifiers
        self.rules = other.rules
        self.counts = other.counts
        self.noted = other.noted
        self.value_lists = other.value_lists

    def note(self, reason: Reason, times: int = 1) -> None:
        """Count something noteworthy."""
        self.noted[reason] = self.noted.get(reason, 0) + times

    def count(self, deed: str) -> None:
        """Count something done without a rule."""
        self.counts[deed] = self.counts.get(deed, 0) + 1

    def captured_text(self, keyword: str) -> str:
        """Return the value of an element of the outermost data set that the walk keeps, as it came; or nothing."""
        found = self.captured.get(keyword)
        if found is None:
            return ""
        return decode_text(self.data[found[0] : found[1]], "LO", found[2]).strip("\0 ")


def undefined_end(walk: Walk, context: DatasetContext, start: int, vr: str) -> int:
    """Return where an element of undefined length ends whose value begins at `start`."""
    if vr in ("SQ", "UN"):
        return skip_items(walk, context.implicit or vr == "UN", context.order, start)
    return skip_fragments(walk, context, start)


class RuleHandler(ElementHandler):
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

    def visit_undefined(
        self, walk: Any, context: DatasetContext, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """See the element with the end that its delimitation gives it."""
        end = undefined_end(walk, context, start, self.vr)
        self.visit(walk, context, pos, start, end, item_context)
        return end


class PendingHandler(RuleHandler):
    """An element whose new bytes are known once the pseudonyms are.

    Its edits hold, in place of the new bytes, the pair of this entry and of what :meth:`render` needs.
    """

    __slots__ = ()

    def keyed(self, needs: Any, original: Identifier) -> Any:
        """Return what :meth:`render` needs when the study's or the patient's identifier is the original."""
        raise NotImplementedError

    def render(
        self, walk: ObjectWalk, pos: int, needs: Any, item_context: ItemContext, pseudonyms: Mapping[Identifier, str]
    ) -> bytes:
        """Return the whole element at `pos`, or nothing where it is removed."""
        raise NotImplementedError


class RemoveHandler(RuleHandler):
    """An element that is removed by a rule."""

    __slots__ = ("rule",)

    def __init__(self, form: int, tag: int, vr: str, rule: int) -> None:
        super().__init__(form, tag, vr)
        self.rule = rule

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Take the element out."""
        walk.edits.append((pos, end, b"", item_context))
        walk.rules[self.rule] += 1


class ConstantHandler(RuleHandler):
    """An element that a rule gives the same bytes everywhere."""

    __slots__ = ("rule", "value")

    def __init__(self, form: int, tag: int, vr: str, rule: int, value: bytes) -> None:
        super().__init__(form, tag, vr)
        self.rule = rule
        self.value = value

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Put the bytes in place of the value."""
        new = element_bytes(walk.data[pos : pos + 6], self.form, self.value, context.order)
        walk.edits.append((pos, end, new, item_context))
        walk.rules[self.rule] += 1


class ShiftHandler(RuleHandler):
    """A date that a rule shifts by the same number of days everywhere."""

    __slots__ = ("days", "rule")

    def __init__(self, form: int, tag: int, vr: str, rule: int, days: int) -> None:
        super().__init__(form, tag, date_vr(tag, vr))
        self.rule = rule
        self.days = days

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Write the shifted date."""
        if start == end:
            return
        data = walk.data
        value = shifted(walk, data[start:end], self.vr, self.days, item_context.codecs)
        if len(value) == end - start:
            # A date that is as long as it was keeps its header.
            new = data[pos:start] + value
        else:
            new = element_bytes(data[pos : pos + 6], self.form, value, context.order)
        walk.edits.append((pos, end, new, item_context))
        walk.rules[self.rule] += 1


def date_vr(tag: int, vr: str) -> str:
    """Return the VR by which an element is shifted: one that is no time is not saved by saying that it is one."""
    return "DA" if vr == "TM" and vr_of(tag) != "TM" else vr


def shifted(walk: ObjectWalk, value: bytes, vr: str, days: int, codecs: tuple[str, ...]) -> bytes:
    """Shift every date of a value; one that cannot be parsed is emptied and noted."""
    if vr == "DA":
        moved = _shifted_day(value, days)
        if moved is not None:
            return moved
    components = []
    for component in split_values(decode_text(value, vr, codecs), vr):
        shifted_component = shift(component, vr, days) if component else component
        if shifted_component is None:
            walk.note(Reason.DATE_EMPTIED)
        components.append(shifted_component or "")
    return encode_text(join_values(components), vr, DEFAULT_CHARACTER_SET)


@lru_cache(maxsize=8192)
def _shifted_day(value: bytes, days: int) -> bytes | None:
    # The objects of a study share their dates.
    if len(value) != 8 or not value.isdigit():
        return None
    moved = shift(value.decode("ascii"), "DA", days)
    return None if moved is None else moved.encode("ascii")


@lru_cache(maxsize=8192)
def _identifier(kind: IdentifierKind, raw: bytes) -> Any:
    """Return the original of a single value of ASCII text; nothing for an empty one, false for any other.

    The objects of a study share many.
    """
    if not raw.isascii() or b"\\" in raw or b"\x1b" in raw:
        return False
    text = raw.decode("ascii").strip("\0 ")
    return Identifier(kind, text) if text else None


class PseudonymHandler(PendingHandler):
    """An identifier that a rule replaces by its pseudonym; each value of several has its own.

    Parameters
    ----------
    rule
        The rule's index.
    kind
        The kind of pseudonym.
    empty_by_study
        Whether an empty value is keyed by the study; else it stays empty.
    """

    __slots__ = ("empty_by_study", "kind", "rule")

    def __init__(self, form: int, tag: int, vr: str, rule: int, kind: IdentifierKind, empty_by_study: bool) -> None:
        super().__init__(form, tag, vr)
        self.rule = rule
        self.kind = kind
        self.empty_by_study = empty_by_study

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Ask for the pseudonym of each value."""
        needs = self.ask(walk, walk.data[start:end], item_context)
        if needs is None:
            if not self.empty_by_study:
                return
            walk.to_key.append((len(walk.edits), self.kind))
        walk.pending.append(len(walk.edits))
        walk.edits.append((pos, end, (self, needs), item_context))
        walk.rules[self.rule] += 1

    def ask(
        self, walk: ObjectWalk, raw: bytes, item_context: ItemContext
    ) -> Identifier | tuple[Identifier | None, ...] | None:
        """Note the originals that a value holds: one, several, or nothing in an empty value."""
        found: Identifier | None = _identifier(self.kind, raw)
        if found:
            walk.identifiers[found] = None
            return found
        if found is None:
            return None
        texts = split_values(decode_text(raw, self.vr, item_context.codecs), self.vr)
        identifiers = tuple(Identifier(self.kind, text) if text else None for text in texts)
        walk.identifiers.update(dict.fromkeys(original for original in identifiers if original is not None))
        return identifiers if any(texts) else None

    def keyed(self, needs: Any, original: Identifier) -> Identifier:
        """Take the study's own identifier in place of an empty one."""
        return original

    def render(
        self, walk: ObjectWalk, pos: int, needs: Any, item_context: ItemContext, pseudonyms: Mapping[Identifier, str]
    ) -> bytes:
        """Write the pseudonyms."""
        if needs.__class__ is Identifier:
            text = pseudonyms[needs]
        else:
            text = join_values([pseudonyms[one] if isinstance(one, Identifier) else one or "" for one in needs])
        if not text.isascii() or self.form != SHORT:
            value = encode_text(text, self.vr, item_context.codecs)
            return element_bytes(walk.data[pos : pos + 6], self.form, value, item_context.context.order)
        value = text.encode()
        if len(value) % 2:
            value += b"\0" if self.vr == "UI" else b" "
        return walk.data[pos : pos + 6] + item_context.context.order.u16.pack(len(value)) + value


class ReferenceHandler(PseudonymHandler):
    """A UID that follows the mapping wherever it stands; a UID of the standard's own stays."""

    __slots__ = ("well_known",)

    def __init__(self, form: int, tag: int, well_known: frozenset[bytes]) -> None:
        super().__init__(form, tag, "UI", -1, IdentifierKind.UID, False)
        self.well_known = well_known

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Ask for the pseudonym of each UID that is not well known."""
        raw = walk.data[start:end]
        if raw.rstrip(b"\0 ") in self.well_known:
            return
        needs = self._ask_but_well_known(walk, raw) if b"\\" in raw else self.ask(walk, raw, item_context)
        if needs is not None:
            walk.pending.append(len(walk.edits))
            walk.edits.append((pos, end, (self, needs), item_context))
            walk.followed += 1

    def _ask_but_well_known(self, walk: ObjectWalk, raw: bytes) -> tuple[Identifier | str | None, ...] | None:
        needs: list[Identifier | str | None] = []
        for value in raw.split(b"\\"):
            uid = value.strip(b"\0 ")
            if not uid or uid in self.well_known:
                needs.append(uid.decode("ascii"))
                continue
            original = Identifier(IdentifierKind.UID, uid.decode("iso8859"))
            walk.identifiers[original] = None
            needs.append(original)
        return tuple(needs) if any(isinstance(needed, Identifier) for needed in needs) else None


class RefusedHandler(ElementHandler):
    """An element that cannot be what it says it is: a sequence in the place of a value, text in the place of pixels."""

    __slots__ = ()

    def visit(
        self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Refuse it."""
        raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)

    def overrun(self, walk: Any, context: DatasetContext, pos: int, start: int, stop: int, end: int) -> int:
        """Refuse it."""
        raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)


class PatientShiftHandler(PendingHandler):
    """A date that a rule shifts by the patient's own number of days."""

    __slots__ = ("rule",)

    def __init__(self, form: int, tag: int, vr: str, rule: int) -> None:
        super().__init__(form, tag, date_vr(tag, vr))
        self.rule = rule

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Ask for the patient's offset."""
        if start == end:
            return
        walk.to_key.append((len(walk.edits), IdentifierKind.DATE_OFFSET))
        walk.pending.append(len(walk.edits))
        walk.edits.append((pos, end, (self, (start, end)), item_context))
        walk.rules[self.rule] += 1

    def keyed(self, needs: Any, original: Identifier) -> Any:
        """Take the patient whose offset it is."""
        return (*needs, original)

    def render(
        self, walk: ObjectWalk, pos: int, needs: Any, item_context: ItemContext, pseudonyms: Mapping[Identifier, str]
    ) -> bytes:
        """Write the shifted date."""
        start, end, original = needs
        value = shifted(walk, walk.data[start:end], self.vr, int(pseudonyms[original]), item_context.codecs)
        return element_bytes(walk.data[pos : pos + 6], self.form, value, item_context.context.order)


class CharacterSetHandler(ElementHandler):
    """SpecificCharacterSet (0008,0005): holds for what follows it in its data set, and beneath.

    Parameters
    ----------
    inner
        What a rule does to it.
    """

    __slots__ = ("inner",)

    def __init__(self, form: int, inner: ElementHandler | None = None) -> None:
        super().__init__(form)
        self.inner = inner

    def visit(
        self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Take the character set over."""
        item_context.codecs = character_set(walk.data[start:end])
        if self.inner is not None:
            self.inner.visit(walk, context, pos, start, end, item_context)


class GroupLengthHandler(ElementHandler):
    """A group length (gggg,0000): as long as the group is after its changes."""

    __slots__ = ()

    def visit(
        self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Hold a place among the edits; its span is found when all edits are known."""
        if end - start != 4:
            raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)
        walk.group_lengths.append(len(walk.edits))
        walk.edits.append((start, end, GroupLength(context.order.u32.unpack_from(walk.data, start)[0]), item_context))


class GroupLength:
    """The edit of a group length whose span is not known yet."""

    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length


class OpaqueHandler(UnknownHandler):
    """A value that stays, of a VR that says nothing of what is in it."""

    __slots__ = ()

    def visit(
        self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Remember where it lies: what looks like an element there is none that a rule addresses."""
        walk.opaque.append((start, end))


class BytesHandler(ElementHandler):
    """Bytes that stay."""

    __slots__ = ()

    def visit(
        self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Remember where they lie, as of any opaque value."""
        walk.opaque.append((start, end))

    def visit_undefined(
        self, walk: Any, context: DatasetContext, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Remember where the fragments lie."""
        end = skip_fragments(walk, context, start)
        walk.opaque.append((start, end))
        return end


class SignatureHandler(RuleHandler):
    """Digital signatures and what they need: no longer valid once anything else changes."""

    __slots__ = ()

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Take the element out, to be put back if nothing else changes."""
        walk.signatures.append(len(walk.edits))
        walk.edits.append((pos, end, b"", item_context))


class DropHandler(RuleHandler):
    """An element that a setting removes."""

    __slots__ = ("deed",)

    def __init__(self, form: int, tag: int, vr: str, deed: str) -> None:
        super().__init__(form, tag, vr)
        self.deed = deed

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Take the element out."""
        walk.edits.append((pos, end, b"", item_context))
        walk.count(self.deed)


class PixelDataHandler(RuleHandler):
    """The outermost pixel data: stepped over, never copied here."""

    __slots__ = ()

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Remember where the value lies."""
        walk.pixel_data = (start, end)

    def visit_undefined(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Remember where the fragments lie; where the beginning of an object has not all of them, where they begin."""
        if not walk.encapsulated:
            raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)
        try:
            end = skip_fragments(walk, context, start)
        except NeedMoreDataError:
            walk.pixel_data = (start, None)
            return len(walk.data)
        walk.pixel_data = (start, end)
        return end

    def overrun(self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, stop: int, end: int) -> int:
        """Stop at pixel data that reaches beyond the given beginning of the object."""
        if not walk.partial:
            return super().overrun(walk, context, pos, start, stop, end)
        walk.pixel_data = (start, stop)
        return end


class CaptureHandler(ElementHandler):
    """An element of the outermost data set whose value is asked for afterwards.

    Parameters
    ----------
    keyword
        Under which it is kept.
    inner
        Who else visits it.
    """

    __slots__ = ("inner", "keyword")

    def __init__(self, form: int, keyword: str, inner: ElementHandler | None) -> None:
        super().__init__(form)
        self.keyword = keyword
        self.inner = inner

    def visit(
        self, walk: ObjectWalk, context: DatasetContext, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Remember where the value lies and which edit replaces it."""
        edit = -1
        if self.inner is not None:
            edits = len(walk.edits)
            self.inner.visit(walk, context, pos, start, end, item_context)
            if len(walk.edits) > edits:
                edit = edits
        walk.captured[self.keyword] = (start, end, item_context.codecs, edit, self.form)

    def visit_undefined(
        self, walk: Any, context: DatasetContext, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Refuse an identifier of undefined length."""
        raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)
