"""Dates shifted by whole days (VR DA and DT, PS3.5 section 6.2)."""

from __future__ import annotations

import re
from datetime import date, datetime

from dateutil import parser

_DATE_TIME = re.compile(
    r"(?P<day>\d{8})(?P<time>(?:(?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d|60)?(?:(?<=\d{14})\.\d{1,6})?)?)?)"
    r"(?P<offset>[+-]\d{4})?"
)
_TIME = re.compile(r"([01]\d|2[0-3])(:?[0-5]\d(:?([0-5]\d|60)(\.\d{1,6})?)?)?")
# Two dates that share no year, month or day: a text that leaves one of them out reads differently beside each.
_DEFAULTS = (datetime(2000, 1, 1), datetime(2001, 2, 2))


def shift_date(value: str, days: int) -> str | None:
    """Shift one DA value.

    Parameters
    ----------
    value
        ``YYYYMMDD``, or another way to write a complete date that readers accept (``YYYY.MM.DD`` of ACR-NEMA).
    days
        How many days later.

    Returns
    -------
    str or None
        ``YYYYMMDD``, or `None` where the value is no complete date or the shift leaves the calendar.
    """
    try:
        if len(value) == 8 and value.isascii() and value.isdigit():
            day = date(int(value[:4]), int(value[4:6]), int(value[6:]))
        else:
            day = _parse_complete(value)
        shifted = date.fromordinal(day.toordinal() + days)
    except (ValueError, OverflowError):
        return None
    return f"{shifted.year:04d}{shifted.month:02d}{shifted.day:02d}"


def shift_date_time(value: str, days: int) -> str | None:
    """Shift one DT value, keeping the precision and the offset from UTC that it had.

    Returns
    -------
    str or None
        The shifted value, or `None` where it names no complete day.
    """
    match = _DATE_TIME.fullmatch(value)
    if match is None:
        return None
    shifted = shift_date(match["day"], days)
    return None if shifted is None else shifted + match["time"] + (match["offset"] or "")


def _parse_complete(value: str) -> date:
    if value.isdigit():
        # Digits alone are a date of DICOM or none: six of them may be a year and a month.
        raise ValueError
    first, second = (parser.parse(value, default=default) for default in _DEFAULTS)
    if first.date() != second.date():
        raise ValueError
    return first.date()


def shift(value: str, vr: str, days: int) -> str | None:
    """Shift one value of any VR: DT as a date and time, TM not at all, everything else as a date."""
    if vr == "DT":
        return shift_date_time(value, days)
    if vr == "TM":
        return value if _TIME.fullmatch(value) else None
    return shift_date(value, days)
