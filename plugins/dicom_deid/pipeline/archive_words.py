"""The words of a batch that no list has, counted by patient for later runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from dicom_deid.database.archive_words import add_words
from dicom_deid.database.connection import DatabaseConnection
from dicom_deid.database.projects import Project
from dicom_deid.engine import AnalysisResult
from dicom_deid.engine.residuals.terms import TermKind

_PARTS_OF_NAMES = re.compile(r"[^\W\d_]+")


class ObjectWords(NamedTuple):
    """What an object adds to the words of the archive; PHI.

    Parameters
    ----------
    patient_id
        The original PatientID, with its issuer where the project tells patients apart by it.
    words
        Words of free text that were masked and that the archive could vouch for.
    names
        The names of persons that the rules remove from the object.
    """

    patient_id: str
    words: frozenset[str]
    names: frozenset[str]

    @classmethod
    def of(cls, analysis: AnalysisResult) -> ObjectWords:
        """Return the words of an analysed object."""
        removed = analysis.removed
        names = {term.text for term in removed.terms if term.kind is TermKind.NAME} if removed is not None else ()
        return cls(analysis.patient_id, frozenset(analysis.walk.unknown_words), frozenset(names))


class BatchWords:
    """Collects the words of a batch, so that a word that is a name of any of its persons is counted as a name."""

    def __init__(self) -> None:
        self._words: dict[str, set[str]] = {}
        self._names: set[str] = set()

    def add(self, objects: Iterable[ObjectWords]) -> None:
        """Add the words of objects; those of an object without PatientID could not be erased and are left out."""
        for patient_id, words, names in objects:
            self._names.update(names)
            if patient_id and words:
                self._words.setdefault(patient_id, set()).update(words)

    def store(self, connection: DatabaseConnection, project: Project, *, bound: int) -> None:
        """Count the words in the database."""
        names = {part.casefold() for name in self._names for part in _PARTS_OF_NAMES.findall(name)}
        words = {patient: {word: word in names for word in sorted(found)} for patient, found in self._words.items()}
        add_words(connection, project, words, bound=bound)
