"""Terms that are looked up before their spellings are searched: no form of a value is lost."""

from __future__ import annotations

from datetime import date

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dicom_deid.engine.residuals.boundaries import extent
from dicom_deid.engine.residuals.matcher import TermMatcher, matches
from dicom_deid.engine.residuals.spellings import WordBoundary, forms, spellings
from dicom_deid.engine.residuals.terms import SearchTerm, TermKind

NAMES = (
    *("Smith^John", "Li^Bo", "Ng^Ann", "O'Brien^Mary", "OBrien^Dana", "van der Berg^Jan", "Vandenberg^Al"),
    *("Müller^Jörg", "Mueller^Heike", "Bauer^Uwe", "Sørensen^Åse", "Łukasz^Żółty", "Strauß^Änne", "Éric^Çelik"),
    *("Παπαδοπούλου^Μαρία", "Кузнецова^Ольга", "Yamada^Tarou=山田^太郎=やまだ^たろう", "王^小明"),
    *("Hong^Gildong=洪^吉洞=홍^길동", "Hand^Anna"),
    *("J^R", "Test^Patient", "Smith-Jones^Mary Ann", "D’Angelo^Lia", "Head^Foot", "Phantom^CT", "Öz^Ün", "Bär^Ute"),
)
IDENTIFIERS = (
    *("QX-81723", "0012345678", "12-34-56", "A999342503", "BE91528947", "1234", "A1B234567", "DOEJ"),
    *("№ 4711-88", "MRN 0077/123456", "KOPF", "00000000", "555-396-1352", "P-1", "ÄX-123456", "+49 (30) 123-4567"),
)
PLACES = ("12 Orchard Lane", "Universitätsklinikum Köln", "SGHCT01A", "St. Anna, Haus 3", "Hôpital–Nord 7", "CT01")
CODECS = (
    *("ascii", "iso8859_1", "iso8859_2", "iso8859_5", "iso8859_7", "utf-8", "gb18030", "shift_jis"),
    *("iso2022_jp", "iso2022_jp_2", "euc_kr", "cp1252"),
)
LETTERS = "aeioulmnrstäöüéßøłжα山o'’ -"

parts = st.lists(st.text(LETTERS, min_size=1, max_size=9), min_size=1, max_size=3)
names = st.sampled_from(NAMES) | parts.map("^".join)
dates = st.dates(date(1901, 1, 1), date(2030, 12, 31)).map("{:%Y%m%d}".format)
digits = st.text("0123456789-/ A", min_size=3, max_size=12)
values = (
    st.tuples(st.just(TermKind.NAME), names)
    | st.tuples(st.sampled_from([TermKind.IDENTIFIER, TermKind.TELEPHONE]), st.sampled_from(IDENTIFIERS) | digits)
    | st.tuples(st.just(TermKind.PLACE), st.sampled_from(PLACES))
    | st.tuples(st.sampled_from([TermKind.DATE, TermKind.PERSON_DATE]), dates)
    | st.tuples(st.just(TermKind.UID), st.just("1.2.826.0.1.3680043.8.498.65979"))
)
codecs = st.lists(st.sampled_from(CODECS), max_size=2).map(tuple)
around = st.text("ab .,-^12", max_size=4).map(str.encode) | st.binary(max_size=4).map(bytes.lower)


def found(data: bytes, hits: list) -> set[tuple[int, int]]:
    return {place for hit in hits if (place := extent(data, hit, 0, len(data))) is not None}


@settings(deadline=None)
@given(values, codecs, around, around, st.data())
@example((TermKind.NAME, "Bauer^Uwe"), ("gb18030",), b"", b"", None)
def test_each_form_of_a_value_is_found_as_by_the_automaton(value, codecs, before, after, data) -> None:
    """Catches a key that is not in every form: with an accent, in another order, in UTF-16 or ISO 2022."""
    term = SearchTerm(*value, 0x00100010)
    matcher = TermMatcher([term], codecs)
    spelled = spellings(*value)
    chosen = spelled if data is None else data.draw(st.lists(st.sampled_from(spelled), max_size=3)) if spelled else ()
    for text, boundary in chosen:
        rest = f" {int(value[1][6:])}, {value[1][:4]}" if boundary is WordBoundary.MONTH else ""
        for form in forms(text + rest, codecs):
            span = before + form + after
            assert found(span, matches(span, frozenset((term,)), codecs)) == found(span, matcher.matches(span))


@settings(deadline=None)
@given(st.frozensets(values, min_size=2, max_size=12), codecs, st.data())
def test_what_several_values_have_in_a_text_is_found(several, codecs, data) -> None:
    """Against one automaton of all terms; catches a value that another one hides."""
    terms = frozenset(SearchTerm(*value, 0x00100010 + number) for number, value in enumerate(sorted(several)))
    forms_of = [form for term in terms for text, _ in spellings(*term[:2]) for form in forms(text, codecs)]
    parts = data.draw(st.lists(around | (st.sampled_from(forms_of) if forms_of else around), max_size=8))
    span = b" ".join(parts)
    # What is found does not depend on how often the same terms were searched for.
    assert set(matches(span, terms, codecs)) == set(TermMatcher(terms, codecs).matches(span))


@settings(deadline=None)
@given(names.filter(lambda name: name.isascii()), st.sampled_from(["utf-8", "utf-16-le", "iso8859_1"]), st.data())
def test_a_misspelt_name_is_found_as_by_the_automaton(name, codec, data) -> None:
    """Catches a misspelt half that is not looked for: a letter wrong, missing, added or exchanged."""
    at, other = data.draw(st.integers(0, len(name) - 1)), data.draw(st.sampled_from("xeé "))
    edits = (name[:at] + other + name[at + 1 :], name[:at] + name[at + 1 :], name[:at] + other + name[at:])
    exchanged = name[:at] + name[at + 1 : at + 2] + name[at : at + 1] + name[at + 2 :]
    terms = frozenset((SearchTerm(TermKind.NAME, name, 0x00100010),))
    for text in (*edits, exchanged):
        span = f"seen {text.replace('^', ' ')} today".encode(codec).lower()
        assert found(span, matches(span, terms, (codec,))) == found(span, TermMatcher(terms, (codec,)).matches(span))
