"""Spellings of names, identifiers and dates: each way of writing is found, and its neighbours are not."""

from __future__ import annotations

import pytest

from dicom_deid.engine.residuals.boundaries import extent
from dicom_deid.engine.residuals.matcher import MAX_HITS, MAX_PATTERNS, MatcherCache, TermMatcher, matches
from dicom_deid.engine.residuals.terms import SearchTerm, TermKind

NAME, IDENTIFIER, PLACE, DATE, BORN = (
    TermKind.NAME,
    TermKind.IDENTIFIER,
    TermKind.PLACE,
    TermKind.DATE,
    TermKind.PERSON_DATE,
)


def finds(kind: TermKind, value: str, text: str, codec: str = "utf-8") -> bool:
    data = text.encode(codec).lower()
    hits = matches(data, frozenset((SearchTerm(kind, value, 0x00100010),)), (codec,))
    return any(extent(data, hit, 0, len(data)) for hit in hits)


@pytest.mark.parametrize(
    "code", ["NSCLC-FDG-PET-058", "Prostate_01_0007", "CT-PET-VI-05", "PET.017.Lung^", "ACRIN-FLT-Breast_062"]
)
@pytest.mark.parametrize(
    "text",
    [
        *("F-18 FDG PET(Whole Bod", "NSCLC lung", "prostate", "PET/CT 2009A", "PET-CT STUDY"),
        *("1_ACRIN6688_BREAST", "SKULL BASE-MID THIG ACRIN 6688", "FLT"),
    ],
)
def test_words_in_the_code_of_a_subject_are_no_names(code: str, text: str) -> None:
    assert not finds(NAME, code, text)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("NSCLC-FDG-PET-058", "copy of NSCLC-FDG-PET-058"),
        ("NSCLC-Zimmerwald-058", "for Zimmerwald"),
        ("ACRIN-Zimmerwald-058", "for Zimmerwald"),
        ("ACRIN-FLT-Breast_062", "copy of ACRIN-FLT-Breast_062"),
        ("Acrin^Breast", "for Acrin"),
        ("Zimmerwald_1950_PET", "zimerwald"),
        ("PET-0071234", "case pet 0071234"),
        # No codes: a blank, a caret or no number of its own.
        ("Lung^Ottokar", "for Lung, Ottokar"),
        ("Fdg-Pet", "Fdg Pet"),
        ("Pet^Fdg-05", "Dr. Pet"),
    ],
)
def test_the_code_of_a_subject_is_found_whole_and_by_its_other_parts(code: str, text: str) -> None:
    """Catches names that stay because a number is beside them."""
    assert finds(NAME, code, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Ng^Bo", "seen Ng^Bo"),
        ("Ng^Bo", "seen Ng, Bo"),
        ("Ng^Bo", "Bo Ng"),
        ("Ng^Bo", "ng=bo"),
        ("Wu^Yi", "of Wu, Yi"),
        ("Wu^Yi", "Y. Wu"),
        ("王^伟", "病人王^伟"),
        ("王^伟", "王\u3000伟"),
        ("王^伟", "王·伟"),
        ("O'Brien^Ann", "O’Brien"),
        ("OBRIEN^ANN", "o'brien"),
        ("Mueller^Jo", "MÜLLER"),
        ("Muller^Jo", "Müller"),
        ("Müller^Jo", "Mueller"),
        ("De La Cruz^Ann", "DELACRUZ"),
        ("Delacruz^Ann", "de la Cruz"),
        ("Vandenberg^Ann", "van den Berg"),
        ("Hibbard^Julius", "Hibard"),
        ("Hibbard^Julius", "Hibbbard"),
        ("Hibbard^Julius", "Hibbrad"),
        ("Hibbard^Julius", "Hobbard"),
        ("Hibbard^Julius", "seen by J.H."),
        ("Кузнецов^Иван", "кузнецав"),
    ],
)
def test_a_name_is_found_as_others_write_it(name: str, text: str) -> None:
    assert finds(NAME, name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Ng^Bo", "angbow"),
        ("Ng^Bo", "ng"),
        ("Hibbard^Julius", "Hibiscus"),
        ("Hibbard^Julius", "Hibard" + "s" * 3),
        ("Long^Hand", "long axis of the hand"),
        ("Head^Foot", "head first"),
        ("Adams^Peter", "a.p. view"),
        ("Phantom^CT", "ct phantom"),
        ("Anonymous", "anonymous"),
        ("Lesions^Ann", "lesion"),
    ],
)
def test_another_word_is_not(name: str, text: str) -> None:
    assert not finds(NAME, name, text)


@pytest.mark.parametrize("codec", ["iso8859_5", "utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["Кузнецав", "(Кузнцов)", "КУЗНЕЦОВВ.", "Куздецов"])
def test_a_misspelt_name_of_another_alphabet_is_found(text: str, codec: str) -> None:
    assert finds(NAME, "Кузнецов^Иван", text, codec)
    assert not finds(NAME, "Кузнецов^Иван", "Куз Кузница", codec)


def test_a_name_that_is_a_part_of_the_body_counts_after_a_title() -> None:
    assert finds(NAME, "Head^Foot", "seen by Dr. Head")


@pytest.mark.parametrize(
    ("identifier", "text"),
    [
        ("0007788123", "id 7788123"),
        ("7788123", "0007788123"),
        ("7788123", "77-88-123"),
        ("7788123", "MRN7788123"),
        ("MRN7788123", "7788123"),
        ("MRN-7788123", "mrn 7788123"),
        ("JDOEKNEE", "jdoeknee left"),
        ("AB12", "(AB12)"),
        ("4711", "no. 4711."),
    ],
)
def test_an_identifier_is_found_with_other_separators_and_prefixes(identifier: str, text: str) -> None:
    assert finds(IDENTIFIER, identifier, text)


@pytest.mark.parametrize(
    ("identifier", "text"),
    [
        ("7788123", "17788123"),
        ("7788123", "77881234"),
        ("4711", "1.4711"),
        ("4711", "4711.5"),
        ("123", "123"),
        ("ROUTINE", "routine"),
        ("JDOEKNEE", "jdoeknees"),
        ("00000000", "00000000"),
        ("Anonymous", "anonymous"),
    ],
)
def test_another_number_or_word_is_not(identifier: str, text: str) -> None:
    assert not finds(IDENTIFIER, identifier, text)


@pytest.mark.parametrize(
    "text",
    [
        *("4 July 1963", "4. Juli 1963", "4 juillet 1963", "4 luglio 1963", "4 de julio de 1963", "4 juli 1963"),
        *("1963年7月4日", "昭和38年7月4日", "July 4th, 1963", "4-JUL-63", "04.07.63", "63-07-04", "4th of July 1963"),
        *("1963/7/4", "4. 7. 1963", "19630704101500"),
    ],
)
def test_a_date_is_found_in_the_forms_of_eight_languages(text: str) -> None:
    assert finds(DATE, "19630704", f"on {text}, left")


@pytest.mark.parametrize("codec", ["latin-1", "utf-8", "utf-16-le"])
def test_a_month_with_an_accent_is_found(codec: str) -> None:
    assert finds(DATE, "19630304", "am 4. März 1963 links", codec)


def test_a_date_is_found_with_the_escapes_between_its_characters() -> None:
    """In ISO 2022 IR 87 the digits are ASCII and the words for year, month and day are not."""
    assert finds(DATE, "19630704", "1963年7月4日", "iso2022_jp")


@pytest.mark.parametrize("text", ["4 MAR 1963", "Marezl", "Marfly"])
def test_a_form_that_several_terms_have_is_read_as_each_of_them(text: str) -> None:
    """The beginning of a month is also the first half of two names."""
    terms = [SearchTerm(DATE, "19630304", 1), SearchTerm(NAME, "Marezk", 2), SearchTerm(NAME, "Marfoy", 3)]
    data = text.lower().encode()
    for hits in (TermMatcher(terms, ("utf-8",)).matches(data), matches(data, frozenset(terms), ("utf-8",))):
        assert any(extent(data, hit, 0, len(data)) for hit in hits)


@pytest.mark.parametrize("text", ["July 1963", "07/1963", "630704", "Juli 1963"])
def test_of_a_date_of_the_person_the_month_alone_identifies(text: str) -> None:
    assert finds(BORN, "19630704", f"born {text}")
    assert not finds(DATE, "19630704", f"in {text}")


@pytest.mark.parametrize("text", ["14 July 1963", "4 June 1963", "July 14, 1963", "4 July 1964", "5.7.1963"])
def test_another_date_is_not(text: str) -> None:
    assert not finds(BORN, "19630704", text)


@pytest.mark.parametrize(
    ("place", "text", "is_found"),
    [
        ("12 Orchard Lane", "12 orchard lane", True),
        ("Springfield General Hospital", "at Springfield General Hospital", True),
        ("HOSPITAL", "hospital", False),
        ("SGHCT01A", "sghct01a", True),
        ("CT", "ct", False),
    ],
)
def test_a_place_is_searched_if_it_is_more_than_a_common_word(place: str, text: str, is_found: bool) -> None:
    assert finds(PLACE, place, text) is is_found


def test_dates_beyond_those_that_are_spelled_out_are_found_by_reading_the_dates_of_the_text() -> None:
    terms = [
        SearchTerm(DATE, f"{year}{month:02d}15", 0x00080020) for year in range(1950, 1990) for month in range(1, 13)
    ]
    text = b"on 15 dec 1989, 1988-11-15, 15.10.1987, nov 15, 1986 and 16.10.1987"
    assert {hit.term.text for hit in TermMatcher(terms, ("ascii",)).matches(text)} == {
        *("19891215", "19881115", "19871015", "19861115")
    }


def test_the_patterns_of_an_object_full_of_values_are_few() -> None:
    """Catches a minute and gigabytes for 30,000 dates in an object of 720 KB."""
    dates = [
        SearchTerm(DATE, f"{year}{month:02d}{day:02d}", 1)
        for year in range(1950, 1990)
        for month in range(1, 13)
        for day in range(1, 11)
    ]
    names = [SearchTerm(NAME, f"Quell{number:05d}mann^Ada", 2) for number in range(5000)]
    assert TermMatcher([*dates, *names], ("ascii",)).size < 10 * (len(dates) + len(names))


def test_matchers_are_kept_by_their_size() -> None:
    """Catches gigabytes for objects that each hold a thousand dates."""
    cache = MatcherCache()
    for number in range(60):
        terms = frozenset(SearchTerm(NAME, f"Quell{number}x{each}mann^Ada", 0x00100010) for each in range(1000))
        matcher = cache.get(terms, ("ascii",))
        assert cache.get(frozenset(terms), ("ascii",)) is matcher
        assert matcher.size <= cache.size <= MAX_PATTERNS


def test_a_search_stops_where_enough_was_found() -> None:
    terms = frozenset((SearchTerm(NAME, "Doe", 0x00100010),))
    for text in (b"doe " * 5000, b"doe " * 1_000_000):
        assert len(matches(text, terms, ("ascii",), MAX_HITS)) == MAX_HITS + 1
