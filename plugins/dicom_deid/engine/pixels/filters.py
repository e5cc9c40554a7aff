"""Match the `%filter` sections of a recipe against the header of an object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_deid.dicom.tags import tag_text
from dicom_deid.engine.pixels.layout import UNREADABLE
from dicom_deid.engine.pixels.regions import Region
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe.filters import Coordinates, Filter, Rectangle

if TYPE_CHECKING:
    from pydicom import Dataset

_CORNERS = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")


@dataclass(frozen=True, slots=True)
class FilterMatch:
    """The filters that match one object, and the regions that they give.

    Parameters
    ----------
    filters
        The filters that match, in the order of the recipe.
    regions
        Regions to blank or keep; a later region overrides an earlier one.
    """

    filters: tuple[Filter, ...] = ()
    regions: tuple[Region, ...] = ()

    @property
    def cleans(self) -> bool:
        """Whether a region is to be blanked."""
        return any(region.blank for region in self.regions)

    @property
    def whitelisted(self) -> bool:
        """Whether a filter without coordinates in a section named ``whitelist`` matches."""
        return any(_is_whitelist(a_filter) for a_filter in self.filters)

    @property
    def flagged(self) -> bool:
        """Whether a filter without coordinates in any other section matches."""
        return any(not a_filter.coordinates and not _is_whitelist(a_filter) for a_filter in self.filters)


class PixelFilters:
    """All filters of a recipe.

    All matching filters apply, not only the first: their coordinates are painted on one mask in the order of the
    recipe, as in the `deid` package.

    Parameters
    ----------
    filters
        The filters of the recipe, in order.
    """

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = tuple(filters)
        areas = [coordinates.from_tag for a_filter in filters for coordinates in a_filter.coordinates]
        self.tags: frozenset[int] = frozenset[int]().union(*(a_filter.tags for a_filter in filters)) | {
            tag for tag in areas if tag is not None
        }
        """Tags of the root data set that `match` reads; other elements may be missing from the header."""

    def __bool__(self) -> bool:
        return bool(self._filters)

    def match(self, header: Dataset) -> FilterMatch:
        """Return the filters that match an object, with their regions.

        Parameters
        ----------
        header
            The object's original root elements, at least those of `tags`.

        Raises
        ------
        Quarantine
            `malformed` if an element that a filter reads is not valid for its VR.
        """

        def value_of(tag: int) -> str | None:
            return _text(header, tag)

        matching = tuple(a_filter for a_filter in self._filters if a_filter.matches(value_of))
        regions = (
            region
            for a_filter in matching
            for coordinates in a_filter.coordinates
            for region in _regions(coordinates, header)
        )
        return FilterMatch(matching, tuple(regions))


def _is_whitelist(a_filter: Filter) -> bool:
    return a_filter.group.lower() == "whitelist" and not a_filter.coordinates


def _text(header: Dataset, tag: int) -> str | None:
    r"""Return a value as text with components joined by a backslash, or None if the element is missing."""
    if tag not in header:
        return None
    try:
        element = header[tag]
    except Exception:
        # pydicom's message could hold the value.
        raise Quarantine(Reason.MALFORMED, tag_text(tag)) from None
    if element.value is None:
        return ""
    if element.VM > 1 and element.VR != "SQ":
        return "\\".join(str(component) for component in element.value)
    return str(element.value)


def _regions(coordinates: Coordinates, header: Dataset) -> Iterator[Region]:
    """Yield the regions of one line of coordinates for an object."""
    blank = not coordinates.keep
    if coordinates.from_tag is None:
        yield Region(blank, coordinates.area)
        return
    if coordinates.from_tag not in header:
        return
    try:
        yield from [
            Region(blank, Rectangle(*(int(corner) for corner in corners)))
            for item in header[coordinates.from_tag].value or ()
            if None not in (corners := [item.get(keyword) for keyword in _CORNERS])
        ]
    except UNREADABLE:
        raise Quarantine(Reason.MALFORMED, tag_text(coordinates.from_tag)) from None
