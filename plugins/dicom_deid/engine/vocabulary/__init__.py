"""Vocabulary: the words that may stay in free text because a list, the standard or the site vouches for them."""

from dicom_deid.engine.vocabulary.vocabulary import Vocabulary
from dicom_deid.engine.vocabulary.words import is_body_word, is_word

__all__ = ["Vocabulary", "is_body_word", "is_word"]
