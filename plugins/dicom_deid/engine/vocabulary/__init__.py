"""Vocabulary: the words that may stay in free text because a list, the standard or the archive vouches for them."""

from dicom_deid.engine.vocabulary.words import is_body_word, is_word, radiology_words, without_accents, words_of

__all__ = ["is_body_word", "is_word", "radiology_words", "without_accents", "words_of"]
