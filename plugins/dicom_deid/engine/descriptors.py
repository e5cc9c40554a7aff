"""Descriptions without what may identify: PS3.15 section E.3.5, Clean Descriptors Option.

What is taken out is what can be told by its form, without knowing the patient. What is known of the patient (names, ids
and dates of this object) is taken out by the residual search.
"""

from __future__ import annotations

import re
from typing import Any

_MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?"
)
_DAY = r"(?:0?[1-9]|[12][0-9]|3[01])"
_CAPITALISED = r"(?-i:[^\W\d_a-z][\w'’-]+)"
_PERSON = rf"{_CAPITALISED}(?:(?:[ ^]|, ){_CAPITALISED})?"

_FORMS = (
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",  # mail address
    r"(?:https?|ftp)://\S+",
    r"\b[0-9]+(?:\.[0-9]+){4,}\b",  # UID
    rf"\b(?:1[89]|20)[0-9]{{2}}[-/.](?:0?[1-9]|1[0-2])[-/.]{_DAY}\b",  # 2021-03-04
    rf"\b{_DAY}[-/.]{_DAY}[-/.](?:1[89]|20)[0-9]{{2}}\b",  # 4.3.2021
    rf"\b{_DAY}/{_DAY}/[0-9]{{2}}\b",  # 3/4/21
    rf"\b{_DAY}(?:st|nd|rd|th)?[ .-]+(?:{_MONTHS})\b\.?(?:[ ,-]+(?:[0-9]{{4}}|[0-9]{{2}})\b)?",  # 4 March 2021
    rf"\b(?:{_MONTHS})\b\.?[ -]+{_DAY}(?:st|nd|rd|th)?,?[ -]+(?:1[89]|20)[0-9]{{2}}\b",  # March 4th, 2021
    r"(?:\+[0-9]{1,3}[ .-]?|\b)\(?[0-9]{3}\)?[ .-][0-9]{3}[ .-][0-9]{4}\b",  # telephone
    r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",  # social security
    r"\b(?=\w*[0-9]{5})\w+\b",  # five digits in a row: numbers of records and visits, dates as 20210304
    rf"\b(?:mrs?|ms|miss|dr|prof|sra?|mme|herr|frau)\b\.?[ ^]+{_PERSON}",
    rf"\b(?:patient|name|physician|doctor|technologist|operator|referr?ed by|seen by)\b[ ]*[:=]?[ ]*{_PERSON}",
    r"\b(?:mrn|ssn|dob|acc(?:ession)?(?: no\.?)?)\b[ #:=.]*\w*[0-9]\w*",
)
_IDENTIFYING = re.compile("|".join(_FORMS), re.IGNORECASE)
_BLANKS = re.compile(r"[ \t]{2,}")


class TextCleaner:
    """``REPLACE FIELD func:dicom_deid.engine.descriptors:clean_text``: keeps a text but for what its form tells.

    Taken out are dates, numbers of records, addresses, and names after a title. An empty text stays empty.
    """

    cleans = True
    """Tells the engine that what is left is still text of the object's author: it is searched for residuals, and the
    function needs nothing but the element."""

    def __call__(self, *, field: Any, **_others: object) -> str:
        """Return the element's text without what identifies.

        Parameters
        ----------
        field
            The element: ``field.element.value`` is its value, or a list of values.
        """
        text = field.element.value
        values = [text] if isinstance(text, str) or not hasattr(text, "__iter__") else list(text)
        return "\\".join(without_identifiers(str(one)) for one in values if one is not None)


clean_text = TextCleaner()


class Unchanged:
    """``REPLACE FIELD func:dicom_deid.engine.descriptors:unchanged``: keeps a UID that would follow the mapping.

    An option that retains the identity of devices retains their UIDs, though all other UIDs are replaced.
    """

    cleans = True

    def __call__(self, *, field: Any, **_others: object) -> object:
        """Return the element's value as it is."""
        return field.element.value


unchanged = Unchanged()


def without_identifiers(text: str) -> str:
    """Return a text without what its form tells to be identifying; what stands around it is kept."""
    cleaned = _IDENTIFYING.sub(" ", text)
    return text if cleaned == text else _BLANKS.sub(" ", cleaned).strip()
