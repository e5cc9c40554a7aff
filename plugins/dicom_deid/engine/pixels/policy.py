"""Policy checks outside the header rules: encapsulated documents and pixel data."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from dicom_deid.dicom.deflate import deflate
from dicom_deid.dicom.part10 import FileHeader
from dicom_deid.dicom.tags import tag_text
from dicom_deid.dicom.vr import is_vr
from dicom_deid.dicom.walk import NeedMoreDataError
from dicom_deid.engine.functions import read_data_set
from dicom_deid.engine.handlers.basic import ObjectWalk
from dicom_deid.engine.pixels import (
    CANNOT_BE_SEARCHED,
    LEARNED,
    SHOWS_TEXT,
    CleanedPixels,
    ObjectFacts,
    Overlay,
    PixelDecision,
    PixelFilters,
    Region,
    clean_pixels,
    decide_document,
    decide_pixels,
    document_risk,
    overlay_of,
    overlay_text_regions,
    text_regions,
    with_overlays,
    without_embedded_planes,
)
from dicom_deid.engine.pixels.faces import FACE_ELEMENTS, face_evidence, face_facts
from dicom_deid.engine.pixels.filters import FilterMatch
from dicom_deid.engine.pixels.layout import PIXEL_DATA
from dicom_deid.engine.pixels.layouts import is_sampled, layout_of
from dicom_deid.engine.pixels.overlays import blanked_overlay
from dicom_deid.engine.profiles import Option
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError, Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

if TYPE_CHECKING:
    from pydicom import Dataset

_CLEANED_BY = {
    Option.CLEAN_STRUCTURED_CONTENT: Reason.STRUCTURED_CONTENT,
    Option.CLEAN_GRAPHICS: Reason.GRAPHIC_CONTENT,
}

_FACE_KEYWORDS = ("SOPClassUID", *FACE_ELEMENTS.values())


class PixelAndDocumentPolicy:
    """Apply the filters of a recipe and the policies to documents and pixels.

    Parameters
    ----------
    recipe
        Recipe with the ``%filter`` sections and the options that clean reports and graphics.
    settings
        The policies.

    Raises
    ------
    ConfigurationError
        If pixels may be cleaned but the file meta information, which names their transfer syntax, is kept.
    """

    def __init__(self, recipe: Recipe, settings: Settings) -> None:
        self._settings = settings
        self._filters = PixelFilters(recipe.filters)
        parts = recipe.name.split("+")
        self._cleaned = frozenset(reason for option, reason in _CLEANED_BY.items() if option.recipe_name in parts)
        # Labels of learned layouts outside whose places this process has found text.
        self._unlearned: set[str] = set()
        self._is_idle = not self._filters and settings.pixel_risk == "allow" and settings.documents == "allow"
        cleans = any(a_filter.coordinates for a_filter in recipe.filters)
        if (cleans or settings.pixel_risk == "ocr") and not settings.rebuild_file_meta:
            raise ConfigurationError("pixels can be cleaned only where the file meta information is rebuilt")

    def apply(
        self, walk: ObjectWalk, header: FileHeader, source: bytes, size: int, *, defer_search: bool = False
    ) -> CleanedPixels | None:
        """Check one object and clean its pixels if the filters or the policy require it.

        Overlay planes in unused bits of the samples are blanked if a rule removes the elements of the plane.

        Parameters
        ----------
        walk, header, source
            The object.
        size
            Bytes of the whole object; `source` may be only its beginning.
        defer_search
            Leave the pixels of an object alone that has to be searched for text, and say so in the walk.

        Raises
        ------
        Quarantine
            With the risk as its reason.
        NeedMoreDataError
            If pixels must be cleaned that `source` does not hold.
        """
        if self._settings.faces != "allow" and walk.pixel_data is not None:
            self._note_face(walk, header)
        cleaned = None if self._is_idle else self._decide_and_clean(walk, header, source, size, defer_search)
        if not walk.planes_removed or walk.pixel_data is None or walk.search_deferred:
            return cleaned
        if walk.partial:
            raise NeedMoreDataError(size)
        uid, (pixels, vr) = header.transfer_syntax.uid, _pixels(walk, header)
        dataset = _DataSet(walk, header, source)()
        return without_embedded_planes(cleaned, dataset, pixels, uid, walk.planes_removed, vr=vr)

    def _decide_and_clean(
        self, walk: ObjectWalk, header: FileHeader, source: bytes, size: int, defer_search: bool
    ) -> CleanedPixels | None:
        facts = _facts(walk, header)
        self._decide_document(walk, facts)
        if not facts.has_pixel_data:
            return None
        dataset = _DataSet(walk, header, source)
        match = self._match(walk, header, dataset)
        walk.filters = match.filters
        decision = decide_pixels(facts, match, self._settings)
        learned = next((each.label for each in match.filters if each.group == LEARNED), "")
        if learned in self._unlearned and decision.clean:
            decision = PixelDecision(clean=True, find_text=True)
        if decision.allowed is not None:
            walk.note(Reason.PIXEL_RISK_ALLOWED)
        if not (decision.clean or decision.find_text or decision.check):
            return None
        if walk.partial:
            raise NeedMoreDataError(size)
        is_learned = learned and decision == PixelDecision(clean=True) and self._settings.pixel_risk == "ocr"
        is_in_sample = is_learned and is_sampled(_text(walk, "SOPInstanceUID"))
        if defer_search and (is_in_sample or decision.find_text or decision.check):
            walk.search_deferred = True
            return None
        if is_in_sample:
            self._check_layout(walk, header, dataset(), match, learned)
        return self._clean(walk, header, dataset(), match, decision)

    def _decide_document(self, walk: ObjectWalk, facts: ObjectFacts) -> None:
        """Refuse a document or a report that no rule cleans, or note that the policy allows it."""
        allowed = decide_document(facts.sop_class_uid, self._settings, cleaned=self._cleaned)
        if allowed is None and walk.has_document:
            # An object of another class with a document beside its image, or in its place.
            if self._settings.documents == "quarantine":
                raise Quarantine(Reason.ENCAPSULATED_DOCUMENT, "(0042,0011) EncapsulatedDocument")
            allowed = Reason.ENCAPSULATED_DOCUMENT
        if allowed is None and walk.has_content and Reason.STRUCTURED_CONTENT not in self._cleaned:
            # A SOP class whose objects have no content items, or one that is not of the standard.
            if self._settings.documents == "quarantine":
                raise Quarantine(Reason.STRUCTURED_CONTENT, "(0040,a730) ContentSequence")
            allowed = Reason.STRUCTURED_CONTENT
        if allowed is not None:
            walk.note(allowed)

    def _note_face(self, walk: ObjectWalk, header: FileHeader) -> None:
        """Note or refuse an image that can show a face, as the setting says."""
        captured = walk.captured
        values = tuple([captured[one][0] if one in captured else b"" for one in _FACE_KEYWORDS])
        evidence = _face_evidence(values, header.transfer_syntax.encoding.big_endian)
        if evidence and self._settings.faces == "hold":
            raise Quarantine(Reason.FACE_POSSIBLE, evidence)
        if evidence:
            walk.note(Reason.FACE_POSSIBLE)

    def _match(self, walk: ObjectWalk, header: FileHeader, dataset: Callable[[], Dataset]) -> FilterMatch:
        """Return the filters that match an object, with their regions."""
        if not self._filters:
            return FilterMatch()
        found = (walk.captured.get(name) for name in self._filters.captured.values())
        values = tuple(None if one is None else one[0] for one in found)
        return self._filters.match_captured((header.transfer_syntax.uid, walk.codecs, values), dataset)

    def _check_layout(
        self, walk: ObjectWalk, header: FileHeader, dataset: Dataset, match: FilterMatch, learned: str
    ) -> None:
        """Quarantine an object of a learned layout that shows text elsewhere, and use the layout no longer."""
        uid, (pixels, vr) = header.transfer_syntax.uid, _pixels(walk, header)
        if _text_outside(dataset, pixels, uid, vr, match):
            self._unlearned.add(learned)
            raise Quarantine(Reason.TEXT_OUTSIDE_LAYOUT, learned)

    def _clean(
        self, walk: ObjectWalk, header: FileHeader, dataset: Dataset, match: FilterMatch, decision: PixelDecision
    ) -> CleanedPixels | None:
        uid, (pixels, vr) = header.transfer_syntax.uid, _pixels(walk, header)
        overlays = _overlays(walk, header, dataset)
        regions = overlay_regions = match.regions if decision.clean else ()
        if decision.find_text:
            if decision.check:
                found = _text_outside(dataset, pixels, uid, vr, match)
            else:
                found = text_regions(dataset, pixels, uid, vr=vr, blanked=regions)
            # Text outside a mask is not all text of the device.
            learns = self._settings.layout_objects and not decision.check
            walk.layout = layout_of(dataset, found) if learns else None
            regions = (*regions, *found)
            overlay_regions = (*regions, *overlay_text_regions(overlays))
        elif decision.check:
            if _text_outside(dataset, pixels, uid, vr, match):
                raise Quarantine(Reason.PIXEL_RISK, SHOWS_TEXT)
            _refuse_text_of_overlays(overlays, match)
        cleaned = None
        if regions:
            recompress = self._settings.recompress_pixels
            cleaned = clean_pixels(dataset, pixels, uid, regions, recompress=recompress, vr=vr)
        return with_overlays(cleaned, dataset, overlays, overlay_regions, uid)


@lru_cache(maxsize=4096)
def _face_evidence(values: tuple[bytes, ...], big_endian: bool) -> str:
    # The images of a series have the same values.
    return face_evidence(face_facts(dict(zip(_FACE_KEYWORDS, values, strict=True)), big_endian=big_endian))


class _DataSet:
    """Reads the data set of an object when it is first needed; most objects do not need it."""

    __slots__ = ("_found", "_header", "_source", "_walk")

    def __init__(self, walk: ObjectWalk, header: FileHeader, source: bytes) -> None:
        self._walk = walk
        self._header = header
        self._source = source
        self._found: Dataset | None = None

    def __call__(self) -> Dataset:
        if self._found is None:
            self._found = read_data_set(self._beginning())
        return self._found

    def _beginning(self) -> bytes:
        """Return the object; a deflated one without its pixels, which pydicom would inflate."""
        found, start = self._walk.pixel_data, self._header.data_set_start
        if found is None or not self._header.transfer_syntax.deflated:
            return self._source
        return self._source[:start] + deflate([memoryview(self._walk.data)[: found[0]]])


def _text_outside(dataset: Dataset, pixels: memoryview, uid: str, vr: str, match: FilterMatch) -> tuple[Region, ...]:
    """Return where an object shows text outside the regions that filters blank or that may show text."""
    header = dataset.copy()
    # Text that the header announces is what the filters are about.
    header.pop("BurnedInAnnotation", None)
    try:
        return text_regions(header, pixels, uid, vr=vr, blanked=(*match.regions, *match.text))
    except Quarantine as quarantine:
        if match.cleans or quarantine.reason is Reason.PIXEL_RISK:
            raise
        # Nothing has to be blanked: a reviewer can allow the object as it is.
        raise Quarantine(Reason.PIXEL_RISK, CANNOT_BE_SEARCHED) from None


def _refuse_text_of_overlays(overlays: list[Overlay], match: FilterMatch) -> None:
    """Quarantine an object with a plane that shows text outside the regions of `_text_outside`."""
    covered = (*match.regions, *match.text)
    for overlay in overlays:
        left = overlay._replace(data=blanked_overlay(overlay, covered) or overlay.data)
        if overlay_text_regions([left]):
            raise Quarantine(Reason.PIXEL_RISK, tag_text(overlay.tag) + SHOWS_TEXT.removeprefix(PIXEL_DATA))


def _pixels(walk: ObjectWalk, header: FileHeader) -> tuple[memoryview, str]:
    """Return the value of PixelData, with zeros in place of bytes after the frames, and its VR."""
    start, end = walk.pixel_data or (0, 0)
    vr = walk.data[start - 8 : start - 6]
    # Some writers use an implicit VR here.
    is_explicit = not header.transfer_syntax.encoding.implicit and is_vr(vr)
    pixels, after = memoryview(walk.data)[start:end], walk.after_pixels
    if after:
        pixels = memoryview(bytes(pixels[:-after]) + bytes(after))
    return pixels, vr.decode("ascii") if is_explicit else "OW"


def _overlays(walk: ObjectWalk, header: FileHeader, dataset: Dataset) -> list[Overlay]:
    """Return the overlay planes that neither a rule nor a setting removes."""
    big_endian = header.transfer_syntax.encoding.big_endian
    return [
        overlay_of(dataset, tag, walk.data[start:end], swapped=big_endian and vr not in ("OB", "UN"))
        for tag, (start, end, vr) in walk.overlays.items()
    ]


def _text(walk: ObjectWalk, keyword: str) -> str:
    found = walk.captured.get(keyword)
    return "" if found is None else found[0].decode("iso8859").strip("\0 ")


def _facts(walk: ObjectWalk, header: FileHeader) -> ObjectFacts:
    facts = ObjectFacts.of(partial(_text, walk), header.transfer_syntax.uid, has_pixel_data=walk.pixel_data is not None)
    facts = facts if facts.sop_class_uid else facts._replace(sop_class_uid=header.media_storage_sop_class_uid)
    if walk.overlays and not facts.has_pixel_data and document_risk(facts.sop_class_uid) is None:
        # Overlay planes without an image are shown as one.
        return facts._replace(has_pixel_data=True)
    return facts
