"""Descriptions without what may identify: PS3.15 section E.3.5, Clean Descriptors Option.

Two ways. By patterns: what can be recognised by its form without knowing the patient is removed. By vocabulary: only
the tokens stay that a list of words, the standard, the site or their form vouches for. Names, identifiers and dates of
the patient are found by the residual search, in the cleaned text too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from dicom_deid.engine.vocabulary import Vocabulary

_MONTHS = "|".join(
    (
        # English, with abbreviations.
        *("jan(?:uary)?", "feb(?:ruary)?", "mar(?:ch)?", "apr(?:il)?", "may", "june?", "july?", "aug(?:ust)?"),
        *("sept?(?:ember)?", "oct(?:ober)?", "nov(?:ember)?", "dec(?:ember)?"),
        # German, French, Italian, Spanish, Dutch.
        *(
            "januar",
            "februar",
            "märz?",
            "mai",
            "juni",
            "juli",
            "okt(?:ober)?",
            "dez(?:ember)?",
            "janvier",
            "f[ée]vrier",
        ),
        *("mars", "avril", "juin", "juillet", "ao[ûu]t", "septembre", "octobre", "novembre", "d[ée]cembre"),
        *("gennaio", "febbraio", "marzo", "aprile", "maggio", "giugno", "luglio", "agosto", "settembre", "ottobre"),
        *(
            "dicembre",
            "enero",
            "febrero",
            "abril",
            "mayo",
            "junio",
            "julio",
            "septiembre",
            "octubre",
            "noviembre",
            "diciembre",
        ),
        *("januari", "februari", "maart", "mei", "augustus"),
    )
)
_YEAR = r"(?:[ ,-]*(?:de )?(?:[0-9]{4}|[0-9]{2})\b)"
_DAY = r"(?:0?[1-9]|[12][0-9]|3[01])"
_CAPITALISED = r"(?-i:[^\W\d_a-z][\w'’-]+)"
_PERSON = rf"{_CAPITALISED}(?:(?:[ ^]|, ){_CAPITALISED})?"
_LABEL = (
    r"(?:mrn|ssn|dob|d\.o\.b\.|(?:date|year) of birth|birth[ -]?(?:date|day)|born(?: on| in)?"
    r"|geb(?:oren(?: op| am)?|urtsdatum|oortedatum|\.)?|n[ée]e? (?:le|en)|date de naissance|nat[oa] (?:il|nel)"
    r"|data di nascita|nacid[oa](?: el| en)?|fecha de nacimiento"
    r"|acc(?:ession)?(?: no\.?)?|pid|id(?= ?[:#=])"
    r"|(?:pat(?:ient(?:en)?)?\.?|case|fall|visit|order|study|exam|record|chart|file|hospital|nhs|ur|ref(?:erence)?"
    r"|insurance|account|encounter|admission|dossier)[ .-]{0,2}(?:id|no|nr|number|nummer|num[ée]ro)"
    r"|tel(?:ephone)?|phone|fax|zip|plz)(?!\w)[ #:=.]*"
)

_FORMS = (
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",  # mail address
    r"(?:https?|ftp)://\S+",
    r"\b[0-9]+(?:\.[0-9]+){4,}\b",  # UID
    rf"\b(?:1[89]|20)[0-9]{{2}}[-/.](?:0?[1-9]|1[0-2])[-/.]{_DAY}\b",  # 2021-03-04
    rf"\b{_DAY}[-/.] ?{_DAY}[-/.] ?(?:1[89]|20)[0-9]{{2}}\b",  # 4.3.2021
    rf"\b{_DAY}/{_DAY}/[0-9]{{2}}\b",  # 3/4/21
    rf"\b{_DAY}(?:st|nd|rd|th|er|º|°)?[ .-]*(?:of |de )?(?:{_MONTHS})\b\.?{_YEAR}?",  # 4 March 2021
    rf"\b(?:{_MONTHS})\b\.?[ -]+{_DAY}(?:st|nd|rd|th)?,?[ -]+(?:1[89]|20)[0-9]{{2}}\b",  # March 4th, 2021
    r"[0-9]{2,4}年(?:[0-9]{1,2}月(?:[0-9]{1,2}日)?)?",
    r"(?:\+[0-9]{1,3}[ .-]?|\b)\(?[0-9]{3}\)?[ .-][0-9]{3}[ .-][0-9]{4}\b",  # telephone
    r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",  # social security
    r"\b(?=\w*[0-9]{5})\w+\b",  # five digits in a row: numbers of records and visits, dates as 20210304
    rf"\b(?:mrs?|ms|miss|dr|prof|sra?|mme|herr|frau)\b\.?[ ^]+(?:{_PERSON}|\*+)",  # or a name that is redacted
    rf"\b(?:patient|name|physician|doctor|technologist|operator|referr?ed by|seen by)\b[ ]*[:=]?[ ]*(?:{_PERSON}|\*+)",
    # A label takes all groups with digits that it announces.
    rf"\b{_LABEL}(?:[^\W\d]{{1,3}}[-/])?(?:\w*[0-9]\w*(?:[-/.]+\w*[0-9]\w*| (?=[0-9]{{2,}}\b)[0-9]+)*)",
    rf"\b{_LABEL}{_DAY}?[ .]*(?:{_MONTHS})?\b[ .,]*{_DAY}?[ ,]*(?:1[89]|20)[0-9]{{2}}\b",
)
_IDENTIFYING = tuple(re.compile(form, re.IGNORECASE) for form in _FORMS)
_SHORT = 256
_BLANKS = re.compile(r"[ \t]{2,}")


class TextCleaner:
    """``REPLACE FIELD func:dicom_deid.engine.descriptors:clean_text``: remove from a text what may identify.

    An empty text stays empty.

    Parameters
    ----------
    clean
        Cleans one value.
    """

    cleans = True
    """Tells the engine that what is left is still text of the object's author: it is searched for residuals, and the
    function needs nothing but the element."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self._clean = clean
        # The objects of a series have the same descriptions.
        self._clean_short = lru_cache(maxsize=4096)(clean)

    def __call__(self, *, field: Any, **_others: object) -> str:
        """Return the element's text without what identifies.

        Parameters
        ----------
        field
            The element: ``field.element.value`` is its value, or a list of values.
        """
        return "\\".join(self._cleaned(text) for text in _values(field))

    def _cleaned(self, text: str) -> str:
        return self._clean_short(text) if len(text) <= _SHORT else self._clean(text)


class VocabularyCleaner(TextCleaner):
    """Leaves only the tokens that a vocabulary vouches for.

    What is recognised by its form is removed first: the numbers in a date are tokens that would pass alone.

    Parameters
    ----------
    vocabulary
        The vocabulary.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(lambda text: vocabulary.mask(without_identifiers(text)))
        self._unknown_words = lru_cache(maxsize=4096)(lambda text: vocabulary.unknown_words(without_identifiers(text)))

    def unknown_words(self, field: Any) -> set[str]:
        """Return the words of an element that are masked and that the archive could vouch for."""
        return {word for text in _values(field) for word in self._unknown_words(text)}


def _values(field: Any) -> list[str]:
    text = field.element.value
    values = [text] if isinstance(text, str) or not hasattr(text, "__iter__") else list(text)
    return [str(one) for one in values if one is not None]


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
    """Return a text without what its form shows to be identifying; the text around it is kept."""
    spans = sorted(match.span() for form in _IDENTIFYING for match in form.finditer(text))
    if not spans:
        return text
    kept, end = [], 0
    for first, last in spans:
        kept.append(text[end:first])
        end = max(end, last)
    return _BLANKS.sub(" ", " ".join((*filter(None, kept), text[end:]))).strip()


clean_text = TextCleaner(without_identifiers)
