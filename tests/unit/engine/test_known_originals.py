"""Originals that the rules removed from one object of a patient are found in its other objects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.datasets import EXPLICIT_BE, IMPLICIT_LE, Element, Encoding, element, part10
from tests.support.engine import RULES_ALONE, found_in, pseudonyms, read, rules

from dicom_deid.engine import Deidentifier, DeidentifyResult, PatientTermIndex, SearchTerms
from dicom_deid.engine.residuals.terms import SearchTerm, TermKind
from dicom_deid.exceptions import Quarantine
from dicom_deid.reasons import Reason

RECIPE = """
REPLACE PatientName x
REPLACE PatientID func:generate_value
REPLACE AccessionNumber func:generate_value
REMOVE PatientAddress
REMOVE StudyDescription
JITTER PatientBirthDate 31
REPLACE StudyInstanceUID func:generate_value
REPLACE SOPInstanceUID func:generate_value
"""
GIVING = [
    element("PatientName", "Doe^John"),
    element("PatientBirthDate", "19500214"),
    element("AccessionNumber", "A-778812"),
    element("PatientAddress", "9 Mill Lane, Oldtown"),
    element("StudyDescription", "KNEE LEFT 4711"),
]


def an_object(*elements: Element, patient: str = "P-1001", study: str = "1.2.34567", encoding: Encoding | None = None):
    common = [
        element("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"),
        element("SOPInstanceUID", "1.2.3"),
        element("StudyInstanceUID", study),
        element("PatientID", patient),
        element("PixelData", b"\0\0", "OW"),
    ]
    return part10([*common, *elements], encoding or Encoding())


def engine(policy: str = "quarantine") -> Deidentifier:
    return Deidentifier(rules(RECIPE), RULES_ALONE.replace(residuals=policy, private_elements="keep"))


def known(*given_elements: Element, encoding: Encoding | None = None) -> tuple[str, SearchTerms]:
    return engine().patient_terms(an_object(*given_elements, encoding=encoding))


def a_name(text: str) -> SearchTerm:
    return SearchTerm(TermKind.NAME, text, 0x00100010)


def searched(data: bytes, words: SearchTerms, policy: str = "quarantine") -> DeidentifyResult:
    deidentifier = engine(policy)
    analysis = deidentifier.search_patient_terms(deidentifier.analyse(data), words)
    return deidentifier.rewrite(analysis, pseudonyms(analysis.identifiers))


@pytest.mark.parametrize(
    "text", ["John Doe", "DOE", "seen 14.02.1950", "acc. a-778812", "lives 9 Mill Lane, Oldtown", "id P-1001."]
)
def test_what_another_object_gave_is_found(text: str) -> None:
    """Names, dates, identifiers and addresses; the object itself holds none of them elsewhere."""
    patient, words = known(*GIVING)
    assert patient == "P-1001"
    data = an_object(element("SeriesDescription", text), patient="")
    engine().analyse(data)
    with pytest.raises(Quarantine) as caught:
        searched(data, words)
    assert (caught.value.reason, found_in(caught)) == (Reason.RESIDUAL_FOUND, "SeriesDescription")


def test_a_description_of_another_object_is_no_identifier() -> None:
    """Catches objects that are held because they share words with the description of another object."""
    searched(an_object(element("SeriesDescription", "KNEE LEFT 4711")), known(*GIVING)[1])


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_BE])
def test_what_is_known_does_not_depend_on_the_encoding(syntax: str) -> None:
    assert known(*GIVING, encoding=Encoding(syntax)) == known(*GIVING)


def test_a_name_is_found_in_another_character_set_than_it_came_in() -> None:
    """An archive that changed its character set: the name came in Latin-1, the description is UTF-8 or GB18030."""
    for codec, term in (("utf-8", "ISO_IR 192"), ("gb18030", "GB18030")):
        came = [element("SpecificCharacterSet", "ISO_IR 100"), element("PatientName", "Müller^Jörg")]
        words = known(*came, encoding=Encoding(codec="latin-1"))[1]
        text = [element("SpecificCharacterSet", term), element("SeriesDescription", "mit MÜLLER besprochen")]
        with pytest.raises(Quarantine):
            searched(an_object(*text, encoding=Encoding(codec=codec)), words)


def test_policies_are_those_of_the_residual_search() -> None:
    words = known(*GIVING)[1]
    own = [element("PatientName", "Roe^Jane"), element("ImageComments", "Jane")]
    data = an_object(element("SeriesDescription", "of John Doe, left"), *own)
    redacted = searched(data, words, "redact-token")
    assert read(redacted).SeriesDescription in ("of **** ***, left", "of ********, left")
    assert read(redacted).ImageComments == "****"
    assert redacted.notes[Reason.RESIDUAL_REMOVED] >= 3
    removed = read(searched(data, words, "remove-element"))
    assert "SeriesDescription" not in removed
    assert "ImageComments" not in removed
    reported = searched(data, words, "report")
    assert read(reported).SeriesDescription == "of John Doe, left"
    assert reported.notes[Reason.RESIDUAL_REPORTED] >= 3


@pytest.mark.parametrize(("term", "text"), [("ISO_IR 192", "of John Doe"), ("GB18030", "患者John来院")])
def test_what_a_function_writes_is_searched_for_what_others_gave(term: str, text: str) -> None:
    """Catches a function that looks the patient up elsewhere."""
    functions = {"note": lambda item, value, field, dicom: text}
    recipe, settings = rules(f"{RECIPE}REPLACE SeriesDescription func:note\n"), engine().settings
    deidentifier = Deidentifier(recipe, settings, functions=functions)
    elements = element("SpecificCharacterSet", term), element("SeriesDescription", "x")
    analysis = deidentifier.analyse(an_object(*elements, patient=""))
    analysis = deidentifier.search_patient_terms(analysis, known(*GIVING)[1])
    with pytest.raises(Quarantine) as caught:
        deidentifier.rewrite(analysis, pseudonyms(analysis.identifiers))
    assert caught.value.reason is Reason.RESIDUAL_FOUND


@pytest.mark.parametrize("policy", ["quarantine", "redact-token", "report"])
def test_both_ends_of_a_large_object_are_searched(policy: str) -> None:
    """The part after the pixel data is analysed separately."""
    deidentifier = engine(policy)
    tail = [Element(0x7FE10010, "LO", "SOMEBODY"), Element(0x7FE11001, "LO", "left")]
    data = an_object(element("SeriesDescription", "of John"), *tail)
    begin = data.index(b"\xe0\x7f\x10\x00") + 12
    analysis = deidentifier.analyse(data[:begin], size=len(data))
    deidentifier.analyse_tail(analysis, data[begin + 2 :])
    words = known(*GIVING)[1]
    if policy == "quarantine":
        with pytest.raises(Quarantine):
            deidentifier.search_patient_terms(analysis, words)
        return
    result = deidentifier.rewrite(deidentifier.search_patient_terms(analysis, words), pseudonyms(analysis.identifiers))
    new = b"".join(
        part if isinstance(part, bytes | memoryview) else data[part.start : part.end] for part in result.parts
    )
    assert read(new).SeriesDescription == ("of ****" if policy == "redact-token" else "of John")
    assert new.endswith(b"left")


@pytest.mark.parametrize(("term", "text"), [("ISO_IR 192", b"of John Doe"), ("GB18030", "患者John来院".encode("gbk"))])
def test_text_after_the_pixel_data_is_searched_for_what_others_gave(term: str, text: bytes) -> None:
    deidentifier = engine()
    tail = [Element(0x7FE10010, "LO", "SOMEBODY"), Element(0x7FE11001, "LO", text)]
    data = an_object(element("SpecificCharacterSet", term), *tail)
    begin = data.index(b"\xe0\x7f\x10\x00") + 12
    analysis = deidentifier.analyse(data[:begin], size=len(data))
    deidentifier.analyse_tail(analysis, data[begin + 2 :])
    with pytest.raises(Quarantine):
        deidentifier.search_patient_terms(analysis, known(*GIVING)[1])


def test_the_header_gives_the_same_terms_as_the_whole_object() -> None:
    """A retry reads only headers, and must find the same terms as the first attempt."""
    data = an_object(*GIVING, Element(0x7FE10010, "LO", "SOMEBODY"))
    deidentifier = engine()
    analysis = deidentifier.analyse(data)
    assert analysis.removed is not None
    begin = data.index(b"\xe0\x7f\x10\x00") + 12
    told = (analysis.patient, analysis.removed.patient_terms)
    assert deidentifier.patient_terms(data[:begin], size=len(data)) == deidentifier.patient_terms(data) == told


def test_originals_of_a_quarantined_object_are_search_terms() -> None:
    """A held screen shot has the name; the images of the study may have it in a comment."""
    data = an_object(*GIVING, element("ImageComments", "John"))
    with pytest.raises(Quarantine):
        engine().analyse(data)
    assert a_name("Doe^John") in engine().patient_terms(data)[1]


a_term = st.sampled_from("abcdefghij").map(a_name)


@given(st.lists(st.tuples(st.sampled_from(["", "p", "q", "r"]), st.frozensets(a_term, max_size=4)), max_size=30))
def test_search_terms_are_those_of_earlier_objects(met: list[tuple[str, SearchTerms]]) -> None:
    """Against the definition; catches words of another patient, of the object itself, and of later ones."""
    knows = PatientTermIndex()
    for index, (patient, words) in enumerate(met):
        before = frozenset[SearchTerm]().union(*(w for p, w in met[:index] if p == patient and p))
        assert knows.add_and_get(patient, words) == before - words


def test_memory_is_bounded() -> None:
    knows = PatientTermIndex()
    for number in range(10_000):
        knows.add_and_get(f"p{number}", frozenset({a_name(f"w{number}")}))
        more = knows.add_and_get("one", frozenset({a_name(f"w{number}")}))
    assert len(more) <= 512
    assert not knows.add_and_get("p1", frozenset())


def test_terms_of_a_patient_with_many_objects_are_kept() -> None:
    """Every object of a study gives the same words, which must not be dropped for their number."""
    knows = PatientTermIndex()
    words: SearchTerms = frozenset({a_name("Doe")})
    for number in range(10_000):
        knows.add_and_get("one", words)
        knows.add_and_get(f"p{number}", frozenset({a_name(f"w{number}")}))
    assert knows.add_and_get("one", frozenset()) == words


def test_file_meta_information_that_is_kept_is_searched_for_what_others_gave() -> None:
    """It is copied as it is, and may name the patient where the object itself does not."""
    meta = [Element(0x00020100, "UI", "1.2.3.4"), Element(0x00020102, "OB", b"of John Doe ")]
    data = part10([element("SOPInstanceUID", "1.2.3"), element("StudyInstanceUID", "1.2.34567")], meta=meta)
    settings = RULES_ALONE.replace(residuals="quarantine", rebuild_file_meta=False)
    deidentifier = Deidentifier(rules(RECIPE), settings)
    with pytest.raises(Quarantine) as caught:
        deidentifier.search_patient_terms(deidentifier.analyse(data), known(*GIVING)[1])
    assert (caught.value.reason, found_in(caught)) == (Reason.RESIDUAL_FOUND, "PrivateInformation")
