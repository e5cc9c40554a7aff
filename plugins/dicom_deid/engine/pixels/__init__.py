"""Pixels: which objects are at risk, where the filters blank, how regions are blanked, and where text is found.

numpy and the codecs are imported when pixels have to be decoded, never before.
"""

from dicom_deid.engine.pixels.clean import CleanedPixels, clean_pixels, with_overlays, without_embedded_planes
from dicom_deid.engine.pixels.filters import PixelDecision, PixelFilters
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
    ObjectFacts,
    Treatment,
    document_risk,
    is_video,
    pixel_risk,
    treat_document,
    treat_pixels,
)
from dicom_deid.engine.pixels.text import FoundText, TextFinder, overlay_text_regions, text_regions

__all__ = [
    "CleanedPixels",
    "FoundText",
    "ObjectFacts",
    "Overlay",
    "PixelDecision",
    "PixelFilters",
    "Region",
    "TextFinder",
    "Treatment",
    "clean_pixels",
    "document_risk",
    "is_overlay_data",
    "is_placed_elsewhere",
    "is_video",
    "overlay_data_of",
    "overlay_of",
    "overlay_text_regions",
    "pixel_risk",
    "places_overlay_data",
    "text_regions",
    "treat_document",
    "treat_pixels",
    "with_overlays",
    "without_embedded_planes",
]
