"""Vocabulary: the words that may stay in free text because a list, the standard, the site or the archive has them."""

from dicom_deid.engine.vocabulary.vocabulary import Vocabulary
from dicom_deid.engine.vocabulary.words import is_body_word, is_name, is_word

__all__ = ["Vocabulary", "is_body_word", "is_name", "is_word"]
