"""Cohort lists as people make them: read where there is one way to read them, refused with the line otherwise."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.pipeline.cohort import COLUMNS, CohortLine, read_cohort

PHI = "DOE-4711"


def test_columns_are_found_in_any_order_case_and_spelling():
    lines = read_cohort(b"accession number;PATIENT_ID\r\nA1;P1\r\n\r\n;P2\r\n", "list.csv")
    assert lines == [
        CohortLine(number=2, patient_id="P1", accession_number="A1"),
        CohortLine(number=4, patient_id="P2"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_files_saved_by_excel_are_read(encoding: str, delimiter: str):
    text = f"PatientID{delimiter}Pseudonym\r\nMÜLLER-1{delimiter}S001\r\n"
    assert read_cohort(text.encode(encoding), "list.csv") == [
        CohortLine(number=2, patient_id="MÜLLER-1", pseudonym="S001")
    ]


def test_a_parquet_file_is_read():
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pa.table({"PatientID": ["P1", None], "AccessionNumber": [12, 13]}), file)
    assert read_cohort(file.getvalue(), "list.parquet") == [
        CohortLine(number=1, patient_id="P1", accession_number="12"),
        CohortLine(number=2, accession_number="13"),
    ]


def test_blanks_and_padding_are_not_part_of_an_identifier():
    assert read_cohort(b"PatientID\n P1 \n", "list.csv")[0].patient_id == "P1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the list is empty"),
        (b"PatientID\n", "no lines below its header"),
        (b"PatientIDD\nP\n", "line 1: the column PatientIDD is unknown; did you mean PatientID"),
        (f"{PHI}\n{PHI}\n".encode(), "line 1: a column is unknown"),
        (b"PatientID,PatientID\nP,P\n", "line 1: the column PatientID is there twice"),
        (b"PatientID,AccessionNumber\nP\n", "line 2: 1 fields where the header has 2"),
        (f'PatientID\nP\n"{PHI}\n'.encode(), "line 3: a quotation mark is not closed"),
        (f"PatientID,AccessionNumber\n{PHI},A\n,\n".encode(), None),
        (b"IssuerOfPatientID\nHOSPITAL\n", "line 2: no identifier that selects objects"),
        (b"PatientID,Pseudonym\n,S1\n", "line 2: no identifier that selects objects"),
        (b"AccessionNumber,Pseudonym\nA,S1\n", "line 2: a Pseudonym needs the PatientID"),
        (f"StudyInstanceUID\n{PHI}\n".encode(), "line 2: StudyInstanceUID is not a UID"),
        (b"AccessionNumber\n1.23457E+11\n", "line 2: AccessionNumber was shortened"),
        (f"PatientID,Pseudonym\n{PHI},S1\n{PHI},S2\n".encode(), "lines 2 and 3: two pseudonyms of one patient"),
        (f"PatientID,Pseudonym\n{PHI},S1\nQ,S1\n".encode(), "lines 2 and 3: one pseudonym of two patients"),
        (b"PatientID\nM\x81LLER\n", "line 2: the text is not UTF-8"),
        (b"PatientID\nA\0B\n", "line 2: a NUL character"),
        (b"PAR1 not really", "not valid Parquet"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_with_its_line_and_without_a_value(text: bytes, message: str | None):
    if message is None:
        assert len(read_cohort(text, "list.csv")) == 1
        return
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_cohort(text, "list.csv")
    assert PHI not in str(raised.value)
    assert "list.csv" in str(raised.value)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes):
    for start in (b"", b"PatientID,AccessionNumber\n"):
        try:
            lines = read_cohort(start + data, "list.csv")
        except ConfigurationError:
            continue
        assert all(line.selects for line in lines)


def test_the_repr_of_a_line_has_no_values():
    line = read_cohort(",".join(COLUMNS).encode() + f"\n{PHI},,,,,,{PHI}\n".encode(), "list.csv")[0]
    assert PHI not in repr(line)
