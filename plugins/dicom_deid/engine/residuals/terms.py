"""Search terms: the values that can identify a person, read from the elements that rules removed or replaced."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Literal, NamedTuple

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from dicom_deid.dicom.transfer_syntax import Encoding
from dicom_deid.dicom.values import decode_text, split_values
from dicom_deid.dicom.vr import CHARACTER_SET_VRS, KNOWN_VRS, LONG_FORM_VRS, vr_of
from dicom_deid.dicom.walk import BIG_ENDIAN, LITTLE_ENDIAN
from dicom_deid.engine.element_refs import iter_item_elements
from dicom_deid.exceptions import Quarantine

_MAX_TEXT, _MIN_UID = 128, 9
_PHRASE_DELIMITERS = re.compile(r"[\\,;^\r\n]+")
_PATIENT_GROUP = 0x0010


class TermKind(StrEnum):
    """Kind of a search term, which decides its spellings."""

    NAME = "name"
    IDENTIFIER = "identifier"
    PLACE = "place"
    """An address, an institution or a station."""
    TELEPHONE = "telephone"
    DATE = "date"
    PERSON_DATE = "person-date"
    """A date of the person, such as the date of birth; it is also searched for without its day or its century."""
    UID = "uid"


class SearchTerm(NamedTuple):
    """An original value that can identify a person.

    Parameters
    ----------
    kind
        What it is.
    text
        The value, decoded and without padding; of a date the eight digits. PHI.
    tag
        The element it was read from.
    """

    kind: TermKind
    text: str
    tag: int


SearchTerms = frozenset[SearchTerm]

# An element, or content item, that the rules removed or replaced: its bytes, whether its VR is implicit, whether its
# byte order is big endian, and its codecs.
Changed = tuple[bytes, bool, bool, tuple[str, ...]]

_KINDS_BY_KEYWORD = {
    TermKind.PLACE: """
        PatientAddress ReferringPhysicianAddress PersonAddress InstitutionAddress DistributionAddress AddressTrial
        PatientInstitutionResidence ScheduledPatientInstitutionResidence CurrentPatientLocation RegionOfResidence
        InstitutionName StationName GantryID PerformedStationName ScheduledStationName TreatmentMachineName
        HumanPerformerOrganization VerifyingOrganization ResponsibleOrganization CustodialOrganizationName
        ClinicalTrialSiteName ClinicalTrialCoordinatingCenterName RequestingService
        StationAETitle PerformedStationAETitle ScheduledStationAETitle
    """,
    TermKind.TELEPHONE: """
        PatientTelephoneNumbers ReferringPhysicianTelephoneNumbers PersonTelephoneNumbers OrderCallbackPhoneNumber
        TelephoneNumberTrial PatientTelecomInformation PersonTelecomInformation OrderCallbackTelecomInformation
    """,
    TermKind.IDENTIFIER: """
        PatientID OtherPatientIDs RETIRED_OtherPatientIDs MedicalRecordLocator InsurancePlanIdentification
        AccessionNumber StudyID AdmissionID ServiceEpisodeID RequestedProcedureID ScheduledProcedureStepID
        PerformedProcedureStepID InterpretationID ResultsID PlacerOrderNumberImagingServiceRequest
        FillerOrderNumberImagingServiceRequest PlacerOrderNumberProcedure FillerOrderNumberProcedure
        ClinicalTrialSubjectID ClinicalTrialSubjectReadingID ClinicalTrialSiteID SpecimenAccessionNumber
        SpecimenIdentifier ContainerIdentifier SlideIdentifier BarcodeValue CameraOwnerName
    """,
    TermKind.PERSON_DATE: """
        PatientBirthDate PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar LastMenstrualDate
    """,
}
_KINDS = {
    tag: kind
    for kind, keywords in _KINDS_BY_KEYWORD.items()
    for tag in map(tag_for_keyword, keywords.split())
    if tag is not None
}
# Identifiers that a site puts beside those of the table: any other identifier of the patient module.
_PATIENT_IDENTIFIER = re.compile(r"^(?!Issuer).*(?:ID|IDs|Number|Numbers|Identification)$")


def terms_of(changed: Changed) -> frozenset[SearchTerm]:
    """Return the search terms in a removed or replaced element, or in all elements of a sequence or content item."""
    codecs = changed[3]
    terms: set[SearchTerm] = set()
    for tag, vr, value in _elements(*changed):
        kind = kind_of(tag, vr)
        if kind is None:
            continue
        try:
            text = decode_text(value, vr, codecs)
        except Quarantine:
            # Text of another character set than the declared one is common; its ASCII parts are the same in any.
            text = value.decode("iso8859")
        for component in split_values(text, vr):
            for one in _values(kind, component.strip()):
                terms.add(SearchTerm(kind, one, tag))
    return frozenset(terms)


@lru_cache(maxsize=8192)
def vr_of_original(tag: int, explicit_vr: str) -> str:
    """Return the VR that an original value is read with: the dictionary's, whatever its header says.

    Parameters
    ----------
    tag
        Of the element.
    explicit_vr
        The VR in the element's header, which counts for sequences and for tags that the dictionary does not know;
        empty in implicit VR encodings.
    """
    vr = vr_of(tag)
    if explicit_vr in KNOWN_VRS and (explicit_vr == "SQ" or (vr in ("SQ", "UN") and explicit_vr != "UN")):
        return explicit_vr
    return vr


@lru_cache(maxsize=8192)
def kind_of(tag: int, vr: str) -> TermKind | None:
    """Return what an element's value is as a search term; None where it cannot identify a person."""
    if tag in _KINDS:
        return _KINDS[tag]
    if vr == "PN":
        return TermKind.NAME
    if vr in ("DA", "DT"):
        return TermKind.DATE
    if vr == "UI":
        return TermKind.UID
    if vr in CHARACTER_SET_VRS and tag >> 16 == _PATIENT_GROUP and _PATIENT_IDENTIFIER.search(keyword_for_tag(tag)):
        return TermKind.IDENTIFIER
    return None


def _values(kind: TermKind, text: str) -> Sequence[str]:
    """Return the values of one component that are searched for."""
    if kind is TermKind.DATE or kind is TermKind.PERSON_DATE:
        digits = text.replace(".", "")[:8]
        is_date = len(digits) == 8 and digits.isascii() and digits.isdigit() and _is_date(digits)
        return (digits,) if is_date else ()
    if kind is TermKind.UID:
        return (text,) if len(text) >= _MIN_UID and not text.startswith("1.2.840.10008.") else ()
    if not text or len(text) > _MAX_TEXT:
        return ()
    if kind is not TermKind.PLACE:
        return (text,)
    # A line of an address; a town alone is no address.
    parts = [part.strip() for part in _PHRASE_DELIMITERS.split(text)]
    return (text, *(part for part in parts if " " in part and part != text))


def _is_date(digits: str) -> bool:
    return digits > "1000" and 1 <= int(digits[4:6]) <= 12 and 1 <= int(digits[6:]) <= 31


def _elements(
    raw: bytes, implicit: bool, big_endian: bool, codecs: tuple[str, ...]
) -> Iterable[tuple[int, str, bytes]]:
    order: Literal["big", "little"] = "big" if big_endian else "little"
    if raw[:4] == (BIG_ENDIAN if big_endian else LITTLE_ENDIAN).item:
        return _nested(raw, Encoding(implicit, big_endian), codecs)
    explicit = not implicit and raw[4:6].isalpha()
    tag = int.from_bytes(raw[:2], order) << 16 | int.from_bytes(raw[2:4], order)
    explicit_vr = raw[4:6].decode("ascii") if explicit else ""
    vr = vr_of_original(tag, explicit_vr)
    value = raw[12 if explicit_vr in LONG_FORM_VRS else 8 :]
    if vr == "SQ":
        # Items of VR UN are of implicit VR little endian (PS3.5 section 6.2.2).
        is_unknown = explicit_vr == "UN"
        return _nested(value, Encoding(not explicit or is_unknown, big_endian and not is_unknown), codecs)
    return ((tag, vr, value),)


def _nested(value: bytes, encoding: Encoding, codecs: tuple[str, ...]) -> Iterator[tuple[int, str, bytes]]:
    for found in iter_item_elements(value, encoding, codecs):
        element = found.element
        yield element.tag, vr_of_original(element.tag, element.vr), value[found.start : found.end]
