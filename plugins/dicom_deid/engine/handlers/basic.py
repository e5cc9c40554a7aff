"""Element handlers: one class per action, called by the parser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal

from pydicom import Dataset

from dicom_deid.dicom.rewrite import element_bytes
from dicom_deid.dicom.values import (
    DEFAULT_CHARACTER_SET,
    character_set,
    decode_text,
    encode_text,
    join_values,
    split_values,
)
from dicom_deid.dicom.vr import vr_of
from dicom_deid.dicom.walk import (
    LITTLE_ENDIAN,
    DatasetContext,
    Edit,
    ElementHandler,
    ItemContext,
    LengthEdit,
    NeedMoreDataError,
    RuleEdit,
    SearchedEdit,
    SequenceHandler,
    UnknownHandler,
    Walk,
    skip_fragments,
    skip_items,
)
from dicom_deid.engine.dates import shift
from dicom_deid.engine.pixels import TextLayout
from dicom_deid.engine.pixels.codestream import Piece
from dicom_deid.exceptions import Quarantine
from dicom_deid.identifiers import Identifier, IdentifierKind
from dicom_deid.reasons import Reason
from dicom_deid.recipe import ValueLists
from dicom_deid.recipe.filters import Filter

# A captured element of the root data set: its value, its codecs, the index of the edit that replaces it (-1 if none
# does, `IN_SEGMENT` if that of a segment does) and the layout of its header.
Captured = tuple[bytes, tuple[str, ...], int, int]
IN_SEGMENT = -2
# Less than a frame of 32 x 32 pixels: bytes after so small an image are no frames.
_MIN_FRAME_BYTES = 1024
# Of an IS (PS3.5 section 6.2).
_MAX_DIGITS = 12


class ObjectWalk(Walk):
    """State while the rules are applied to one object: what was found, needed and done."""

    __slots__ = (
        "added",
        "after_pixels",
        "beside_pictures",
        "captured",
        "codecs",
        "content_references",
        "counts",
        "data_set",
        "encapsulated",
        "filters",
        "followed",
        "group_lengths",
        "has_content",
        "has_document",
        "identifiers",
        "keyed_by_study",
        "layout",
        "noted",
        "opaque",
        "overlays",
        "pending",
        "pixel_data",
        "planes_removed",
        "read_data_set",
        "rules",
        "search_deferred",
        "segments",
        "shared",
        "signatures",
        "unknown_words",
        "value_lists",
    )

    def __init__(self, data: bytes, rules: int, partial: bool = False) -> None:
        super().__init__(data, partial)
        # Identifiers that need a pseudonym; a dict keeps their order.
        self.identifiers: dict[Identifier, None] = {}
        self.captured: dict[str, Captured] = {}
        # How often each rule was applied, by its index.
        self.rules = [0] * rules
        # Actions without a rule, and the number of UID references that were replaced.
        self.counts: dict[str, int] = {}
        self.followed = 0
        self.noted: dict[Reason, int] = {}
        # The pixel filters of the recipe that match the object.
        self.filters: tuple[Filter, ...] = ()
        # Where text was found, if the object was searched.
        self.layout: TextLayout | None = None
        # Whether the pixels must still be searched for text.
        self.search_deferred = False
        # Indices of edits whose bytes depend on the pseudonyms, and of those that depend on all other edits.
        self.pending: list[int] = []
        self.group_lengths: list[int] = []
        # Index and kind of pending edits that use the study's or the patient's identifier, known after the walk.
        self.keyed_by_study: list[tuple[int, IdentifierKind]] = []
        self.signatures: list[int] = []
        # Position of the value of the root PixelData; no end where the end was not reached.
        self.pixel_data: tuple[int, int | None] | None = None
        # Number of bytes after the frames in it that are blanked. In a partial object they follow its end.
        self.after_pixels = 0
        # Bytes of encapsulated pixel data beside their pictures; None if these were not read.
        self.beside_pictures: list[Piece] | None = None
        # Start, end and VR of the values of OverlayData that stay in the object, by tag.
        self.overlays: dict[int, tuple[int, int, str]] = {}
        # Groups of removed overlay planes whose bits may be in PixelData.
        self.planes_removed: set[int] = set()
        # Start and end of values that stay, are not parsed and may be data sets themselves.
        self.opaque: list[tuple[int, int]] = []
        # Whether the element before which the current `RootContext` pauses is in the object.
        self.added = False
        # The character set of the root data set.
        self.codecs = DEFAULT_CHARACTER_SET
        # Whether the transfer syntax allows pixel data of undefined length.
        self.encapsulated = False
        # The object as pydicom reads it, for functions that ask for it, and how to read it.
        self.data_set: Dataset | None = None
        self.read_data_set: Callable[[], Dataset] | None = None
        # The values collected by the lists of %values, for recipes that have such lists.
        self.value_lists: ValueLists | None = None
        # Words of free text that were masked and that the archive could vouch for.
        self.unknown_words: set[str] = set()
        # Whether a ContentSequence stays that no rule for content items cleans.
        self.has_content = False
        # True if an EncapsulatedDocument is left, at any depth.
        self.has_document = False
        # Whether the object may refer to content items by their position; None until it was looked up.
        self.content_references: bool | None = None
        # The shared header that the object begins with, and the edits of its segments; those of other segments, None
        # where each element is handled by itself.
        self.shared: tuple[Any, list[Any]] | None = None
        self.segments: list[Any] | None = None

    def share(self, other: ObjectWalk) -> None:
        """Use the counters and collections of the walk over another part of the same object."""
        self.identifiers = other.identifiers
        self.rules = other.rules
        self.counts = other.counts
        self.noted = other.noted
        self.value_lists = other.value_lists
        self.unknown_words = other.unknown_words

    def note(self, reason: Reason, times: int = 1) -> None:
        """Count a reason that is noted on the object."""
        self.noted[reason] = self.noted.get(reason, 0) + times

    def count(self, action: str) -> None:
        """Count an action that no rule asked for."""
        self.counts[action] = self.counts.get(action, 0) + 1

    def captured_text(self, keyword: str) -> str:
        """Return the original value of a captured element of the root data set, or an empty string."""
        found = self.captured.get(keyword)
        return "" if found is None else identifier_text(found[0], found[1])


@lru_cache(maxsize=8192)
def identifier_text(value: bytes, codecs: tuple[str, ...]) -> str:
    """Return the text of a captured value without padding; the objects of a series share most."""
    return decode_text(value, "LO", codecs).strip("\0 ")


Context = DatasetContext[ObjectWalk]


def undefined_end(walk: Walk, context: DatasetContext[Any], pos: int, start: int, vr: str) -> int:
    """Return the end of the element of undefined length at `pos`, whose value begins at `start`."""
    if not context.implicit and walk.data[pos + 4 : pos + 6] == b"UN":
        # The items are of implicit VR little endian, whatever the transfer syntax is (PS3.5 section 6.2.2).
        return skip_items(walk, True, LITTLE_ENDIAN, start)
    return (
        skip_items(walk, context.implicit, context.order, start)
        if vr in ("SQ", "UN")
        else skip_fragments(walk, context, start)
    )


class RuleHandler(ElementHandler[ObjectWalk]):
    """Changes an element as a whole.

    Parameters
    ----------
    form
        Layout of the element's header.
    tag, vr
        Its tag and VR; the VR of the dictionary if the header does not say it.
    """

    __slots__ = ("tag", "vr")

    def __init__(self, form: int, tag: int, vr: str) -> None:
        super().__init__(form)
        self.tag = tag
        self.vr = vr

    def handle_undefined(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Find the end of the element and handle it like one of defined length."""
        end = undefined_end(walk, context, pos, start, self.vr)
        self.handle(walk, context, pos, start, end, item_context)
        return end


class PendingEdit(RuleEdit):
    """Edit whose new bytes a `PendingHandler` renders from `details` when the pseudonyms are known."""

    __slots__ = ("details", "handler")

    def __init__(self, start: int, end: int, handler: PendingHandler, details: Any, item_context: ItemContext) -> None:
        self.start = start
        self.end = end
        self.handler = handler
        self.details = details
        self.item_context = item_context
        self.rule = handler.rule

    @property
    def stage(self) -> int | None:
        """The index of the rule before which the object is shown to a function, see `PendingHandler`."""
        return self.handler.stage

    def key_by(self, kind: IdentifierKind, original: Identifier) -> None:
        """Use the study's or the patient's identifier as the original."""
        self.details = self.handler.with_identifier(self.details, original)

    def resolve(self, walk: ObjectWalk, pseudonyms: Mapping[Identifier, str]) -> RuleEdit:
        """Return the edit with its bytes."""
        try:
            new = self.handler.render(walk, self.start, self.details, self.item_context, pseudonyms)
        except Quarantine as problem:
            where = problem.where or self.item_context.context.tag_path(walk.data, self.start)
            raise Quarantine(problem.reason, where, self.start) from None
        return self.handler.edit_class(self.start, self.end, new, self.item_context, self.rule)


class PendingHandler(RuleHandler):
    """Changes an element whose new bytes depend on pseudonyms, or on what other rules make of the object.

    Attributes
    ----------
    rule
        Index of its (first) rule, -1 for a setting.
    stage
        `None`, or the index of the rule before which the object is shown to a function.
    edit_class
        The class of its edits.
    """

    __slots__ = ("rule",)
    stage: int | None = None
    edit_class: type[RuleEdit] = RuleEdit

    def __init__(self, form: int, tag: int, vr: str, rule: int) -> None:
        super().__init__(form, tag, vr)
        self.rule = rule

    def defer(self, walk: ObjectWalk, pos: int, end: int, details: Any, item_context: ItemContext) -> None:
        """Record an edit whose bytes :meth:`render` returns later."""
        walk.pending.append(len(walk.edits))
        walk.edits.append(PendingEdit(pos, end, self, details, item_context))

    def with_identifier(self, details: Any, original: Identifier) -> Any:
        """Return the details for :meth:`render` with the study's or the patient's identifier as the original."""
        raise NotImplementedError

    def render(
        self, walk: ObjectWalk, pos: int, details: Any, item_context: ItemContext, pseudonyms: Mapping[Identifier, str]
    ) -> bytes:
        """Return the whole element at `pos`, or no bytes if it is removed."""
        raise NotImplementedError


class RemoveHandler(RuleHandler):
    """Removes an element by a rule."""

    __slots__ = ("rule",)

    def __init__(self, form: int, tag: int, vr: str, rule: int) -> None:
        super().__init__(form, tag, vr)
        self.rule = rule

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Remove the element."""
        walk.edits.append(RuleEdit(pos, end, b"", item_context, self.rule))
        walk.rules[self.rule] += 1


class ConstantHandler(RuleHandler):
    """Replaces the value of an element by constant bytes."""

    __slots__ = ("rule", "value")

    def __init__(self, form: int, tag: int, vr: str, rule: int, value: bytes) -> None:
        super().__init__(form, tag, vr)
        self.rule = rule
        self.value = value

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Replace the value."""
        new = element_bytes(walk.data[pos : pos + 6], self.form, self.value, context.order)
        walk.edits.append(RuleEdit(pos, end, new, item_context, self.rule))
        walk.rules[self.rule] += 1


class ShiftHandler(RuleHandler):
    """Shifts a date by a constant number of days."""

    __slots__ = ("days", "rule")

    def __init__(self, form: int, tag: int, vr: str, rule: int, days: int) -> None:
        super().__init__(form, tag, date_vr(tag, vr))
        self.rule = rule
        self.days = days

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Write the shifted date."""
        if start == end:
            return
        data = walk.data
        value = shifted(walk, data[start:end], self.vr, self.days, item_context.codecs)
        if len(value) == end - start:
            # The header stays the same.
            new = data[pos:start] + value
        else:
            new = element_bytes(data[pos : pos + 6], self.form, value, context.order)
        walk.edits.append(RuleEdit(pos, end, new, item_context, self.rule))
        walk.rules[self.rule] += 1


def date_vr(tag: int, vr: str) -> str:
    """Return the VR that decides how an element is shifted: TM is trusted only if the dictionary says so too."""
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
def _identifier(kind: IdentifierKind, raw: bytes) -> Identifier | Literal[False] | None:
    """Return the identifier for a single value of ASCII text, `None` for an empty one, False for any other value.

    Cached, because the objects of a study share many.
    """
    if not raw.isascii() or b"\\" in raw or b"\x1b" in raw:
        return False
    text = raw.decode("ascii").strip("\0 ")
    return Identifier(kind, text) if text else None


class PseudonymHandler(PendingHandler):
    """Replaces each value of an identifier by its pseudonym.

    Parameters
    ----------
    rule
        The rule's index.
    kind
        The kind of pseudonym.
    empty_by_study
        Whether an empty value gets a pseudonym keyed by the study; otherwise it stays empty.
    """

    __slots__ = ("empty_by_study", "kind")

    def __init__(self, form: int, tag: int, vr: str, rule: int, kind: IdentifierKind, empty_by_study: bool) -> None:
        super().__init__(form, tag, vr, rule)
        self.kind = kind
        self.empty_by_study = empty_by_study

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Request the pseudonym of each value."""
        identifiers = self.collect(walk, walk.data[start:end], item_context)
        if identifiers is None:
            if not self.empty_by_study:
                return
            walk.keyed_by_study.append((len(walk.edits), self.kind))
        walk.pending.append(len(walk.edits))
        walk.edits.append(PendingEdit(pos, end, self, identifiers, item_context))
        walk.rules[self.rule] += 1

    def collect(
        self, walk: ObjectWalk, raw: bytes, item_context: ItemContext
    ) -> Identifier | tuple[Identifier | None, ...] | None:
        """Collect the identifiers in a value: one, several, or `None` for an empty value."""
        found = _identifier(self.kind, raw)
        if found:
            walk.identifiers[found] = None
            return found
        if found is None:
            return None
        texts = split_values(decode_text(raw, self.vr, item_context.codecs), self.vr)
        identifiers = tuple(Identifier(self.kind, text) if text else None for text in texts)
        walk.identifiers.update(dict.fromkeys(original for original in identifiers if original is not None))
        return identifiers if any(texts) else None

    def with_identifier(self, details: Any, original: Identifier) -> Identifier:
        """Use the study's identifier for an empty value."""
        return original

    def render(
        self, walk: ObjectWalk, pos: int, details: Any, item_context: ItemContext, pseudonyms: Mapping[Identifier, str]
    ) -> bytes:
        """Return the element with the pseudonyms."""
        if details.__class__ is Identifier:
            text = pseudonyms[details]
        else:
            text = join_values([pseudonyms[one] if isinstance(one, Identifier) else one or "" for one in details])
        value = encode_text(text, self.vr, item_context.codecs)
        return element_bytes(walk.data[pos : pos + 6], self.form, value, item_context.context.order)


class ReferenceHandler(PseudonymHandler):
    """Replaces a UID by its pseudonym wherever it occurs; UIDs assigned by the standard stay."""

    __slots__ = ("well_known",)

    def __init__(self, form: int, tag: int, vr: str, well_known: frozenset[bytes]) -> None:
        super().__init__(form, tag, vr, -1, IdentifierKind.UID, False)
        self.well_known = well_known

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Request the pseudonym of each UID that is not well known."""
        raw = walk.data[start:end]
        if raw.rstrip(b"\0 ") in self.well_known:
            return
        several = b"\\" in raw
        details = self._collect_unless_well_known(walk, raw) if several else self.collect(walk, raw, item_context)
        if details is not None:
            walk.pending.append(len(walk.edits))
            walk.edits.append(PendingEdit(pos, end, self, details, item_context))
            walk.followed += 1

    def _collect_unless_well_known(self, walk: ObjectWalk, raw: bytes) -> tuple[Identifier | str | None, ...] | None:
        details: list[Identifier | str | None] = []
        for value in raw.split(b"\\"):
            uid = value.strip(b"\0 ")
            if not uid or uid in self.well_known:
                details.append(uid.decode("ascii"))
                continue
            original = Identifier(IdentifierKind.UID, uid.decode("iso8859"))
            walk.identifiers[original] = None
            details.append(original)
        return tuple(details) if any(isinstance(one, Identifier) for one in details) else None


class RefusedHandler(ElementHandler[ObjectWalk]):
    """Refuses an element whose VR contradicts its tag: a sequence instead of a value, text instead of pixels."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Refuse the element."""
        raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)

    def handle_overrun(self, walk: ObjectWalk, context: Context, pos: int, start: int, stop: int, end: int) -> int:
        """Refuse the element."""
        raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)


class NonEmptyRefusedHandler(RefusedHandler):
    """Refuses an element unless it is empty."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Refuse a value whose VR may hide what the element's own VR would show."""
        if start != end:
            super().handle(walk, context, pos, start, end, item_context)


class KeptContentHandler(SequenceHandler[ObjectWalk]):
    """A ContentSequence that no rule for content items cleans."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Record that the object has content items, and parse them."""
        walk.has_content = walk.has_content or start != end
        super().handle(walk, context, pos, start, end, item_context)

    def handle_undefined(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Record that the object has content items, and parse them."""
        walk.has_content = True
        return super().handle_undefined(walk, context, pos, start, item_context)


class PatientShiftHandler(PendingHandler):
    """Shifts a date by the patient's own number of days."""

    __slots__ = ()

    def __init__(self, form: int, tag: int, vr: str, rule: int) -> None:
        super().__init__(form, tag, date_vr(tag, vr), rule)

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Request the patient's offset."""
        if start == end:
            return
        walk.keyed_by_study.append((len(walk.edits), IdentifierKind.DATE_OFFSET))
        self.defer(walk, pos, end, (start, end), item_context)
        walk.rules[self.rule] += 1

    def with_identifier(self, details: Any, original: Identifier) -> Any:
        """Use the patient whose offset is requested."""
        return (*details, original)

    def render(
        self, walk: ObjectWalk, pos: int, details: Any, item_context: ItemContext, pseudonyms: Mapping[Identifier, str]
    ) -> bytes:
        """Return the element with the shifted date."""
        start, end, original = details
        value = shifted(walk, walk.data[start:end], self.vr, int(pseudonyms[original]), item_context.codecs)
        return element_bytes(walk.data[pos : pos + 6], self.form, value, item_context.context.order)


class CharacterSetHandler(ElementHandler[ObjectWalk]):
    """SpecificCharacterSet (0008,0005): applies to the elements that follow in its data set, and to their items.

    Parameters
    ----------
    inner
        The handler that a rule gives the element, if any.
    """

    __slots__ = ("inner",)

    def __init__(self, form: int, inner: ElementHandler[ObjectWalk] | None = None) -> None:
        super().__init__(form)
        self.inner = inner

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Set the character set of the data set or item."""
        item_context.codecs = character_set(walk.data[start:end])
        if self.inner is not None:
            self.inner.handle(walk, context, pos, start, end, item_context)


class GroupLengthHandler(ElementHandler[ObjectWalk]):
    """A group length (gggg,0000): written as the length of the group after its changes."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Reserve a position among the edits; the new length is known when all edits are."""
        if end - start != 4:
            raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)
        length = context.order.u32.unpack_from(walk.data, start)[0]
        walk.group_lengths.append(len(walk.edits))
        walk.edits.append(GroupLengthEdit(pos, start, length, item_context))


class GroupLengthEdit(RuleEdit):
    """Edit of a group length, computed from the edits of the group.

    Parameters
    ----------
    pos
        Start of the element in bytes; its value may follow a header of 8 or 12 bytes.
    length
        The original group length in bytes.
    """

    __slots__ = ("length", "pos")

    def __init__(self, pos: int, start: int, length: int, item_context: ItemContext) -> None:
        self.pos = pos
        self.start = start
        self.end = start + 4
        self.length = length
        self.item_context = item_context
        self.rule = -1

    def resolve(self, walk: ObjectWalk, following: Iterable[Edit]) -> Edit:
        """Return the edit with the new length, or the removal of the element if the group is empty.

        Parameters
        ----------
        following
            The edits after this one, resolved.
        """
        group = walk.data[self.pos : self.pos + 2]
        group_end = self.end + self.length
        length = self.length
        for edit in following:
            if edit.__class__ is LengthEdit:
                continue
            # An element inserted directly after a group belongs to it if its group number is the same.
            inserted = edit.start == edit.end == group_end and edit.new[:2] == group
            if edit.start >= group_end and not inserted:
                break
            length += len(edit.new) - edit.end + edit.start
        if length <= 0:
            return RuleEdit(self.pos, self.end, b"", self.item_context)
        new = self.item_context.context.order.u32.pack(length)
        return SearchedEdit(self.start, self.end, new)


class OpaqueHandler(UnknownHandler[ObjectWalk]):
    """Keeps a value whose VR does not define its content."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Record the position of the value: bytes that look like an element there are not one that a rule selects."""
        walk.opaque.append((start, end))


class BytesHandler(ElementHandler[ObjectWalk]):
    """Keeps bytes, of defined length or in fragments."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Record the position of the value."""
        walk.opaque.append((start, end))

    def handle_undefined(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Record the position of the fragments."""
        end = skip_fragments(walk, context, start)
        walk.opaque.append((start, end))
        return end


class DocumentHandler(BytesHandler):
    """Keeps a document, and records that the object holds one."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Record the position of the value."""
        super().handle(walk, context, pos, start, end, item_context)
        walk.has_document = walk.has_document or start != end

    def handle_undefined(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Record the position of the fragments."""
        walk.has_document = True
        return super().handle_undefined(walk, context, pos, start, item_context)


class SignatureHandler(RuleHandler):
    """Removes digital signatures and related elements, which are invalid once anything else changes."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Remove the element for now; it is restored if nothing else changes."""
        walk.signatures.append(len(walk.edits))
        walk.edits.append(RuleEdit(pos, end, b"", item_context))


class DropHandler(RuleHandler):
    """Removes an element by a setting.

    Parameters
    ----------
    action
        The name under which the removal is counted.
    """

    __slots__ = ("action",)

    def __init__(self, form: int, tag: int, vr: str, action: str) -> None:
        super().__init__(form, tag, vr)
        self.action = action

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Remove the element."""
        walk.edits.append(RuleEdit(pos, end, b"", item_context))
        walk.count(self.action)


class PixelDataHandler(RuleHandler):
    """Skips the root pixel data without copying it."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Record the position of the value."""
        walk.pixel_data = (start, end)

    def handle_undefined(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Record the position of the fragments; without an end if a partial object does not hold all of them."""
        if not walk.encapsulated:
            raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)
        try:
            end = skip_fragments(walk, context, start)
        except NeedMoreDataError:
            walk.pixel_data = (start, None)
            return len(walk.data)
        walk.pixel_data = (start, end)
        return end

    def handle_overrun(self, walk: ObjectWalk, context: Context, pos: int, start: int, stop: int, end: int) -> int:
        """Stop at pixel data that reaches beyond the given beginning of the object."""
        if not walk.partial:
            return super().handle_overrun(walk, context, pos, start, stop, end)
        walk.pixel_data = (start, stop)
        return end


class NativePixelDataHandler(PixelDataHandler):
    """Blanks bytes after the last frame of uncompressed pixel data: no reader shows them, and they may be text."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Record the position of the value, and blank what follows the frames."""
        walk.pixel_data = (start, end)
        blank_after_pixels(walk, _end_of_frames(walk, context, start, end), end)

    def handle_overrun(self, walk: ObjectWalk, context: Context, pos: int, start: int, stop: int, end: int) -> int:
        """Leave what follows the frames to the analysis of the tail."""
        reached = super().handle_overrun(walk, context, pos, start, stop, end)
        last = _end_of_frames(walk, context, start, stop)
        walk.pixel_data, walk.after_pixels = (start, last), stop - last
        return reached


def blank_after_pixels(walk: ObjectWalk, start: int, end: int) -> None:
    """Blank the bytes after the frames of uncompressed pixel data, unless they are zeros."""
    if walk.data.count(0, start, end) < end - start:
        walk.edits.append(SearchedEdit(start, end, bytes(end - start)))
        walk.count("bytes-after-pixels-blanked")
        walk.after_pixels = end - start


def _end_of_frames(walk: ObjectWalk, context: Context, start: int, end: int) -> int:
    """Return where the frames of uncompressed pixel data in ``[start, end)`` end; `end` if that is unknown.

    One byte more is padding, and whole frames more are frames that NumberOfFrames does not count, unless they are tiny.
    """
    sizes = []
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated"):
        found = walk.captured.get(keyword)
        if found is None or len(found[0]) != 2:
            return end
        sizes.append(context.order.u16.unpack(found[0])[0])
    rows, columns, samples, allocated = sizes
    frames = walk.captured_text("NumberOfFrames") or "1"
    bits = rows * columns * samples * allocated
    if not bits or not (frames.isascii() and frames.isdigit() and len(frames) <= _MAX_DIGITS):
        return end
    last: int = start + (bits * (int(frames) or 1) + 7) // 8
    are_frames = bits >= 8 * _MIN_FRAME_BYTES and (end - last) % (bits // 8) <= 1
    return end if end - last <= 1 or are_frames else last


class CaptureUnchangedHandler(ElementHandler[ObjectWalk]):
    """Records the value of a root element that no handler changes, and whose value is needed after the walk.

    Parameters
    ----------
    keyword
        The key of the record.
    """

    __slots__ = ("keyword",)

    def __init__(self, form: int, keyword: str) -> None:
        super().__init__(form)
        self.keyword = keyword

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Record the value."""
        walk.captured[self.keyword] = (walk.data[start:end], item_context.codecs, -1, self.form)


class CaptureHandler(ElementHandler[ObjectWalk]):
    """Records the value of a root element that is needed after the walk.

    Parameters
    ----------
    keyword
        The key under which it is recorded.
    inner
        The handler that changes the element.
    """

    __slots__ = ("inner", "keyword")

    def __init__(self, form: int, keyword: str, inner: ElementHandler[ObjectWalk]) -> None:
        super().__init__(form)
        self.keyword = keyword
        self.inner = inner

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Record the value and the edit that replaces it."""
        edits = len(walk.edits)
        self.inner.handle(walk, context, pos, start, end, item_context)
        edit = edits if len(walk.edits) > edits else -1
        walk.captured[self.keyword] = (walk.data[start:end], item_context.codecs, edit, self.form)
