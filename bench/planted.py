"""Objects with one identifier planted where no rule reaches, and objects with none: made at random from a seed."""

from __future__ import annotations

import io
import random
import unicodedata
from calendar import month_name
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta

from pydicom.charset import convert_encodings, encode_string
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_deid.score.identity import Patient, digits, uid, word

RECIPE = """FORMAT dicom
%header
REPLACE PatientName Anonymous
REPLACE PatientID func:generate_value
REPLACE AccessionNumber func:generate_value
REPLACE StudyInstanceUID func:generate_value
REPLACE SOPInstanceUID func:generate_value
REMOVE OtherPatientIDs
REMOVE PatientAddress
REMOVE PatientTelephoneNumbers
REMOVE ReferringPhysicianName
JITTER PatientBirthDate -31
JITTER StudyDate -31
"""
"""Acts on what names the patient, and on nothing else."""


def _dates(day: date) -> dict[str, str]:
    """Return a day in the forms in which people write it."""
    month = month_name[day.month]
    return {
        "date, 19630704": day.strftime("%Y%m%d"),
        "date, 1963-07-04": day.strftime("%Y-%m-%d"),
        "date, 04.07.1963": day.strftime("%d.%m.%Y"),
        "date, 4.7.1963": f"{day.day}.{day.month}.{day.year}",
        "date, 07/04/1963": day.strftime("%m/%d/%Y"),
        "date, 7/4/63": f"{day.month}/{day.day}/{day.year % 100:02d}",
        "date, 4 Jul 1963": f"{day.day} {month[:3]} {day.year}",
        "date, 04-JUL-1963": f"{day.day:02d}-{month[:3].upper()}-{day.year}",
        "date, 04JUL1963": f"{day.day:02d}{month[:3].upper()}{day.year}",
        "date, July 4, 1963": f"{month} {day.day}, {day.year}",
        "date, 4th of July 1963": f"{day.day}{_ordinal(day.day)} of {month} {day.year}",
        "date, July 4th 1963": f"{month} {day.day}{_ordinal(day.day)} {day.year}",
        **{
            f"date, {language}": written.format(day=day.day, month=months.split()[day.month - 1], year=day.year)
            for language, (written, months) in _MONTHS.items()
        },
        "date, Japanese or Chinese": f"{day.year}年{day.month}月{day.day}日",
    }


_MONTHS = {
    "German": (
        "{day}. {month} {year}",
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    ),
    "French": (
        "{day} {month} {year}",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    ),
    "Italian": (
        "{day} {month} {year}",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    ),
    "Spanish": (
        "{day} de {month} de {year}",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    ),
    "Dutch": (
        "{day} {month} {year}",
        "januari februari maart april mei juni juli augustus september oktober november december",
    ),
}


def _ordinal(number: int) -> str:
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number not in (11, 12, 13) else 0, "th")


def identifiers(patient: Patient, instance_uid: str) -> dict[str, str]:
    """Return what identifies a patient, as other people than the archive may write it, by kind."""
    family, given = patient.name.split("^")
    street, town = patient.address.split(", ")
    number = patient.other_id
    birth = patient.birth_date
    transcribed = family.translate(str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"}))
    return {
        **({"name, umlauts as two letters": transcribed} if transcribed != family else {}),
        **({"name, prefix joined": family.replace(" ", "")} if " " in family else {}),
        "number in groups": f"{number[:3]}-{number[3:6]}-{number[6:]}",
        "number with zeros before": f"000{number}",
        "number after letters": f"MRN{number}",
        "PatientID, its number": patient.patient_id[2:],
        "date of birth, 630704": birth.strftime("%y%m%d"),
        "date of birth, month and year": f"{month_name[birth.month]} {birth.year}",
        "family name": family,
        "given name": given,
        "name, given family": f"{given} {family}",
        "name, family given": f"{family}, {given}",
        "name, joined": f"{family}{given}",
        "name, family_given": f"{family}_{given}",
        "name, family^given": patient.name,
        "name, without accents": _without_accents(family),
        "physician": patient.referring.split("^")[0],
        "PatientID": patient.patient_id,
        "OtherPatientIDs": patient.other_id,
        "AccessionNumber": patient.accession_number,
        "address": patient.address,
        "address, street": street,
        "address, two lines": f"{street}\r\n{town}",
        "telephone": patient.telephone,
        "telephone, digits alone": patient.telephone.replace("-", ""),
        "telephone, dots": patient.telephone.replace("-", "."),
        "study UID": patient.study_uid,
        "instance UID": instance_uid,
        **_dates(patient.birth_date),
    }


def beyond(rng: random.Random, patient: Patient) -> dict[str, str]:
    """Return identifiers of a patient that are written in another way than any original value, by kind."""
    family, given = patient.name.split("^")
    at = rng.randrange(1, len(family))
    # Another letter of the same script.
    wrong = chr(ord(family[at]) + (1 if family[at].isalpha() and chr(ord(family[at]) + 1).isalpha() else -1))
    length = "six letters and more" if len(family) >= 6 else "fewer than six letters"
    # Scripts without blanks between words have no initials.
    initials = {} if family[0] >= "\u2e80" else {"initials": f"{given[0]}.{family[0]}."}
    return {
        f"family name of {length}, a letter wrong": family[:at] + wrong + family[at + 1 :],
        **initials,
        "year of birth": str(patient.birth_date.year),
    }


def _without_accents(text: str) -> str:
    spelled = text.replace("ø", "o").replace("ß", "ss").replace("æ", "ae")
    letters = unicodedata.normalize("NFD", spelled)
    return unicodedata.normalize("NFC", "".join(letter for letter in letters if not unicodedata.combining(letter)))


def _letters(first: str, last: str) -> Callable[[random.Random], str]:
    def draw(rng: random.Random) -> str:
        return "".join(chr(rng.randint(ord(first), ord(last))) for _ in range(rng.randint(4, 8))).capitalize()

    return draw


def _accented(rng: random.Random) -> str:
    name = word(rng)
    at = rng.randrange(1, len(name))
    return name[:at] + rng.choice("äöüéèñçøåß") + name[at:]


def _kanji(rng: random.Random) -> str:
    return _drawn(rng, "iso2022_jp", 0x4E00, 0x9FA0)


def _hangul(rng: random.Random) -> str:
    return _drawn(rng, "euc_kr", 0xAC00, 0xD7A3)


def _drawn(rng: random.Random, codec: str, first: int, last: int) -> str:
    found = ""
    while len(found) < 2:
        letter = chr(rng.randint(first, last))
        if letter.encode(codec, "ignore"):
            found += letter
    return found


ENCODINGS: dict[str, tuple[list[str], Callable[[random.Random], str]]] = {
    "ASCII": ([], lambda rng: word(rng)),
    "Latin-1 (ISO_IR 100)": (["ISO_IR 100"], _accented),
    "Cyrillic (ISO_IR 144)": (["ISO_IR 144"], _letters("а", "я")),
    "Japanese (ISO 2022 IR 87)": (["", "ISO 2022 IR 87"], _kanji),
    "Korean (ISO 2022 IR 149)": (["", "ISO 2022 IR 149"], _hangul),
    "UTF-8 (ISO_IR 192), Greek": (["ISO_IR 192"], _letters("α", "ω")),
    "UTF-8 (ISO_IR 192), accents": (["ISO_IR 192"], _accented),
}
"""Character sets, and how names are drawn in them."""

WRITINGS: dict[str, Callable[[str], str]] = {
    "as it stands": lambda text: text,
    "lower case": str.lower,
    "upper case": str.upper,
    "in brackets": lambda text: f"({text})",
    "full stop": lambda text: f"{text}.",
    "after a colon": lambda text: f"Pat:{text}",
    "quoted": lambda text: f"'{text}'",
    "possessive": lambda text: f"{text}'s",
    "underscores": lambda text: f"_{text}_",
    "between slashes": lambda text: f"/{text}/",
}

PLACES = (
    "description (LO)",
    "comment (LT)",
    "nested (code meaning)",
    "SR text (UT)",
    "private text (LO)",
    "private, UN",
    "private, UTF-16 little endian",
    "private, UTF-16 big endian",
    "file meta information",
    "after the pixel data",
    "trailing bytes",
)


@dataclass(frozen=True)
class Planting:
    """One object, and what was planted in it.

    Parameters
    ----------
    kind, place, encoding, writing
        What was planted, where, and how.
    data
        The object.
    text
        The text that holds the identifier, or none.
    start, end
        Where the identifier stands in the text.
    forms
        The identifier as bytes; if none is in the output it has not passed.
    """

    kind: str
    place: str
    encoding: str
    writing: str
    data: bytes
    text: str
    start: int
    end: int
    forms: tuple[bytes, ...]


def planting(rng: random.Random, *, is_beyond: bool = False) -> Planting:
    """Draw an object with one identifier planted in it: one that is searched, or one beyond that."""
    encoding = rng.choice(list(ENCODINGS))
    terms, draw = ENCODINGS[encoding]
    prefix = rng.choice(("", "", "De La ", "Van der ")) if encoding == "ASCII" and not is_beyond else ""
    patient = replace(Patient.draw(rng), name=f"{prefix}{draw(rng)}^{draw(rng)}")
    instance = uid(rng)
    kinds = beyond(rng, patient) if is_beyond else identifiers(patient, instance)
    codecs = convert_encodings(terms or [""])
    kinds = {kind: text for kind, text in kinds.items() if _is_encodable(text, codecs)}
    kind, identifier = rng.choice(list(kinds.items()))
    writing = rng.choice(list(WRITINGS))
    place = rng.choice(PLACES)
    written = WRITINGS[writing](identifier)
    before = f"{sentence(rng)} "
    text = f"{before}{written} {sentence(rng)}"
    start = len(before) + written.casefold().find(identifier.casefold()[:1])
    dataset = an_object(patient, instance, terms)
    encoded = _encoded(text, codecs, place)
    tail = _place(dataset, place, text, encoded)
    forms = (_encoded(written, codecs, place), *((written.encode("utf-8"),) if place == "SR text (UT)" else ()))
    data = saved(dataset, encoded if place == "file meta information" else b"") + tail
    return Planting(kind, place, encoding, writing, data, text, start, start + len(identifier), forms)


def _is_encodable(text: str, codecs: list[str]) -> bool:
    """Tell whether a text can be written in the last character set of an object, which `_encoded` tries first."""
    codec = "ascii" if codecs == ["iso8859"] else codecs[-1]
    return text.encode(codec, "ignore").decode(codec, "ignore") == text


def _encoded(text: str, codecs: list[str], place: str) -> bytes:
    if "UTF-16" in place:
        return text.encode("utf-16-be" if "big" in place else "utf-16-le")
    for codec in reversed(codecs):
        try:
            return bytes(encode_string(text, [codec]))
        except (LookupError, UnicodeError):
            continue
    return bytes(encode_string(text, codecs))


def an_object(patient: Patient, instance_uid: str, terms: list[str]) -> Dataset:
    """Return an image whose elements that name the patient are filled, and nothing else is."""
    dataset = Dataset()
    dataset.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    dataset.SOPInstanceUID = UID(instance_uid)
    dataset.StudyInstanceUID = UID(patient.study_uid)
    dataset.SeriesInstanceUID = UID(f"{patient.study_uid}.7")
    dataset.Modality = "CT"
    if terms:
        dataset.SpecificCharacterSet = terms if len(terms) > 1 else terms[0]
    dataset.PatientName = patient.name
    dataset.PatientID = patient.patient_id
    dataset.OtherPatientIDs = patient.other_id
    dataset.AccessionNumber = patient.accession_number
    dataset.PatientAddress = patient.address
    dataset.PatientTelephoneNumbers = patient.telephone
    dataset.ReferringPhysicianName = patient.referring
    dataset.PatientBirthDate = patient.birth_date.strftime("%Y%m%d")
    dataset.StudyDate = patient.study_date.strftime("%Y%m%d")
    dataset.add_new(0x7FE00010, "OW", bytes(64))
    return dataset


def _place(dataset: Dataset, place: str, text: str, encoded: bytes) -> bytes:
    """Put a text into an object; return what follows its last element."""
    even = encoded + b" " * (len(encoded) % 2)
    match place:
        case "description (LO)":
            dataset.SeriesDescription = text
        case "comment (LT)":
            dataset.ImageComments = text
        case "nested (code meaning)":
            item = Dataset()
            item.CodeMeaning = text
            dataset.ProcedureCodeSequence = Sequence([item])
        case "SR text (UT)":
            item, inner = Dataset(), Dataset()
            inner.TextValue = text
            item.ContentSequence = Sequence([inner])
            dataset.ContentSequence = Sequence([item])
        case "private text (LO)":
            dataset.private_block(0x0029, "SOMEBODY", create=True).add_new(0x01, "LO", text)
        case "file meta information" | "trailing bytes":
            return even if place == "trailing bytes" else b""
        case "after the pixel data":
            dataset.private_block(0x7FE1, "SOMEBODY", create=True).add_new(0x01, "LO", text)
        case _:
            vr = "UN" if place == "private, UN" else "OB"
            dataset.private_block(0x0029, "SOMEBODY", create=True).add_new(0x01, vr, b"\x01\x02" + even)
    return b""


def saved(dataset: Dataset, private_information: bytes = b"") -> bytes:
    """Return an object as Part 10 bytes, with private file meta information if any is given."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if private_information:
        dataset.file_meta.PrivateInformationCreatorUID = UID("1.2.3.4")
        dataset.file_meta.PrivateInformation = private_information + bytes(len(private_information) % 2)
    target = io.BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


# Text of the clinic

_VOCABULARY = (
    "annular annulus brainstem handed handheld longitudinal elongated granted granular maybe dismay mayor rosette"
    " stonelike parkinsonian woodwork crossing crossover youngish belly bellows headache forehead footplate leeward"
    " grantham carpal marked markedly billing frankly robust sandy waters strongly"
    " thorax abdomen axial coronal sagittal contrast bolus phase arterial portal venous repeat routine protocol lateral"
    " oblique breath hold motion artefact lesion nodule stable effusion fracture postoperative implant screening"
)
_WORDS = tuple(_VOCABULARY.split())
_TRADE = (
    *("long axis", "brain w/o contrast", "hand PA", "in May", "grant study", "head first", "foot first", "rose bengal"),
    *("young adult", "cross section", "bell shaped", "stone protocol", "park position", "wood lamp", "AP view"),
)
PLAIN_NAMES = ("Ann", "Mark", "Rob", "Bill", "Sand", "Water", "Strong", "Frank", "Carp", "Leew", "Rosett", "Annul")
"""Names that are the beginning of longer words of the texts."""
TRADE_NAMES = ("Long", "Brain", "Hand", "May", "Grant", "Head", "Foot", "Rose", "Young", "Cross", "Bell", "Stone")
"""Names that are words of the texts."""


def sentence(rng: random.Random) -> str:
    """Return a few words without a name."""
    return " ".join(rng.choice(_WORDS) for _ in range(rng.randint(1, 3)))


def clean(rng: random.Random, subject: str) -> tuple[bytes, str]:
    """Draw an object in which nothing is planted, and its text.

    Parameters
    ----------
    subject
        One of `SUBJECTS`.
    """
    patient = Patient.draw(rng)
    if subject in ("names that begin words", "names that are words"):
        names = PLAIN_NAMES if subject == "names that begin words" else TRADE_NAMES
        patient = replace(patient, name=f"{rng.choice(names)}^{rng.choice(names)}")
    text = _clean_text(rng, subject, patient)
    dataset = an_object(patient, uid(rng), [])
    dataset.SeriesDescription = text
    dataset.ImageComments = f"{text}; {sentence(rng)}"
    item = Dataset()
    item.CodeMeaning = sentence(rng)
    dataset.ProcedureCodeSequence = Sequence([item])
    dataset.private_block(0x0029, "SOMEBODY", create=True).add_new(0x01, "UN", text.encode())
    return saved(dataset), dataset.ImageComments


SUBJECTS = ("words", "names that begin words", "names that are words", "numbers", "dates of other days", "other UIDs")


def _clean_text(rng: random.Random, subject: str, patient: Patient) -> str:
    if subject == "numbers":
        near = rng.choice((patient.patient_id, patient.other_id, patient.accession_number, patient.telephone))
        number = rng.choice((f"{near}7", f"1{near}", near[:-1], digits(rng, len(near)), f"{rng.random() * 500:.2f} mm"))
        return f"{sentence(rng)} {number} {sentence(rng)}"
    if subject == "dates of other days":
        away = timedelta(days=rng.choice((-1, 1)) * rng.randint(1, 4000))
        return f"{sentence(rng)} {rng.choice(list(_dates(patient.birth_date + away).values()))} {sentence(rng)}"
    if subject == "other UIDs":
        return f"{sentence(rng)} {rng.choice((uid(rng), patient.study_uid[:-2], patient.study_uid + '0'))}"
    if subject == "names that are words":
        return f"{sentence(rng)} {rng.choice(_TRADE)} {sentence(rng)}"
    return sentence(rng)
