"""Draw originals and what rules made of them: cleaned, cut, moved, or with text before them."""

from __future__ import annotations

import unicodedata

from hypothesis import strategies as st
from tests.support.datasets import Element, Encoding, element, part10

from dicom_deid.pipeline.changes import Elements, read_elements

TEXTS = (
    "PatientName",
    "StudyDescription",
    "PatientComments",
    "StationName",
    "InstitutionName",
    "ReferringPhysicianName",
)
LETTERS = "abcdefghiklmnoprstuvwz"
WORDS = st.text(LETTERS + LETTERS.upper() + "äéß", min_size=5, max_size=12) | st.text(
    "0123456789", min_size=6, max_size=9
)
UTF_8 = element("SpecificCharacterSet", "ISO_IR 192")


def read(elements: list[Element]) -> Elements:
    return read_elements(part10([UTF_8, *elements], Encoding(codec="utf-8")))


def plain(text: str) -> str:
    """Return text as a reader who looks for a name would take it: without case and accents."""
    return "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each)).casefold()


def kept(draw: st.DrawFn, words: list[str]) -> str:
    """Return a text with something of the words in it, as rules and functions leave it."""
    word = draw(st.sampled_from(words))
    return draw(
        st.sampled_from(
            [
                word,
                word.upper(),
                plain(word),
                f"{word} ****",
                f"X{word}",
                f"{word}-1",
                f"a {word} b",
                f"{word[0]}*** {word}",
            ]
        )
    )


@st.composite
def headers(draw: st.DrawFn) -> tuple[list[Element], list[Element], list[str]]:
    """Draw an original, the text that rules made of it, and the words of the original."""
    words = draw(st.lists(WORDS, min_size=2, max_size=8))
    before, after = [], []
    said = st.lists(st.sampled_from(words), min_size=1, max_size=3)
    keywords = st.lists(st.sampled_from(TEXTS), unique=True, min_size=1)
    before += [element(keyword, " ".join(draw(said))) for keyword in draw(keywords)]
    before.append(Element(0x00090010, "LO", "A VENDOR"))
    before.append(Element(0x00091001, "UN", draw(st.sampled_from(words)).encode()))
    new = st.sampled_from(["PAT1234567", "Removed", "Anonymous", "2.25.1", ""])
    after += [element(each, kept(draw, words) if draw(st.booleans()) else draw(new)) for each in draw(keywords)]
    said_words = {word for each in before for word in words if word in str(each.value) or word.encode() == each.value}
    return before, after, sorted(said_words)
