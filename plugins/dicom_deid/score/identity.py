"""Synthetic people, places and devices, drawn at random so that nothing can be tuned to them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date, timedelta

_ONSETS = (
    "B",
    "Br",
    "D",
    "Dr",
    "F",
    "G",
    "Gr",
    "H",
    "J",
    "K",
    "Kl",
    "L",
    "M",
    "N",
    "P",
    "Qu",
    "R",
    "S",
    "T",
    "Tr",
    "V",
    "Z",
)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "eo", "ou", "oe")
_CODAS = ("l", "n", "r", "s", "v", "x", "z", "lb", "nk", "rd", "st", "zk")

UID_ROOT = "1.2.826.0.1.3680043.8.498"


def word(rng: random.Random, syllables: int = 3) -> str:
    """Return a capitalised word that is in no dictionary."""
    parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables)]
    return ("".join(parts) + rng.choice(_CODAS)).capitalize()


def person(rng: random.Random) -> str:
    """Return a person name as PS3.5 section 6.2.1 writes it: family^given."""
    return f"{word(rng)}^{word(rng, 2)}"


def digits(rng: random.Random, count: int) -> str:
    """Return a number of `count` digits that does not begin with zero."""
    return str(rng.randrange(10 ** (count - 1), 10**count))


def uid(rng: random.Random) -> str:
    """Return a valid UID of at most 64 characters below a root for examples."""
    return f"{UID_ROOT}.{rng.randrange(10**9, 10**10)}.{rng.randrange(10**9, 10**10)}"


@dataclass(frozen=True, slots=True)
class Patient:
    """One synthetic patient, the people and the place around one visit, and the device that made the pictures.

    Every field is an identifier in the sense of PS3.15 Annex E; dates are `datetime.date`.
    """

    name: str
    patient_id: str
    other_id: str
    mother_name: str
    address: str
    telephone: str
    birth_date: date
    study_date: date
    accession_number: str
    study_id: str
    study_uid: str
    frame_of_reference_uid: str
    referring: str
    performing: str
    operator: str
    institution: str
    station: str
    serial_number: str

    @classmethod
    def draw(cls, rng: random.Random) -> Patient:
        """Draw a patient from a seeded generator: the same seed, the same patient."""
        study_date = date(2011, 1, 1) + timedelta(days=rng.randrange(4000))
        return cls(
            name=person(rng),
            patient_id=f"{word(rng, 1)[:2].upper()}{digits(rng, 8)}",
            other_id=digits(rng, 9),
            mother_name=person(rng),
            address=f"{digits(rng, 3)} {word(rng)} Street, {word(rng)}",
            telephone=f"555-{digits(rng, 3)}-{digits(rng, 4)}",
            birth_date=study_date - timedelta(days=rng.randrange(20 * 365, 99 * 365)),
            study_date=study_date,
            accession_number=f"A{digits(rng, 9)}",
            study_id=digits(rng, 7),
            study_uid=uid(rng),
            frame_of_reference_uid=uid(rng),
            referring=person(rng),
            performing=person(rng),
            operator=person(rng),
            institution=f"{word(rng)} Hospital",
            station=f"{word(rng, 2).upper()}{digits(rng, 2)}",
            serial_number=digits(rng, 8),
        )
