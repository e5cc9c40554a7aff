"""Free text: the elements of descriptions and comments, and the rules that clean them by vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import cache
from typing import Any

from pydicom.datadict import tag_for_keyword

from dicom_deid.dicom.deflate import inflate
from dicom_deid.dicom.mixed_vrs import parse_with_uniform_vrs
from dicom_deid.dicom.part10 import read_header
from dicom_deid.dicom.walk import NeedMoreDataError
from dicom_deid.engine.descriptors import VocabularyCleaner, without_identifiers
from dicom_deid.engine.element_refs import ElementRef, iter_elements
from dicom_deid.engine.residuals.search import Residual
from dicom_deid.engine.vocabulary import Vocabulary
from dicom_deid.recipe import CompiledRecipe, ElementName, Function, Recipe, Rule

CLEAN_TEXT = "dicom_deid.engine.descriptors:clean_text"
_CLEANING = ("ps3.15-clean-descriptors", "ps3.15-clean-structured-content")
_PATIENT_ID = 0x00100020
_MAX_INFLATED_BYTES = 64 * 2**20
_TEXT_VRS = frozenset({"LT", "ST", "UT"})


def with_free_text_rules(recipe: Recipe, compiled: CompiledRecipe) -> Recipe:
    """Return a recipe with rules that clean those free-text elements for which it has no rule.

    Parameters
    ----------
    recipe, compiled
        The recipe, and the same compiled.
    """
    added = tuple(
        rule
        for tag, rule in _cleaning_rules()
        if not compiled.steps(ElementName.of(tag)) and rule.field.text.lower() not in recipe.retained
    )
    return Recipe.combine(recipe, Recipe("free-text", added)) if added else recipe


def vocabulary_functions(recipe: Recipe, archive_words: Container[str]) -> dict[str, Callable[..., Any]]:
    """Return the cleaning function of recipes, which then leaves only what the vocabulary vouches for."""
    return {CLEAN_TEXT: VocabularyCleaner(Vocabulary(recipe.vocabulary, archive_words))}


def is_in_free_text(residual: Residual) -> bool:
    """Tell whether a residual is in free text, where it can be redacted without loss of anything else."""
    element = residual.listed.element
    return element.tag in _free_text_tags() or element.vr in _TEXT_VRS


def read_free_texts(data: bytes, *, partial: bool) -> tuple[str, list[str]]:
    """Return the original PatientID of an object and its free texts without code meanings, cleaned by their form. PHI.

    Parameters
    ----------
    data
        The object, or its beginning.
    partial
        Whether it is only its beginning.

    Raises
    ------
    Quarantine, NeedMoreDataError
        The elements cannot be read as far as the object was given.
    """
    header = read_header(data)
    start = header.data_set_start
    if header.transfer_syntax.deflated:
        if partial:
            raise NeedMoreDataError(2 * len(data))
        data, start = inflate(data, start, _MAX_INFLATED_BYTES)[0], 0
    encoding = header.transfer_syntax.encoding

    def parse(data: bytes) -> tuple[bytes, list[ElementRef]]:
        return data, iter_elements(data, start, encoding, partial=partial)

    data, elements = parse_with_uniform_vrs(parse, data, start, encoding, partial=partial)
    patient, texts = "", []
    for found in elements:
        if found.element.tag == _PATIENT_ID and found.element.root:
            patient = "".join(found.texts(data))
        elif found.element.tag in _free_text_tags() and found.element.keyword != "CodeMeaning":
            texts += [without_identifiers(text) for text in found.texts(data)]
    return patient, texts


@cache
def _cleaning_rules() -> tuple[tuple[int, Rule], ...]:
    """Return the rules that clean text, with the tag of the element.

    They are those for the elements that PS3.15 Table E.1-1 marks C under Clean Descriptors, for code meanings in
    sequences that it marks so, and for the text of content items.
    """
    rules = (rule for name in _CLEANING for rule in Recipe.named(name).rules)
    cleaning = (rule for rule in rules if isinstance(rule.value, Function) and rule.value.name == CLEAN_TEXT)
    tags = ((tag_for_keyword(rule.field.text.rpartition("__")[2]), rule) for rule in cleaning)
    return tuple((tag, rule) for tag, rule in tags if tag is not None)


@cache
def _free_text_tags() -> frozenset[int]:
    return frozenset(tag for tag, _ in _cleaning_rules())
