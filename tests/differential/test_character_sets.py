"""Text in the character sets of DICOM: dcmtk and pydicom read what the engine writes, and unchanged text is the same.

Would catch: an escape sequence that redaction or a replacement leaves invalid, and text that is encoded again.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.support import datasets
from tests.support.datasets import element
from tests.support.engine import RULES_ALONE, read, rules, run
from tests.support.programs import program

from dicom_deid.dicom.values import character_set, decode_text, encode_text

# A name, what replaces it, a text that stays, one that has a part of the name, and what is left of it.
TEXTS = {
    "ISO_IR 100": ("Müller^Jörg", "Lefèvre^Zoé", "Höhe Knie", "Höhe Müller links", "Höhe ****** links"),
    "ISO_IR 144": ("Иванов^Пётр", "Жуков^Юрий", "колено", "колено Иванов слева", "колено ****** слева"),
    "ISO_IR 192": ("王^小東", "李^偉", "左膝", "左膝 小東 複查", "左膝 ****** 複查"),
    "GB18030": ("王^小东", "李^伟", "左膝", "左膝 小东 复查", "左膝 **** 复查"),
    "ISO_IR 13": ("ﾔﾏﾀﾞ^ﾀﾛｳ", "ｽｽﾞｷ^ﾊﾅｺ", "ﾋｻﾞ", "ﾋｻﾞ ﾔﾏﾀﾞ ﾐｷﾞ", "ﾋｻﾞ **** ﾐｷﾞ"),
    "\\ISO 2022 IR 87": (
        *("Yamada^Tarou=山田^太郎", "Suzuki^Hanako=鈴木^花子"),
        *("膝の右", "膝の山田 太郎氏", "膝の＊＊*＊＊氏"),
    ),
    "ISO 2022 IR 13\\ISO 2022 IR 87": (
        *("ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎", "ｽｽﾞｷ=鈴木"),
        *("膝ﾋｻﾞ", "膝ﾋｻﾞ 山田氏", "膝ﾋｻﾞ ＊＊氏"),
    ),
    "\\ISO 2022 IR 149": (
        *("Hong^Gildong=洪^吉洞=홍^길동", "Kim^Huijung=金^喜中=김^희중"),
        *("왼쪽 무릎", "왼쪽 길동씨 무릎", "왼쪽 ****씨 무릎"),
    ),
    "\\ISO 2022 IR 58": (
        *("Wang^XiaoDong=王^小东", "Li^Wei=李^伟"),
        *("左膝", "左膝 小东 复查", "左膝 **** 复查"),
    ),
    "ISO 2022 IR 100\\ISO 2022 IR 144": (
        *("Müller=Мюллер^Дмитрий", "Lefèvre=Лефевр^Юрий"),
        *("général колено", "général Дмитрий колено", "général ******* колено"),
    ),
}
TAGS = {"PatientName": "0010,0010", "SeriesDescription": "0008,103e", "ImageComments": "0020,4000"}


def dcmtk_texts(data: bytes, folder: Path) -> dict[str, str]:
    """Return what dcmdump converts to UTF-8, by keyword."""
    path = folder / "object.dcm"
    path.write_bytes(data)
    done = subprocess.run([program("dcmdump"), "+U8", "+L", str(path)], check=False, capture_output=True)
    assert not re.search(rb"^[EWF]:", done.stderr, re.MULTILINE), done.stderr
    text = done.stdout.decode()
    return {
        keyword: match[1]
        for keyword, tag in TAGS.items()
        if (match := re.search(rf"\({tag}\) \w\w \[(.*?)\] +#", text))
    }


@pytest.mark.parametrize("term", TEXTS)
def test_other_readers_read_text_that_was_replaced_redacted_or_left(term: str, tmp_path: Path) -> None:
    name, new_name, kept, text, left = TEXTS[term]
    codecs = character_set(term.encode())
    stays = encode_text(kept, "LO", codecs)
    data = datasets.an_object(
        element("SpecificCharacterSet", term),
        element("PatientName", encode_text(name, "PN", codecs)),
        element("SeriesDescription", stays),
        element("ImageComments", encode_text(text, "LT", codecs)),
    )
    settings = RULES_ALONE.replace(residuals="redact-token")
    output = run(data, rules(f"REPLACE PatientName {new_name}"), settings).to_bytes()
    assert stays in output
    expected = {"PatientName": new_name, "SeriesDescription": kept, "ImageComments": left}
    if "IR 87" not in term:
        # With iconv dcmtk does not read JIS X 0208.
        assert dcmtk_texts(output, tmp_path) == expected
    dataset = read(output)
    for keyword, value in expected.items():
        assert decode_text(dataset.get_item(keyword).value, dataset[keyword].VR, codecs).rstrip() == value
        if "IR 58" not in term:
            # pydicom leaves the escape sequence of simplified Chinese in the text.
            assert str(dataset[keyword].value) == value
