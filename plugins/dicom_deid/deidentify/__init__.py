"""Rules and bytes in, de-identified bytes out; no I/O.

>>> from dicom_deid.deidentify import Deidentifier, Settings
>>> from dicom_deid.recipe import Recipe
>>> deidentifier = Deidentifier(Recipe.named("desktop"), Settings())

`examine` says which pseudonyms an object needs, `rewrite` writes the new object, given those.
"""

from dicom_deid.deidentify.deidentifier import Deidentifier
from dicom_deid.deidentify.examination import Deidentified, Examination
from dicom_deid.deidentify.known import KnownOriginals
from dicom_deid.deidentify.patterns import Words
from dicom_deid.deidentify.settings import Settings
from dicom_deid.dicom.walk import NeedMoreDataError

__all__ = ["Deidentified", "Deidentifier", "Examination", "KnownOriginals", "NeedMoreDataError", "Settings", "Words"]
