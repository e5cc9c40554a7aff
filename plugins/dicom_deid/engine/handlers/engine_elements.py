"""Handlers of elements that the engine itself adds, replaces or records, without a rule."""

from __future__ import annotations

from dicom_deid.dicom.walk import (
    UNDEFINED,
    ElementHandler,
    ItemContext,
    RuleEdit,
    SearchedEdit,
    SequenceHandler,
    close_length_edit,
    reserve_length_edit,
    walk_items,
)
from dicom_deid.engine.deidentification_attributes import DeidentificationAttribute
from dicom_deid.engine.handlers.basic import Context, DropHandler, ObjectWalk, PixelDataHandler
from dicom_deid.engine.pixels import CleanedPixels, is_placed_elsewhere
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason


class AddedHandler(ElementHandler[ObjectWalk]):
    """An element that is to be added and is already in the object.

    Parameters
    ----------
    inner
        The handler that writes it.
    """

    __slots__ = ("inner",)

    def __init__(self, form: int, inner: ElementHandler[ObjectWalk]) -> None:
        super().__init__(form)
        self.inner = inner

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Record that it is there, and call its handler."""
        walk.added = True
        self.inner.handle(walk, context, pos, start, end, item_context)

    def handle_undefined(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Record that it is there, and call its handler."""
        walk.added = True
        return self.inner.handle_undefined(walk, context, pos, start, item_context)


class MisplacedHandler(ElementHandler[ObjectWalk]):
    """An element out of the order of tags, after another of its tag was added."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Refuse it: the data set would hold the tag twice."""
        raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)


class AttributeHandler(DropHandler):
    """Replaces an element by the one that the engine writes."""

    __slots__ = ("attribute",)

    def __init__(self, form: int, attribute: DeidentificationAttribute) -> None:
        super().__init__(form, attribute.tag, attribute.vr, "stamped")
        self.attribute = attribute

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Replace the element."""
        # The new value may be made of the original one, which is searched as if no rule applied to it.
        walk.edits.append(SearchedEdit(pos, end, self.attribute.encode(context), item_context))
        walk.count(self.action)


class MethodHandler(AttributeHandler):
    """Adds the values of DeidentificationMethod to those of an earlier de-identification."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Add the values that are not there yet."""
        earlier = walk.data[start:end].rstrip(b"\0 ")
        ours = bytes(self.attribute.value) if isinstance(self.attribute.value, bytes) else b""
        there = [value.strip() for value in earlier.split(b"\\")]
        added = [value for value in ours.split(b"\\") if value.strip() not in there]
        if not added:
            return
        value = b"\\".join(added if not earlier else [earlier, *added]).rstrip(b" ")
        attribute = self.attribute._replace(value=value + b" " * (len(value) % 2))
        walk.edits.append(SearchedEdit(pos, end, attribute.encode(context), item_context))
        walk.count(self.action)


class TemporalInformationHandler(AttributeHandler):
    """Writes LongitudinalTemporalInformationModified; never UNMODIFIED over MODIFIED or REMOVED."""

    __slots__ = ()

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Write the value unless an earlier de-identification did more."""
        earlier = walk.data[start:end].strip(b"\0 ")
        if self.attribute.value != b"UNMODIFIED" or earlier not in (b"MODIFIED", b"REMOVED"):
            super().handle(walk, context, pos, start, end, item_context)


class MethodCodesHandler(SequenceHandler[ObjectWalk]):
    """Adds the items of DeidentificationMethodCodeSequence to those of an earlier de-identification.

    Parameters
    ----------
    items
        The context of its items, to which the rules apply.
    attribute
        The items to be added.
    """

    __slots__ = ("attribute",)

    def __init__(self, form: int, items: Context, attribute: DeidentificationAttribute) -> None:
        super().__init__(form, items)
        self.attribute = attribute

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Add the items after those of a sequence of defined length."""
        mark = reserve_length_edit(walk.edits)
        if walk_items(walk, self.items, start, end, item_context) != end:
            raise Quarantine(Reason.MALFORMED, context.tag_path(walk.data, pos), pos)
        self._add(walk, start, end)
        close_length_edit(walk.edits, mark, start - 4, end - start)

    def handle_undefined(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Add the items before the sequence delimitation."""
        end = super().handle_undefined(walk, context, pos, start, item_context)
        self._add(walk, start, end - 8)
        return end

    def _add(self, walk: ObjectWalk, start: int, end: int) -> None:
        new = self.attribute.encode_items(self.items, without=walk.data[start:end])
        if new:
            walk.edits.append(SearchedEdit(end, end, new))
            walk.count("stamped")


class CleanedPixelDataHandler(PixelDataHandler):
    """Replaces the pixel data by the cleaned pixels."""

    __slots__ = ("pixels",)

    def __init__(self, form: int, tag: int, vr: str, pixels: CleanedPixels) -> None:
        super().__init__(form, tag, vr)
        self.pixels = pixels

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Write the cleaned pixels."""
        super().handle(walk, context, pos, start, end, item_context)
        walk.edits.append(RuleEdit(pos, end, self._element(context), item_context))

    def handle_undefined(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, item_context: ItemContext
    ) -> int:
        """Write the cleaned pixels."""
        end = super().handle_undefined(walk, context, pos, start, item_context)
        walk.edits.append(RuleEdit(pos, end, self._element(context), item_context))
        return end

    def _element(self, context: Context) -> bytes:
        pixels = self.pixels
        data = bytes(pixels.data or b"")
        if not pixels.encapsulated:
            return DeidentificationAttribute(self.tag, pixels.vr, data).encode(context)
        order = context.order
        vr = b"" if context.implicit else pixels.vr.encode() + b"\0\0"
        head = order.tag.pack(self.tag >> 16, self.tag & 0xFFFF) + vr + order.u32.pack(UNDEFINED)
        return head + data + order.sequence_delimitation + bytes(4)


class OverlayDataHandler(ElementHandler[ObjectWalk]):
    """OverlayData that stays in the object, blanked where the pixels under it are.

    Parameters
    ----------
    tag, vr
        Its tag and VR.
    blanked
        The new value, if it changes.
    """

    __slots__ = ("blanked", "tag", "vr")

    def __init__(self, form: int, tag: int, vr: str, blanked: bytes | None) -> None:
        super().__init__(form)
        self.tag = tag
        self.vr = vr
        self.blanked = blanked

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Record the position of the value, and write the new one."""
        walk.overlays[self.tag] = (start, end, self.vr)
        if self.blanked is not None:
            walk.edits.append(SearchedEdit(start, end, self.blanked))
            walk.count("overlay-blanked")


class RemovedPlaneHandler(ElementHandler[ObjectWalk]):
    """Position element of an overlay plane that is removed from the object.

    Parameters
    ----------
    tag
        Its tag.
    inner
        The handler that changes the element, if any.
    """

    __slots__ = ("inner", "tag")

    def __init__(self, form: int, tag: int, inner: ElementHandler[ObjectWalk] | None) -> None:
        super().__init__(form)
        self.tag = tag
        self.inner = inner

    def handle(
        self, walk: ObjectWalk, context: Context, pos: int, start: int, end: int, item_context: ItemContext
    ) -> None:
        """Record a plane whose bits may be in PixelData."""
        if is_placed_elsewhere(self.tag, walk.data[start:end]):
            walk.planes_removed.add(self.tag >> 16)
        if self.inner is not None:
            self.inner.handle(walk, context, pos, start, end, item_context)
