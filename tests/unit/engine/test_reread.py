"""What edits write is read again before it is written."""

from __future__ import annotations

import io

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import datasets
from tests.support.datasets import Element, Encoding

from dicom_deid.dicom.reread import check_written, is_element
from dicom_deid.dicom.rewrite import element_bytes
from dicom_deid.dicom.vr import KNOWN_VRS, LONG_FORM_VRS
from dicom_deid.dicom.walk import BIG_ENDIAN, LITTLE_ENDIAN, LONG, SHORT, DatasetContext, ItemContext, RuleEdit
from dicom_deid.engine import Deidentifier, Settings
from dicom_deid.exceptions import Quarantine
from dicom_deid.recipe import Recipe

EXPLICIT: DatasetContext = DatasetContext((), False, LITTLE_ENDIAN)


def elements() -> st.SearchStrategy[Element]:
    text = st.builds(Element, st.just(0x00081030), st.sampled_from(["LO", "UT", "UC"]), st.text("ab", max_size=9))
    opaque = st.builds(Element, st.just(0x00091001), st.sampled_from(["UN", "OB"]), st.binary(max_size=20))
    return st.recursive(
        text | opaque,
        lambda inner: st.builds(
            Element, st.just(0x00081140), st.just("SQ"), st.lists(st.lists(inner, max_size=2), max_size=3)
        ),
        max_leaves=8,
    )


@given(elements(), st.sampled_from(list(datasets.all_encodings())))
def test_each_encoding_of_an_element_is_read(one: Element, encoding: Encoding) -> None:
    new = datasets.encode([one], encoding)
    order = BIG_ENDIAN if encoding.order == ">" else LITTLE_ENDIAN
    assert is_element(new, not encoding.explicit, order)
    assert not is_element(new[:-1], not encoding.explicit, order)
    assert not is_element(new + b"\0", not encoding.explicit, order)


@given(st.sampled_from(sorted(KNOWN_VRS)), st.sampled_from(sorted(KNOWN_VRS)), st.binary(min_size=1, max_size=64))
def test_a_vr_with_the_header_of_another_is_held(vr: str, of_header: str, value: bytes) -> None:
    """Catches an element of VR UN that a rule writes with the VR of the dictionary and a header of 12 bytes."""
    value = value.ljust(len(value) + len(value) % 2, b"x")
    head = b"\x08\0\x30\x10"
    new = element_bytes(head + vr.encode(), LONG if of_header in LONG_FORM_VRS else SHORT, value, LITTLE_ENDIAN)
    edit = RuleEdit(0, 10, new, ItemContext(EXPLICIT))
    if (vr in LONG_FORM_VRS) == (of_header in LONG_FORM_VRS) and vr != "SQ":
        check_written(head + bytes(6), [edit])
        return
    with pytest.raises(Quarantine, match="invalid-replacement"):
        check_written(head + bytes(6), [edit])


def test_another_tag_than_the_replaced_one_is_held() -> None:
    edit = RuleEdit(0, 8, b"\x08\0\x32\x10LO\0\0", ItemContext(EXPLICIT))
    with pytest.raises(Quarantine, match="invalid-replacement"):
        check_written(b"\x08\0\x30\x10LO\0\0", [edit])


@pytest.mark.parametrize("vr", ["UN", "LO", "UT"])
@pytest.mark.parametrize("value", ["func:name", "var:name", "NAME"])
@pytest.mark.parametrize("encoding", list(datasets.all_encodings()), ids=str)
def test_rules_write_elements_that_are_read(encoding: Encoding, value: str, vr: str) -> None:
    """Catches a rule that writes an element in the form of another VR than the one in its header."""
    recipe = Recipe.parse(f"FORMAT dicom\n%header\nREPLACE OperatorsName {value}\n", "r")
    named = {"name": lambda item, value, field, dicom: "NAME"}
    settings = Settings(residuals="off", pixel_risk="allow", documents="allow")
    engine = Deidentifier(recipe, settings, functions=named, variables={"name": "NAME"})
    operators = Element(0x00081070, vr, b"Doe^J " if vr == "UN" else "Doe^J")
    elements = [e for e in datasets.ct_elements(1, rows=2, columns=2) if e.tag != operators.tag]
    data = datasets.part10([*elements, operators], encoding)
    written = engine.deidentify(data, lambda identifiers: dict.fromkeys(identifiers, "1.2")).to_bytes()
    read = pydicom.dcmread(io.BytesIO(written))
    assert "NAME" in str(read[0x00081070].value)
    assert len(read.PixelData) == 8
