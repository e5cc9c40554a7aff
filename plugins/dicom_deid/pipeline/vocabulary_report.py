"""Report the words of an archive that its vocabulary does not know, for a data manager to review."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from dicom_deid.engine.vocabulary import Vocabulary
from dicom_deid.exceptions import Quarantine
from dicom_deid.objects import SourceObject
from dicom_deid.objectstore import ObjectStore
from dicom_deid.pipeline.fetch import fetch_free_texts

_THREADS = 16
_MAX_WORDS = 500_000
"""Beyond, words of a single patient are forgotten."""


@dataclass(frozen=True, slots=True)
class UnknownWord:
    """A word that would be masked.

    Parameters
    ----------
    word
        In lower case.
    patients
        Number of different patients, counted up to the number that is asked for.
    texts
        Number of texts that hold it.
    """

    word: str
    patients: int
    texts: int


@dataclass(frozen=True, slots=True)
class VocabularyReport:
    """The words that would be masked most often.

    Parameters
    ----------
    objects, unreadable
        Number of objects that were read, and that could not be read.
    words
        Those of enough patients, the most frequent first.
    rare
        Number of words of fewer patients, which may be names.
    """

    objects: int
    unreadable: int
    words: tuple[UnknownWord, ...]
    rare: int


def report_vocabulary(
    source: ObjectStore, vocabulary: Vocabulary, *, patients: int, limit: int | None = None
) -> VocabularyReport:
    """Count the words in the free text of a source that a vocabulary does not know.

    Parameters
    ----------
    source
        The objects, of which the headers are read.
    vocabulary
        The vocabulary, with the words of the site.
    patients
        Report words of at least this many different patients; words of fewer may be names.
    limit
        Number of objects that are read at most.

    Raises
    ------
    ObjectStoreError
        The source is unavailable.
    """
    key, texts = secrets.token_bytes(16), Counter[str]()
    # Digests of patients, in memory only, and of each word no more than are asked for.
    seen: dict[str, set[bytes]] = {}
    objects = unreadable = 0
    for read in _free_texts(source, limit):
        objects += 1
        if read is None:
            unreadable += 1
            continue
        patient = hashlib.blake2b(read[0].encode(), key=key, digest_size=8).digest()
        for text in read[1]:
            for word in set(vocabulary.unknown_tokens(text)):
                texts[word] += 1
                of_word = seen.setdefault(word, set())
                if len(of_word) < patients:
                    of_word.add(patient)
        if len(seen) > _MAX_WORDS:
            seen = {word: of_word for word, of_word in seen.items() if len(of_word) > 1}
    found = [UnknownWord(word, len(of_word), texts[word]) for word, of_word in seen.items() if len(of_word) >= patients]
    found.sort(key=lambda one: (-one.texts, one.word))
    return VocabularyReport(objects, unreadable, tuple(found), len(seen) - len(found))


def _free_texts(source: ObjectStore, limit: int | None) -> Iterator[tuple[str, list[str]] | None]:
    """Yield the patient and the free texts of each object; None for one that cannot be read."""

    def fetch(listed: SourceObject) -> tuple[str, list[str]] | None:
        try:
            return fetch_free_texts(
                source, listed.key, size=listed.size, etag=listed.etag, version_id=listed.version_id
            )
        except Quarantine:
            return None

    listing = islice(source.list(), limit)
    with ThreadPoolExecutor(_THREADS) as pool:
        while group := list(islice(listing, 16 * _THREADS)):
            yield from pool.map(fetch, group)
