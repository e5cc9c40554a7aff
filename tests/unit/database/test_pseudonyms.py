"""Generation of new pseudonyms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_deid.database.projects import ProjectOptions
from dicom_deid.database.pseudonyms import (
    checked_org_root,
    derived_uid,
    digits_for,
    is_uid,
    normalised,
    problem_of,
    random_identifier,
    random_offset,
    random_uid,
)
from dicom_deid.exceptions import ConfigurationError
from dicom_deid.identifiers import IdentifierKind

ROOTS = ["2.25", "1.2.826.0.1.3680043.8.498", "1.2.826.0.1.3680043.10.1234.5678"]


@pytest.mark.parametrize("root", ROOTS)
def test_uids_are_valid_under_every_root(root):
    # A root of 33 characters would leave a trailing part cut; it must be a valid UID all the same (PS3.5 9.1).
    assert checked_org_root(root) == root
    for number in range(300):
        for uid in (random_uid(root), derived_uid(root, b"k" * 32, str(number))):
            assert is_uid(uid)
            assert len(uid) <= 64
            assert uid.startswith(root + ".")


@pytest.mark.parametrize("root", ["", "2", "1.02", "1.2.", "3.1", "1.2.x", "1." + "2" * 32])
def test_bad_roots_are_refused(root):
    with pytest.raises(ConfigurationError, match="org_root"):
        checked_org_root(root)


def test_a_derived_uid_depends_on_secret_and_original_only():
    one = derived_uid("2.25", b"a" * 32, "1.2")
    assert one == derived_uid("2.25", b"a" * 32, "1.2")
    assert one != derived_uid("2.25", b"b" * 32, "1.2")
    assert one != derived_uid("2.25", b"a" * 32, "1.3")


@given(used=st.integers(0, 10**12), wanted=st.integers(0, 10**6))
def test_the_range_is_never_half_full(used, wanted):
    digits = digits_for(used, wanted)
    assert digits >= 7
    assert 2 * (used + wanted) < 9 * 10 ** (digits - 1)


@given(st.integers(7, 12))
def test_identifiers_have_their_prefix_and_digits(digits):
    text = random_identifier(IdentifierKind.ACCESSION_NUMBER, digits)
    assert text[:3] == "ACA"
    assert len(text) == 3 + digits
    assert text[3] in "123456789"


@given(st.integers(1, 36500))
def test_offsets_are_never_zero_and_within_the_most(most):
    assert 0 < abs(int(random_offset(most))) <= most


@given(st.text(), st.sampled_from(["", " ", "\0", "  \0", "\t"]), st.sampled_from(["", " ", "\0"]))
def test_normalising_is_idempotent_and_ignores_padding(text, after, before):
    assert normalised(before + text + after) == normalised(text) == normalised(normalised(text))


@pytest.mark.parametrize(
    ("kind", "pseudonym", "fits"),
    [
        (IdentifierKind.PATIENT_ID, "A" * 64, True),
        (IdentifierKind.PATIENT_ID, "A" * 65, False),
        (IdentifierKind.STUDY_ID, "A" * 16, True),
        (IdentifierKind.STUDY_ID, "A" * 17, False),
        (IdentifierKind.STUDY_ID, "a\\b", False),
        (IdentifierKind.STUDY_ID, " a", False),
        (IdentifierKind.UID, "1.2.3", True),
        (IdentifierKind.UID, "1.2.03", False),
        (IdentifierKind.DATE_OFFSET, "-365", True),
        (IdentifierKind.DATE_OFFSET, "366", False),
        (IdentifierKind.DATE_OFFSET, "0", False),
        (IdentifierKind.DATE_OFFSET, "x", False),
    ],
)
def test_pseudonyms_are_valid_for_their_kind(kind, pseudonym, fits):
    assert (problem_of(kind, pseudonym, 365) is None) is fits


@pytest.mark.parametrize(
    "options",
    [
        {"uid_strategy": "random"},
        {"max_date_offset_days": 0},
        {"single_patient_id": "x" * 65},
        {"org_root": "nonsense"},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigurationError):
        ProjectOptions(**options)
