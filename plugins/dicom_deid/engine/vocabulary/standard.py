"""The vocabulary of DICOM: words of code meanings (PS3.16) and attribute names (PS3.6), as in pydicom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_description

from dicom_deid.engine.vocabulary.words import without_accents
from dicom_deid.recipe.element_names import DICTIONARY_TAGS

# Words of three letters and more; a capital letter is kept, because only proper names have one everywhere.
_WORD = re.compile(r"[^\W\d_]{3,}")
# Context groups of proper names: breeds, their registries, and projections that are called after people (PS3.16).
_CONTEXTS_OF_NAMES = frozenset((4012, 7480, 7481, 7486, 7490))


@cache
def standard_words() -> frozenset[str]:
    """Return the words of DICOM's vocabulary, casefolded; proper names, such as eponyms of anatomy, are left out.

    A word is taken for a proper name unless the standard somewhere writes it in lower case. Loading takes about half a
    second, once per process.
    """
    words = {word for text in _texts() for word in _WORD.findall(text) if word.islower()}
    return frozenset(form for word in words for form in (word, without_accents(word)))


def _texts() -> Iterator[str]:
    # Imported here: the dictionaries of concepts are large, and few runs clean by vocabulary.
    from pydicom.sr._concepts_dict import concepts

    schemes: dict[str, Any] = concepts
    for scheme in schemes.values():
        for codes in scheme.values():
            for meaning, contexts in codes.values():
                if not _CONTEXTS_OF_NAMES.issuperset(contexts):
                    yield meaning
    for tag in DICTIONARY_TAGS:
        yield dictionary_description(tag).lower()
