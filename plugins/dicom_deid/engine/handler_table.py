"""Handlers for a compiled recipe and settings, resolved once per tag, VR, nesting path and private creator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydicom.datadict import dictionary_has_tag, repeater_has_tag

from dicom_deid.dicom.tags import is_private, is_private_creator
from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import DEFAULT_CHARACTER_SET, cast_literal, from_python
from dicom_deid.dicom.vr import BYTES_VRS, LONG_FORM_VRS, TEXT_VRS, vr_of
from dicom_deid.dicom.walk import (
    BIG_ENDIAN,
    IMPLICIT,
    LITTLE_ENDIAN,
    LONG,
    MAX_DEPTH,
    SHORT,
    STOP,
    ByteOrder,
    DatasetContext,
    ElementHandler,
    SequenceHandler,
    UnknownHandler,
)
from dicom_deid.engine.deidentification_attributes import (
    DEIDENTIFICATION_METHOD,
    DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
    LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED,
    DeidentificationAttribute,
)
from dicom_deid.engine.functions import GENERATE_VALUE, PATIENT_OFFSET, kind_of
from dicom_deid.engine.handlers.basic import (
    BytesHandler,
    CaptureHandler,
    CaptureUnchangedHandler,
    CharacterSetHandler,
    ConstantHandler,
    DocumentHandler,
    DropHandler,
    GroupLengthHandler,
    KeptContentHandler,
    NativePixelDataHandler,
    NonEmptyRefusedHandler,
    ObjectWalk,
    OpaqueHandler,
    PatientShiftHandler,
    PseudonymHandler,
    ReferenceHandler,
    RefusedHandler,
    RemoveHandler,
    ShiftHandler,
    SignatureHandler,
)
from dicom_deid.engine.handlers.content_items import CONTENT_SEQUENCE, CONTENT_SEQUENCES
from dicom_deid.engine.handlers.engine_elements import (
    AddedHandler,
    AttributeHandler,
    CleanedPixelDataHandler,
    MethodCodesHandler,
    MethodHandler,
    MisplacedHandler,
    OverlayDataHandler,
    RemovedPlaneHandler,
    TemporalInformationHandler,
)
from dicom_deid.engine.handlers.private import Decision, PrivateCreatorHandler, PrivateHandler, safe_private_elements
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
    unsupported_action,
)
from dicom_deid.engine.handlers.structured_content import ContentItemRule, ContentRules, ContentSequenceHandler
from dicom_deid.engine.pixels import (
    FACE_ELEMENTS,
    FACTS,
    CleanedPixels,
    captured_by,
    is_overlay_data,
    overlay_data_of,
    places_overlay_data,
)
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
PATIENT_ID = 0x00100020
_SIGNATURES = frozenset({0x4FFE0001, 0xFFFAFFFA, 0xFFFCFFFC})
_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
# The VRs allowed for pixel data; as UN it is opaque, and its length defined.
_PIXEL_VRS = {0x7FE00010: ("OB", "OW", "UN"), 0x7FE00008: ("OF", "UN"), 0x7FE00009: ("OD", "UN")}
_VOI_LUT_SEQUENCE = 0x00283010
_LUT_GROUP = 0x0028
# VRs of numbers as text, which some writers encode as binary numbers.
_NUMBERS_AS_TEXT = frozenset({"DS", "IS"})
_ICON_IMAGE, _ENCAPSULATED_DOCUMENT = 0x00880200, 0x00420011
# Root elements needed after the walk: for the destination key, the file meta information, the audit, the pixel rules.
CAPTURED = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x00080050: "AccessionNumber",
    0x00080060: "Modality",
    PATIENT_ID: "PatientID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
    0x00200010: "StudyID",
}
# Root elements that describe an object in the index of the source.
INDEXED = {
    0x00080020: "StudyDate",
    0x00080070: "Manufacturer",
    0x00081090: "ManufacturerModelName",
    0x00100010: "PatientName",
    0x00100021: "IssuerOfPatientID",
    0x00180015: "BodyPartExamined",
    0x00280010: "Rows",
    0x00280011: "Columns",
}
# Root elements that say how many bytes uncompressed pixel data has, beside Rows and Columns.
SIZED = {0x00280002: "SamplesPerPixel", 0x00280008: "NumberOfFrames", 0x00280100: "BitsAllocated"}
_IDENTIFIERS = frozenset({IdentifierKind.PATIENT_ID, IdentifierKind.ACCESSION_NUMBER, IdentifierKind.STUDY_ID})


Handler = ElementHandler[ObjectWalk]


class RuleContext(DatasetContext[ObjectWalk]):
    """One nesting path of the data set under the rules.

    Parameters
    ----------
    handler_table
        Resolves the handlers.
    name
        The nested name of the sequence whose items it is for; nothing for the root data set.
    rules_apply
        Whether rules apply here; settings always do.
    item_rule
        The rule for the value of the content item that the context is for, or is part of.
    """

    __slots__ = ("handler_table", "item_rule", "name", "rules_apply")

    def __init__(
        self,
        handler_table: HandlerTable,
        path: tuple[int, ...],
        name: str | None,
        implicit: bool,
        order: ByteOrder,
        rules_apply: bool,
        item_rule: ContentItemRule | None = None,
    ) -> None:
        super().__init__(path, implicit, order)
        self.handler_table = handler_table
        self.name = name
        self.rules_apply = rules_apply
        self.item_rule = item_rule

    def resolve_handler(self, tag: int, vr: str | None, form: int) -> ElementHandler[ObjectWalk] | None:
        """Return the handler of the table."""
        return self.handler_table.resolve_handler(self, tag, vr, form)


class RootContext(RuleContext):
    """A range of tags of the root data set that ends at an element to be added.

    Parameters
    ----------
    added_before
        The tags of elements that were added before this range.
    until
        The tag at which it ends; parsing pauses at any tag beyond.
    """

    __slots__ = ("added_before", "until")

    def __init__(
        self,
        handler_table: HandlerTable,
        implicit: bool,
        order: ByteOrder,
        added_before: frozenset[int],
        until: int | None,
    ) -> None:
        super().__init__(handler_table, (), None, implicit, order, True)
        self.added_before = added_before
        self.until = until

    def resolve_handler(self, tag: int, vr: str | None, form: int) -> ElementHandler[ObjectWalk] | None:
        """Pause beyond the range; refuse a second element of a tag that was added already."""
        if self.until is not None:
            if tag > self.until:
                return STOP
            if tag == self.until:
                inner = self.handler_table.resolve_handler(self, tag, vr, form)
                return None if inner is None else AddedHandler(form, inner)
        if tag in self.added_before:
            return MisplacedHandler(form)
        return self.handler_table.resolve_handler(self, tag, vr, form)


class HandlerTable:
    """Resolves the handler of each element for one recipe and one state of an object.

    Parameters
    ----------
    compiled
        The compiled recipe.
    settings
        The engine's settings.
    functions, variables
        The functions and variables that ``func:`` and ``var:`` name.
    deidentification_attributes
        Elements that the engine itself writes.
    presence, kept
        What ``%fields`` select in the object, and the tags that KEEP protects in it, if the recipe depends on them.
    pixels
        The replacement of the pixels, for an object whose pixels were cleaned.

    Raises
    ------
    ConfigurationError
        For an undefined variable or function, or an action that the engine does not implement.
    """

    def __init__(
        self,
        compiled: CompiledRecipe,
        settings: Settings,
        functions: Mapping[str, Callable[..., Any]],
        variables: Mapping[str, Any],
        deidentification_attributes: tuple[DeidentificationAttribute, ...],
        presence: Presence = NO_PRESENCE,
        kept: frozenset[int] = frozenset(),
        pixels: CleanedPixels | None = None,
    ) -> None:
        self.pixels = pixels
        self.compiled = compiled
        self.settings = settings
        self.functions = functions
        self.variables = variables
        self.presence = presence
        self.kept = kept
        self.deidentification_attributes = {attribute.tag: attribute for attribute in deidentification_attributes}
        self.dropped = frozenset[int]()
        if pixels is not None:
            self.dropped = frozenset(tag for tag, value in pixels.elements.items() if value is None)
        self.additions = {
            addition.element.tag: addition
            for addition in compiled.additions
            if addition.element.tag not in self.deidentification_attributes and not addition.element.file_meta
        }
        # An absent PatientID (type 2 in every patient IOD) is added with the pseudonym that an empty one gets.
        self.inserted = frozenset({PATIENT_ID}) if self._keys_by_study(PATIENT_ID) else frozenset[int]()
        self.meta_additions = {one.element.tag: one for one in compiled.additions if one.element.file_meta}
        self._safe_private_of_recipe = frozenset(compiled.recipe.safe_private)
        self.captured = {**CAPTURED, **INDEXED, **SIZED, **captured_by(compiled.recipe.filters)}
        if settings.pixel_risk != "allow":
            self.captured |= FACTS
        if settings.faces != "allow":
            self.captured |= FACE_ELEMENTS
        self.replaces_references = settings.follow_uid_references and replaces_uids(compiled)
        self.content_rules = ContentRules(compiled.content_items)
        self._by_item_rule: dict[tuple[object, ...], RuleContext] = {}
        self._insertions: dict[tuple[int, bool, bool], bytes | MultiStepHandler | None] = {}
        self._roots: dict[Encoding, tuple[RootContext, ...]] = {}

    def root(self, encoding: Encoding) -> tuple[RootContext, ...]:
        """Return the contexts of the root data set, one per range of tags, in order."""
        found = self._roots.get(encoding)
        if found is None:
            order = BIG_ENDIAN if encoding.big_endian else LITTLE_ENDIAN
            tags = sorted({*self.additions, *self.inserted, *self.deidentification_attributes})
            found = tuple(
                RootContext(self, encoding.implicit, order, frozenset(tags[:index]), until)
                for index, until in enumerate([*tags, None])
            )
            self._roots[encoding] = found
        return found

    def _keys_by_study(self, tag: int) -> bool:
        """Return whether the recipe replaces an element by its pseudonym, and settings do so for an empty value."""
        steps = self.compiled.steps(ElementName.of(tag), self.presence)
        return (
            self.settings.key_empty_identifiers_by_study
            and tag not in self.kept
            and len(steps) == 1
            and steps[0].is_certain
            and isinstance(self.source(steps[0].value, ElementName.of(tag)), PseudonymSource)
        )

    def file_meta(self, implicit: bool) -> RuleContext:
        """Return the context of the file meta information, for rules that see it."""
        return RuleContext(self, (), None, implicit, LITTLE_ENDIAN, True)

    def insertion(self, context: RuleContext, tag: int) -> bytes | MultiStepHandler | None:
        """Return the encoded bytes of a missing element to add, a handler that builds them, or None."""
        key = (tag, context.implicit, context.order.big_endian)
        if key not in self._insertions:
            self._insertions[key] = self._make_insertion(context, tag)
        return self._insertions[key]

    def _make_insertion(self, context: RuleContext, tag: int) -> bytes | MultiStepHandler | None:
        attribute = self.deidentification_attributes.get(tag)
        if attribute is not None:
            return attribute.encode(context)
        if tag in self.inserted and tag not in self.additions:
            element = ElementName.of(tag)
            steps = self.compiled.steps(element, self.presence)
        else:
            addition = self.additions.get(tag) or self.meta_additions[tag]
            element = addition.element
            steps = self.compiled.steps_of_addition(addition, self.presence)
        if not steps:
            return None
        form = IMPLICIT if context.implicit else LONG if element.vr in LONG_FORM_VRS else SHORT
        bound_steps = tuple(BoundStep(step, self.source(step.value or step.condition, element)) for step in steps)
        return MultiStepHandler(form, tag, element.vr, element.nested_name, None, bound_steps, None)

    # The handler of an element

    def resolve_handler(self, context: RuleContext, tag: int, vr: str | None, form: int) -> Handler | None:
        """Return the handler of an element, or None if it stays unchanged."""
        root = not context.path
        if is_private(tag) and tag & 0xFFFF:
            # An element at the tag of a creator that is not text reserves nothing.
            if is_private_creator(tag) and (vr is None or vr == "UN" or vr in TEXT_VRS):
                return self._private_creator(context, tag, form)
            return PrivateHandler(form, tag, vr, lambda creator: self._private(context, tag, vr, form, creator))
        element = self._element(context, tag, vr, None)
        handler = self._handler_before_rules(context, element, vr, form)
        if handler is not None:
            return handler
        if context.item_rule is not None and tag in context.item_rule.steps:
            return self._by_item_steps(context, element, vr, form, context.item_rule.steps[tag])
        handler = self._by_rule(context, element, vr, form) or self._untouched(context, element, vr, form)
        if tag == CHARACTER_SET:
            return CharacterSetHandler(form, handler)
        if root and places_overlay_data(tag) and self._removes_plane(context, tag, form):
            return RemovedPlaneHandler(form, tag, handler)
        keyword = self.captured.get(tag) if root and element.vr != "SQ" else None
        if keyword is None:
            return handler
        return CaptureHandler(form, keyword, handler) if handler else CaptureUnchangedHandler(form, keyword)

    def _removes_plane(self, context: RuleContext, tag: int, form: int) -> bool:
        """Return whether a rule or a setting changes the data of an overlay plane or its position element.

        The object need not have the data as an element: old ones keep them in PixelData.
        """
        elements = [self._element(context, one, None, None) for one in (tag, overlay_data_of(tag))]
        return any(
            not self.compiled.is_kept(one)
            and (self._by_rule(context, one, one.vr, form) or self._by_setting(context, one, form))
            for one in elements
        )

    def _by_item_steps(
        self, context: RuleContext, element: ElementName, vr: str | None, form: int, steps: Steps
    ) -> Handler | None:
        """Return the handler for the value of a content item, or None if it is kept."""
        if element.vr == "SQ":
            return RefusedHandler(form)
        return self._handler_for_steps(context, element, vr, form, steps) if steps else None

    def _handler_before_rules(
        self, context: RuleContext, element: ElementName, vr: str | None, form: int
    ) -> Handler | None:
        """Return the handler of an element that is not subject to rules."""
        tag = element.tag
        if self._is_refused(element, vr):
            return RefusedHandler(form)
        if element.root and tag in self.deidentification_attributes:
            return self._attribute_handler(context, element, vr, form)
        if element.root and tag in self.dropped:
            return DropHandler(form, tag, element.vr, "pixel-description-removed")
        if tag >> 16 == 2 and self.settings.rebuild_file_meta:
            # File meta information inside the data set.
            return DropHandler(form, tag, element.vr, "file-meta-removed")
        return None

    def _attribute_handler(self, context: RuleContext, element: ElementName, vr: str | None, form: int) -> Handler:
        """Return the handler that writes an attribute about the de-identification and keeps earlier values."""
        attribute = self.deidentification_attributes[element.tag]
        if element.vr == "SQ" and element.tag == DEIDENTIFICATION_METHOD_CODE_SEQUENCE:
            items = self._items(context, element, vr == "UN", context.rules_apply)
            return MethodCodesHandler(form, items, attribute)
        handlers = {
            DEIDENTIFICATION_METHOD: MethodHandler,
            LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED: TemporalInformationHandler,
        }
        # An element that is no text has no earlier value.
        found = handlers.get(element.tag) if element.vr in TEXT_VRS else None
        return (found or AttributeHandler)(form, attribute)

    def _element(self, context: RuleContext, tag: int, vr: str | None, creator: str | None) -> ElementName:
        if vr is None or vr == "UN":
            # The dictionary decides if the header does not say the VR, or says UN (PS3.5 section 6.2.2).
            vr = vr_of(tag, creator)
        return ElementName.of(tag, vr=vr, parent=context.name, private_creator=creator)

    def _is_refused(self, element: ElementName, vr: str | None) -> bool:
        """Return whether the VR in the file cannot be that of the element, whatever a rule says about it."""
        tag = element.tag
        if element.root and tag in _PIXEL_VRS and vr is not None and vr not in _PIXEL_VRS[tag]:
            return True
        if vr == "SQ" or element.vr == "SQ":
            is_value = element.root and tag in self.captured and tag not in INDEXED
            return is_value or is_overlay_data(tag) or (self.compiled.is_skipped(element) and tag != _VOI_LUT_SEQUENCE)
        return False

    def _contradicts(self, tag: int, vr: str | None) -> bool:
        """Return whether the VR in the file may hide what the dictionary's VR of the element would show.

        A sequence in other bytes hides its items; text in numbers or bytes hides from the residual search.
        """
        if vr in (None, "UN", "SQ") or is_private(tag):
            return False
        expected = vr_of(tag)
        if expected == "SQ":
            return True
        return expected in TEXT_VRS and expected not in _NUMBERS_AS_TEXT and vr not in TEXT_VRS

    def _is_protected(self, element: ElementName) -> bool:
        return element.tag in self.kept or self.compiled.is_skipped(element)

    def _by_rule(self, context: RuleContext, element: ElementName, vr: str | None, form: int) -> Handler | None:
        if not context.rules_apply or (_VOI_LUT_SEQUENCE in context.path and element.tag >> 16 == _LUT_GROUP):
            return None
        addition = self.additions.get(element.tag) if element.root else None
        if self._is_protected(element):
            if addition is None:
                return None
            steps = self.compiled.steps_of_addition(addition, self.presence)
        else:
            steps = self.compiled.steps(element, self.presence)
        if element.vr == "SQ":
            # A sequence has no date; rules apply to the dates in its items.
            steps = tuple(step for step in steps if step.action is not Action.JITTER)
        return self._handler_for_steps(context, element, vr, form, steps) if steps else None

    def _by_setting(self, context: RuleContext, element: ElementName, form: int) -> Handler | None:
        tag, settings = element.tag, self.settings
        group = tag >> 16
        for chosen, setting, action in (
            (group & 0xFF00 == 0x6000, settings.overlays, "overlay-removed"),
            (group & 0xFF00 == 0x5000, settings.curves, "curve-removed"),
            (tag == _ICON_IMAGE, settings.icon_images, "icon-image-removed"),
        ):
            if chosen and setting == "remove" and tag not in self.kept:
                return DropHandler(form, tag, element.vr, action)
        if tag == _ICON_IMAGE and self.pixels is not None:
            # A thumbnail of this or another object, at any depth, may show what was blanked.
            return DropHandler(form, tag, element.vr, "icon-image-removed")
        if tag in _SIGNATURES and settings.remove_signatures:
            return SignatureHandler(form, tag, element.vr)
        if self.replaces_references and self._is_reference(element):
            return ReferenceHandler(form, tag, element.vr, well_known_uids())
        if settings.unknown_elements == "remove" and tag not in self.kept and _is_unknown(tag):
            return DropHandler(form, tag, element.vr, "unknown-element-removed")
        return None

    def _is_reference(self, element: ElementName) -> bool:
        """Return whether an element holds UIDs that follow the mapping, in VR UI or in any other text.

        The character set never does: whatever its VR is, readers decode text by its value.
        """
        is_uid = element.vr == "UI" or (element.vr in TEXT_VRS and vr_of(element.tag) == "UI")
        is_left = element.tag == CHARACTER_SET or element.tag in self.kept or names_a_class(element.keyword)
        return is_uid and not is_left

    def _structure(self, context: RuleContext, element: ElementName, vr: str | None, form: int) -> Handler | None:
        tag = element.tag
        if tag & 0xFFFF == 0:
            return GroupLengthHandler(form)
        if tag in _PIXEL_DATA and element.root:
            if self.pixels is not None and self.pixels.data is not None:
                return CleanedPixelDataHandler(form, tag, element.vr, self.pixels)
            return NativePixelDataHandler(form, tag, element.vr)
        if tag == _ENCAPSULATED_DOCUMENT:
            return DocumentHandler(form)
        if is_overlay_data(tag) and element.root:
            return OverlayDataHandler(form, tag, element.vr, self.pixels.overlays.get(tag) if self.pixels else None)
        rules_apply = context.rules_apply and (tag == _VOI_LUT_SEQUENCE or not self._is_protected(element))
        if element.vr == "SQ":
            items = self._items(context, element, vr == "UN", rules_apply)
            if tag == CONTENT_SEQUENCE and not (rules_apply and self.content_rules):
                return KeptContentHandler(form, items)
            if tag in CONTENT_SEQUENCES and rules_apply and self.content_rules and items.item_rule is None:
                return ContentSequenceHandler(
                    form, tag, items, lambda rule: self._with_item_rule(items, rule), self.content_rules
                )
            return SequenceHandler(form, items)
        if "UN" in (element.vr, vr) or (vr is None and tag not in _PIXEL_DATA):
            items = self._items(context, element, vr == "UN" or element.vr == "UN", rules_apply)
            opaque = element.vr in BYTES_VRS or vr == "UN"
            return OpaqueHandler(form, items) if opaque else UnknownHandler(form, items)
        return BytesHandler(form) if element.vr in BYTES_VRS and tag not in _PIXEL_DATA else None

    def _items(self, context: RuleContext, element: ElementName, unknown: bool, rules_apply: bool) -> RuleContext:
        """Return the context of the items of a sequence; those of VR UN are of implicit VR little endian."""
        path = (*context.path, element.tag)
        if len(path) > MAX_DEPTH:
            raise Quarantine(Reason.NESTING_TOO_DEEP, f"{len(path)} sequences deep")
        held = context.item_rule is not None and element.tag in context.item_rule.holders
        item_rule = context.item_rule if held else None
        order = LITTLE_ENDIAN if unknown and not context.implicit else context.order
        implicit = context.implicit or unknown
        return RuleContext(self, path, element.nested_name, implicit, order, rules_apply, item_rule)

    def _with_item_rule(self, context: RuleContext, item_rule: ContentItemRule) -> RuleContext:
        """Return the context of content items whose value has a rule; one per nesting path and rule."""
        key = (context.path, context.implicit, context.order.big_endian, item_rule.key)
        found = self._by_item_rule.get(key)
        if found is None:
            found = RuleContext(self, context.path, context.name, context.implicit, context.order, True, item_rule)
            self._by_item_rule[key] = found
        return found

    # Private elements

    def _private_creator(self, context: RuleContext, tag: int, form: int) -> Handler:
        element = self._element(context, tag, "LO", None)
        inner = self._by_rule(context, element, element.vr, form)
        keep = self.settings.private_elements == "keep" or tag in self.kept
        return PrivateCreatorHandler(form, tag, keep, inner)

    def _private(self, context: RuleContext, tag: int, vr: str | None, form: int, creator: str | None) -> Decision:
        element = self._element(context, tag, vr, creator)
        if tag in self.kept:
            return True, self._structure(context, element, vr, form)
        handler = self._by_rule(context, element, vr, form)
        if handler is not None:
            return True, handler
        if not self._keeps_private(tag, creator):
            return False, None
        return True, self._untouched(context, element, vr, form)

    def _keeps_private(self, tag: int, creator: str | None) -> bool:
        policy = self.settings.private_elements
        if policy == "safe":
            element = (tag >> 16, creator, tag & 0xFF)
            return element in safe_private_elements() or element in self._safe_private_of_recipe
        return policy == "keep"

    # Handlers of rules

    def _handler_for_steps(
        self, context: RuleContext, element: ElementName, vr: str | None, form: int, steps: Steps
    ) -> Handler:
        """Return the handler that applies the steps: a specialised one if there is one, else a `MultiStepHandler`.

        `vr` is the VR in the header, None in implicit VR; where it is UN, that of `element` is the dictionary's.
        """
        if len(steps) == 1 and steps[0].is_certain:
            handler = self._single_step_handler(context, element, form, steps[0])
            if handler is not None:
                return handler
        bound_steps = tuple(BoundStep(step, self.source(step.value or step.condition, element)) for step in steps)
        kinds = {type(bound_step.source) for bound_step in bound_steps} & {PseudonymSource, OffsetSource}
        if len(kinds) > 1:
            raise ConfigurationError(
                f"{element.keyword or element.name}: {GENERATE_VALUE} and {PATIENT_OFFSET} cannot act on one element"
            )
        certain_removal = steps[0].is_certain and steps[0].action is Action.REMOVE
        untouched = None if certain_removal else self._untouched(context, element, vr, form)
        names = element.nested_name, element.private_creator
        return MultiStepHandler(form, element.tag, element.vr, *names, bound_steps, untouched)

    def _untouched(self, context: RuleContext, element: ElementName, vr: str | None, form: int) -> Handler | None:
        """Return the handler of an element that no rule changes."""
        handler = self._by_setting(context, element, form)
        if handler is None and self._contradicts(element.tag, vr):
            return NonEmptyRefusedHandler(form)
        return handler or self._structure(context, element, vr, form)

    def _single_step_handler(self, context: RuleContext, element: ElementName, form: int, step: Step) -> Handler | None:
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
        if step.action not in (Action.ADD, Action.REPLACE):
            raise unsupported_action(step.action)
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
            # The `MultiStepHandler` reports it for each object that has the element.
            return None

    def _empty_by_study(self, element: ElementName) -> bool:
        kind = kind_of(element.keyword)
        return kind is IdentifierKind.ACCESSION_NUMBER or (
            kind in _IDENTIFIERS and self.settings.key_empty_identifiers_by_study
        )

    def source(self, value: Value | None, element: ElementName | None = None) -> Source | None:
        """Return the source of a value.

        Raises
        ------
        ConfigurationError
            For an undefined variable or function, or an action that the engine does not implement.
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


def _is_unknown(tag: int) -> bool:
    """Return whether the dictionary holds neither the tag of a public element nor its repeating group."""
    known = not tag & 0xFFFF or dictionary_has_tag(tag) or repeater_has_tag(tag)
    return not is_private(tag) and not known


def replaces_uids(compiled: CompiledRecipe) -> bool:
    """Return whether the recipe replaces instance UIDs by pseudonyms."""
    return any(
        isinstance(step.value, Function) and step.value.name == GENERATE_VALUE
        for tag in (0x00080018, 0x0020000D, 0x0020000E)
        for step in compiled.steps(ElementName.of(tag))
    )
