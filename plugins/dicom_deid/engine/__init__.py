"""De-identify one object in memory by a recipe; no I/O.

>>> from dicom_deid.engine import Deidentifier, Settings
>>> from dicom_deid.recipe import Recipe
>>> deidentifier = Deidentifier(Recipe.named("desktop"), Settings())

`Deidentifier.analyse` returns the identifiers that need a pseudonym, `Deidentifier.rewrite` the new object.
"""

from dicom_deid.dicom.walk import NeedMoreDataError
from dicom_deid.engine.analysis import AnalysisResult, DeidentifyResult
from dicom_deid.engine.deidentifier import Deidentifier
from dicom_deid.engine.residuals.patient_terms import PatientTermIndex
from dicom_deid.engine.residuals.terms import SearchTerms
from dicom_deid.engine.settings import Settings

__all__ = [
    "AnalysisResult",
    "Deidentifier",
    "DeidentifyResult",
    "NeedMoreDataError",
    "PatientTermIndex",
    "SearchTerms",
    "Settings",
]
