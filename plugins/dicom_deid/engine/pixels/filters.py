"""Match the `%filter` sections of a recipe against the header of an object."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement

from dicom_deid.dicom.tags import is_private, tag_text
from dicom_deid.dicom.vr import vr_of
from dicom_deid.engine.pixels.layout import UNREADABLE
from dicom_deid.engine.pixels.regions import Region, bands, outside
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason
from dicom_deid.recipe.filters import Coordinates, Filter, Rectangle

if TYPE_CHECKING:
    from pydicom import Dataset

Answer = TypeVar("Answer")

LEARNED = "learned"
"""Section of filters that were learned: an object that one clears is searched all the same if it is in the sample."""

PROJECT_RULES = "project-rules"
"""Name of the recipe with the decisions of reviewers and the learned layouts, in messages and digests."""

_MAX_REMEMBERED = 4096
_DEVICE = (0x00080060, 0x00080070, 0x00081090)
"""Modality, Manufacturer and ManufacturerModelName."""
_ROWS, _COLUMNS = 0x00280010, 0x00280011
_ULTRASOUND_REGIONS = 0x00186011
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
    clears
        The risks that the filters clear. A filter that holds beats one that blanks, and one that blanks beats one
        that calls the object clean: where a filter blanks, only what such filters say they clear is cleared.
    text
        Regions that may show text.
    """

    filters: tuple[Filter, ...] = ()
    regions: tuple[Region, ...] = ()
    clears: frozenset[Reason] = frozenset()
    text: tuple[Region, ...] = ()

    @property
    def is_reviewed(self) -> bool:
        """True if one of the filters is a decision of a reviewer."""
        return any(each.source == PROJECT_RULES and each.group != LEARNED for each in self.filters)

    @property
    def cleans(self) -> bool:
        """True if the region is to be blanked."""
        return any(region.blank for region in self.regions)

    @property
    def holding(self) -> Filter | None:
        """The first filter that holds the object."""
        return next((a_filter for a_filter in self.filters if a_filter.holds), None)


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
        self.captured = captured_by(filters)
        """Elements that the walk must capture for `candidates`: names by tag."""

        self._of_device: dict[Hashable, tuple[Filter, ...]] = {}
        self._candidates: dict[Hashable, tuple[Filter, ...]] = {}
        self._matches: dict[Hashable, FilterMatch] = {}

    def __bool__(self) -> bool:
        return bool(self._filters)

    def candidates(self, values: Hashable, header: Callable[[], Dataset]) -> tuple[Filter, ...]:
        """Return the filters that may match an object, from the criteria that read captured elements.

        Parameters
        ----------
        values
            The encoded values of `captured` and what their decoding depends on. The answer is remembered: the
            objects of a series have mostly the same values.
        header
            Reads the object's original root elements.
        """
        found = self._candidates.get(values)
        if found is None:
            value_of = _reader(header())
            device = tuple(map(value_of, _DEVICE))
            of_device = self._of_device.get(device)
            if of_device is None:
                of_device = _remembered(self._of_device, device, _narrowed(self._filters, value_of, frozenset(_DEVICE)))
            found = _remembered(self._candidates, values, _narrowed(of_device, value_of, self.captured.keys()))
        return found

    def match_captured(self, values: Hashable, header: Callable[[], Dataset]) -> FilterMatch:
        """Return the filters that match an object, with their regions.

        The answer is remembered where the captured values alone decide it, so that the header of most objects is not
        read again.

        Parameters
        ----------
        values, header
            As for :meth:`candidates`.
        """
        candidates = self.candidates(values, header)
        if not candidates:
            return FilterMatch()
        found = self._matches.get(values)
        if found is None:
            found = self.match(header(), candidates)
            if all(self._is_decided(a_filter) for a_filter in candidates):
                _remembered(self._matches, values, found)
        return found

    def _is_decided(self, a_filter: Filter) -> bool:
        """Return whether captured values decide if a filter matches, and where."""
        known = self.captured.keys()
        return all(line.tags <= known for line in a_filter.lines) and all(
            coordinates.from_tag is None for coordinates in a_filter.coordinates
        )

    def match(self, header: Dataset, candidates: Sequence[Filter] | None = None) -> FilterMatch:
        """Return the filters that match an object, with their regions.

        Parameters
        ----------
        header
            The object's original root elements.
        candidates
            The filters to try, in the order of the recipe; defaults to all.
        """
        value_of = _reader(header)
        matching = tuple(
            a_filter for a_filter in (self._filters if candidates is None else candidates) if a_filter.matches(value_of)
        )
        regions = [
            [region for coordinates in a_filter.coordinates for region in _regions(coordinates, header)]
            for a_filter in matching
        ]
        size = [int(text) if (text := value_of(tag)) and text.isdecimal() else 0 for tag in (_ROWS, _COLUMNS)]
        blanking = [bool(bands(some, *size)) for some in regions]
        return FilterMatch(
            matching,
            tuple(region for some in regions for region in some),
            _cleared(matching, blanking),
            tuple(Region(True, each.area) for a_filter in matching for each in a_filter.text),
        )


def _narrowed(filters: Iterable[Filter], value_of: Callable[[int], str | None], known: Set[int]) -> tuple[Filter, ...]:
    """Return the filters whose lines hold, as far as they read known elements only."""
    return tuple(
        a_filter for a_filter in filters if all(line.holds(value_of) for line in a_filter.lines if line.tags <= known)
    )


def _remembered(memory: dict[Hashable, Answer], key: Hashable, found: Answer) -> Answer:
    """Remember an answer, in a bounded memory."""
    if len(memory) >= _MAX_REMEMBERED:
        memory.clear()
    memory[key] = found
    return found


def captured_by(filters: Iterable[Filter]) -> dict[int, str]:
    """Return what a walk captures for filters: the size of the image and the tags of the criteria, by name.

    Sequences and private elements are not captured.

    The name is the keyword, or the tag where the dictionary has none.
    """
    tags = {_ROWS, _COLUMNS, *(tag for a_filter in filters for line in a_filter.lines for tag in line.tags)}
    return {
        tag: keyword_for_tag(tag) or tag_text(tag) for tag in sorted(tags) if not is_private(tag) and vr_of(tag) != "SQ"
    }


def _cleared(filters: Sequence[Filter], blanking: Sequence[bool]) -> frozenset[Reason]:
    """Return the risks that filters clear, given whether each blanks a pixel of the object."""
    if any(a_filter.holds for a_filter in filters):
        return frozenset()
    saying = [
        a_filter
        for a_filter, blanks in zip(filters, blanking, strict=True)
        if blanks or (a_filter.is_whitelist and (a_filter.coordinates or not any(blanking)))
    ]
    named = {Reason(risk) for a_filter in saying for risk in a_filter.clears}
    if any(a_filter.is_whitelist for a_filter in saying):
        named.add(Reason.PIXEL_RISK)
    return frozenset(named)


def _reader(header: Dataset) -> Callable[[int], str | None]:
    """Return a function that reads each value of a header once."""
    values: dict[int, str | None] = {}

    def value_of(tag: int) -> str | None:
        if tag not in values:
            values[tag] = element_text(header, tag)
        return values[tag]

    return value_of


def element_text(header: Dataset, tag: int) -> str | None:
    r"""Return a value as text with components joined by a backslash, or None if the element is missing.

    A value that is not valid for its VR is compared as it is encoded; SequenceOfUltrasoundRegions as the corners of
    its regions.
    """
    if tag not in header:
        return None
    try:
        element = header[tag]
    except Exception:  # pydicom raises many kinds, with messages that may hold the value
        raw = header.get_item(tag)
        return raw.value.decode("iso8859") if isinstance(raw, RawDataElement) and raw.value else ""
    if element.value is None:
        return ""
    if tag == _ULTRASOUND_REGIONS:
        corners = (map(str, _corners(item)) for item in element.value)
        return "\\".join(map(",".join, corners))
    if element.VM > 1 and element.VR != "SQ":
        return "\\".join(str(component) for component in element.value)
    return str(element.value)


def _corners(item: Dataset) -> list[Any]:
    return [item.get(keyword) for keyword in _CORNERS]


def _regions(coordinates: Coordinates, header: Dataset) -> Iterator[Region]:
    """Yield the regions of one line of coordinates for an object."""
    blank = not coordinates.keep
    if coordinates.from_tag is None:
        yield Region(blank, coordinates.area)
        return
    if coordinates.from_tag not in header:
        return
    try:
        rectangles = [
            Rectangle(*(int(corner) for corner in corners))
            for item in header[coordinates.from_tag].value or ()
            if None not in (corners := _corners(item))
        ]
    except UNREADABLE:
        raise Quarantine(Reason.MALFORMED, tag_text(coordinates.from_tag)) from None
    yield from (Region(blank, rectangle) for rectangle in (outside(rectangles) if coordinates.outside else rectangles))
