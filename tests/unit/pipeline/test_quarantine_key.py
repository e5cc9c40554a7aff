"""Keys of quarantine copies: every store accepts them, and different source keys stay different."""

from hypothesis import given
from hypothesis import strategies as st

from dicom_deid.pipeline.process_object import quarantine_key
from dicom_deid.reasons import Reason

# Names on disk that are not UTF-8 hold bytes as U+DC80 to U+DCFF; other surrogates are in no key.
CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
ANY_KEY = st.text(CHARACTERS, min_size=1, max_size=60) | st.text("./\x00\n\x7f\udcffa%", min_size=1, max_size=20)


@given(ANY_KEY)
def test_any_source_key_gives_a_key_that_stores_accept(key):
    copied = quarantine_key(Reason.MALFORMED, key)
    assert len(copied.encode()) <= 1024
    assert copied.isprintable() or not any(ord(character) < 0x20 or ord(character) == 0x7F for character in copied)
    assert all(segment.strip(".") for segment in copied.split("/"))


def test_ordinary_keys_stay_as_they_are():
    assert quarantine_key(Reason.MALFORMED, "2024/Müller Ä/a b%.dcm") == "malformed/2024/Müller Ä/a b%.dcm"


@given(st.lists(st.text("./\x01\n\udcffab", min_size=1, max_size=8), min_size=2, max_size=2, unique=True))
def test_different_keys_stay_different(keys):
    assert quarantine_key(Reason.MALFORMED, keys[0]) != quarantine_key(Reason.MALFORMED, keys[1])


def test_the_end_of_a_long_key_is_replaced_by_its_digest():
    one, other = (quarantine_key(Reason.MALFORMED, "ä" * 600 + end) for end in "ab")
    assert len(one.encode()) <= 1024
    assert one != other
