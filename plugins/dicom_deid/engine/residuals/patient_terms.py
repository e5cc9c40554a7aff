"""Terms of a patient: the values that the rules removed from a patient's objects, searched in the patient's others."""

from __future__ import annotations

from collections import OrderedDict

from dicom_deid.engine.residuals.terms import SearchTerms

_MAX_PATIENTS = 4096
_MAX_TERMS = 512
"""Per patient; what further objects give is not added."""


class PatientTermIndex:
    """The search terms of patients, as a sequence of objects gives them; for one thread.

    What is known of a patient depends only on the order of the objects. Memory is bounded by the number of terms per
    patient, and by the number of patients, of which the least recently seen is dropped.
    """

    def __init__(self) -> None:
        self._patients: OrderedDict[str, SearchTerms] = OrderedDict()
        # The objects of a study ask the same, one after the other.
        self._asked: tuple[SearchTerms, SearchTerms] = (frozenset(), frozenset())
        self._answer: SearchTerms = frozenset()

    def __contains__(self, patient: str) -> bool:
        return patient in self._patients

    def get(self, patient: str) -> SearchTerms:
        """Return the terms of a patient."""
        return self._patients.get(patient, frozenset())

    def add_and_get(self, patient: str, terms: SearchTerms) -> SearchTerms:
        """Add the terms of an object, and return those that the patient's earlier objects gave and it does not have.

        Parameters
        ----------
        patient
            The patient's identifier; nothing is known of an empty one.
        terms
            What the rules remove from the object.
        """
        if not patient:
            return frozenset()
        known = self._patients.get(patient)
        if known is not None:
            self._patients.move_to_end(patient)
        if known is terms:
            return frozenset()
        if known is None:
            self._patients[patient] = terms
            if len(self._patients) > _MAX_PATIENTS:
                self._patients.popitem(last=False)
            return frozenset()
        if self._asked[0] is known and self._asked[1] is terms:
            return self._answer
        more = known if terms <= known or len(known | terms) > _MAX_TERMS else known | terms
        self._patients[patient] = more
        self._asked, self._answer = (more, terms), known - terms
        return self._answer
