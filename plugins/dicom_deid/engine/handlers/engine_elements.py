"""Handlers of elements that the engine itself adds, replaces or records, without a rule."""

from __future__ import annotations

from dicom_deid.dicom.walk import UNDEFINED, ElementHandler, ItemContext, RuleEdit, SearchedEdit
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
        walk.edits.append(SearchedEdit(pos, end, self.attribute.encode(context)))
        walk.count(self.action)


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
