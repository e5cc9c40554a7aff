"""Recipes drawn from the grammar of the language.

`recipe_texts` draws whole files that are valid; with ``for_oracle=True`` only such as the `deid` package understands
in the same way, so that a test can let both read one file: no quoted words (deid keeps the quotes), no undefined
names, and REPLACE and JITTER only where any value may be written.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary

FUNCTIONS = ("always", "never", "generate_value")
"""Names after ``func:``; `always` and `never` are conditions."""
VARIABLES = {"study_name": "Study7", "nothing": "", "something": "yes"}
"""Names after ``var:`` with values that a text element takes."""
CREATOR = "SIEMENS CSA HEADER"

COMMON_KEYWORDS = (
    "AccessionNumber",
    "AcquisitionDateTime",
    "ContentDate",
    "DeviceSerialNumber",
    "InstitutionName",
    "MediaStorageSOPInstanceUID",
    "Modality",
    "OperatorsName",
    "OtherPatientIDs",
    "PatientBirthDate",
    "PatientComments",
    "PatientID",
    "PatientName",
    "PixelData",
    "PatientSize",
    "ReferencedSOPInstanceUID",
    "ReferencedStudySequence",
    "RequestAttributesSequence",
    "RequestedProcedureID",
    "SeriesNumber",
    "SOPInstanceUID",
    "StudyDate",
    "StudyID",
    "StudyInstanceUID",
    "TransferSyntaxUID",
    "VOILUTSequence",
)
"""Keywords that the objects of the tests hold, among them those that no rule may see."""
TEXT_KEYWORDS = (
    "AccessionNumber",
    "DeviceSerialNumber",
    "InstitutionName",
    "OperatorsName",
    "PatientComments",
    "PatientID",
    "PatientName",
    "RequestedProcedureID",
    "StudyID",
)
DATE_KEYWORDS = ("ContentDate", "PatientBirthDate", "StudyDate")
_TAGS = {entry[4]: tag for tag, entry in DicomDictionary.items() if entry[4]}
_NAMES = sorted({entry[2] for entry in DicomDictionary.values() if entry[2] and '"' not in entry[2]})
_PATTERNS = (
    "Patient",
    "patientn",
    "Name",
    "Date",
    "UID",
    "ID",
    "Sequence",
    "Sequence__Patient",
    "ReferencedStudy",
    "00100",
    r"\(0010,00",
    "(?:study|series)",
    "s.*id",
    "[aeiou]d$",
    "csa",
    '"siemens.csa.header",08',
    "Private",
    "Overlay",
    "^study",
    "x{2,}",
)
_VRS = ("PN", "LO", "DA", "UI", "SQ", "IS", "DT", "OW", "CS")
_GROUPS = ("0002", "0008", "0010", "0029", "0x0020", "6000", "28")


def _in_some_case(word: str) -> st.SearchStrategy[str]:
    return st.sampled_from([word, word.lower(), word.upper()])


def _tag_forms(keyword: str) -> st.SearchStrategy[str]:
    tag = f"{_TAGS[keyword]:08x}"
    forms = [tag, tag.upper(), f"({tag[:4]},{tag[4:]})", f"({tag[:4].upper()},{tag[4:].upper()})"]
    return st.sampled_from(forms)


def patterns() -> st.SearchStrategy[str]:
    """Draw a regular expression that stands after an expander, without blanks."""
    stems = st.sampled_from(_PATTERNS)
    return st.one_of(stems, st.lists(stems, min_size=2, max_size=3).map("|".join))


def exact_fields(keywords: Sequence[str] = COMMON_KEYWORDS) -> st.SearchStrategy[str]:
    """Draw a field that names one element."""
    keyword = st.sampled_from(keywords)
    private = f'0029,"{CREATOR}",08'
    return st.one_of(
        keyword.flatmap(_in_some_case),
        keyword.flatmap(_tag_forms),
        st.sampled_from([private, f"({private})", f"({private.lower()})", "(0029,1008)", "00290010", "(6000,3000)"]),
        st.sampled_from(["ReferencedStudySequence__PatientID", "RequestAttributesSequence__RequestedProcedureID"]),
    )


def expanders() -> st.SearchStrategy[str]:
    """Draw a field that may select many elements."""
    word = st.sampled_from(["contains", "startswith", "endswith", "except"]).flatmap(_in_some_case)
    return st.one_of(
        st.builds("{}:{}".format, word, patterns()),
        st.builds("select:VR:{}".format, st.sampled_from(_VRS).flatmap(_in_some_case)),
        st.builds("select:GROUP:{}".format, st.sampled_from(_GROUPS)),
        st.sampled_from(["ALL", "all", "All"]),
    )


def quoted_fields() -> st.SearchStrategy[str]:
    """Draw a field in quotes, which may hold blanks."""
    return st.one_of(
        st.sampled_from(_NAMES).map('"{}"'.format),
        st.sampled_from(['"contains:Patient\'s Name"', '"endswith:Birth Date"', "'PatientID'"]),
    )


_CONCEPTS = ("121022,DCM", "f-02455,srt", "C67447,NCIt", "urn:oid:1.2.3,", "A,B,99LOCAL")


@st.composite
def content_rule_lines(draw: st.DrawFn) -> str:
    """Draw a rule for content items."""
    name = st.builds("content:{},{}".format, st.sampled_from(_CONCEPTS), st.sampled_from(("TEXT", "datetime", "DATE")))
    field = draw(st.one_of(name, name.map('"{}"'.format), st.just('"content:53,NCDR [2.0b],DATE"')))
    return draw(
        st.sampled_from(
            [f"REMOVE {field}", f"KEEP {field}", f"BLANK {field}", f"REPLACE {field} x"]
            + [f"JITTER {field} 3"] * ("TEXT" not in field)
        )
    )


def _literals(for_oracle: bool) -> st.SearchStrategy[str]:
    plain = st.sampled_from(["20200102", "Anonymous", "A B", "A^B", "x=y", "A\\B", "2020 01  02"])
    if for_oracle:
        return plain
    words = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp", "Zs"), blacklist_characters="\"'#"))
    inside = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp"), blacklist_characters='"'))
    unprefixed = words.filter(lambda word: word and ":" not in word)
    return st.one_of(
        plain,
        unprefixed,
        inside.map('"{}"'.format),
        inside.map(lambda text: f'a{text.replace(" ", "")}"b"').filter(
            lambda text: text.count("'") == 0 and "#" not in text and ":" not in text
        ),
    )


def _values(for_oracle: bool) -> st.SearchStrategy[str]:
    fixed = ["var:study_name", "var:nothing", "func:generate_value"]
    drawn = [
        "deid_func:jitter days=3",
        "deid_func:jitter years=-1 days=2",
        "deid_func:dicom_uuid org_root=1.2.3",
        "deid_func:dicom_uuid",
        "deid_func:suffix_uuid",
        "deid_func:basic_uuid",
        "deid_func:pydicom_uuid prefix=1.2. stable_remapping=true",
        "deid_func:pydicom_uuid stable_remapping=false",
        "func:package.module:function",
    ]
    return st.one_of(_literals(for_oracle), st.sampled_from(fixed if for_oracle else fixed + drawn))


def _lists(names: Sequence[str], section: str) -> st.SearchStrategy[str]:
    return st.sampled_from([f"{section}:{name}" for name in names]) if names else st.nothing()


@st.composite
def rule_lines(
    draw: st.DrawFn, fields: Sequence[str] = (), values: Sequence[str] = (), for_oracle: bool = False
) -> str:
    """Draw one valid line of ``%header``.

    Parameters
    ----------
    draw
        Given by hypothesis.
    fields, values
        Names of the lists that may be used.
    for_oracle
        See the module.
    """
    others = [] if for_oracle else [quoted_fields()]
    anything = st.one_of(exact_fields(), expanders(), _lists(fields, "fields"), _lists(values, "values"), *others)
    if not for_oracle and draw(st.integers(0, 6)) == 0:
        return draw(content_rule_lines())
    action = draw(st.sampled_from(["REMOVE", "BLANK", "KEEP", "REPLACE", "JITTER", "ADD"]))
    if action in ("BLANK", "KEEP"):
        return f"{action} {draw(anything)}"
    if action == "REMOVE":
        condition = draw(st.sampled_from(["", "", "", " func:always", " func:never", " var:something", " var:nothing"]))
        return f"REMOVE {draw(anything)}{condition}"
    if action == "JITTER":
        # Text that is no date makes deid fall back to words of today; only dates are shifted in both.
        lists = _lists(fields, "fields") if not for_oracle else st.nothing()
        dates = st.one_of(
            exact_fields(DATE_KEYWORDS) if not for_oracle else st.sampled_from(DATE_KEYWORDS),
            st.sampled_from(["endswith:Date", "select:VR:DA"]),
            lists,
        )
        return f"JITTER {draw(dates)} {draw(st.integers(-4000, 4000))}"
    if action == "REPLACE":
        texts = st.sampled_from(TEXT_KEYWORDS)
        target = st.one_of(
            texts.flatmap(_in_some_case),
            texts.flatmap(_tag_forms),
            st.sampled_from(["contains:PatientName", "select:VR:PN", "endswith:studyid"]),
        )
        return f"REPLACE {draw(target if for_oracle else anything)} {draw(_values(for_oracle))}"
    added = st.sampled_from(TEXT_KEYWORDS)
    text = st.sampled_from(["20200102", "YES", "var:study_name"])
    fitting = ["PatientIdentityRemoved YES", "StudyDate 20200102", "TransferSyntaxUID 1.2.3"]
    return draw(st.one_of(st.builds("ADD {} {}".format, added, text), st.sampled_from(fitting).map("ADD {}".format)))


@st.composite
def list_sections(draw: st.DrawFn, section: str, name: str, for_oracle: bool = False) -> list[str]:
    """Draw the lines of ``%fields NAME`` or ``%values NAME``."""
    field = st.one_of(exact_fields(), expanders())
    if section == "values":
        field = st.sampled_from(TEXT_KEYWORDS)
    lines = [f"FIELD {one}" for one in draw(st.lists(field, max_size=3))]
    if section == "values":
        parameters = ["", ' by="^"', ' by="^";minlength=4', " by='^'; minlength=3", " minlength=2"]
        splits = st.builds("SPLIT {}{}".format, field, st.sampled_from(parameters))
        if for_oracle:
            # deid searches a value as a regular expression, in which the ^ of a name stands for a beginning.
            lines = []
            splits = st.builds(
                "SPLIT {}{}".format, st.sampled_from(["PatientName", "OperatorsName"]), st.sampled_from(parameters[1:3])
            )
        lines += draw(st.lists(splits, min_size=1, max_size=2))
    return [f"%{section} {name}", *lines]


@st.composite
def filter_sections(draw: st.DrawFn) -> list[str]:
    """Draw the lines of a section ``%filter``."""
    criterion = st.one_of(
        st.builds(
            "{} {} {}".format,
            st.sampled_from(["contains", "notcontains", "equals", "NotEquals"]),
            st.sampled_from(["Modality", "modality", "ManufacturerModelName", "0x00080060"]),
            st.sampled_from(["CT", "LightSpeed VCT", "A|B", "AS+", "x.*y"]),
        ),
        st.builds("{} {}".format, st.sampled_from(["missing", "present", "empty"]), st.sampled_from(COMMON_KEYWORDS)),
    )
    joined = st.lists(st.tuples(criterion, st.sampled_from([" + ", " || ", "||"])), min_size=1, max_size=3).map(
        lambda pairs: "".join(text + operator for text, operator in pairs[:-1]) + pairs[-1][0]
    )
    coordinates = st.sampled_from(
        [
            "coordinates 0,0,512,121",
            "keepcoordinates 10, 20,30,40",
            "ctpcoordinates 1,2,3,4",
            "coordinates all",
            "ctpkeepcoordinates ALL",
            "keepcoordinates from:SequenceOfUltrasoundRegions",
        ]
    )
    lines = [f"%filter {draw(st.sampled_from(['whitelist', 'graylist', 'blacklist']))}"]
    for number in range(draw(st.integers(1, 2))):
        lines.append(f"LABEL Device {number} # (someone)")
        criteria = draw(st.lists(joined, min_size=1, max_size=3))
        lead = draw(st.sampled_from(["+ ", "|| ", ""]))
        lines += [f"  {lead if index else ''}{line}" for index, line in enumerate(criteria)]
        lines += draw(st.lists(coordinates, max_size=3))
    return lines


@st.composite
def recipe_texts(draw: st.DrawFn, for_oracle: bool = False, max_rules: int = 8) -> str:
    """Draw the text of a valid recipe.

    Parameters
    ----------
    draw
        Given by hypothesis.
    for_oracle
        See the module.
    max_rules
        The greatest number of lines of ``%header``.
    """
    fields = draw(st.lists(st.sampled_from(["ids", "Names"]), unique=True))
    values = draw(st.lists(st.sampled_from(["people", "codes"]), unique=True))
    lines = ["FORMAT dicom"]
    for name in fields:
        lines += draw(list_sections("fields", name, for_oracle))
    for name in values:
        lines += draw(list_sections("values", name, for_oracle))
    if not for_oracle:
        for section in draw(st.lists(filter_sections(), max_size=2)):
            lines += section
    lines.append("%header")
    lines += draw(st.lists(rule_lines(fields, values, for_oracle), min_size=1, max_size=max_rules))
    return "\n".join(lines) + "\n"
