"""Descriptions lose what is identifying by its form, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_deid.engine.descriptors import without_identifiers


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Seen before on 20110304", "Seen before on"),
        ("compare 03/04/2011, Dr. Miller reports", "compare , reports"),
        ("compare 2011-03-04 and 4.3.2012", "compare and"),
        ("left knee for Dr. *******, left knee", "left knee for , left knee"),
        ("12 May 2011 exam", "exam"),
        ("exam of March 4th, 2021", "exam of"),
        ("MRN 1234567 follow-up", "follow-up"),
        ("call 555-123-4567 tomorrow", "call tomorrow"),
        ("call +1 555 123 4567 tomorrow", "call tomorrow"),
        ("patient: Torvelin said", "said"),
        ("referred by Torvelin, Anna", ""),
        ("see http://ris.example/patients/1", "see"),
        ("mail to a.b@c.example now", "mail to now"),
        ("series 1.2.840.113619.2.55.3 as sent", "series as sent"),
        ("DOB 03/04/1960 knee", "knee"),
        ("MRN: 12-34-567", ""),
        ("SSN 078-05-1120", ""),
        ("MRN 12 34 567 knee 5 mm", "knee 5 mm"),
        ("dob: 3 March 1960 left", "left"),
        ("geboren 4. März 1960, Knie", ", Knie"),
        ("né le 3 février 1960", ""),
        ("born March 4, 1960", ""),
        ("pat id AB-12 knee", "knee"),
        ("1960年3月4日 knee", "knee"),
    ],
)
def test_text_that_identifies_by_its_form_is_removed(text: str, cleaned: str) -> None:
    # Would catch a form that is no longer found, and one that takes words around it along.
    assert without_identifiers(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Thorax^Routine (Adult)",
        "Knee^Left",
        "CT thorax with contrast",
        "L3/4 disc 1.5 mm",
        "T2_TSE_sag_320",
        "AX 5.0 B30f 3.2 2/3",
        "SPGR 12.5 3 slices per 10 min",
        "may 5 mm lesion",
        "patient moved",
        "HEAD W/O 1024  matrix",
        "t1_mprage_sag_p2_iso 1.0",
    ],
)
def test_descriptive_text_is_kept(text: str) -> None:
    # Would catch a form that is too wide: protocol names, levels, sizes. Two blanks in unchanged text stay two.
    assert without_identifiers(text) == text


@given(st.text(max_size=300))
def test_any_text_is_accepted(text: str) -> None:
    # Would catch a pattern that fails, runs away or adds something.
    assert len(without_identifiers(text)) <= len(text)


LABELS = (
    *("DOB", "dob:", "D.O.B.", "born", "Date of birth:", "geb.", "geboren am", "Geburtsdatum:", "geboren op"),
    *("né le", "née le", "nato il", "nacido el", "MRN", "MRN:", "mrn#", "SSN", "SSN:", "acc", "acc no"),
    *("accession no.", "patient id", "pat. id", "Pat.-Nr.", "ID:", "PID", "case no", "visit number", "order nr"),
    *("study id:", "NHS number", "Fallnummer", "tel", "tel.:", "phone", "Fax:", "zip", "PLZ"),
)
MONTHS = ("Mar", "MAR", "March", "März", "mars", "marzo", "maart")


@st.composite
def numbers(draw: st.DrawFn) -> str:
    """A number as sites write it: with letters before it, in groups, with a year."""
    groups = draw(st.lists(st.from_regex(r"[0-9]{2,6}", fullmatch=True), min_size=1, max_size=4))
    delimiter = draw(st.sampled_from(("", " ", "-", ".", "/")))
    letters = draw(st.sampled_from(("", "A", "AB", "A-", "MR/")))
    return letters + delimiter.join(groups)


@st.composite
def dates(draw: st.DrawFn) -> str:
    day, month = draw(st.integers(1, 28)), draw(st.integers(1, 12))
    year, name = draw(st.integers(1920, 2030)), draw(st.sampled_from(MONTHS))
    delimiter = draw(st.sampled_from("-/."))
    forms = (
        *("{day:02d}{delimiter}{month:02d}{delimiter}{year}", "{day}{delimiter}{month}{delimiter}{short}"),
        *("{year}{delimiter}{month:02d}{delimiter}{day:02d}", "{year}{month:02d}{day:02d}", "{month:02d}/{year}"),
        *("{day} {name} {year}", "{day}. {name} {year}", "{day}-{name}-{short}", "{day}{name}{year}", "{year}"),
        *("{name} {day}, {year}", "{day}th of {name} {year}", "{day} de {name} de {year}", "{name} {year}"),
    )
    form = draw(st.sampled_from(forms))
    return form.format(day=day, month=month, year=year, name=name, delimiter=delimiter, short=f"{year % 100:02d}")


@given(
    st.sampled_from(LABELS),
    numbers() | dates(),
    st.sampled_from(("", "knee ", "CT thorax, ")),
    st.sampled_from(("", " knee", ", left", "; chest")),
)
def test_nothing_of_what_a_label_announces_is_left(label: str, announced: str, before: str, after: str) -> None:
    # Would catch a label that takes the first group of a number or date, and leaves the others.
    cleaned = without_identifiers(f"{before}{label} {announced}{after}")
    assert not any(character.isdigit() for character in cleaned)
    assert cleaned.startswith(before.strip())
    assert cleaned.endswith(after.strip())
