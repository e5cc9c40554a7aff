"""A recipe and settings turned into levels: what is done with each element is decided once, where it is first met."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dicom_deid.dicom.dictionary import is_private, is_private_creator, vr_of
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import DEFAULT_CHARACTER_SET, LONG_FORM_VRS, cast_literal, from_python
from dicom_deid.dicom.walk import (
    BIG_ENDIAN,
    IMPLICIT,
    LITTLE_ENDIAN,
    LONG,
    SHORT,
    STOP,
    UNDEFINED,
    ByteOrder,
    DatasetContext,
    ElementHandler,
    SequenceHandler,
    UnknownHandler,
)
from dicom_deid.engine.deidentification_attributes import DeidentificationAttribute
from dicom_deid.engine.functions import GENERATE_VALUE, PATIENT_OFFSET, kind_of
from dicom_deid.engine.handlers.basic import (
    BytesHandler,
    CaptureHandler,
    CharacterSetHandler,
    ConstantHandler,
    DropHandler,
    GroupLengthHandler,
    OpaqueHandler,
    PatientShiftHandler,
    PixelDataHandler,
    PseudonymHandler,
    ReferenceHandler,
    RefusedHandler,
    RemoveHandler,
    ShiftHandler,
    SignatureHandler,
)
from dicom_deid.engine.handlers.content_items import CONTENT_SEQUENCES
from dicom_deid.engine.handlers.private import PrivateCreatorHandler, PrivateHandler, safe_private_elements
from dicom_deid.engine.handlers.steps import (
    BoundStep,
    DeidFunctionSource,
    FunctionSource,
    LiteralSource,
    MultiStepHandler,
    OffsetSource,
    PseudonymSource,
    Source,
    VariableSource,
)
from dicom_deid.engine.handlers.structured_content import ContentRules, ContentSequenceHandler, Treatment
from dicom_deid.engine.pixels import (
    CleanedPixels,
    is_overlay_data,
    is_placed_elsewhere,
    overlay_data_of,
    places_overlay_data,
)
from dicom_deid.engine.pixels.policy import FACTS
from dicom_deid.engine.references import names_a_class, well_known_uids
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.identifiers import IdentifierKind
from dicom_deid.reasons import Reason
from dicom_deid.recipe import (
    NO_PRESENCE,
    Action,
    CompiledRecipe,
    DeidFunction,
    ElementName,
    Function,
    Literal,
    Presence,
    Step,
    Steps,
    Value,
    Variable,
    load_function,
)

CHARACTER_SET = 0x00080005
_SIGNATURES = frozenset({0x4FFE0001, 0xFFFAFFFA, 0xFFFCFFFC})
_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
# The VRs in which pixel data may come; as UN it is opaque, and its length defined.
_PIXEL_VRS = {0x7FE00010: ("OB", "OW", "UN"), 0x7FE00008: ("OF", "UN"), 0x7FE00009: ("OD", "UN")}
# Bytes in which anything may stand, a whole data set too.
_OPAQUE_VRS = frozenset({"OB", "OW", "UN"})
_VOI_LUT_SEQUENCE = 0x00283010
_ICON_IMAGE = 0x00880200
# What is asked for after the walk: the destination key, the file meta information, the audit, the pixel rules.
CAPTURED = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x00080050: "AccessionNumber",
    0x00080060: "Modality",
    0x00100020: "PatientID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
    0x00200010: "StudyID",
}
_IDENTIFIERS = frozenset({IdentifierKind.PATIENT_ID, IdentifierKind.ACCESSION_NUMBER, IdentifierKind.STUDY_ID})


class RuleContext(DatasetContext):
    """A level of the data set under the rules.

    Parameters
    ----------
    book
        Decides for it.
    name
        The nested name of the sequence whose items it is for; nothing for the outermost data set.
    ruled
        Whether rules hold here; settings always do.
    treatment
        What becomes of the value of the content item, or the part of one, for which the level is.
    """

    __slots__ = ("handler_table", "name", "ruled", "treatment")

    def __init__(
        self,
        handler_table: HandlerTable,
        path: tuple[int, ...],
        name: str | None,
        implicit: bool,
        order: ByteOrder,
        ruled: bool,
        treatment: Treatment | None = None,
    ) -> None:
        super().__init__(path, implicit, order)
        self.handler_table = handler_table
        self.name = name
        self.ruled = ruled
        self.treatment = treatment

    def as_implicit(self) -> DatasetContext:
        """Return the same level for an item whose elements have implicit VRs."""
        if self.twin is None:
            self.twin = RuleContext(
                self.handler_table, self.path, self.name, True, self.order, self.ruled, self.treatment
            )
        twin: DatasetContext = self.twin
        return twin

    def treated(self, treatment: Treatment) -> RuleContext:
        """Return the level of content items whose value has a treatment."""
        return self.handler_table.treated(self, treatment)

    def decide(self, tag: int, vr: str | None, form: int) -> ElementHandler | None:
        """Ask the book."""
        return self.handler_table.decide(self, tag, vr, form)


class RootContext(RuleContext):
    """A stretch of the outermost data set that ends at an element which is to be there.

    Parameters
    ----------
    passed
        The tags of elements that were added before this stretch.
    until
        The tag at which it ends; the walk pauses at any tag beyond.
    """

    __slots__ = ("passed", "until")

    def __init__(
        self, handler_table: HandlerTable, implicit: bool, order: ByteOrder, passed: frozenset[int], until: int | None
    ) -> None:
        super().__init__(handler_table, (), None, implicit, order, True)
        self.passed = passed
        self.until = until

    def decide(self, tag: int, vr: str | None, form: int) -> ElementHandler | None:
        """Pause beyond the stretch; refuse a second element where one was added already."""
        if self.until is not None:
            if tag > self.until:
                return STOP
            if tag == self.until:
                return AddedHandler(form, self.handler_table.decide(self, tag, vr, form))
        if tag in self.passed:
            return MisplacedHandler(form)
        return self.handler_table.decide(self, tag, vr, form)


class AddedHandler(ElementHandler):
    """An element that is to be there, and is."""

    __slots__ = ("inner",)

    def __init__(self, form: int, inner: Any) -> None:
        super().__init__(form)
        self.inner = inner

    def visit(self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: Any) -> None:
        """Say so, and do what is to be done with it."""
        walk.added = True
        self.inner.visit(walk, context, pos, start, end, item_context)

    def visit_undefined(self, walk: Any, context: DatasetContext, pos: int, start: int, item_context: Any) -> int:
        """Say so, and do what is to be done with it."""
        walk.added = True
        end: int = self.inner.visit_undefined(walk, context, pos, start, item_context)
        return end


class MisplacedHandler(ElementHandler):
    """An element out of the order of tags, where another of its tag was added."""

    __slots__ = ()

    def visit(self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: Any) -> None:
        """Refuse it: the data set would hold the tag twice."""
        raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)

    def visit_undefined(self, walk: Any, context: DatasetContext, pos: int, start: int, item_context: Any) -> int:
        """Refuse it."""
        raise Quarantine(Reason.MALFORMED, context.where(walk.data, pos), pos)


class StampHandler(DropHandler):
    """An element that is written whatever stood there."""

    __slots__ = ("stamp",)

    def __init__(self, form: int, stamp: DeidentificationAttribute) -> None:
        super().__init__(form, stamp.tag, stamp.vr, "stamped")
        self.stamp = stamp

    def visit(self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: Any) -> None:
        """Write it."""
        # What the engine writes may be made of what stood there, and is swept as if no rule had reached it.
        walk.edits.append((pos, end, self.stamp.encode(context), None))
        walk.count(self.deed)


class CleanedPixelDataHandler(PixelDataHandler):
    """Pixel data that stands cleaned in the new object."""

    __slots__ = ("pixels",)

    def __init__(self, form: int, tag: int, vr: str, pixels: CleanedPixels) -> None:
        super().__init__(form, tag, vr)
        self.pixels = pixels

    def visit(self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: Any) -> None:
        """Write the cleaned pixels."""
        super().visit(walk, context, pos, start, end, item_context)
        walk.edits.append((pos, end, self._element(context), item_context))

    def visit_undefined(self, walk: Any, context: DatasetContext, pos: int, start: int, item_context: Any) -> int:
        """Write the cleaned pixels."""
        end = super().visit_undefined(walk, context, pos, start, item_context)
        walk.edits.append((pos, end, self._element(context), item_context))
        return end

    def _element(self, context: DatasetContext) -> bytes:
        pixels = self.pixels
        data = bytes(pixels.data or b"")
        if not pixels.encapsulated:
            return DeidentificationAttribute(self.tag, pixels.vr, data).encode(context)
        order = context.order
        vr = b"" if context.implicit else pixels.vr.encode() + b"\0\0"
        head = order.tag.pack(self.tag >> 16, self.tag & 0xFFFF) + vr + order.u32.pack(UNDEFINED)
        return head + data + order.sequence_delimitation + bytes(4)


class OverlayDataHandler(ElementHandler):
    """The bits of an overlay plane that stay in the object, blanked where the pixels beneath are.

    Parameters
    ----------
    tag, vr
        Its tag and VR.
    blanked
        The new value, where it changes.
    """

    __slots__ = ("blanked", "tag", "vr")

    def __init__(self, form: int, tag: int, vr: str, blanked: bytes | None) -> None:
        super().__init__(form)
        self.tag = tag
        self.vr = vr
        self.blanked = blanked

    def visit(self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: Any) -> None:
        """Remember where the value lies, and write the new one."""
        walk.overlays[self.tag] = (start, end, self.vr)
        if self.blanked is not None:
            walk.edits.append((start, end, self.blanked, None))
            walk.count("overlay-blanked")


class RemovedPlaneHandler(ElementHandler):
    """Where the bits of an overlay plane stand that does not stay in the object.

    Parameters
    ----------
    tag
        Its tag.
    inner
        What else is done to it.
    """

    __slots__ = ("inner", "tag")

    def __init__(self, form: int, tag: int, inner: ElementHandler | None) -> None:
        super().__init__(form)
        self.tag = tag
        self.inner = inner

    def visit(self, walk: Any, context: DatasetContext, pos: int, start: int, end: int, item_context: Any) -> None:
        """Remember a plane whose bits may stand in PixelData."""
        if is_placed_elsewhere(self.tag, walk.data[start:end]):
            walk.planes_removed.add(self.tag >> 16)
        if self.inner is not None:
            self.inner.visit(walk, context, pos, start, end, item_context)


class HandlerTable:
    """Decides, for one recipe and one state of an object, what is done with each element.

    Parameters
    ----------
    plan
        The recipe's plan.
    settings
        The engine's settings.
    functions, variables
        What ``func:`` and ``var:`` stand for.
    stamps
        Elements that the engine itself writes.
    presence, kept
        For recipes that ask: what ``%fields`` select in the object, and the tags that KEEP protects in it.
    pixels
        For an object whose pixels were cleaned: what stands in place of them.

    Raises
    ------
    ConfigurationError
        For a variable or a function that nobody defined.
    """

    def __init__(
        self,
        plan: CompiledRecipe,
        settings: Settings,
        functions: Mapping[str, Callable[..., Any]],
        variables: Mapping[str, Any],
        deidentification_attributes: tuple[DeidentificationAttribute, ...],
        presence: Presence = NO_PRESENCE,
        kept: frozenset[int] = frozenset(),
        pixels: CleanedPixels | None = None,
    ) -> None:
        self.pixels = pixels
        self.plan = plan
        self._safe_private_of_recipe = frozenset(plan.recipe.safe_private)
        self.settings = settings
        self.functions = functions
        self.variables = variables
        self.presence = presence
        self.kept = kept
        self.deidentification_attributes = {stamp.tag: stamp for stamp in deidentification_attributes}
        self.dropped = frozenset[int]()
        if pixels is not None:
            self.dropped = frozenset(tag for tag, value in pixels.elements.items() if value is None)
        self.additions = {
            addition.element.tag: addition
            for addition in plan.additions
            if addition.element.tag not in self.deidentification_attributes and not addition.element.file_meta
        }
        self.meta_additions = {one.element.tag: one for one in plan.additions if one.element.file_meta}
        self.captured = {**CAPTURED, **({} if settings.pixel_risk == "allow" else FACTS)}
        self.follows = settings.follow_uid_references and replaces_uids(plan)
        self.content_rules = ContentRules(plan.content_items)
        self._treated: dict[tuple[object, ...], RuleContext] = {}
        self._insertions: dict[tuple[int, bool, bool], bytes | MultiStepHandler | None] = {}
        self._roots: dict[Encoding, tuple[RootContext, ...]] = {}

    def root(self, encoding: Encoding) -> tuple[RootContext, ...]:
        """Return the stretches of the outermost data set, in order."""
        found = self._roots.get(encoding)
        if found is None:
            order = BIG_ENDIAN if encoding.big_endian else LITTLE_ENDIAN
            tags = sorted({*self.additions, *self.deidentification_attributes})
            found = tuple(
                RootContext(self, encoding.implicit, order, frozenset(tags[:index]), until)
                for index, until in enumerate([*tags, None])
            )
            self._roots[encoding] = found
        return found

    def file_meta(self, implicit: bool) -> RuleContext:
        """Return the level of the file meta information, for rules that see it."""
        return RuleContext(self, (), None, implicit, LITTLE_ENDIAN, True)

    def insertion(self, context: RuleContext, tag: int) -> bytes | MultiStepHandler | None:
        """Return the bytes of an element that is to be there and is not, or who makes them; nothing if none is."""
        key = (tag, context.implicit, context.order.big_endian)
        if key not in self._insertions:
            self._insertions[key] = self._make_insertion(context, tag)
        return self._insertions[key]

    def _make_insertion(self, context: RuleContext, tag: int) -> bytes | MultiStepHandler | None:
        stamp = self.deidentification_attributes.get(tag)
        if stamp is not None:
            return stamp.encode(context)
        addition = self.additions.get(tag) or self.meta_additions[tag]
        steps = self.plan.steps_of_addition(addition, self.presence)
        if not steps:
            return None
        element = addition.element
        form = IMPLICIT if context.implicit else LONG if element.vr in LONG_FORM_VRS else SHORT
        bound_steps = tuple(BoundStep(step, self.source(step.value or step.condition, element)) for step in steps)
        return MultiStepHandler(form, tag, element.vr, element.nested_name, bound_steps, None)

    # What is done with an element

    def decide(self, context: RuleContext, tag: int, vr: str | None, form: int) -> ElementHandler | None:
        """Return who visits an element, or nothing where it is left as it is."""
        root = not context.path
        if is_private(tag) and tag & 0xFFFF:
            if is_private_creator(tag):
                return self._private_creator(context, tag, form)
            return PrivateHandler(form, tag, vr, lambda *names: self._private(context, *names))
        element = self._element(context, tag, vr, None)
        settled = self._settled(element, vr, form)
        if settled is not None:
            return settled
        if context.treatment is not None and tag in context.treatment.steps:
            return self._treat(context, element, form, context.treatment.steps[tag])
        handler = self._by_rule(context, element, form) or self._by_setting(context, element, form)
        if handler is None:
            handler = self._structure(context, element, vr, form)
        if tag == CHARACTER_SET:
            return CharacterSetHandler(form, handler)
        if root and places_overlay_data(tag) and self._removes_plane(context, tag, form):
            return RemovedPlaneHandler(form, tag, handler)
        keyword = self.captured.get(tag) if root else None
        return handler if keyword is None else CaptureHandler(form, keyword, handler)

    def _removes_plane(self, context: RuleContext, tag: int, form: int) -> bool:
        """Whether a rule or a setting acts on the data of an overlay plane or on where they stand.

        The object need not have the data as an element: old ones keep them in PixelData.
        """
        ours = [self._element(context, one, None, None) for one in (tag, overlay_data_of(tag))]
        return any(
            not self.plan.is_kept(one) and (self._by_rule(context, one, form) or self._by_setting(context, one, form))
            for one in ours
        )

    def _treat(self, context: RuleContext, element: ElementName, form: int, steps: Steps) -> ElementHandler | None:
        """Return who does what a rule says about the value of a content item; nothing where it is kept."""
        if element.vr == "SQ":
            return RefusedHandler(form)
        return self.entry_of(context, element, form, steps) if steps else None

    def _settled(self, element: ElementName, vr: str | None, form: int) -> ElementHandler | None:
        """Return who visits an element over which no rule decides."""
        tag = element.tag
        if self._is_refused(element, vr):
            return RefusedHandler(form)
        if element.root and tag in self.deidentification_attributes:
            return StampHandler(form, self.deidentification_attributes[tag])
        if element.root and tag in self.dropped:
            return DropHandler(form, tag, element.vr, "pixel-description-removed")
        if tag >> 16 == 2 and self.settings.rebuild_file_meta:
            # File meta information that strayed into the data set.
            return DropHandler(form, tag, element.vr, "file-meta-removed")
        return None

    def _element(self, context: RuleContext, tag: int, vr: str | None, creator: str | None) -> ElementName:
        if vr is None or vr == "UN":
            # What the header does not say, the dictionary does; also for a VR of UN (PS3.5 section 6.2.2).
            vr = vr_of(tag, creator)
        return ElementName.of(tag, vr=vr, parent=context.name, private_creator=creator)

    def _is_refused(self, element: ElementName, vr: str | None) -> bool:
        tag = element.tag
        if vr == "SQ" or element.vr == "SQ":
            is_value = element.root and tag in self.captured
            return is_value or (self.plan.is_skipped(element) and tag != _VOI_LUT_SEQUENCE)
        return element.root and tag in _PIXEL_VRS and vr is not None and vr not in _PIXEL_VRS[tag]

    def _is_protected(self, element: ElementName) -> bool:
        return element.tag in self.kept or self.plan.is_skipped(element)

    def _by_rule(self, context: RuleContext, element: ElementName, form: int) -> ElementHandler | None:
        if not context.ruled:
            return None
        addition = self.additions.get(element.tag) if element.root else None
        if self._is_protected(element):
            if addition is None:
                return None
            steps = self.plan.steps_of_addition(addition, self.presence)
        else:
            steps = self.plan.steps(element, self.presence)
        if element.vr == "SQ":
            # A sequence has no date of its own; those beneath have rules of their own.
            steps = tuple(step for step in steps if step.action is not Action.JITTER)
        return self.entry_of(context, element, form, steps) if steps else None

    def _by_setting(self, context: RuleContext, element: ElementName, form: int) -> ElementHandler | None:
        tag, settings = element.tag, self.settings
        group = tag >> 16
        for chosen, setting, deed in (
            (group & 0xFF00 == 0x6000, settings.overlays, "overlay-removed"),
            (group & 0xFF00 == 0x5000, settings.curves, "curve-removed"),
            (tag == _ICON_IMAGE, settings.icon_images, "icon-image-removed"),
        ):
            if chosen and setting == "remove" and tag not in self.kept:
                return DropHandler(form, tag, element.vr, deed)
        if tag in _SIGNATURES and settings.remove_signatures:
            return SignatureHandler(form, tag, element.vr)
        if element.vr == "UI" and self.follows and tag not in self.kept and not names_a_class(element.keyword):
            return ReferenceHandler(form, tag, well_known_uids())
        return None

    def _structure(
        self, context: RuleContext, element: ElementName, vr: str | None, form: int
    ) -> ElementHandler | None:
        tag = element.tag
        if tag & 0xFFFF == 0:
            return GroupLengthHandler(form)
        if tag in _PIXEL_DATA and element.root:
            if self.pixels is not None and self.pixels.data is not None:
                return CleanedPixelDataHandler(form, tag, element.vr, self.pixels)
            return PixelDataHandler(form, tag, element.vr)
        if is_overlay_data(tag) and element.root:
            return OverlayDataHandler(form, tag, element.vr, self.pixels.overlays.get(tag) if self.pixels else None)
        ruled = context.ruled and not self._is_protected(element)
        if element.vr == "SQ":
            implicit = context.implicit or form == IMPLICIT
            items = self._items(context, element, implicit, ruled)
            if tag in CONTENT_SEQUENCES and ruled and self.content_rules and items.treatment is None:
                return ContentSequenceHandler(form, tag, items, self.content_rules)
            return SequenceHandler(form, items)
        if "UN" in (element.vr, vr) or (vr is None and tag not in _PIXEL_DATA):
            kind = OpaqueHandler if element.vr in _OPAQUE_VRS or vr == "UN" else UnknownHandler
            return kind(form, self._items(context, element, True, ruled))
        return BytesHandler(form) if element.vr in _OPAQUE_VRS and tag not in _PIXEL_DATA else None

    def _items(self, context: RuleContext, element: ElementName, implicit: bool, ruled: bool) -> RuleContext:
        path = (*context.path, element.tag)
        if len(path) > self.settings.max_depth:
            raise Quarantine(Reason.NESTING_TOO_DEEP, f"{len(path)} sequences deep")
        held = context.treatment is not None and element.tag in context.treatment.holders
        treatment = context.treatment if held else None
        return RuleContext(self, path, element.nested_name, implicit, context.order, ruled, treatment)

    def treated(self, context: RuleContext, treatment: Treatment) -> RuleContext:
        """Return the level of content items whose value has a treatment; one, wherever in a tree of that depth."""
        key = (context.path, context.implicit, context.order.big_endian, treatment.key)
        found = self._treated.get(key)
        if found is None:
            found = RuleContext(self, context.path, context.name, context.implicit, context.order, True, treatment)
            self._treated[key] = found
        return found

    # Private elements

    def _private_creator(self, context: RuleContext, tag: int, form: int) -> ElementHandler:
        element = self._element(context, tag, "LO", None)
        inner = self._by_rule(context, element, form)
        keep = self.settings.private_elements == "keep" or tag in self.kept
        return PrivateCreatorHandler(form, tag, keep, inner)

    def _private(
        self, context: RuleContext, tag: int, vr: str | None, form: int, creator: str | None
    ) -> tuple[bool, ElementHandler | None]:
        element = self._element(context, tag, vr, creator)
        if tag in self.kept:
            return True, self._structure(context, element, vr, form)
        handler = self._by_rule(context, element, form)
        if handler is not None:
            return True, handler
        if not self._keeps_private(tag, creator):
            return False, None
        return True, self._by_setting(context, element, form) or self._structure(context, element, vr, form)

    def _keeps_private(self, tag: int, creator: str | None) -> bool:
        policy = self.settings.private_elements
        if policy == "safe":
            element = (tag >> 16, creator, tag & 0xFF)
            return element in safe_private_elements() or element in self._safe_private_of_recipe
        return policy == "keep"

    # What a rule does

    def entry_of(self, context: RuleContext, element: ElementName, form: int, steps: Steps) -> ElementHandler:
        """Return who takes the steps: one of the quick entries where there is one, else a chain."""
        if len(steps) == 1 and steps[0].is_certain:
            quick = self._quick(context, element, form, steps[0])
            if quick is not None:
                return quick
        bound_steps = tuple(BoundStep(step, self.source(step.value or step.condition, element)) for step in steps)
        kinds = {type(link.source) for link in bound_steps} & {PseudonymSource, OffsetSource}
        if len(kinds) > 1:
            raise ConfigurationError(
                f"{element.keyword or element.name}: {GENERATE_VALUE} and {PATIENT_OFFSET} cannot act on one element"
            )
        certain_removal = steps[0].is_certain and steps[0].action is Action.REMOVE
        untouched = None if certain_removal else self._untouched(context, element, form)
        return MultiStepHandler(form, element.tag, element.vr, element.nested_name, bound_steps, untouched)

    def _untouched(self, context: RuleContext, element: ElementName, form: int) -> ElementHandler | None:
        vr = None if form == IMPLICIT else element.vr
        return self._by_setting(context, element, form) or self._structure(context, element, vr, form)

    def _quick(self, context: RuleContext, element: ElementName, form: int, step: Step) -> ElementHandler | None:
        tag, vr, rule = element.tag, element.vr, step.rule_index
        if step.action is Action.REMOVE:
            return RemoveHandler(form, tag, vr, rule)
        if step.action is Action.BLANK:
            return ConstantHandler(form, tag, vr, rule, b"")
        source = self.source(step.value, element)
        if step.action is Action.JITTER:
            if isinstance(source, LiteralSource):
                return ShiftHandler(form, tag, vr, rule, int(source.text))
            return PatientShiftHandler(form, tag, vr, rule) if isinstance(source, OffsetSource) else None
        if vr == "SQ":
            return None
        if isinstance(source, PseudonymSource):
            return PseudonymHandler(form, tag, vr, rule, source.kind, self._empty_by_study(element))
        if isinstance(source, LiteralSource) and source.text.isascii():
            value = self._constant(context, element, source.text)
            return None if value is None else ConstantHandler(form, tag, vr, rule, value)
        return None

    def _constant(self, context: RuleContext, element: ElementName, text: str) -> bytes | None:
        encoding = Encoding(context.implicit, context.order.big_endian)
        try:
            return from_python(element.tag, element.vr, cast_literal(text, element.vr), encoding, DEFAULT_CHARACTER_SET)
        except (ValueError, Quarantine):
            # The chain says so for each object that has the element.
            return None

    def _empty_by_study(self, element: ElementName) -> bool:
        kind = kind_of(element.keyword)
        return kind is IdentifierKind.ACCESSION_NUMBER or (
            kind in _IDENTIFIERS and self.settings.key_empty_identifiers_by_study
        )

    def source(self, value: Value | None, element: ElementName | None = None) -> Source | None:
        """Return where a value comes from.

        Raises
        ------
        ConfigurationError
            For a variable or a function that nobody defined.
        """
        if value is None:
            return None
        if isinstance(value, Literal):
            return LiteralSource(value.text)
        if isinstance(value, DeidFunction):
            return DeidFunctionSource(value)
        if isinstance(value, Variable):
            return self._variable(value)
        return self._function(value, element)

    def _variable(self, value: Variable) -> Source:
        if value.name in self.variables:
            return VariableSource(self.variables[value.name])
        if value.name == PATIENT_OFFSET:
            return OffsetSource()
        raise ConfigurationError(f"var:{value.name} is not defined; give it to the engine as a variable")

    def _function(self, value: Function, element: ElementName | None) -> Source:
        function = self.functions.get(value.name)
        if function is None and value.name == GENERATE_VALUE:
            return PseudonymSource(kind_of(element.keyword if element else ""))
        return FunctionSource(value.name, function or load_function(value.name), {**self.variables, **self.functions})


def replaces_uids(plan: CompiledRecipe) -> bool:
    """Whether the recipe replaces instance UIDs by pseudonyms."""
    return any(
        isinstance(step.value, Function) and step.value.name == GENERATE_VALUE
        for keyword in (0x00080018, 0x0020000D, 0x0020000E)
        for step in plan.steps(ElementName.of(keyword))
    )
