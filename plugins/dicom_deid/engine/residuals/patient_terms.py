"""What the rules took out of the objects of each patient so far: searched in the patient's other objects."""

from __future__ import annotations

from collections import OrderedDict

from dicom_deid.engine.residuals.patterns import SearchTerms

_MAX_PATIENTS = 4096
_MAX_WORDS = 512
"""Of one patient; beyond, what further objects give is not learned."""


class PatientTermIndex:
    """The names, identifiers and dates of patients, as a sequence of objects gives them; for one thread.

    What is known of a patient depends on the order in which objects are met and on nothing else. Memory is bounded: of
    each patient so many words, of patients those met last.
    """

    def __init__(self) -> None:
        self._patients: OrderedDict[str, SearchTerms] = OrderedDict()
        # The objects of a study ask the same, one after the other.
        self._asked: tuple[SearchTerms, SearchTerms] = (frozenset(), frozenset())
        self._answer: SearchTerms = frozenset()

    def add_and_get(self, patient: str, words: SearchTerms) -> SearchTerms:
        """Return what is known of a patient beside the words of an object, and learn these.

        Parameters
        ----------
        patient
            Whose object it is; nothing is known of an empty one.
        words
            What the rules take out of it.
        """
        if not patient:
            return frozenset()
        known = self._patients.get(patient)
        if known is not None:
            self._patients.move_to_end(patient)
        if known is words:
            return frozenset()
        if known is None:
            self._patients[patient] = words
            if len(self._patients) > _MAX_PATIENTS:
                self._patients.popitem(last=False)
            return frozenset()
        if self._asked[0] is known and self._asked[1] is words:
            return self._answer
        more = known if words <= known or len(known | words) > _MAX_WORDS else known | words
        self._patients[patient] = more
        self._asked, self._answer = (more, words), known - words
        return self._answer
