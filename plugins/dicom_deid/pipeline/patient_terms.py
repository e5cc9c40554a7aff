"""The search terms of patients in a run: of its own objects, and of earlier runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from dicom_deid.database.patient_terms import PatientTerms
from dicom_deid.engine import PatientTermIndex, SearchTerms
from dicom_deid.engine.residuals.terms import SearchTerm, TermKind
from dicom_deid.pipeline.executor import PendingObject

# A patient without PatientID is identified by the study: its terms could not be erased with a patient.
_PATIENT_GROUP = 0x0010
_STUDY_UID = re.compile(r"[0-9]+(?:\.[0-9]+){3,}")


class RunPatientTerms:
    """The terms of the patients of a batch.

    Parameters
    ----------
    stored
        The terms of earlier runs; None to know the objects of the batch alone.
    """

    def __init__(self, stored: PatientTerms | None) -> None:
        self._stored = stored
        self._index = PatientTermIndex()
        # Patients whose terms were read again, with those of this run.
        self._read_again: set[str] | None = None

    def add_and_get(self, group: Sequence[PendingObject]) -> list[SearchTerms]:
        """Add the terms of objects, and return for each those that were known of its patient before.

        Should an object of an earlier attempt be unreadable, all stored terms are used: more than that attempt knew of
        some objects, and never less.
        """
        if self._stored is not None and self._read_again is None and any(each.is_unreadable for each in group):
            self._stored, self._read_again = self._stored.of_all_runs(), set()
        self._load(group)
        found, new = [], dict[str, SearchTerms]()
        for pending in group:
            before = self._index.get(pending.patient)
            found.append(self._index.add_and_get(pending.patient, pending.terms))
            added = self._index.get(pending.patient) - before
            if added:
                new[pending.patient] = new.get(pending.patient, frozenset()) | added
        if self._stored is not None and new:
            self._stored.add(
                {
                    patient: {_text_of(term): is_lasting(term) for term in sorted(terms)}
                    for patient, terms in new.items()
                    if _is_stored(patient)
                }
            )
        return found

    def _load(self, group: Sequence[PendingObject]) -> None:
        if self._stored is None:
            return
        fresh = {pending.patient for pending in group if _is_stored(pending.patient)}
        if self._read_again is None:
            fresh = {patient for patient in fresh if patient not in self._index}
        else:
            fresh -= self._read_again
            self._read_again |= fresh
        for patient, texts in self._stored.known(fresh).items():
            self._index.add_and_get(patient, frozenset(map(_term_of, texts)))


def is_lasting(term: SearchTerm) -> bool:
    """Return whether objects of the patient that were written before a term was known must be searched for it.

    Only terms of the patient module are. Physicians and operators, accession and order numbers and dates differ from
    study to study: with them each new study would make the earlier ones be written again.
    """
    return term.tag >> 16 == _PATIENT_GROUP


def _is_stored(patient: str) -> bool:
    return bool(patient) and not _STUDY_UID.fullmatch(patient)


def _text_of(term: SearchTerm) -> str:
    return json.dumps([term.kind.value, term.text, term.tag])


def _term_of(text: str) -> SearchTerm:
    kind, value, tag = json.loads(text)
    return SearchTerm(TermKind(kind), value, tag)
