"""Ages over 89 as one category, as 45 CFR 164.514(b)(2)(i)(C) (HIPAA, Safe Harbor) asks for."""

from __future__ import annotations

import re
from typing import Any

_AGE = re.compile(r"(\d{3})([DWMY])")
_OLDEST = "090Y"
_PER_YEAR = {"D": 365, "W": 52, "M": 12, "Y": 1}


class AgeLimit:
    """``REPLACE FIELD func:dicom_deid.engine.ages:limited``: ages (VR AS) over 89 years become ``090Y``."""

    cleans = True
    """The result is text of the object, which is searched for residuals; the function needs only the element."""

    def __call__(self, *, field: Any, **_others: object) -> str:
        """Return the element's ages.

        Parameters
        ----------
        field
            The element: ``field.element.value`` is its value, or a list of values.
        """
        value = field.element.value
        ages = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
        return "\\".join(_limited(str(age)) for age in ages if age is not None)


limited = AgeLimit()


def _limited(age: str) -> str:
    found = _AGE.fullmatch(age.strip())
    return _OLDEST if found and int(found[1]) // _PER_YEAR[found[2]] > 89 else age
