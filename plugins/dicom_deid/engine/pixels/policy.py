"""What no rule for an element reaches: documents, and what the pixels show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dicom_deid.dicom.part10 import FileHeader
from dicom_deid.dicom.walk import NeedMoreDataError, is_vr
from dicom_deid.engine.functions import read_data_set
from dicom_deid.engine.handlers.basic import ObjectWalk
from dicom_deid.engine.pixels import (
    CleanedPixels,
    ObjectFacts,
    Overlay,
    PixelFilters,
    Treatment,
    clean_pixels,
    overlay_of,
    overlay_text_regions,
    text_regions,
    treat_document,
    treat_pixels,
    with_overlays,
    without_embedded_planes,
)
from dicom_deid.engine.pixels.filters import PixelDecision
from dicom_deid.engine.profiles import Option
from dicom_deid.engine.settings import Settings
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.reasons import Reason
from dicom_deid.recipe import Recipe

if TYPE_CHECKING:
    from pydicom import Dataset

FACTS: Mapping[int, str] = {
    0x00080008: "ImageType",
    0x00080064: "ConversionType",
    0x00280301: "BurnedInAnnotation",
    0x00280302: "RecognizableVisualFeatures",
}
"""What the judgement asks of the outermost data set beside the identifiers that every walk keeps."""

_CLEANED_BY = {
    Option.CLEAN_STRUCTURED_CONTENT: Reason.STRUCTURED_CONTENT,
    Option.CLEAN_GRAPHICS: Reason.GRAPHIC_CONTENT,
}
_NO_DECISION = PixelDecision((), ())


class PixelAndDocumentPolicy:
    """Decides, by the filters of the recipe and the policies, what becomes of documents and pixels.

    Parameters
    ----------
    recipe
        Whose ``%filter`` sections blank pixels, and whose options clean reports and graphics.
    settings
        The policies.

    Raises
    ------
    ConfigurationError
        If pixels may be encoded anew while the file meta information, which says how, is kept.
    """

    def __init__(self, recipe: Recipe, settings: Settings) -> None:
        self._settings = settings
        self._filters = PixelFilters(recipe.filters)
        parts = recipe.name.split("+")
        self._cleaned = frozenset(reason for option, reason in _CLEANED_BY.items() if option.recipe_name in parts)
        self._is_idle = not self._filters and settings.pixel_risk == "allow" and settings.documents == "allow"
        if (self._filters or settings.pixel_risk == "ocr") and not settings.rebuild_file_meta:
            raise ConfigurationError("pixels can be cleaned only where the file meta information is rebuilt")

    def classify_http_error(
        self, walk: ObjectWalk, header: FileHeader, source: bytes, size: int
    ) -> CleanedPixels | None:
        """Judge one walked object, and clean its pixels where that is what is to be done.

        Overlay planes in unused bits of the pixels go with the elements of planes that rules take out.

        Parameters
        ----------
        walk, header, source
            The object.
        size
            Of the whole object in bytes, where `source` is only its beginning.

        Raises
        ------
        Quarantine
            With the risk as its reason.
        NeedMoreDataError
            If pixels must be cleaned that were not given.
        """
        cleaned = None if self._is_idle else self._judged(walk, header, source, size)
        if not walk.planes_removed or walk.pixel_data is None:
            return cleaned
        if walk.partial:
            raise NeedMoreDataError(size)
        uid, (pixels, vr) = header.transfer_syntax.uid, _pixels(walk, header)
        return without_embedded_planes(cleaned, read_data_set(source), pixels, uid, walk.planes_removed, vr=vr)

    def _judged(self, walk: ObjectWalk, header: FileHeader, source: bytes, size: int) -> CleanedPixels | None:
        facts = _facts(walk, header)
        allowed = treat_document(facts.sop_class_uid, self._settings, cleaned=self._cleaned)
        if allowed is not None:
            walk.note(allowed)
        if not facts.has_pixel_data:
            return None
        dataset = read_data_set(source) if self._filters else None
        decision = _NO_DECISION if dataset is None else self._filters.match(dataset)
        treatment = treat_pixels(facts, decision, self._settings)
        if treatment.allowed is not None:
            walk.note(Reason.PIXEL_RISK_ALLOWED)
        if not treatment.clean and not treatment.find_text:
            return None
        if walk.partial:
            raise NeedMoreDataError(size)
        return self._clean(walk, header, read_data_set(source) if dataset is None else dataset, decision, treatment)

    def _clean(
        self, walk: ObjectWalk, header: FileHeader, dataset: Dataset, decision: PixelDecision, treatment: Treatment
    ) -> CleanedPixels | None:
        uid, (pixels, vr) = header.transfer_syntax.uid, _pixels(walk, header)
        overlays = _overlays(walk, header, dataset)
        regions = overlay_regions = decision.regions if treatment.clean else ()
        if treatment.find_text:
            regions = (*regions, *text_regions(dataset, pixels, uid, vr=vr))
            overlay_regions = (*regions, *overlay_text_regions(overlays))
        cleaned = None
        if regions:
            recompress = self._settings.recompress_pixels
            cleaned = clean_pixels(dataset, pixels, uid, regions, recompress=recompress, vr=vr)
        return with_overlays(cleaned, dataset, overlays, overlay_regions, uid)


def _pixels(walk: ObjectWalk, header: FileHeader) -> tuple[memoryview, str]:
    """Return the value of PixelData, all of which was given, and its VR."""
    start, end = walk.pixel_data or (0, 0)
    vr = walk.data[start - 8 : start - 6]
    # Some writers fall back to an implicit VR.
    is_explicit = not header.transfer_syntax.encoding.implicit and is_vr(vr)
    return memoryview(walk.data)[start:end], vr.decode("ascii") if is_explicit else "OW"


def _overlays(walk: ObjectWalk, header: FileHeader, dataset: Dataset) -> list[Overlay]:
    """Return the overlay planes that neither a rule nor a setting takes out."""
    big_endian = header.transfer_syntax.encoding.big_endian
    return [
        overlay_of(dataset, tag, walk.data[start:end], swapped=big_endian and vr not in ("OB", "UN"))
        for tag, (start, end, vr) in walk.overlays.items()
    ]


def _facts(walk: ObjectWalk, header: FileHeader) -> ObjectFacts:
    def text(keyword: str) -> str:
        found = walk.captured.get(keyword)
        return "" if found is None else walk.data[found[0] : found[1]].decode("iso8859").strip("\0 ")

    return ObjectFacts(
        text("SOPClassUID") or header.media_storage_sop_class_uid,
        header.transfer_syntax.uid,
        walk.pixel_data is not None,
        text("Modality"),
        text("ImageType"),
        text("ConversionType"),
        text("BurnedInAnnotation"),
        text("RecognizableVisualFeatures"),
    )
