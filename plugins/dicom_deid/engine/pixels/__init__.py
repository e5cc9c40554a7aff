"""Pixels: assess the risk of an object, match filters, blank regions and find text.

numpy and the codecs are imported only when pixels have to be decoded.
"""

from dicom_deid.engine.pixels.clean import CleanedPixels, clean_pixels, with_overlays, without_embedded_planes
from dicom_deid.engine.pixels.faces import FACE_ELEMENTS
from dicom_deid.engine.pixels.filters import LEARNED, PROJECT_RULES, FilterMatch, PixelFilters, captured_by
from dicom_deid.engine.pixels.layouts import TextLayout
from dicom_deid.engine.pixels.overlays import (
    Overlay,
    is_overlay_data,
    is_placed_elsewhere,
    overlay_data_of,
    overlay_of,
    places_overlay_data,
)
from dicom_deid.engine.pixels.regions import Region
from dicom_deid.engine.pixels.risk import (
    FACTS,
    ObjectFacts,
    PixelDecision,
    Risk,
    decide_document,
    decide_pixels,
    document_risk,
    is_video,
    pixel_risk,
)
from dicom_deid.engine.pixels.text import (
    CANNOT_BE_SEARCHED,
    SEARCHED,
    SHOWS_TEXT,
    FoundText,
    TextFinder,
    overlay_text_regions,
    require_ocr,
    text_regions,
)

__all__ = [
    "CANNOT_BE_SEARCHED",
    "FACE_ELEMENTS",
    "FACTS",
    "LEARNED",
    "PROJECT_RULES",
    "SEARCHED",
    "SHOWS_TEXT",
    "CleanedPixels",
    "FilterMatch",
    "FoundText",
    "ObjectFacts",
    "Overlay",
    "PixelDecision",
    "PixelFilters",
    "Region",
    "Risk",
    "TextFinder",
    "TextLayout",
    "captured_by",
    "clean_pixels",
    "decide_document",
    "decide_pixels",
    "document_risk",
    "is_overlay_data",
    "is_placed_elsewhere",
    "is_video",
    "overlay_data_of",
    "overlay_of",
    "overlay_text_regions",
    "pixel_risk",
    "places_overlay_data",
    "require_ocr",
    "text_regions",
    "with_overlays",
    "without_embedded_planes",
]
